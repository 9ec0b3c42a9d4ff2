"""What the package did when ``freeze.py`` was last run, it does still: to the last bit where numbers are the same."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import freeze

KEPT = freeze.content(freeze.VALUES)


@pytest.fixture(scope="module")
def exact() -> bool:
    """Whether this machine computes as the one did on which the values were frozen."""
    return bool(freeze.fingerprint() == KEPT["fingerprint"])


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of all runs."""
    folder = tmp_path_factory.getbasetemp() / "golden"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", freeze.FOLDERS)
def test_a_rendered_folder(name: str, exact: bool, tmp_path: Path) -> None:
    kept, found = KEPT["rendered"][name], freeze.rendered(name, tmp_path / "folder")
    assert found["cells"].keys() == kept["cells"].keys()
    before, now = (
        np.frombuffer(bytes.fromhex("".join(one["cells"].values())), np.uint8).astype(int) for one in (kept, found)
    )
    assert before.shape == now.shape
    assert (abs(before - now) <= 3).mean() >= 0.99
    if exact:
        assert found == kept


@pytest.mark.parametrize("task", freeze.TASKS)
def test_a_run(task: str, exact: bool, place: Path) -> None:
    kept, found = KEPT["runs"][task], freeze.of_run(freeze.train(task))
    odd = freeze.differences(kept["metrics"], found["metrics"], exact=exact)
    odd += freeze.differences(kept["contract"], found["contract"], exact=True)
    odd += freeze.differences(kept["here"], found["here"], exact=True) if exact else []
    assert not odd
    assert found["experiment"] == kept["experiment"]


def test_a_run_that_was_broken_off_and_resumed_ends_as_an_unbroken_one(exact: bool, place: Path) -> None:
    whole, resumed = freeze.train("segment", "runs=whole", "export.formats=[]"), freeze.train_in_two()
    for name in ("contract.json", "metrics.json", "history.csv"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    if exact:
        assert freeze.content(resumed / "contract.json") == KEPT["runs"]["segment"]["here"]["contract"]


@pytest.mark.parametrize("task", freeze.TASKS)
def test_a_run_of_then_opens_and_answers_as_it_did(task: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(freeze.RUNS / task, tmp_path / "run"))
    kept: dict[str, Any] = freeze.content(freeze.ANSWERS)[task]
    kinds = []
    for kind, predictor in freeze.opened(folder):
        found = freeze.answer(predictor, freeze.frame())
        assert found.keys() == kept.keys()
        for name, value in kept.items():
            if name in ("scores", "boxes"):
                assert np.shape(found[name]) == np.shape(value)
                np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
            else:
                assert np.array_equal(found[name], value), f"{kind}: {name}"
        kinds.append(kind)
    assert kinds == [task, *(["onnx_float32"] if task == "segment" else []), "tflite_float32"]
