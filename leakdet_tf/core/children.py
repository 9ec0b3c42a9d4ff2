"""Python processes of our own: what they import, what they answer, and what they died of."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

_SAFE_PATH = hasattr(sys.flags, "safe_path")  # from Python 3.11 on: what PYTHONSAFEPATH sets
_RUN = (
    "import sys; sys.path[:] = filter(None, sys.path); "
    "import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def search_path() -> list[str]:
    """Where this process looks for modules, as absolute folders."""
    return [str(Path(entry or ".").absolute()) for entry in sys.path]


def environment(**more: str) -> dict[str, str]:
    """The variables of a child that finds the modules that this process does, and ``more`` of them.

    This very package comes first, and with :func:`command` the working folder does not, which may hold another version.
    """
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([home, *search_path()])
    return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", **more}


def command(module: str, *arguments: str) -> list[str]:
    """The command line of ``python -m module`` with arguments, for a child with the variables of :func:`environment`.

    It takes no module from the working folder. Before Python 3.11, which has no PYTHONSAFEPATH, ``-m`` would.
    """
    if _SAFE_PATH:
        return [sys.executable, "-m", module, *arguments]
    return [sys.executable, "-c", _RUN, module, *arguments]


def ask(module: str, *arguments: str, limit_s: float) -> dict[str, Any]:
    """Run ``python -m module`` with arguments, quietly, and take the JSON object in the last line that it prints.

    Returns:
        ``ok``, and if so what the object holds, else ``fault``: one line, of a failure the last of its stderr.
    """
    line, quiet = command(module, *arguments), environment(TF_CPP_MIN_LOG_LEVEL="3")
    try:
        done = subprocess.run(
            line, env=quiet, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return {"ok": False, "fault": f"gave no answer in {limit_s:g} s"}
    if done.returncode < 0:
        return {"ok": False, "fault": f"killed its process by {signal_name(done.returncode)}"}
    if done.returncode:
        return {"ok": False, "fault": (done.stderr.strip() or "no message").rsplit("\n", 1)[-1][:200]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"ok": True, **answer}


def signal_name(returncode: int) -> str:
    """What killed a process whose exit status is negative, such as ``SIGSEGV``."""
    try:
        return signal.Signals(-returncode).name
    except ValueError:  # one of the real-time signals, which have no names
        return f"signal {-returncode}"
