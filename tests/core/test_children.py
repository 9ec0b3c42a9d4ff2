"""Child processes import what this one does, and their deaths have names."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import leakdet_tf
from leakdet_tf.core import children
from leakdet_tf.core.children import ask, command, environment, signal_name


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


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a module ``answering`` can be written that children find."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "answering.py"


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        (
            """import sys; print('Hello\n{"said": "%s"}' % sys.argv[1])""".replace("\n", "\\n"),
            {"ok": True, "said": "this"},
        ),
        ("raise OSError('no disk')", {"ok": False, "fault": "OSError: no disk"}),
        ("import sys; sys.exit(4)", {"ok": False, "fault": "no message"}),
        ("import os; os.kill(os.getpid(), 9)", {"ok": False, "fault": "killed its process by SIGKILL"}),
        ("import time; time.sleep(60)", {"ok": False, "fault": "gave no answer in 1 s"}),
    ],
)
def test_its_last_line_or_its_end_is_the_answer(answering: Path, code: str, answer: dict[str, object]) -> None:
    answering.write_text(code)
    assert ask("answering", "this", limit_s=1 if "sleep" in code else 60) == answer


def test_it_does_not_outlive_our_own_end(answering: Path, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    answering.write_text(f"import os, time; open({str(place)!r}, 'w').write(str(os.getpid())); time.sleep(60)")

    def end() -> None:
        while not (place.is_file() and place.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    def leave(number: int, frame: object) -> None:
        raise SystemExit(75)

    before = signal.signal(signal.SIGUSR1, leave)
    try:
        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(SystemExit):
            ask("answering", limit_s=60)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)


@pytest.mark.parametrize("safe", [True, False], ids=["by -m", "before Python 3.11"])
def test_a_child_takes_no_module_from_the_working_folder(
    answering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: bool
) -> None:
    """Before 3.11 no variable keeps ``-m`` from it, so the other command line has to do without one."""
    answering.write_text("import json, sys; print(json.dumps([__name__, sys.argv[1:], __file__]))")
    where = tmp_path / "working"
    where.mkdir()
    for name in ("json", "runpy"):
        (where / f"{name}.py").write_text("raise SystemExit('taken from the working folder')")
    monkeypatch.setattr(children, "_SAFE_PATH", safe)
    there = environment()
    if not safe:
        del there["PYTHONSAFEPATH"]
    done = subprocess.run(
        command("answering", "a", "-b"), env=there, cwd=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["__main__", ["a", "-b"], str(answering)]


def test_the_command_line_before_python_3_11_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("a.b", "c") == [sys.executable, "-m", "a.b", "c"]
    monkeypatch.setattr(children, "_SAFE_PATH", False)
    assert command("a.b", "c") == [sys.executable, "-c", children._RUN, "a.b", "c"]
