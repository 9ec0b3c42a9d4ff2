"""A process that exports again and again does not grow."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leakdet_tf.core.children import environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "export_memory.py"


@pytest.mark.slow
def test_memory_stays_from_export_to_export() -> None:
    rounds = 12
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", str(rounds)],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    found = [float(text) for text in re.findall(r"^round \d+: ([\d.]+) MiB$", done.stdout, re.M)]
    assert len(found) == rounds, done.stderr[-2000:]
    assert (found[-1] - found[4]) / (rounds - 5) < 2, f"MiB an export, of {found}"
