"""Child processes import what this one does, and their deaths have names."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import leakdet_tf
from leakdet_tf.core.children import environment, signal_name


def test_a_child_takes_this_package_and_our_other_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leakdet_tf").mkdir()
    (tmp_path / "leakdet_tf" / "__init__.py").write_text("raise SystemExit('another version')")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "a_module_of_the_user.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, "beside"])
    code = "import leakdet_tf, a_module_of_the_user, os; print(leakdet_tf.__file__, os.environ['MORE'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(MORE="than that"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == f"{leakdet_tf.__file__} than that", done.stderr


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 3, f"signal {signal.SIGRTMIN + 3}")],
)
def test_what_killed_it_has_a_name(number: int, name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"], check=False)
    assert signal_name(done.returncode) == name
