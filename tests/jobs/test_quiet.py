"""TensorFlow on a GPU adds up in one order, unless the experiment says that it need not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from leakdet_tf.jobs import fit as room
from leakdet_tf.jobs.run import backend, quiet
from leakdet_tf.jobs.run.quiet import in_turn, same_sums
from leakdet_tf.training import loop

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")


class Begun(Exception):
    """The job came by here."""


@pytest.mark.parametrize("found", [["a GPU"], []])
def test_a_gpu_s_kernels_are_told(found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found if kind == "GPU" else [])
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: called.append(True))
    same_sums()
    assert len(called) == len(found)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("train={deterministic = true}", {"in_turn", "same_sums"}),
        ("train={deterministic = true, xla = true}", {"same_sums"}),  # XLA has one order already
        ("train={deterministic = false}", set()),
    ],
)
def test_the_key_says_whether(given: str, wanted: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[str] = set()

    def begun(*_: object) -> None:
        raise Begun

    monkeypatch.setattr(backend, "same_sums", lambda: called.add("same_sums"))
    monkeypatch.setattr(backend, "in_turn", lambda: called.add("in_turn") or True)
    monkeypatch.setattr(room, "new_model", begun)
    with pytest.raises(Begun):
        room.fit(EXPERIMENT, [given, f"runs={tmp_path}"], log=print)
    assert called == wanted


@pytest.mark.parametrize(
    ("found", "given", "wanted"),
    [
        (["a GPU"], {"xla": True}, False),
        ([], {"xla": True}, True),
        (["a GPU"], {"xla": True, "deterministic": False}, True),
        (["a GPU"], {}, False),
    ],
)
def test_xla_that_determinism_rules_out_is_told(
    found: list[str], given: dict[str, bool], wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras itself only warns."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from few_layers import OVERRIDES

    asked: list[bool] = []

    def trained(model: Any, contract: Any, settings: Any, *_: Any, **__: Any) -> None:
        asked.append(settings.xla)
        raise Begun

    lines: list[str] = []
    own = [f"data.root={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}", "export.formats=[]"]
    own += [f"train.{key}={str(value).lower()}" for key, value in given.items()]
    monkeypatch.setattr(backend, "same_sums", lambda: None)
    monkeypatch.setattr(loop, "train", trained)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: found if kind == "GPU" else [])
    with pytest.raises(Begun):
        room.fit(EXPERIMENT, [*OVERRIDES, *own], log=lines.append)
    assert asked == [wanted]
    told = [line for line in lines if line.startswith("train.xla does nothing on a GPU")]
    assert len(told) == (given.get("xla", False) and not wanted)


def test_operations_come_in_turn_unless_tensorflow_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_NUM_INTEROP_THREADS")
    assert not in_turn(), "this process has imported it"
    monkeypatch.delitem(quiet.sys.modules, "tensorflow")
    assert in_turn()
    assert in_turn()
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "4")
    assert not in_turn(), "the user's number stays"


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_whose_last_bits_may_differ_says_so(
    deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "4")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from few_layers import OVERRIDES

    lines: list[str] = []
    own = [f"data.root={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}", "train.epochs=1", "export.formats=[]"]
    room.fit(EXPERIMENT, [*OVERRIDES, *own, f"train.deterministic={str(deterministic).lower()}"], log=lines.append)
    assert any("may differ from run to run" in line for line in lines) == deterministic


@pytest.mark.slow
def test_a_network_of_real_size_ends_in_the_same_weights() -> None:
    """Small ones do so anyway; this one did not, before its operations came in turn."""
    script = Path(__file__).parents[2] / "benchmarks" / "determinism.py"
    call = [sys.executable, str(script), "--steps", "2", "--alone", "on"]
    found = {json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)[1] for _ in range(4)}
    assert len(found) == 1
