"""The smallest app for a Pi: frames from a camera, a video or a folder in; one JSON line each out, no screen needed.

    pip install 'leakdet_tf[sign]'
    python watch.py BUNDLE 0                                      # first USB camera
    python watch.py BUNDLE 0 --camera picamera2                   # first camera at the Pi's own connector
    python watch.py BUNDLE frames/ --out answers                  # a folder of pictures, and overlays
    python watch.py BUNDLE 0 --trusted maker.pub --try-first      # nothing but what that key has signed

Exit status: 0 when the source has ended or the app was told to stop, 1 when a camera gives no frames (start it again),
2 when bundle, key or arguments are refused (starting again will not help). Copy it and change it: everything that it
knows about the model comes from the bundle.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2

from leakdet_tf.core.errors import ImageError, LeakdetError, MissingExtraError
from leakdet_tf.core.images import SUFFIXES, Pixels, decode
from leakdet_tf.core.records import AnyPrediction, Boxes, Classification, Mask
from leakdet_tf.edge import Predictor

Frames = Iterator[tuple[str, Pixels]]


class CameraError(LeakdetError):
    """A camera that is not there, or stopped."""


def frames(source: str) -> Frames:
    """Names and RGB pixels, uint8 (H, W, 3), of a folder's pictures, a video's frames or a camera's.

    Raises:
        CameraError: a camera, at a number, a device or an address, gives no frame.
        LeakdetError: nothing can be opened there.
    """
    if Path(source).is_dir():
        for path in sorted(p for p in Path(source).iterdir() if p.suffix.lower() in SUFFIXES):
            try:
                yield path.name, decode(path)
            except ImageError as error:
                print(json.dumps({"frame": path.name, "error": str(error)}), flush=True)
        return
    camera = source.isdigit() or source.startswith("/dev/") or "://" in source
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    try:
        if not capture.isOpened():
            if camera:
                raise CameraError(f"camera {source}: cannot be opened", remedy="is it plugged in, or used by another?")
            raise LeakdetError(f"{source}: no camera, video or folder can be opened there", remedy="try 0")
        number = 0
        while True:
            there, frame = capture.read()
            if not there and camera:
                raise CameraError(f"camera {source}: stopped after {number} frames", remedy="check cable and power")
            if not there:
                return
            yield f"frame_{number:06d}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
    finally:
        capture.release()


def pi_frames(source: str, size: tuple[int, int]) -> Frames:
    """The same of a camera at the Pi's own connector, through picamera2; ``size`` is (width, height).

    Raises:
        CameraError: it is not there, or stopped.
        MissingExtraError: picamera2 cannot be imported.
    """
    try:
        Picamera2 = importlib.import_module("picamera2").Picamera2
    except (ImportError, ValueError) as error:  # ValueError: its parts were built for another NumPy
        raise MissingExtraError(
            f"picamera2 cannot be imported ({error})",
            remedy="sudo apt install python3-picamera2, then python3 -m venv --system-site-packages",
        ) from error
    if not source.isdigit():
        raise LeakdetError(f"{source}: picamera2 takes a camera's number", remedy="try 0")
    number = 0
    try:
        camera = Picamera2(int(source))
        try:
            # what libcamera calls BGR888 lies in memory as red, green, blue
            camera.configure(camera.create_video_configuration(main={"size": size, "format": "BGR888"}))
            camera.start()
            while True:
                yield f"frame_{number:06d}", camera.capture_array("main")
                number += 1
        finally:
            camera.close()
    except (RuntimeError, LookupError, OSError) as error:
        raise CameraError(
            f"camera {source}: stopped after {number} frames ({error})", remedy="rpicam-hello --list-cameras shows them"
        ) from error


def told(answer: AnyPrediction) -> dict[str, Any]:
    """What a line says of an answer: the share of each class, or what is on the picture and how sure that is."""
    if isinstance(answer, Boxes):
        parts = zip(answer.names, answer.scores, answer.boxes, strict=True)
        return {
            "boxes": [
                {"class": name, "score": round(float(score), 4), "box": [round(float(edge), 1) for edge in box]}
                for name, score, box in parts
            ]
        }
    if isinstance(answer, Mask):
        return {"share": {key: round(value, 6) for key, value in answer.fractions().items()}}
    if not isinstance(answer, Classification):
        raise LeakdetError(f"no words for an answer of kind {type(answer).__name__}", remedy="add them to watch.py")
    scores = dict(zip(answer.classes, (round(float(score), 4) for score in answer.scores), strict=True))
    return {"answer": answer.answer, "score": scores}


def alive() -> None:
    """Tell systemd, where it asks for it, that frames still come: it restarts what is silent for ``WatchdogSec``."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(b"WATCHDOG=1", "\0" + place[1:] if place.startswith("@") else place)


