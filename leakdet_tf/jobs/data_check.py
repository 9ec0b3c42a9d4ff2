"""``leakdet-tf data check``, and what ``fit`` takes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.stats.inflation import Inflation, inflation
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.files import write_json
from leakdet_tf.core.images import decode
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks import task_named
from leakdet_tf.data.checks import Checked, Decoded
from leakdet_tf.data.items import Item
from leakdet_tf.data.similar import TURNS, Pair, near_duplicates, turned
from leakdet_tf.jobs.run.data import render_if_absent
from leakdet_tf.jobs.run.parts import QUARANTINE, by_kind, check_all, write_findings, write_rows
from leakdet_tf.training.progress import Bar

Log = Callable[[str], None]

SHOWN = 20
"""Findings of a kind, and pairs, that are printed; the files hold all."""
SHEET = 40
"""Most pairs on the contact sheet."""


@dataclass(frozen=True, eq=False)
class Report:
    """What was found, what still stands in the way of training, and the files that say so.

    ``pairs`` are near-duplicates, by position in ``checked.decoded``. ``standing`` counts the errors that are left:
    with quarantine only those that concern more than a file.
    """

    checked: Checked
    pairs: list[Pair]
    standing: int
    files: list[Path] = field(default_factory=list)


def check(
    path: str,
    overrides: Sequence[str],
    *,
    quarantine: bool,
    near: bool,
    inflation: str | None,
    out: str | None,
    log: Log,
) -> Report:
    """Look through an experiment's pictures and masks and write what is wrong with them.

    Args:
        path: the experiment file.
        overrides: ``table.key=value`` for it.
        quarantine: list the files that are to be left out, for ``fit --quarantine``, and count only what remains.
        near: also look for near-duplicates across splits.
        inflation: a run or a bundle whose score with and without leaked test pictures is told.
        out: where to write; ``<runs>/<name>/check`` when None.
        log: takes lines for the user.
    """
    experiment = load(path, overrides)
    render_if_absent(experiment)
    checked = check_all(experiment, thumbnails=near)
    for line in _table(experiment, checked):
        log(line)
    for line in _lines(checked):
        log(line)
    pairs = _near(checked) if near else []
    for line in _pair_lines(checked, pairs) if near else []:
        log(line)
    folder = Path(out) if out else Path(experiment.runs) / experiment.name / "check"
    fatal, errors = checked.at("fatal"), checked.at("error")
    files = _write(folder, experiment, checked, pairs)
    if quarantine:
        files.append(write_findings(folder / QUARANTINE, errors))
        log(f"{len({finding.file for finding in errors})} files are left out")
    if inflation is not None:
        log(_inflation(experiment, inflation, checked, pairs))
    return Report(checked, pairs, len(fatal) + (0 if quarantine else len(errors)), files)


def _inflation(experiment: Experiment, model: str, checked: Checked, pairs: Sequence[Pair]) -> str:
    seen = checked.decoded
    elsewhere = {digest for one in seen if one.split != "test" for digest in one.digests.items()}
    twins = {place for pair in pairs for place in (pair.first, pair.second)}
    test = [place for place, one in enumerate(seen) if one.split == "test"]
    leaked = [place in twins or not elsewhere.isdisjoint(seen[place].digests.items()) for place in test]
    items = [seen[place].item for place in test]
    found = inflation_of(experiment, model, items, np.array(leaked, np.bool_))
    return found.line(experiment.evaluate.confidence)


def inflation_of(experiment: Experiment, model: str, items: Sequence[Item], leaked: npt.NDArray[np.bool_]) -> Inflation:
    """Measure a run or a bundle on the test split with and without the pictures in ``leaked``, bool (N,).

    Raises:
        ConfigError: the model's classes are not the experiment's.
        DataError: there are no test pictures.
    """
    from leakdet_tf.jobs.run.runs import open_model
    from leakdet_tf.jobs.tasks import jobs_task

    predictor, how = open_model(model).predictor, experiment.evaluate
    names = predictor.contract.class_names
    if list(names) != experiment.task.classes:
        raise ConfigError(f"{model}: its classes ({', '.join(names)}) are not the experiment's")
    name, figure = jobs_task(experiment.task.kind).weighted_figure(predictor, experiment, items)
    return inflation(
        figure, leaked, name=name, resamples=how.resamples, confidence=how.confidence, seed=experiment.seed
    )


def _near(checked: Checked) -> list[Pair]:
    seen = checked.decoded
    small = [one.small for one in seen if one.small is not None]
    if not small:
        return []
    groups = np.array([SPLITS.index(one.split) for one in seen])
    pairs: list[Pair] = []
    with Bar("comparing splits", len(small)) as bar:
        for step in near_duplicates(np.stack(small), groups):
            if isinstance(step, int):
                bar.update(step)
            else:
                pairs = step
    return [pair for pair in pairs if not _same_pixels(seen[pair.first], seen[pair.second])]


def _same_pixels(first: Decoded, second: Decoded) -> bool:
    return first.digests == second.digests


def _table(experiment: Experiment, checked: Checked) -> list[str]:
    names = [*checked.labelling.names(tuple(experiment.task.classes)), "ignore"]
    weights = {source.name: source.weight for source in experiment.data.sources}
    width = max(6, *map(len, weights))
    task = task_named(experiment.task.kind)
    boxes = task.TRUTH == "boxes"
    what = task.COUNTED if boxes else f"share of {task.COUNTED}"
    lines = [f"{'split':5}  {'source':{width}}  pictures  of an epoch  {what}"]
    for split, items in checked.parts.items():
        total = sum(weights[item.source] for item in items)
        for source, weight in weights.items():
            count = sum(item.source == source for item in items)
            if not count:
                continue
            pixels = checked.pixels(split, source)
            amounts = [*pixels[: checked.labelling.count], pixels[IGNORE]]
            shares = ", ".join(
                f"{name} {amount / max(1, pixels.sum()):.2%}"
                for name, amount in zip(names, amounts, strict=True)
                if amount
            )
            if boxes:
                shares = _box_text(dict(zip(names[:-1], amounts, strict=False)), _aside(checked, split, source))
            epoch = f"{count * weight / total:.1%}" if split == "train" else ""
            lines.append(f"{split:5}  {source:{width}}  {count:8}  {epoch:>11}  {shares}")
    return lines


def _aside(checked: Checked, split: str, source: str) -> dict[str, Any]:
    """Of a source's boxes in a split: how many readable pictures hold none and no ignored region either, and by word
    how many are ignored and dropped."""
    chosen = [seen for seen in checked.decoded if seen.split == split and seen.item.source == source]
    both = [seen.aside for seen in chosen if seen.aside is not None]
    ignored, dropped = (sum((one[side] for one in both), Counter[str]()) for side in (0, 1))
    empty = sum(not seen.pixels.any() for seen in chosen)
    return {"empty_pictures": empty, "ignored": dict(sorted(ignored.items())), "dropped": dict(sorted(dropped.items()))}


def _box_text(boxes: Mapping[str, int], aside: Mapping[str, Any]) -> str:
    parts = [
        ", ".join(f"{name} {amount}" for name, amount in boxes.items()),
        f"{aside['empty_pictures']} empty pictures",
    ]
    for key in ("ignored", "dropped"):
        if aside[key]:
            parts.append(f"{key}: " + ", ".join(f"'{word}' {count}" for word, count in aside[key].items()))
    return "; ".join(parts)


def _lines(checked: Checked) -> list[str]:
    lines = []
    for word, levels in (("error", ("fatal", "error")), ("warning", ("warning",))):
        for kind, found in by_kind([finding for finding in checked.findings if finding.level in levels]):
            lines += [f"{word}, {kind}: {finding}" for finding in found[:SHOWN]]
            if len(found) > SHOWN:
                lines.append(f"{word}, {kind}: and {len(found) - SHOWN} more")
    return lines or ["no faults"]


def _pair_lines(checked: Checked, pairs: Sequence[Pair]) -> list[str]:
    if not pairs:
        return ["no near-duplicates across splits"]
    lines = [f"warning, near-duplicate: {len(pairs)} pairs of pictures in different splits show the same"]
    for pair in pairs[:SHOWN]:
        first, second = checked.decoded[pair.first], checked.decoded[pair.second]
        how = "" if pair.turn == TURNS[0] else f", turned ({pair.turn})"
        lines.append(
            str(
                DataError(
                    f"  {_picture(first)} and {_picture(second)}: {pair.similarity:.0%} of the detail agrees{how}"
                )
            )
        )
    if len(pairs) > SHOWN:
        lines.append(f"  and {len(pairs) - SHOWN} more")
    return lines


def _picture(seen: Decoded) -> Path:
    return next(iter(seen.item.images.values()))


def _write(folder: Path, experiment: Experiment, checked: Checked, pairs: Sequence[Pair]) -> list[Path]:
    files = [folder / "check.json", folder / "findings.csv", folder / "near_duplicates.csv"]
    write_json(files[0], _facts(experiment, checked, pairs))
    write_findings(files[1], checked.findings)
    rows = []
    for pair in pairs:
        first, second = checked.decoded[pair.first], checked.decoded[pair.second]
        files_of = [first.split, _picture(first), second.split, _picture(second)]
        rows.append([*files_of, pair.turn, pair.distance, f"{pair.similarity:.4f}"])
    write_rows(files[2], ["split", "file", "other_split", "other_file", "turn", "distance", "similarity"], rows)
    page = folder / "near_duplicates.png"
    if pairs:
        _draw(page, checked, pairs[:SHEET], len(pairs))
        files.append(page)
    else:
        page.unlink(missing_ok=True)  # of an earlier check
    return files


def _facts(experiment: Experiment, checked: Checked, pairs: Sequence[Pair]) -> dict[str, Any]:
    names = [*checked.labelling.names(tuple(experiment.task.classes)), "ignore"]
    splits: dict[str, Any] = {}
    for split, items in checked.parts.items():
        sources = {}
        for source in experiment.data.sources:
            pixels = checked.pixels(split, source.name)
            amounts = [*pixels[: checked.labelling.count], pixels[IGNORE]]
            sources[source.name] = {
                "pictures": sum(item.source == source.name for item in items),
                "weight": source.weight,
                "pixels": {name: int(amount) for name, amount in zip(names, amounts, strict=True) if amount},
            }
            if source.of_boxes:
                sources[source.name] |= _aside(checked, split, source.name)
        decoded = [seen for seen in checked.decoded if seen.split == split]
        splits[split] = {
            "pictures": len(items),
            "readable": len(decoded),
            "pictures_with": {
                name: sum(bool(seen.pixels[index]) for seen in decoded)
                for index, name in enumerate(experiment.task.classes)
            },
            "sha256": checked.sha256(split),
            "sources": sources,
        }
    return {
        "format": 1,
        "experiment": experiment.name,
        "data": experiment.data.where,
        "splits": splits,
        "findings": {
            level: {k: len(f) for k, f in by_kind(checked.at(level))} for level in ("fatal", "error", "warning")
        },
        "near_duplicates": len(pairs),
    }


def _draw(path: Path, checked: Checked, pairs: Sequence[Pair], total: int) -> None:
    from leakdet_tf.analysis.contact import Twins, sheet
    from leakdet_tf.analysis.figures import save

    twins = []
    for pair in pairs:
        first, second = checked.decoded[pair.first], checked.decoded[pair.second]
        turn = TURNS.index(pair.turn)
        note = f"{pair.similarity:.0%}" + (f", first turned: {pair.turn}" if turn else "")
        names = (f"{first.split}: {_picture(first).name}", f"{second.split}: {_picture(second).name}")
        pictures = [decode(_picture(seen)) for seen in (first, second)]
        twins.append(Twins(turned(pictures[0], turn), pictures[1], (names[0], names[1]), note))
    some = f" ({len(twins)} of {total})" if len(twins) < total else ""
    save(sheet(twins, f"near-duplicates across splits{some}: share of the detail that agrees"), path)
