"""``leakdet-tf benchmark``: bundles side by side on this machine. Runs on the base install, ``--plot`` aside."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leakdet_tf.analysis.benchmark import case, lines, metric_of
from leakdet_tf.core.children import command, environment, signal_name
from leakdet_tf.core.errors import BundleError, LeakdetError, MissingExtraError
from leakdet_tf.core.files import sha256_bytes, write_json
from leakdet_tf.core.images import Size, decode, resize
from leakdet_tf.core.version import __version__
from leakdet_tf.edge.benchmark import MAX_FRAMES, Frames, Request, frame_bytes, golden_frames
from leakdet_tf.edge.bundle import Bundle, open_bundle
from leakdet_tf.edge.machine import cores, facts
from leakdet_tf.edge.sums import SUMS
from leakdet_tf.jobs.predict import find_pictures
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log

ROUNDS = 3
"""Answers are counted in so many rounds, each in new processes and in the reverse order of the one before."""
VGA = (480, 640)
COMMAND = command("leakdet_tf.edge.benchmark")


@dataclass(frozen=True)
class Benchmarked:
    """A finished benchmark, the lines that tell it, and how many bundles could not be measured."""

    report: dict[str, Any]
    lines: list[str]
    failed: int


@dataclass(eq=False)
class _Subject:
    # a bundle, what was learned from its card, and what its children measured by threads
    folder: Path
    name: str
    facts: dict[str, Any]
    frames: Path
    rounds: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    sustained: dict[str, Any] | None = None
    fault: str = ""
    digest: str = ""
    engine: dict[str, Any] | None = None  # what its children ran, where that is no file of the bundle


def benchmark(
    sources: Sequence[str],
    *,
    threads: Sequence[int] = (),
    frames: str | None = None,
    size: Size | None = None,
    runs: int = 60,
    warm_up: int = 5,
    seconds: float = 0.0,
    json_file: str | None = None,
    plot: str | None = None,
    trusted: str | None = None,
    log: Log,
) -> Benchmarked:
    """Measure bundles by turns and tell latency, memory, size and metric.

    Args:
        sources: folders of bundles, or of runs, whose exports are all taken.
        threads: CPU threads to measure with; empty: one, and one for each core.
        frames: a picture or a folder of them; None takes each bundle's golden frames.
        size: (height, width) to scale frames to; None leaves pictures as they are and makes golden frames VGA.
        runs: answers counted of each bundle at each number of threads.
        warm_up: answers before them in each process, not counted.
        seconds: length of a sustained run of each bundle with the most threads; 0 for none.
        json_file: where to write the report.
        plot: where to draw it, a PNG file.
        trusted: the public key, in PEM, that must have signed each bundle; None takes any that is whole.
        log: takes lines for the user; a bundle that cannot be measured gets one, and the rest go on.

    Raises:
        LeakdetError: nothing could be measured, what is asked for makes no sense, or ``trusted`` is no such key.
        MissingExtraError: ``plot`` without matplotlib, which is told before anything is measured.
    """
    counts = list(dict.fromkeys(threads)) or sorted({1, cores()})
    if min(counts) < 1 or runs < 1 or warm_up < 0 or not 0 <= seconds < float("inf"):
        raise LeakdetError("threads and runs must be at least 1, warm-up and seconds at least 0")
    draw = _drawing() if plot else None
    if trusted is not None:
        from leakdet_tf.edge.keys import public_key

        public_key(trusted)
    for path in map(Path, filter(None, (json_file, plot))):  # found out now, not after minutes of measuring
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise LeakdetError(f"{path}: is a folder", remedy="give the name of a file")
    folders = find_bundles(sources)
    machine = facts()
    with tempfile.TemporaryDirectory(prefix="leakdet-") as place:
        given = _pictures(frames, size) if frames else None
        subjects = [
            _subject(folder, name, given, size, trusted, Path(place) / f"{number}.npz")
            for number, (folder, name) in enumerate(zip(folders, names(folders), strict=True))
        ]
        _measure(subjects, counts, runs, warm_up, seconds, log)
    report = {
        "leakdet_tf": __version__,
        "machine": machine,
        "settings": {
            "threads": counts,
            "runs": runs,
            "rounds": min(ROUNDS, runs),
            "warm_up": warm_up,
            "seconds": seconds,
            "frames": _told(frames, size),
        },
        "bundles": [_figures(one) for one in subjects if not one.fault],
        "failed": [{"folder": str(one.folder), "reason": one.fault} for one in subjects if one.fault],
    }
    if not report["bundles"]:
        raise LeakdetError(
            subjects[0].fault if len(subjects) == 1 else f"none of {len(subjects)} bundles could be measured"
        )
    if json_file:
        write_json(Path(json_file), report)
    if plot and draw:
        draw(report, Path(plot))
    return Benchmarked(report, lines(report), len(report["failed"]))


def find_bundles(sources: Sequence[str]) -> list[Path]:
    """The folders of bundles that the sources name, each once; of a run all that it exported.

    Raises:
        LeakdetError: a source is neither a run nor a bundle, or a run without a bundle.
    """
    found: dict[Path, Path] = {}
    for source in map(Path, sources):
        if (source / SUMS).is_file():
            inside = [source]
        elif (source / EXPERIMENT).is_file() or (source / "export").is_dir():
            inside = sorted(path for path in (source / "export").glob("[!.]*") if path.is_dir())
            if not inside:
                raise LeakdetError(f"{source}: this run exported nothing", remedy="leakdet-tf export RUN")
        else:
            raise LeakdetError(
                f"{source}: neither a run nor a bundle", remedy="give a folder under runs/, or an export in one"
            )
        found |= {path.resolve(): path for path in inside}
    return list(found.values())


def names(folders: Sequence[Path]) -> list[str]:
    """What the tables call the folders: the last part of each, and where two are alike as much as tells them apart."""
    # <run>/export/<format>: "export" tells nothing apart
    parts = [
        [*path.parent.parts[:-1], path.name] if path.parent.name == "export" else [*path.parts]
        for path in (folder.resolve() for folder in folders)
    ]
    found = [one[-1] for one in parts]
    for depth in range(2, max(map(len, parts)) + 1):
        times = Counter(found)
        found = ["/".join(one[-depth:]) if times[name] > 1 else name for one, name in zip(parts, found, strict=True)]
    return found


def _subject(
    folder: Path, name: str, given: Frames | None, size: Size | None, trusted: str | None, place: Path
) -> _Subject:
    # the bundle is hashed here and its card read; only the child parses the model
    try:
        bundle = open_bundle(folder, trusted=trusted)
        place.write_bytes(frame_bytes(_fitting(bundle, given, size)))
    except LeakdetError as error:
        return _Subject(folder, name, {}, place, fault=_named(folder, str(error)))
    told = {
        "kind": str(bundle.card.get("kind", "unknown")),
        "task": bundle.contract.task,
        "contract": bundle.contract.id,
        "inputs": {key: [*spec.shape] for key, spec in bundle.contract.inputs.items()},
        "model_sha256": sha256_bytes(bundle.model),
        "model_bytes": len(bundle.model),
        "metric": metric_of(bundle.card),
    }
    return _Subject(folder, name, told, place, digest=bundle.digest)


def _fitting(bundle: Bundle, given: Frames | None, size: Size | None) -> Frames:
    if given is None:
        return golden_frames(bundle.golden, size or VGA)
    if len(bundle.contract.inputs) > 1:
        raise BundleError(
            f"{bundle.folder}: takes several pictures at once ({', '.join(bundle.contract.inputs)})",
            remedy="leave --frames out: its golden frames have them all",
        )
    return [{bundle.contract.primary: picture} for frame in given for picture in frame.values()]


def _pictures(source: str, size: Size | None) -> Frames:
    found = find_pictures([source])
    pictures = [decode(path) for path in found[:: max(1, len(found) // MAX_FRAMES)][:MAX_FRAMES]]
    return [{"": resize(picture, size) if size else picture} for picture in pictures]


def _told(frames: str | None, size: Size | None) -> str:
    height, width = size or VGA
    if frames is None:
        return f"golden ones at {width}x{height}"
    return f"{frames} at {width}x{height}" if size else f"{frames} as they are"


def _measure(
    subjects: Sequence[_Subject], counts: Sequence[int], runs: int, warm_up: int, seconds: float, log: Log
) -> None:
    rounds = min(ROUNDS, runs)
    order = [(one, count) for one in subjects for count in counts]
    for one in subjects:
        if one.fault and len(subjects) > 1:
            log(one.fault)
    for number in range(rounds):
        share = runs // rounds + (number < runs % rounds)
        for one, count in order[:: -1 if number % 2 else 1]:
            if one.fault:
                continue
            log(f"round {number + 1} of {rounds}: {one.name}, {count} thread{'s' if count > 1 else ''}")
            request = Request(str(one.folder), one.digest, count, str(one.frames), share, warm_up)
            if found := _asked(one, request, log if len(subjects) > 1 else None):
                one.rounds[count].append(found)
    for one in subjects if seconds > 0 else ():
        if not one.fault:
            log(f"sustained: {one.name}, {max(counts)} threads, {seconds:g} s")
            request = Request(str(one.folder), one.digest, max(counts), str(one.frames), 0, warm_up, seconds)
            if found := _asked(one, request, log if len(subjects) > 1 else None):
                one.sustained = {"threads": max(counts), "windows": found["windows"]}


def _asked(one: _Subject, request: Request, log: Log | None) -> dict[str, Any] | None:
    # a bundle whose child fails is left out for good: half of its rounds would not compare
    try:
        found = ask(request)
        if one.engine not in (None, found["engine"]):
            raise BundleError(f"{one.folder}: its engine was built again meanwhile", remedy="measure it again")
        one.engine = found["engine"]
        return found
    except LeakdetError as error:
        one.fault = _named(one.folder, str(error))
        if log:
            log(one.fault)
        return None


def ask(request: Request) -> dict[str, Any]:
    """Have a child process measure.

    Raises:
        BundleError: the bundle was refused, or the child died; the message says of what.
    """
    done = subprocess.run(
        COMMAND,
        env=environment(),
        input=request.to_json(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.strip()]
    try:
        found = json.loads(said[-1]) if said and done.returncode in (0, 2) else {}
    except ValueError:
        found = {}
    if done.returncode == 0 and isinstance(found, dict) and "invoke_ms" in found:
        return found
    if isinstance(found, dict) and "error" in found:
        raise BundleError(str(found["error"]))
    raise BundleError(
        f"{request.bundle}: measuring it with {request.threads} threads ended early ({_death(done)})",
        remedy="does predict work with this bundle here, and is there memory?",
    )


def _death(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"killed by {signal_name(done.returncode)}"
    last = [line.strip() for line in done.stderr.splitlines() if line.strip()][-1:]
    return last[0] if last else f"status {done.returncode}"


def _named(folder: Path, text: str) -> str:
    return text if str(folder) in text else f"{folder}: {text}"


def _figures(one: _Subject) -> dict[str, Any]:
    cases = [case(count, rounds, one.name) for count, rounds in sorted(one.rounds.items())]
    told = {"name": one.name, "folder": str(one.folder), **one.facts, "engine": one.engine}
    if one.engine:  # not the bundle's file, whose size and figure say nothing of it
        told |= {"model_bytes": one.engine["bytes"], "metric": None}
    return {**told, "cases": cases, "sustained": one.sustained}


def _drawing() -> Callable[[dict[str, Any], Path], None]:
    try:
        from leakdet_tf.analysis.benchmark_figures import draw, save
    except ImportError as error:
        raise MissingExtraError(
            f"--plot needs matplotlib, which is not installed ({error})",
            remedy="pip install matplotlib, or leave --plot out and keep --json",
        ) from error
    return lambda report, path: save(draw(report), path)
