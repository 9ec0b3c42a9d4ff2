"""The smallest app for a Pi: frames from a camera, a video or a folder in; an overlay and one JSON line each out.

    pip install leakdet_tf
    python watch.py BUNDLE 0                      # first camera
    python watch.py BUNDLE frames/ --out answers  # a folder of pictures
    python watch.py BUNDLE walk.mp4 --limit 100   # a video's first hundred frames

Copy it and change it: everything that it knows about the model comes from the bundle.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from leakdet_tf.core.errors import ImageError, LeakdetError
from leakdet_tf.core.images import SUFFIXES, Pixels, decode
from leakdet_tf.core.records import Boxes, Classification, Mask
from leakdet_tf.edge import Predictor


def frames(source: str) -> Iterator[tuple[str, Pixels]]:
    """Names and RGB pixels, uint8 (H, W, 3), of a folder's pictures, a video's frames or a camera's."""
    if Path(source).is_dir():
        for path in sorted(p for p in Path(source).iterdir() if p.suffix.lower() in SUFFIXES):
            try:
                yield path.name, decode(path)
            except ImageError as error:
                print(json.dumps({"frame": path.name, "error": str(error)}), flush=True)
        return
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    if not capture.isOpened():
        raise LeakdetError(
            f"{source}: no camera, video or folder can be opened there", remedy="try 0 for the first camera"
        )
    number = 0
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield f"frame_{number:06d}", np.ascontiguousarray(frame[..., ::-1])
        number += 1


def told(answer: Mask | Classification | Boxes) -> dict[str, Any]:
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
    scores = dict(zip(answer.classes, (round(float(score), 4) for score in answer.scores), strict=True))
    return {"answer": answer.answer, "score": scores}


def main() -> int:
    """Parse the command line and answer until the source ends or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Answer for frames of a camera, video or folder.")
    parser.add_argument("bundle", help="folder with model.tflite or model.onnx, and SHA256SUMS")
    parser.add_argument("source", help="camera number, video file or folder of pictures")
    parser.add_argument("--out", type=Path, default=Path("answers"), help="folder for overlays (default: answers)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--limit", type=int, default=0, help="stop after so many frames (default: never)")
    given = parser.parse_args()
    try:
        predictor = Predictor(given.bundle, threads=given.threads)
        given.out.mkdir(parents=True, exist_ok=True)
        for number, (name, frame) in enumerate(frames(given.source), start=1):
            answer = predictor.predict(frame)
            overlay = given.out / f"{Path(name).stem}.jpg"
            if not cv2.imwrite(str(overlay), predictor.draw(frame, answer)[..., ::-1]):
                raise LeakdetError(f"{overlay}: cannot be written", remedy="is the disk full?")
            line = {
                "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "frame": name,
                **told(answer),
                "model": answer.model,
                "ms": round(answer.total_ms, 2),
                "overlay": str(overlay),
            }
            print(json.dumps(line), flush=True)
            if number == given.limit:
                break
    except LeakdetError as error:
        print(f"watch: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
