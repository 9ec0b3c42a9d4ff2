"""From one seed the backends start alike, learn alike as long as rounding lets them, and read each other's files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
TASKS = ("segment", "classify", "detect")
Trained = Callable[[str], tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="session")
def trained(call: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """``trained(backend)``: the folder and the figures of its first steps, made once."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def steps(name: str) -> tuple[Path, dict[str, Any]]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            call(str(HERE / "first_steps.py"), "train", name, str(folder))
            made[name] = folder, json.loads((folder / "steps.json").read_text(encoding="utf-8"))
        return made[name]

    return steps


def answers(folder: Path, task: str, when: str) -> np.ndarray:
    with np.load(folder / f"{task}.npz") as kept:
        return np.asarray(kept[when])


@pytest.mark.parametrize("task", TASKS)
def test_the_first_weights_are_the_same_to_the_last_bit(trained: Trained, other: str, task: str) -> None:
    (folder, found), (usual, expected) = trained(other), trained("tensorflow")
    assert found[task]["begun"] == expected[task]["begun"] != expected[task]["ended"]
    np.testing.assert_allclose(answers(folder, task, "first"), answers(usual, task, "first"), atol=1e-3)


@pytest.mark.parametrize("task", TASKS)
def test_the_first_twenty_losses_agree_within_a_thousandth(trained: Trained, other: str, task: str) -> None:
    found, expected = trained(other)[1][task], trained("tensorflow")[1][task]
    assert len(found["losses"]) == 20
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-3)
    assert found["counted"] == expected["counted"]


@pytest.mark.parametrize("there", [True, False], ids=["to tensorflow", "from tensorflow"])
def test_one_reads_the_others_models(
    trained: Trained, call: Callable[..., Any], other: str, tmp_path: Path, there: bool
) -> None:
    source, target = (other, "tensorflow") if there else ("tensorflow", other)
    folder, _ = trained(source)
    call(str(HERE / "first_steps.py"), "open", target, str(tmp_path), str(folder))
    for task in TASKS:
        np.testing.assert_allclose(answers(tmp_path, task, "last"), answers(folder, task, "last"), atol=1e-4)
