"""One bundle timed in a process of its own, so that neither memory nor threads of another count for it.

``python -m leakdet_tf.edge.benchmark`` reads a :class:`Request` as JSON from its standard input and prints one line of
JSON: what :func:`measure` returned, or ``{"error": "..."}``. It needs the base install only.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from leakdet_tf.core.errors import BundleError, LeakdetError
from leakdet_tf.core.images import Pixels, Size, resize
from leakdet_tf.edge.bundle import GoldenFrame, open_again
from leakdet_tf.edge.machine import resident, sensors
from leakdet_tf.edge.predictor import Predictor

WINDOWS = 30
"""A sustained run is told in so many parts, if each then lasts :data:`LEAST_WINDOW_S`."""
LEAST_WINDOW_S = 1.0
MAX_FRAMES = 16
MAX_FRAME_BYTES = 64_000_000
_ROOT = Path("/")
Frames = Sequence[Mapping[str, Pixels]]


@dataclass(frozen=True)
class Request:
    """What the child does: the bundle's folder, CPU threads, a file of frames, and how often.

    ``frames`` is an ``.npz`` as :func:`frame_bytes` makes it. ``seconds`` above 0 asks for a sustained run instead of
    ``runs`` answers. ``digest`` is the :attr:`~leakdet_tf.edge.bundle.Bundle.digest` of what is to be measured.
    """

    bundle: str
    digest: str
    threads: int
    frames: str
    runs: int
    warm_up: int
    seconds: float = 0.0

    def to_json(self) -> str:
        """For the child's standard input."""
        return json.dumps(asdict(self))


def measure(request: Request) -> dict[str, Any]:
    """Open the bundle, answer, and tell the times.

    Returns:
        ``load_s``, from opening to the first answer, hashes and golden frames included; ``invoke_ms`` and
        ``predict_ms``, a time for each counted answer; ``rss``: bytes ``before`` the bundle was opened, at the
        ``peak``, and how much the bundle made it ``grow``, or None where the machine does not tell; ``windows`` of a
        sustained run, see :func:`sustain`; ``engine``, what the card of a TensorRT engine says, or None.

    Raises:
        LeakdetError: the bundle is refused or was changed, or does not take these frames.
    """
    frames = _frames(Path(request.frames))
    before = resident()
    start = perf_counter()
    predictor = Predictor(open_again(request.bundle, request.digest), threads=request.threads)
    predictor.predict(dict(frames[0]))
    load_s = perf_counter() - start
    answer(predictor, frames, request.warm_up, first=1)
    times = [] if request.seconds > 0 else answer(predictor, frames, request.runs)
    windows = sustain(predictor, frames, request.seconds) if request.seconds > 0 else []
    after = resident()
    rss = {"before": before[0], "peak": after[1], "grow": after[1] - before[0]} if before and after else None
    invoke_ms, predict_ms = [one[0] for one in times], [one[1] for one in times]
    times_ms = {"invoke_ms": invoke_ms, "predict_ms": predict_ms}
    return {"load_s": load_s, **times_ms, "rss": rss, "windows": windows, "engine": predictor.card.get("engine")}


def answer(predictor: Predictor, frames: Frames, times: int, *, first: int = 0) -> list[tuple[float, float]]:
    """Answer ``times`` frames in turn: milliseconds in ``invoke`` and in the whole of ``predict``, by frame."""
    found = []
    for number in range(first, first + times):
        done = predictor.predict(dict(frames[number % len(frames)]))
        found.append((float(done.invoke_ms), float(done.total_ms)))
    return found


def sustain(predictor: Predictor, frames: Frames, seconds: float, *, root: Path = _ROOT) -> list[dict[str, Any]]:
    """Answer without a pause for ``seconds``, told in windows of equal length.

    Returns:
        For each window ``end_s`` since the start, ``answers``, ``invoke_ms`` and ``predict_ms`` as (p50, p95), and what
        :func:`~leakdet_tf.edge.machine.sensors` read at its end. Before them stands one with no answers: the start.
    """
    length = max(LEAST_WINDOW_S, seconds / WINDOWS)
    windows: list[dict[str, Any]] = [{"end_s": 0.0, "answers": 0, **sensors(root)}]
    start = perf_counter()
    number, end = 0, 0.0
    while end < seconds:
        limit = min(seconds, end + length)
        times: list[tuple[float, float]] = []
        while not times or perf_counter() - start < limit:
            times += answer(predictor, frames, 1, first=number)
            number += 1
        end = perf_counter() - start
        invoke, predict = (np.percentile([one[place] for one in times], (50, 95)).tolist() for place in (0, 1))
        windows.append(
            {"end_s": end, "answers": len(times), "invoke_ms": invoke, "predict_ms": predict, **sensors(root)}
        )
    return windows


def golden_frames(golden: Sequence[GoldenFrame], size: Size) -> list[dict[str, Pixels]]:
    """A bundle's golden pictures, scaled to ``size`` (height, width): contents as the model knows them."""
    return [{name: resize(image, size) for name, image in one.images.items()} for one in golden[:MAX_FRAMES]]


def frame_bytes(frames: Frames) -> bytes:
    """Frames as an ``.npz`` without pickles, by keys ``<frame>/<input>``; frames beyond 64 MB are left out."""
    kept: dict[str, Any] = {}
    held = 0
    for number, frame in enumerate(frames[:MAX_FRAMES]):
        held += sum(image.nbytes for image in frame.values())
        if number and held > MAX_FRAME_BYTES:
            break
        kept |= {f"{number}/{name}": image for name, image in frame.items()}
    stream = io.BytesIO()
    np.savez(stream, **kept)
    return stream.getvalue()


def _frames(path: Path) -> list[dict[str, Pixels]]:
    frames: dict[int, dict[str, Pixels]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, name = key.split("/", 1)
            frames.setdefault(int(number), {})[name] = archive[key]
    if not frames:
        raise BundleError(f"{path}: holds no frame")
    return [frames[number] for number in sorted(frames)]


def main() -> int:
    """Read a request, measure, print one line of JSON; returns 2 where the bundle was refused."""
    request = Request(**json.loads(sys.stdin.read()))
    try:
        found: dict[str, Any] = measure(request)
    except LeakdetError as error:
        found = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(found, allow_nan=False) + "\n")
    return 2 if "error" in found else 0


if __name__ == "__main__":
    sys.exit(main())
