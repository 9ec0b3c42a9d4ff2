"""``leakdet-tf compare``: runs side by side, with tests of their differences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

from leakdet_tf.analysis.comparison import draw, lines, markdown
from leakdet_tf.analysis.detect import compare as box_compare
from leakdet_tf.analysis.detect.answers import BOXES, Answers, load_boxes
from leakdet_tf.analysis.figures import save
from leakdet_tf.analysis.segment.compare import Run, check_comparable, check_metric, compare
from leakdet_tf.analysis.segment.counts import COUNTS, PerPicture, load_counts
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, write_json, write_text
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log

METRICS_FILE = "metrics.json"
_ABOVE = 3  # folders above an evaluation in which its experiment file may lie
_OWN = ("name", "runs")  # settings that name a run rather than make it


@dataclass(frozen=True)
class Compared:
    """A finished comparison and the files it was written to; a single run is only shown."""

    report: dict[str, Any]
    files: list[Path]


def compare_runs(folders: Sequence[str], *, metric: str, out: str, log: Log) -> Compared:
    """Compare segmenters, or detectors, that were measured on the same pictures.

    Args:
        folders: of runs, or of evaluations: each holds ``metrics.json`` and ``counts.npz``, or ``boxes.npz``.
        metric: what is tested: ``mean_iou``, ``mean_dice``, ``pixel_accuracy``, ``mean_boundary_f1``, ``iou:<class>``;
            of detectors ``map50``, ``map``, ``ap50:<class>``. Empty: the first of these.
        out: folder for ``comparison.json``, ``comparison.md`` and ``comparison.png``.
        log: takes lines for the user.

    Raises:
        DataError: a folder lacks a file or holds a damaged one, or the runs cannot be compared.
        ConfigError: there is no such metric.
    """
    tasks = [_report(Path(folder) / METRICS_FILE).get("task", "segment") for folder in folders]
    if odd := [place for place, task in zip(folders, tasks, strict=True) if task != tasks[0]]:
        raise DataError(f"{folders[0]} and {odd[0]}: are of different tasks", remedy="compare runs of one task")
    if tasks[0] == "detect":
        found = _of_boxes([_open_boxes(Path(folder)) for folder in folders], metric or "map50")
    else:
        opened = [_open(Path(folder)) for folder in folders]
        runs = [Run(name, *parts) for name, parts in zip(_names(opened), opened, strict=True)]
        check_comparable(runs)
        check_metric(metric or "mean_iou", runs[0].table.classes)
        found = compare(runs, metric or "mean_iou")
    for line in lines(found):
        log(line)
    if len(folders) == 1:
        return Compared(found, [])
    files = [Path(out) / f"comparison.{suffix}" for suffix in ("json", "md", "png")]
    write_json(files[0], found)
    write_text(files[1], markdown(found))
    save(draw(found), files[2])
    return Compared(found, files)


def _open(folder: Path) -> tuple[Path, dict[str, Any], PerPicture, dict[str, Any]]:
    report, table = _report(folder / METRICS_FILE), load_counts(folder / COUNTS)
    agree = (
        report.get("classes") == list(table.classes)
        and report.get("ids_sha256") == sha256_bytes("\n".join(table.ids).encode())
        and report.get("confusion") == table.counts.sum(0).tolist()
    )
    if not agree:
        raise DataError(f"{folder}: {METRICS_FILE} and {COUNTS} are not of one evaluation", remedy="run evaluate again")
    return folder, report, table, _settings(folder, report)


def _open_boxes(folder: Path) -> tuple[Path, dict[str, Any], Answers, dict[str, Any]]:
    report, answers = _report(folder / METRICS_FILE), load_boxes(folder / BOXES)
    agree = report.get("classes") == list(answers.classes) and report.get("ids_sha256") == sha256_bytes(
        "\n".join(answers.ids).encode()
    )
    if not agree:
        raise DataError(f"{folder}: {METRICS_FILE} and {BOXES} are not of one evaluation", remedy="run evaluate again")
    return folder, report, answers, _settings(folder, report)


def _of_boxes(opened: Sequence[tuple[Path, dict[str, Any], Answers, dict[str, Any]]], metric: str) -> dict[str, Any]:
    return box_compare.compare(
        [box_compare.BoxRun(name, *parts) for name, parts in zip(_names(opened), opened, strict=True)], metric
    )


def _report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{path.parent}: holds no {path.name}", remedy="give a run's folder, or one that evaluate wrote"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy="run evaluate again") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})", remedy="run evaluate again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a report", remedy="run evaluate again")
    return found


def _settings(folder: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run that an evaluation belongs to, by dotted key, and the kind of model first."""
    settings: dict[str, Any] = {"kind": report.get("kind")}
    resolved = folder.resolve()
    for place in (resolved, *resolved.parents[:_ABOVE]):
        path = place / EXPERIMENT
        if not path.is_file():
            continue
        try:
            experiment = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})", remedy="mend it, or remove it") from error
        return settings | flattened({key: value for key, value in experiment.items() if key not in _OWN})
    return settings


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted key; tables in lists go by their number, as in ``data.source.0.root``."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        inner = {str(number): item for number, item in enumerate(value)}.items()
    else:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in inner:
        found |= flattened(item, f"{prefix}.{key}" if prefix else key)
    return found


def _names(opened: Sequence[tuple[Path, dict[str, Any], Any, dict[str, Any]]]) -> list[str]:
    """The experiments' names; where two are alike, as much of the folders' paths as tells them apart, or a number."""
    names = [str(report.get("experiment") or folder.resolve().name) for folder, report, _, _ in opened]
    paths = [folder.resolve().parts for folder, *_ in opened]
    for depth in range(1, max(map(len, paths)) + 1):
        apart = dict(zip(paths, names, strict=True))  # one folder given twice is told apart by its number alone
        twice = {name for name, count in Counter(apart.values()).items() if count > 1}
        if not twice:
            break
        shorter = ["/".join(parts[-depth:]) for parts in paths]
        names = [shorter[i] if name in twice else name for i, name in enumerate(names)]
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names
