"""The splits that a run takes: checked before training, and without what was found to be at fault."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import write_text
from leakdet_tf.core.tasks import task_named
from leakdet_tf.data import checks as room
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.checks import Checked
from leakdet_tf.data.findings import KINDS, Finding, Parts, survey
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_splits
from leakdet_tf.jobs.run.runs import Log
from leakdet_tf.training.progress import track

QUARANTINE = "quarantine.csv"


def usable_parts(experiment: Experiment, *, quarantine: Path | None, log: Log) -> Parts:
    """The experiment's splits without the samples that are at fault, for ``fit --quarantine``.

    Everything is decoded once to find them; those that are left out are named in ``quarantine`` when it is given.

    Raises:
        DataError: something that concerns more than a file: a folder is missing, a split empty, a class never seen.
    """
    checked = check_all(experiment, thumbnails=False)
    errors = checked.at("error")
    if quarantine is not None:
        write_findings(quarantine, errors)
    for kind, found in by_kind(errors):
        log(f"left out, {kind}: {len(found)} files, such as {found[0]}")
    _refuse(checked.at("fatal"), "fix it: nothing can be left out for this")
    return checked.usable()


def parts_of_run(experiment: Experiment, run: Path, *, log: Log) -> Parts:
    """The splits for what is done with a finished run: as ``fit`` took them, without what it left out."""
    if (run / QUARANTINE).is_file():
        return usable_parts(experiment, quarantine=None, log=log)
    return find_splits(experiment.data)


def refuse_leaks(
    experiment: Experiment, parts: Mapping[str, Sequence[Item]], caches: Mapping[str, Cache], *, log: Log
) -> None:
    """Before training: no picture stands in two splits, each class in some training mask, and in each split something
    counts. Warnings are logged.

    Raises:
        DataError: otherwise, with the first file or class.
    """
    task = task_named(experiment.task.kind)
    found = room.cheap(parts, caches, experiment.data, experiment.task.classes, task)
    for finding in found:
        if finding.level == "warning":
            log(f"warning: {finding}")
    fatal = [finding for finding in found if finding.level == "fatal"]
    _refuse([finding for finding in fatal if finding.kind == "empty"], "check the masks or boxes, and data.values")
    _refuse(fatal, "add pictures of it, or drop the class")
    _refuse(
        [finding for finding in found if finding.level == "error"],
        "fit --quarantine leaves such files out, leakdet-tf data check lists them",
    )


def _refuse(found: Sequence[Finding], remedy: str) -> None:
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise DataError(f"{found[0].file}: {found[0].detail}{more}", remedy=remedy)


def check_all(experiment: Experiment, *, thumbnails: bool) -> Checked:
    data, classes = experiment.data, experiment.task.classes
    parts, findings = survey(data)
    total = sum(map(len, parts.values()))
    work = room.check(parts, findings, data, classes, thumbnails=thumbnails)
    return [step for step in (track(work, "checking", total) if total else work) if isinstance(step, Checked)][-1]


def by_kind(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    kinds = [(kind, [finding for finding in findings if finding.kind == kind]) for kind in KINDS]
    return [(kind, found) for kind, found in kinds if found]


def write_findings(path: Path, findings: Sequence[Finding]) -> Path:
    rows = [[one.source, one.split, one.file, one.kind, one.level, one.detail] for one in findings]
    write_rows(path, ["source", "split", "file", "kind", "level", "detail"], rows)
    return path


def write_rows(path: Path, head: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    write_text(path, text.getvalue().encode("utf-8", "backslashreplace").decode())
