"""The data that an experiment asks for: rendered when they are to be, found, and decoded with a bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.records import IGNORE, Sample
from leakdet_tf.core.tasks import task_named
from leakdet_tf.data import splits
from leakdet_tf.data.cache import Cache, amounts_of, fill, store_for
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import check_root, labelling_of, read, truth_tables
from leakdet_tf.data.store import Rows
from leakdet_tf.jobs.run.runs import Log, check_run
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.training.progress import track


def specs(experiment: Experiment) -> dict[str, ImageSpec]:
    """The model's inputs by name, as ``[data.inputs]`` says."""
    return {
        name: ImageSpec(item.size[0], item.size[1], item.channels, item.dtype, item.fit, item.pad)
        for name, item in experiment.data.inputs.items()
    }


def contract_of(experiment: Experiment, activation: str) -> Contract:
    """The contract of a model that is yet to be trained."""
    own = task_named(experiment.task.kind).FIELDS
    asked = {key: getattr(experiment.evaluate, key) for key in ("nms_iou", "max_boxes") if key in own}
    return Contract(
        task=experiment.task.kind,
        inputs=specs(experiment),
        classes=classes_of(experiment.task.classes, dict(experiment.task.colors)),
        activation=activation,  # type: ignore[arg-type]  # checked by Contract
        experiment=experiment.name,
        **asked,
    )


def check_places(experiment: Experiment) -> None:
    """Check that a run folder can be made and that pictures which are not rendered have a folder, before any work.

    Raises:
        DataError: not so.
    """
    check_run(experiment.runs, experiment.name)
    for source in experiment.data.sources:
        if source.synth is None:
            check_root(source)


def render_if_absent(experiment: Experiment) -> None:
    """Render each ``synth`` table's pictures unless their folder exists; what exists must be what was asked for."""
    for source in experiment.data.sources:
        if source.synth is not None:
            synth = source.synth
            counts = {str(name): count for name, count in synth.counts.items()}
            size = (synth.size[0], synth.size[1])
            asked = Request(synth.generator, counts, size, synth.seed, synth.options, synth.clip)
            make_folder(Path(source.root), asked)


def make_folder(root: Path, request: Request, *, workers: int | None = None, foreign: bool = True) -> bool:
    """Render a folder with a bar. False when it exists already, as it should be.

    ``foreign``: a folder without a manifest is the user's own and taken as it is; otherwise it is an error, unless it
    is empty.

    Raises:
        DataError: no picture is asked for.
    """
    from leakdet_tf.synth.folder.writer import MANIFEST, check_folder, render_folder

    if not sum(request.counts.values()):
        raise DataError(f"{root}: no picture is asked for", remedy="give train, val or test a count of 1 or more")
    if root.exists() and (foreign or (root / MANIFEST).exists()):
        check_folder(root, request)
        return False
    job = render_folder(root, request, workers=workers)
    for _ in track(job, f"rendering {root}", sum(request.counts.values())):
        pass
    return True


def decode_all(
    experiment: Experiment, parts: dict[str, list[Item]], contract: Contract, *, log: Log
) -> dict[str, Cache]:
    """Every split decoded, with a bar each, to where ``data.cache`` says; the log is told when that is the disk.

    Raises:
        DataError: a split is empty, a file is at fault, or there is too little memory or disk.
    """
    for name, items in parts.items():
        if not items:
            raise DataError(
                f"{experiment.data.where}: the {name} split is empty", remedy="fit needs train, val and test"
            )
    caches: dict[str, Cache] = {}
    tables = truth_tables(experiment.data, experiment.task.classes)
    total = sum(map(len, parts.values()))
    store = store_for(total, contract, where=experiment.data.cache, folder=Path(experiment.runs), log=log)
    for name, items in parts.items():
        for step in track(fill(items, contract, tables, store=store), f"reading {name}", len(items)):
            if isinstance(step, Cache):
                caches[name] = step
    return caches


def samples(experiment: Experiment, items: Sequence[Item]) -> Iterable[Sample]:
    """Items decoded one by one, at their own size."""
    tables = truth_tables(experiment.data, experiment.task.classes)
    for item in items:
        yield read(item, tables[item.source]).sample


def often(experiment: Experiment, items: Sequence[Item]) -> list[float]:
    """How often each item is seen in an epoch: its source's weight."""
    weights = {source.name: source.weight for source in experiment.data.sources}
    return [weights[item.source] for item in items]


def contributions(experiment: Experiment, items: Sequence[Item], targets: Rows) -> dict[str, dict[str, Any]]:
    """What each source gives to training: pictures, share of an epoch, and pixels (at the model's size) by label, or,
    to classify, pictures.

    Args:
        experiment: for sources and classes.
        items: the training split.
        targets: the task's, for segmentation uint8 (N, h, w), for classification uint8 (N, C).
    """
    labelling = labelling_of(experiment.data, experiment.task.classes)
    names = [*labelling.names(tuple(experiment.task.classes)), "ignore"]
    seen = often(experiment, items)
    found = {}
    for source in experiment.data.sources:
        chosen = [i for i, item in enumerate(items) if item.source == source.name]
        pixels = amounts_of(task_named(experiment.task.kind), targets, chosen)
        counts = [*pixels[: labelling.count], pixels[IGNORE]]
        found[source.name] = {
            "pictures": len(chosen),
            "weight": source.weight,
            "epoch_share": sum(seen[i] for i in chosen) / sum(seen),
            "pixels": {name: int(count) for name, count in zip(names, counts, strict=True) if count},
        }
    return found


def groups_of(settings: Experiment, items: Sequence[Item]) -> tuple[str, ...]:
    """What each picture belongs to by its source's ``[data.split]``; itself where that has no groups.

    A manifest's groups are those of the pictures that it divides: it says nothing of pictures from elsewhere.
    """
    found: dict[str, str] = {}
    for source in settings.data.sources:
        own = [item for item in items if item.source == source.name]
        ids, split, root = [item.id for item in own], source.split, Path(source.root).resolve()
        if split and not all(path.resolve().is_relative_to(root) for item in own for path in item.images.values()):
            split = split.model_copy(update={"manifest": ""})
        prefix = f"{source.name}/" if settings.data.source else ""
        names = splits.groups_of(ids, split, where=settings.data.where, prefix=prefix)
        found |= zip(ids, names, strict=True)
    return tuple(found[item.id] for item in items)
