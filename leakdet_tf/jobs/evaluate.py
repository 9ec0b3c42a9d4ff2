"""``leakdet-tf evaluate``: the report on a run or a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakdet_tf.analysis.evaluate import lines, measure, report
from leakdet_tf.analysis.figures import examples, page, save
from leakdet_tf.config.load import load
from leakdet_tf.config.schema import SPLITS, Experiment
from leakdet_tf.core.errors import ConfigError, did_you_mean
from leakdet_tf.core.files import sha256_bytes, write_json
from leakdet_tf.data.readers import Item, find_items, find_splits, label_table, read
from leakdet_tf.jobs.data import samples
from leakdet_tf.jobs.runs import Log, Opened, open_model
from leakdet_tf.training.progress import track


@dataclass(frozen=True)
class Evaluated:
    """A finished report and the files it was written to."""

    report: dict[str, Any]
    files: list[Path]


def evaluate(
    model: str,
    *,
    data: str | None,
    split: str,
    experiment: str | None,
    overrides: Sequence[str],
    out: str | None,
    log: Log,
) -> Evaluated:
    """Measure a run or a bundle and write ``metrics.json``, ``report.png`` and ``worst.png``.

    Args:
        model: a run's folder or a bundle's.
        data: a folder to measure on instead of the experiment's: with images and masks in it, or with splits.
        split: ``train``, ``val`` or ``test``.
        experiment: experiment file that says where the data are; the run's own when None.
        overrides: ``table.key=value`` for that file.
        out: where to write; when None the model's folder, under ``evaluation`` unless it is the run's own test split.
        log: takes lines for the user.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: unknown", remedy=did_you_mean(split, SPLITS))
    opened = open_model(model)
    if opened.note:
        log(opened.note)
    source = experiment or opened.experiment
    if source is None:
        raise ConfigError(
            f"{model}: a bundle outside its run does not say what its masks mean", remedy="add --experiment FILE.toml"
        )
    settings = load(source, overrides)
    if list(opened.predictor.contract.class_names) != settings.task.classes:
        raise ConfigError(
            f"{source}: its classes are not the model's ({', '.join(opened.predictor.contract.class_names)})"
        )
    items, root = _items(settings, data, split)
    folder = Path(out) if out else _default_folder(opened, data, split, overrides)
    return write_report(opened, settings, items, root=root, split=split, folder=folder, log=log)


def write_report(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, root: str, split: str, folder: Path, log: Log
) -> Evaluated:
    """Measure an open model on items and write the report into ``folder``."""
    predictor = opened.predictor
    work = track(samples(settings, items), f"evaluating {opened.kind}", len(items))
    measured = measure(predictor, work, settings.evaluate, seed=settings.seed)
    about = {
        "kind": opened.kind,
        "weights_sha256": predictor.contract.weights_sha256,
        "experiment": settings.name,
        "data": root,
        "split": split,
        "ids_sha256": sha256_bytes("\n".join(measured.ids).encode()),
    }
    found = report(measured, predictor, settings.evaluate, about)
    files = [folder / "metrics.json", folder / "report.png"]
    write_json(files[0], found)
    save(page(found, predictor.contract), files[1])
    table = label_table(settings.data.values, settings.task.classes)
    if chosen := [items[i] for i in measured.worst(settings.evaluate.worst)]:
        shown = [read(item, table).sample for item in chosen]
        answers = [predictor.predict(sample.images) for sample in shown]
        files.append(folder / "worst.png")
        save(
            examples(shown, answers, predictor.contract, f"worst of {len(items)} pictures, {root} ({split})"), files[2]
        )
    for line in lines(found):
        log(line)
    return Evaluated(found, files)


def _items(settings: Experiment, data: str | None, split: str) -> tuple[list[Item], str]:
    if data is None:
        return find_splits(settings.data)[split], settings.data.root
    folder = Path(data)
    inside = folder / split
    return find_items(inside if inside.is_dir() else folder, settings.data), data


def _default_folder(opened: Opened, data: str | None, split: str, overrides: Sequence[str]) -> Path:
    if data is None and split == "test" and not overrides:
        return opened.folder if opened.kind == "keras" else opened.folder.parent / f"{opened.folder.name}-evaluation"
    label = Path(data).resolve().name if data else "data"
    base = opened.folder if opened.kind == "keras" else opened.folder.parent
    return base / "evaluation" / f"{opened.kind}-{label}-{split}"
