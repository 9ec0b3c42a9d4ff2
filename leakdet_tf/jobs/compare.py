"""``leakdet-tf compare``: runs side by side, with tests of their differences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

from leakdet_tf.analysis.comparison import Run, draw, lines, markdown
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.loading import flatten
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import write_json, write_text
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log
from leakdet_tf.jobs.tasks import jobs_task

METRICS_FILE = "metrics.json"
_ABOVE = 3  # folders above an evaluation in which its experiment file may lie
_UNNAMED = "segment"  # reports of segmenters name no task
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
    places = [Path(folder) for folder in folders]
    reports = [_report(place / METRICS_FILE) for place in places]
    tasks = [str(report.get("task", _UNNAMED)) for report in reports]
    if odd := [folder for folder, task in zip(folders, tasks, strict=True) if task != tasks[0]]:
        raise DataError(f"{folders[0]} and {odd[0]}: are of different tasks", remedy="compare runs of one task")
    how = jobs_task(tasks[0]).COMPARING
    if how is None:
        raise DataError(
            f"{folders[0]}: compare has no test for models to {tasks[0]}", remedy="see leakdet-tf evaluate --matrix"
        )
    runs = [
        Run(name, place, report, how.load(place, report), _settings(place, report))
        for name, place, report in zip(_names(places, reports), places, reports, strict=True)
    ]
    found = how.compare(runs, metric or how.metric)
    for line in lines(found):
        log(line)
    if len(folders) == 1:
        return Compared(found, [])
    files = [Path(out) / f"comparison.{suffix}" for suffix in ("json", "md", "png")]
    write_json(files[0], found)
    write_text(files[1], markdown(found))
    save(draw(found), files[2])
    return Compared(found, files)


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
            raise DataError(f"{path}: cannot be read ({error})", remedy="fix it, or remove it") from error
        return settings | flatten({key: value for key, value in experiment.items() if key not in _OWN})
    return settings


def _names(folders: Sequence[Path], reports: Sequence[dict[str, Any]]) -> list[str]:
    """The experiments' names; where two are alike, as much of the folders' paths as tells them apart, or a number."""
    names = [
        str(report.get("experiment") or folder.resolve().name) for folder, report in zip(folders, reports, strict=True)
    ]
    paths = [folder.resolve().parts for folder in folders]
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
