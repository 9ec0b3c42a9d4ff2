"""The programs of docs/raspberry-pi.md, run as they stand but for the places of bundle, key and camera."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from leakdet_tf.cli import main
from leakdet_tf.core.images import Geometry
from leakdet_tf.edge import Predictor

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "raspberry-pi.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"```python file=(\S+)\n(.*?)```", PAGE, re.S))


def lines_of(name: str) -> list[str]:
    return [line for line in PROGRAMS[name].splitlines() if line.strip()]


def python(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False)


def test_the_app_is_ten_lines_and_plain_litert_five_beside_its_imports() -> None:
    assert len(lines_of("app.py")) == 10
    assert len([line for line in lines_of("plain.py") if not line.startswith(("import", "from"))]) == 5


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs the program openssl")
def test_a_signed_bundle_answers_for_a_camera_in_ten_lines(
    own_small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = own_small.rename(tmp_path / "BUNDLE")
    for line in re.findall(r"^openssl .*$", PAGE, re.M)[:2]:
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    (line,) = re.findall(r"^leakdet-tf sign .*$", PAGE, re.M)
    monkeypatch.chdir(tmp_path)
    assert main(line.split()[1:]) == 0
    (check,) = re.findall(r"^openssl pkeyutl .*$", PAGE, re.M)
    subprocess.run(check.split(), cwd=tmp_path, check=True, capture_output=True)
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 48))
    for shade in (0, 90, 250):
        film.write(np.full((48, 64, 3), shade, np.uint8))
    film.release()
    text = PROGRAMS["app.py"].replace("VideoCapture(0)", "VideoCapture('film.avi')")
    done = python(text, tmp_path)
    assert done.stderr.strip().splitlines()[-1] == "the camera gave no frame"
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("(48, 64)" in line for line in lines)
    (place / "certificate.sig").write_bytes(bytes(64))
    assert "not signed by the trusted key" in python(text, tmp_path).stderr


def test_plain_litert_gives_the_same_labels(own_small: Path, tmp_path: Path) -> None:
    own_small.rename(tmp_path / "BUNDLE")
    frame = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(frame).resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "frame.png")
    done = python(PROGRAMS["plain.py"] + "np.save('labels.npy', labels)\n", tmp_path)
    assert done.returncode == 0, done.stderr
    labels = np.load(tmp_path / "labels.npy")
    assert len(np.unique(labels)) > 1
    whole = Geometry((480, 640), labels.shape, labels.shape).to_source(labels)
    np.testing.assert_array_equal(whole, Predictor(tmp_path / "BUNDLE").predict(tmp_path / "frame.png").labels)


def test_every_refusal_of_the_table_is_one_that_the_code_can_say() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "leakdet_tf" / "edge").rglob("*.py"))
    quoted = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("What a refusal means")[2], re.M)
    assert len(quoted) == 10
    for text in quoted:
        words = re.split(r"SHA256SUMS|c\w+\.json|model\.tflite|SIGSEGV|golden frame 0|…|\(|\)", text)
        for part in filter(None, (word.strip() for word in words)):
            assert part in source, text


def test_every_option_of_the_page_is_one_of_the_app() -> None:
    app = (ROOT / "tflite" / "watch.py").read_text(encoding="utf-8")
    shown = (ROOT / "tflite" / "README.md").read_text(encoding="utf-8")
    known = set(re.findall(r'"(--[a-z-]+)"', app))
    for option in re.findall(r"watch\.py [^\n#]*", PAGE):
        assert set(re.findall(r"--[a-z-]+", option)) <= known, option
    assert known == set(re.findall(r"\| `(--[a-z-]+)", shown))
