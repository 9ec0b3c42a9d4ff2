"""The app for a Pi: cameras that stop or are not there, systemd's unit, and what it says at the end."""

from __future__ import annotations

import configparser
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from leakdet_tf.core.errors import LeakdetError
from leakdet_tf.core.records import Prediction

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tflite" / "leakdet-watch.service"
FRAME = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def app() -> Iterator[ModuleType]:
    """``watch.py`` as a module; what it does with signals and logging is undone."""
    spec = importlib.util.spec_from_file_location("watch", ROOT / "tflite" / "watch.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before, level = signal.getsignal(signal.SIGTERM), cv2.utils.logging.getLogLevel()
    yield module
    signal.signal(signal.SIGTERM, before)
    cv2.utils.logging.setLogLevel(level)


class Capture:
    """A camera of OpenCV that gives three frames and stops."""

    there = True

    def __init__(self, _: Any) -> None:
        self.left = 3

    def isOpened(self) -> bool:
        return self.there

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        return self.left >= 0, FRAME[..., ::-1].copy() if self.left >= 0 else None

    def release(self) -> None:
        pass


class Picamera2:
    """A stand-in with the four methods of picamera2 that the app calls."""

    closed = False
    asked: dict[str, Any]

    def __init__(self, number: int) -> None:
        if number:
            raise IndexError("list index out of range")
        self.left = 3

    def create_video_configuration(self, main: dict[str, Any]) -> dict[str, Any]:
        type(self).asked = main
        return main

    def configure(self, given: dict[str, Any]) -> None:
        assert given is self.asked

    def start(self) -> None:
        pass

    def capture_array(self, name: str) -> Any:
        assert name == "main"
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("camera frontend has timed out")
        return FRAME

    def close(self) -> None:
        type(self).closed = True


def run(app: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["watch.py", *map(str, arguments)])
    return int(app.main())


def told(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], list[str]]:
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err.splitlines()


def test_a_camera_that_stops_ends_with_one_line_and_status_1(
    app: ModuleType, small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert run(app, monkeypatch, small_bundle, 0) == 1
    lines, errors = told(capsys)
    assert [line["frame"] for line in lines] == ["frame_000000", "frame_000001", "frame_000002"]
    assert all(sum(line["share"].values()) == pytest.approx(1, abs=1e-5) for line in lines)
    assert not any("overlay" in line for line in lines), "a memory card fills quickly"
    assert errors[0] == "watch: camera 0: stopped after 3 frames; check cable and power"
    assert errors[1].startswith("watch: 3 frames answered; of the last 3: p50 ")
    assert len(errors) == 2


@pytest.mark.parametrize("source", ["0", "/dev/video0", "rtsp://robot/left"])
def test_a_camera_that_is_not_there_may_come_back(
    app: ModuleType,
    small_bundle: Path,
    source: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", type("Absent", (Capture,), {"there": False}))
    assert run(app, monkeypatch, small_bundle, source) == 1
    assert told(capsys)[1][0].startswith(f"watch: camera {source}: cannot be opened")


def test_a_video_that_ends_is_no_fault(
    app: ModuleType, small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    assert run(app, monkeypatch, small_bundle, "walk.mp4") == 0
    monkeypatch.setattr(cv2, "VideoCapture", type("Absent", (Capture,), {"there": False}))
    assert run(app, monkeypatch, small_bundle, "walk.mp4") == 2


def test_opencv_and_picamera2_show_the_model_the_same_pixels(
    app: ModuleType, small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    assert run(app, monkeypatch, small_bundle, 0, "--limit", 1) == 0
    (first,), _ = told(capsys)
    assert run(app, monkeypatch, small_bundle, 0, "--limit", 1, "--camera", "picamera2", "--size", "320x240") == 0
    (second,), _ = told(capsys)
    assert first["share"] == second["share"]
    assert Picamera2.asked == {"size": (320, 240), "format": "BGR888"}


@pytest.mark.parametrize(
    ("number", "says"), [(0, "stopped after 3 frames (camera frontend has timed out)"), (1, "stopped after 0 frames")]
)
def test_a_camera_of_the_pi_that_stops_is_closed_and_told(
    app: ModuleType,
    small_bundle: Path,
    number: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    monkeypatch.setattr(Picamera2, "closed", number == 1)
    assert run(app, monkeypatch, small_bundle, number, "--camera", "picamera2") == 1
    assert f"watch: camera {number}: {says}" in told(capsys)[1][0]
    assert Picamera2.closed


def test_without_picamera2_one_line_says_what_to_type(
    app: ModuleType, small_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert run(app, monkeypatch, small_bundle, 0, "--camera", "picamera2") == 2
    assert "sudo apt install python3-picamera2" in told(capsys)[1][0]


def test_what_is_not_signed_is_refused_with_status_2(
    app: ModuleType,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "maker.pub").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert run(app, monkeypatch, small_bundle, 0, "--trusted", tmp_path / "maker.pub", "--try-first") == 2
    lines, errors = told(capsys)
    assert not lines
    assert len(errors) == 1
    assert "not signed" in errors[0]


def test_sigterm_ends_it_with_status_0_and_the_last_line(small_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(3000):
        (tmp_path / "frames" / f"{number:04d}.png").symlink_to(tmp_path / "one.png")
    assert cv2.imwrite(str(tmp_path / "one.png"), FRAME)
    command = [sys.executable, str(ROOT / "tflite" / "watch.py"), str(small_bundle), str(tmp_path / "frames")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert json.loads(process.stdout.readline())["frame"] == "0000.png"
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "frames answered; of the last" in errors.splitlines()[-1]


def test_each_answer_tells_systemd_that_the_app_lives(
    app: ModuleType, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("notify")
        line.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "notify")
        assert run(app, monkeypatch, small_bundle, "walk.mp4", "--limit", 2) == 0
        assert [line.recv(64) for _ in range(2)] == [b"WATCHDOG=1"] * 2


def unit() -> configparser.ConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_starts_the_app_with_options_that_it_has(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = unit()["Service"]
    command = service["ExecStart"].split()
    assert command[1].endswith("/watch.py")
    monkeypatch.setattr(app, "Predictor", lambda *given, **options: (given, options))
    monkeypatch.setattr(app, "watch", lambda *_: None)
    monkeypatch.setattr(app, "summary", str)
    assert run(app, monkeypatch, *command[2:]) == 0
    asked = told(capsys)[1][0]
    for word in ("'trusted': '/opt/leakdet/maker.pub'", "'try_first': True", "'threads': 2"):
        assert word in asked
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    assert service["DynamicUser"] == "yes"
    assert service["ProtectSystem"] == "strict"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/opt/leakdet/venv/bin/python", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "leakdet" in line]
    assert not ours


def test_an_answer_of_another_package_s_task_is_no_guess(app: ModuleType) -> None:
    with pytest.raises(LeakdetError, match="no words for an answer of kind Prediction"):
        app.told(Prediction())
