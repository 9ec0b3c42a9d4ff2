"""Python processes of our own: what they import, and what they died of."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import leakdet_tf


def search_path() -> list[str]:
    """Where this process looks for modules, as absolute folders."""
    return [str(Path(entry or ".").absolute()) for entry in sys.path]


def environment(**more: str) -> dict[str, str]:
    """The variables of a child that finds the modules that this process does, and ``more`` of them.

    This very package comes first: with ``python -m`` the working folder would, and it may hold another version.
    """
    home = str(Path(leakdet_tf.__file__).resolve().parents[1])
    path = os.pathsep.join([home, *search_path()])
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", **more}


def signal_name(returncode: int) -> str:
    """What killed a process whose exit status is negative, such as ``SIGSEGV``."""
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # one of the real-time signals, which have no names
        return f"signal {-returncode}"
