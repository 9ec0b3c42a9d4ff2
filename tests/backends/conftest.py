"""Processes under each backend. Those that are not installed are skipped: `make test-backends` installs them all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
OTHERS = ("jax", "torch")
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def call() -> Call:
    """``call(*arguments)``: Python with them, in a process that is told only of ``backend``; its output is kept."""

    def python(*arguments: str, status: int = 0, backend: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
        path = [str(HERE.parent / "jobs"), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(path)}
        environment |= {"KERAS_BACKEND": backend} if backend else {}
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return python


@pytest.fixture(scope="session", params=OTHERS)
def other(request: pytest.FixtureRequest) -> str:
    """Each backend beside TensorFlow."""
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed; runs again in `make test-backends`, which installs it")
    return str(request.param)
