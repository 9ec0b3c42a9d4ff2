"""Kill -9 at random moments, resume, and so on until it is finished: the weights are the unbroken training's.

Moments are drawn in time, and among the program's writes (each open, rename, removal) and calls of callbacks, so that
the rename of a checkpoint, the validation pass and every callback are hit too. See killing.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killing.py")


def killed(folder: Path, *arguments: str, limit: int) -> dict[str, int]:
    """How often a training was killed, by the way that the moment was found."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,  # each attempt has its own, which names it
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
    said = json.loads(done.stdout.splitlines()[-1])
    places: dict[str, int] = {}
    for place, count in said["places"].items():
        places[place.split()[0]] = places.get(place.split()[0], 0) + count
    return places


def test_a_training_that_is_killed_ends_in_the_weights_of_the_unbroken_one(tmp_path: Path) -> None:
    places = killed(tmp_path, "--kills", "5", "--seed", "7", "--kinds", "staged,detect", "--training-only", limit=500)
    assert sum(places.values()) == 5


@pytest.mark.slow
def test_a_hundred_kills(tmp_path: Path) -> None:
    places = killed(tmp_path, "--kills", "100", "--seed", "1", limit=3000)
    assert sum(places.values()) == 100
    assert set(places) == {"time", "file", "callback"}
