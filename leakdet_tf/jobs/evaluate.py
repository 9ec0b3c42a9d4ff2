"""``leakdet-tf evaluate``: the report on a run or a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leakdet_tf.analysis import detection
from leakdet_tf.analysis.evaluate import lines, measure, report
from leakdet_tf.analysis.figures import examples, page, save
from leakdet_tf.analysis.tables import COUNTS, PerPicture, save_counts
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.errors import ConfigError, did_you_mean
from leakdet_tf.core.files import sha256_bytes, write_json
from leakdet_tf.data.items import Item, count_rendered, told_of_rendered
from leakdet_tf.data.readers import find_items, find_splits, labelling_of, read, truth_tables, turned_parts
from leakdet_tf.jobs.check import parts_of_run
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
    source: str | None = None,
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
        source: one of the experiment's sources: only its pictures, or the one whose mask values ``data`` has.
    """
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: unknown", remedy=did_you_mean(split, SPLITS))
    opened = open_model(model)
    if opened.note:
        log(opened.note)
    described = experiment or opened.experiment
    if described is None:
        raise ConfigError(
            f"{model}: a bundle outside its run does not say what its masks mean", remedy="add --experiment FILE.toml"
        )
    settings = load(described, overrides)
    if list(opened.predictor.contract.class_names) != settings.task.classes:
        raise ConfigError(
            f"{described}: its classes are not the model's ({', '.join(opened.predictor.contract.class_names)})"
        )
    run = opened.experiment.parent if opened.experiment and not experiment else None
    items, root = _items(settings, data, split, source, run=run, log=log)
    folder = Path(out) if out else _default_folder(opened, data, split, source, overrides)
    return write_report(opened, settings, items, root=root, split=split, folder=folder, log=log)


def write_report(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, root: str, split: str, folder: Path, log: Log
) -> Evaluated:
    """Measure an open model on items and write the report into ``folder``."""
    predictor, rendered = opened.predictor, count_rendered(items)
    about = {
        "kind": opened.kind,
        "weights_sha256": predictor.contract.weights_sha256,
        "experiment": settings.name,
        "data": root,
        "split": split,
        "ids_sha256": sha256_bytes("\n".join(item.id for item in items).encode()),
        "rendered": rendered,
    }
    if note := told_of_rendered(rendered, len(items)):
        log(note)
    if settings.task.kind == "classify":
        from leakdet_tf.jobs.classify import write_class_report

        return Evaluated(*write_class_report(opened, settings, items, about, folder=folder, log=log))
    if settings.task.kind == "detect":
        from leakdet_tf.jobs.detect import write_box_report

        return Evaluated(*write_box_report(opened, settings, items, about, folder=folder, log=log))
    work = track(samples(settings, items), f"evaluating {opened.kind}", len(items))
    labelling = labelling_of(settings.data, settings.task.classes)
    measured = measure(
        predictor,
        work,
        settings.evaluate,
        seed=settings.seed,
        labelling=labelling,
        sources=[item.source for item in items],
    )
    found = report(measured, predictor, settings.evaluate, about)
    files = [folder / "metrics.json", folder / COUNTS, folder / "report.png"]
    write_json(files[0], found)
    names = predictor.contract.class_names
    save_counts(files[1], PerPicture(measured.ids, measured.counts, measured.boundary, labelling.members, names))
    save(page(found, predictor.contract), files[2])
    for name, part in found.get("detection", {}).items():
        files.append(folder / f"detection-{name}.png")
        save(detection.draw(part), files[-1])
    tables = truth_tables(settings.data, settings.task.classes)
    if chosen := [items[i] for i in measured.worst(settings.evaluate.worst)]:
        shown = [read(item, tables[item.source]).sample for item in chosen]
        answers = [predictor.predict(sample.images) for sample in shown]
        files.append(folder / "worst.png")
        title = f"worst of {len(items)} pictures, {root} ({split})"
        save(examples(shown, answers, predictor.contract, title, labelling), files[-1])
    for line in lines(found):
        log(line)
    return Evaluated(found, files)


def _items(
    settings: Experiment, data: str | None, split: str, source: str | None, *, run: Path | None, log: Log
) -> tuple[list[Item], str]:
    sources = {item.name: item for item in settings.data.sources}
    if source is not None and source not in sources:
        raise ConfigError(f"--source {source}: there is none of that name", remedy=did_you_mean(source, sources))
    if data is None:
        parts = parts_of_run(settings, run, log=log) if run else find_splits(settings.data)
        items = [item for item in parts[split] if source in (None, item.source)]
        return items, sources[source].root if source else settings.data.where
    if source is None and len(sources) > 1:
        raise ConfigError(
            f"--data {data}: the experiment's sources differ in what mask values mean",
            remedy=f"add --source {' or '.join(sources)}",
        )
    folder = Path(data)
    inside = folder / split
    chosen = sources[source] if source else settings.data.sources[0]
    if not inside.is_dir():
        turned = turned_parts(chosen.model_copy(update={"root": data, "parts": list(SPLITS)}), settings.data.inputs)
        chosen = turned.get(split, chosen)
    return find_items(inside if inside.is_dir() else folder, chosen, settings.data.inputs), data


def _default_folder(opened: Opened, data: str | None, split: str, source: str | None, overrides: Sequence[str]) -> Path:
    if data is None and split == "test" and source is None and not overrides:
        return opened.folder if opened.kind == "keras" else opened.folder.parent / f"{opened.folder.name}-evaluation"
    label = Path(data).resolve().name if data else source or "data"
    base = opened.folder if opened.kind == "keras" else opened.folder.parent
    return base / "evaluation" / f"{opened.kind}-{label}-{split}"