def watch(predictor: Predictor, source: Frames, out: Path | None, limit: int) -> None:
    """Answer each frame with a line, and with an overlay in ``out``; stop after ``limit`` frames if that is not 0."""
    for number, (name, frame) in enumerate(source, start=1):
        answer = predictor.predict(frame)
        line = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "frame": name,
            **told(answer),
            "model": answer.model,
            "ms": round(answer.total_ms, 2),
        }
        if out is not None:
            overlay = out / f"{Path(name).stem}.jpg"
            if not cv2.imwrite(str(overlay), predictor.draw(frame, answer)[..., ::-1]):
                raise LeakdetError(f"{overlay}: cannot be written", remedy="is the disk full?")
            line["overlay"] = str(overlay)
        print(json.dumps(line), flush=True)
        alive()
        if number == limit:
            return


def summary(predictor: Predictor) -> str:
    """How many frames were answered and how long the last thousand took."""
    stats = predictor.stats()
    if stats.total is None or stats.invoke is None:
        return "no frame answered"
    return (
        f"{stats.count} frames answered; of the last {stats.window}: p50 {stats.total.p50_ms:.1f} ms, "
        f"p95 {stats.total.p95_ms:.1f} ms, in the model {stats.invoke.p50_ms:.1f} and {stats.invoke.p95_ms:.1f} ms"
    )


def size_of(text: str) -> tuple[int, int]:
    """``640x480`` → (640, 480)."""
    width, height = (int(part) for part in text.split("x"))
    if min(width, height) < 1:
        raise ValueError(text)
    return width, height


def main() -> int:
    """Parse the command line and answer until the source ends, Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Answer for frames of a camera, video or folder.")
    parser.add_argument("bundle", help="folder with model.tflite or model.onnx, and SHA256SUMS")
    parser.add_argument("source", help="camera number, video file or folder of pictures")
    parser.add_argument("--camera", choices=("opencv", "picamera2"), default="opencv", help="who reads the camera")
    parser.add_argument("--size", type=size_of, default=(640, 480), help="picamera2's frames (default: 640x480)")
    parser.add_argument("--out", type=Path, help="folder for overlays (default: none are written)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many frames (default: never)")
    parser.add_argument("--trusted", metavar="KEY", help="public key in PEM; refuse what it has not signed")
    parser.add_argument("--try-first", action="store_true", help="try the model in a process of its own first")
    given = parser.parse_args()
    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # a camera that is not there is told in one line of ours
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    predictor = None
    try:
        predictor = Predictor(given.bundle, threads=given.threads, trusted=given.trusted, try_first=given.try_first)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
        source = frames(given.source) if given.camera == "opencv" else pi_frames(given.source, given.size)
        watch(predictor, source, given.out, given.limit)
    except LeakdetError as error:
        print(f"watch: {error}", file=sys.stderr)
        return 1 if isinstance(error, CameraError) else 2
    except KeyboardInterrupt:
        return 130
    finally:
        if predictor is not None:
            print(f"watch: {summary(predictor)}", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
