"""One process, one backend: chosen before Keras is imported, told in a line where that cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import pytest

from leakdet_tf.core.errors import ConfigError, MissingExtraError
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run import backend as room

EXPERIMENT = str(Path(__file__).parents[2] / "experiments" / "gas_unet.toml")
RUNNING = keras.config.backend()
OTHER = next(name for name in room.BACKENDS if name != RUNNING)


def test_fit_under_another_backend_than_the_processs_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fit(EXPERIMENT, [f"train.backend={OTHER}", f"runs={tmp_path}", f"data.root={tmp_path / 'data'}"], log=print)
    assert str(caught.value) == (
        f"backend '{OTHER}': Keras is at work under {RUNNING} in this process already; start a new one, or set "
        f'train.backend = "{RUNNING}"'
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "extra"), [("jax", "jax"), ("torch", "torch"), ("tensorflow", "train")])
def test_one_that_is_not_installed_is_told_with_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr(room, "at_work", lambda: None)
    monkeypatch.setattr(room, "find_spec", lambda module: None if module == name else object())
    monkeypatch.setattr(room, "start_tensorflow", lambda **keys: pytest.fail("was started"))
    with pytest.raises(MissingExtraError) as caught:
        room.start(name)
    assert str(caught.value) == f"backend '{name}': is not installed; pip install 'leakdet_tf[{extra}]'"


def test_an_unknown_one_is_told() -> None:
    with pytest.raises(ConfigError, match="backend 'torhc': is unknown; did you mean 'torch'"):
        room.start("torhc")


def test_keras_is_told_before_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(room.VARIABLE, raising=False)
    monkeypatch.setattr(room, "at_work", lambda: None)
    monkeypatch.setattr(room, "find_spec", lambda module: object())
    done: list[Any] = []
    monkeypatch.setattr(room, "start_tensorflow", lambda **keys: done.append(keys))
    monkeypatch.setattr(room, "import_module", lambda name: done.append((name, os.environ[room.VARIABLE])))
    room.start("jax")
    assert done == [{"gpus": False}, ("jax", "jax"), ("keras", "jax")]
    done.clear()
    room.start("tensorflow")
    assert done[0] == {"gpus": True}


def test_a_run_is_opened_under_its_own_or_the_one_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(room.VARIABLE, raising=False)
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("[train]\nepochs = 3\n", encoding="utf-8")
    new.write_text('[train]\nbackend = "torch"\n', encoding="utf-8")
    assert (room.to_open(old), room.to_open(new)) == ("tensorflow", "torch")
    monkeypatch.setenv(room.VARIABLE, "jax")
    assert (room.to_open(old), room.to_open(new)) == ("jax", "jax")


def test_gpus_that_tensorflow_holds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def too_late(devices: Any, kind: str) -> None:
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    monkeypatch.setattr(tf.config, "set_visible_devices", too_late)
    with pytest.raises(ConfigError, match="TensorFlow has taken the GPUs of this process already; start a new one"):
        room.start_tensorflow(gpus=False)
