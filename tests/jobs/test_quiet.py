"""TensorFlow on a GPU adds up in one order, unless the experiment says that it need not."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from leakdet_tf.jobs import fit as room
from leakdet_tf.jobs.quiet import same_sums

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")


class Begun(Exception):
    """The job came by here."""


@pytest.mark.parametrize("found", [["a GPU"], []])
def test_a_gpu_s_kernels_are_told_and_a_cpu_s_need_not_be(found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: called.append(True))
    same_sums()
    assert len(called) == len(found)


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_key_says_whether(deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []

    def begun(*_: object) -> None:
        raise Begun

    monkeypatch.setattr(room, "same_sums", lambda: called.append(True))
    monkeypatch.setattr(room, "specs", begun)
    given = [f"train.deterministic={str(deterministic).lower()}", f"runs={tmp_path}"]
    with pytest.raises(Begun):
        room.fit(EXPERIMENT, given, echo=print)
    assert bool(called) == deterministic
