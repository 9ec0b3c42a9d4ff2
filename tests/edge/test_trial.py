"""A bundle tried in a child process first: what kills the runtime's parser does not kill the program."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import BundleError, ContractError, MissingExtraError
from leakdet_tf.edge import Predictor, open_bundle, trial, trial_child

Seal = Callable[[Path], None]
MUTATIONS, FATAL = 40, 6
_SEEK = """
import json
import os
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

def answers(content):
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 32, 48, 3), np.uint8))
    interpreter.invoke()

fatal = []
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        try:
            with open(f"{sys.argv[1]}/{number}", "rb") as file:
                answers(file.read())
        except (ValueError, RuntimeError):
            pass
        os._exit(0)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        fatal.append(number)
print(json.dumps(fatal))
"""
_PARENT = """
import json
import sys
from concurrent.futures import ThreadPoolExecutor

from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.edge import open_bundle
from leakdet_tf.edge.trial import rehearse

def told(folder):
    try:
        rehearse(open_bundle(folder), threads=1)
    except LeakdetError as error:
        return str(error)
    return "passed"

with ThreadPoolExecutor(2) as pool:
    print(json.dumps(list(pool.map(told, sys.argv[1:]))))
"""


def test_a_good_bundle_passes(small_bundle: Path) -> None:
    predictor = Predictor(small_bundle, try_first=True, threads=1)
    assert predictor.predict(np.zeros((48, 64, 3), np.uint8)).size == (48, 64)


def mutations(model: bytes) -> list[bytes]:
    """Random bytes changed; then each tensor number of an operator, or what looks like one, made -1."""
    random, made = np.random.default_rng(5), []
    for number in range(MUTATIONS - FATAL):
        data = bytearray(model)
        for place in random.integers(0, len(data), 1 + number % 8):
            data[place] = int(random.integers(256))
        made.append(bytes(data))
    words = np.frombuffer(model[: len(model) // 4 * 4], "<i4")
    for place, length in enumerate(words):
        numbers = words[place + 1 : place + 1 + max(0, length)]
        if 2 <= length <= 4 and len(set(numbers.tolist())) == length and ((numbers >= 0) & (numbers < 64)).all():
            for other in range(place + 1, place + 1 + length):
                changed = words.copy()
                changed[other] = -1
                made.append(changed.tobytes() + model[len(words) * 4 :])
    return made


def test_no_mutated_model_kills_the_parent(small_bundle: Path, tmp_path: Path, seal: Seal) -> None:
    """With sums made anew. Few changes get past the runtime's own check, so some that do are sought out first."""
    made = mutations((small_bundle / "model.tflite").read_bytes())
    (tmp_path / "made").mkdir()
    for number, content in enumerate(made):
        (tmp_path / "made" / str(number)).write_bytes(content)
    found = subprocess.run(
        [sys.executable, "-c", _SEEK, str(tmp_path / "made"), str(len(made))],
        capture_output=True,
        text=True,
        check=True,
    )
    fatal = json.loads(found.stdout.splitlines()[-1])
    assert fatal, "without a fatal file this test shows nothing"
    chosen = [*range(MUTATIONS - FATAL), *[number for number in fatal if number >= MUTATIONS - FATAL][:FATAL]]
    folders = []
    for number in chosen:
        folder = Path(shutil.copytree(small_bundle, tmp_path / str(number)))
        (folder / "model.tflite").write_bytes(made[number])
        seal(folder)
        folders.append(str(folder))
    done = subprocess.run([sys.executable, "-c", _PARENT, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(zip(chosen, json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert all("\n" not in line for line in told.values())
    # such a file reads memory that is not its own: what it finds there differs from process to process, so a file that
    # has killed one may be refused by the next
    killed = 0
    for number in set(fatal) & set(told):
        place = tmp_path / str(number) / "model.tflite"
        assert told[number] == "passed" or told[number].startswith(f"{place}: ")
        killed += told[number].startswith(f"{place}: killed its trial process by SIG")
    assert killed, "no file killed its trial process, so this shows nothing"


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGBUS", "SIGABRT", "SIGKILL"])
def test_a_death_by_signal_is_one_line_with_file_and_signal(
    small_bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, f"import os; os.kill(os.getpid(), {int(getattr(signal, name))})")
    with pytest.raises(BundleError, match=f"killed its trial process by {name}") as caught:
        Predictor(small_bundle, try_first=True)
    assert str(caught.value).startswith(str(small_bundle / "model.tflite"))
    assert "\n" not in str(caught.value)


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Another program in the place of the child."""
    run = subprocess.run

    def replaced(command: list[str], **how: Any) -> Any:
        return run([command[0], "-c", code], **how)

    monkeypatch.setattr("leakdet_tf.edge.trial.subprocess.run", replaced)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise SystemExit(7)", r"failed with status 7 \(no message\)"),
        ("raise MemoryError('no more')", r"failed with status 1 \(MemoryError: no more\)"),
    ],
)
def test_a_child_that_fails_is_one_line(
    small_bundle: Path, code: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, code)
    with pytest.raises(BundleError, match=says):
        trial.rehearse(open_bundle(small_bundle))


def test_a_child_that_does_not_end_is_stopped(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child(monkeypatch, "import time; time.sleep(600)")
    with pytest.raises(BundleError, match=r"model\.tflite: its trial took over 0\.5 s"):
        trial.rehearse(open_bundle(small_bundle), limit_s=0.5)


def test_where_no_process_can_be_started_one_line_says_so(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakdet_tf.core.children.sys.executable", str(small_bundle / "absent"))
    with pytest.raises(BundleError, match="no process can be started"):
        Predictor(small_bundle, try_first=True)


def test_what_the_child_refuses_reads_as_without_it(own_small: Path, seal: Seal) -> None:
    with np.load(own_small / "golden.npz") as archive:
        arrays = {key: value + np.float32(0.1) if "/output/" in key else value for key, value in archive.items()}
    np.savez(own_small / "golden.npz", **arrays)
    seal(own_small)
    lines = []
    for first in (True, False):
        with pytest.raises(BundleError, match="golden frame 0 is answered otherwise") as caught:
            Predictor(own_small, try_first=first)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]


@pytest.mark.parametrize("kind", [ContractError, MissingExtraError])
def test_errors_keep_their_kind(small_bundle: Path, kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"kind": kind.__name__, "message": "no such thing", "remedy": "get one"})
    child(monkeypatch, f"print({said!r}); raise SystemExit({trial.REFUSED})")
    with pytest.raises(kind, match=r"^no such thing; get one$"):
        Predictor(small_bundle, try_first=True)


@pytest.mark.parametrize("name", ["model.tflite", "contract.json", "golden.npz", "card.json"])
@pytest.mark.parametrize("sealed", [True, False], ids=["with its sum", "alone"])
def test_a_file_replaced_meanwhile_is_refused_before_parsing(
    own_small: Path, seal: Seal, name: str, sealed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(own_small)
    (own_small / name).write_bytes(b"another")
    if sealed:
        seal(own_small)
    says = "changed while it was opened" if sealed else f"{name}: its SHA-256 is not the one"
    with pytest.raises(BundleError, match=says):
        trial.rehearse(opened)
    said: list[str] = []
    monkeypatch.setattr("leakdet_tf.edge.bundle.json.loads", lambda *_: pytest.fail("a parser saw it"))
    monkeypatch.setattr("leakdet_tf.edge.bundle.read_arrays", lambda *_, **__: pytest.fail("a parser saw it"))
    monkeypatch.setattr("sys.stdout.write", said.append)
    assert trial_child.main(str(own_small), opened.digest, 1) == trial.REFUSED
    assert says in said[0]


def test_nothing_runs_before_the_signature_is_checked(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakdet_tf.edge.trial.subprocess.run", lambda *_, **__: pytest.fail("a trial was started"))
    key = b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA" + b"A" * 43 + b"=\n-----END PUBLIC KEY-----\n"
    with pytest.raises(BundleError, match="not signed"):
        Predictor(small_bundle, trusted=key, try_first=True)


def test_the_child_finds_its_packages_and_not_the_working_folder_s(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the working folder')")
    monkeypatch.chdir(tmp_path)
    trial.rehearse(open_bundle(small_bundle))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_the_child_s_memory_and_time_are_limited() -> None:
    code = (
        "import resource\n"
        "from leakdet_tf.edge import trial_child\n"
        "trial_child._limit(3 << 30)\n"
        "for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_CORE):\n"
        "    print(*resource.getrlimit(what))\n"
        "try:\n"
        "    bytearray(4 << 30)\n"
        "except MemoryError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"{3 << 30} {3 << 30}", lines[0])
    assert lines[1:] == [f"{trial.LIMIT_S} {trial.LIMIT_S}", "0 0", "refused"]


def test_the_child_imports_the_edge_alone(small_bundle: Path) -> None:
    code = (
        "import sys\n"
        "from leakdet_tf.edge import open_bundle, trial_child\n"
        f"folder = {str(small_bundle)!r}\n"
        "assert trial_child.main(folder, open_bundle(folder).digest, 1) == 0\n"
        "heavy = {'tensorflow', 'keras', 'pydantic', 'rich', 'cv2', 'cryptography', 'onnxruntime', 'click'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
