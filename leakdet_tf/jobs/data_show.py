"""``leakdet-tf data show``: pictures before and after augmentation, drawn as training will see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from leakdet_tf.analysis.changes import Panel, Row, changes, points
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.data import Augment
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.core.images import Pixels
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks import task_named
from leakdet_tf.data.augmentation import augment, augment_alone, only, training_key
from leakdet_tf.data.augmentation_boxes import Boxes, augment_boxes_alone
from leakdet_tf.data.cache import Cache, fill
from leakdet_tf.data.items import Item
from leakdet_tf.data.mosaic import changed_picture
from leakdet_tf.data.readers import truth_tables
from leakdet_tf.jobs.data_check import Log
from leakdet_tf.jobs.run.data import contract_of, often, render_if_absent
from leakdet_tf.jobs.run.parts import parts_of_run

MOST_PICTURES, MOST_VERSIONS = 40, 12
_COMPOSED = ("mosaic", "mixup")


def show(
    path: str,
    overrides: Sequence[str] = (),
    *,
    split: str = "train",
    number: int = 6,
    versions: int = 4,
    epoch: int = 0,
    alone: bool = False,
    out: str = "augmented.png",
    log: Log = lambda line: None,
) -> Path:
    """Draw samples before and after augmentation.

    Args:
        path: the experiment file.
        overrides: ``key=value`` overrides of it.
        split: which pictures; only those of ``train`` are changed in training.
        number: how many, spread evenly over the split and over its sources.
        versions: how many changed ones of each: those of epochs ``epoch``, ``epoch + 1`` and so on, exactly as the
            training stream makes them.
        epoch: the first epoch to show, counted from 0.
        alone: instead, a row for each change that is switched on, alone and at its full strength.
        out: the PNG file to write.
        log: takes lines for the user: what is left out, where ``path`` is that of a run which left files out.

    Returns:
        The file.

    Raises:
        ConfigError: the experiment, the split's name or a number is wrong, or ``alone`` finds nothing switched on.
        DataError: a picture cannot be read, or the file cannot be written.
    """
    file = Path(out)
    _check(split, number, versions, epoch, file)
    experiment = load(path, overrides)
    settings = experiment.data.augment
    on = switched_on(settings)
    if alone and not on:
        raise ConfigError(f"{path}: data.augment has no strength above 0", remedy="set some, such as rotation = 10")
    render_if_absent(experiment)
    items = parts_of_run(experiment, Path(path).parent, log=log)[split]
    if not items:
        raise DataError(f"{experiment.data.where}: the {split} split is empty", remedy="choose another --split")
    if alone:
        number = min(len(on), len(items))
    elif number > len(items):
        raise ConfigError(f"--number {number}: the {split} split holds {len(items)}", remedy=f"at most {len(items)}")
    contract = contract_of(experiment, task_named(experiment.task.kind).ACTIVATIONS[-1])
    places = spread([item.source for item in items], number)
    cache = _decoded(experiment, [items[place] for place in places], contract)
    note = "switched on: " + ", ".join(f"{name}\u00a0{getattr(settings, name):g}" for name in on)
    if alone:
        figure = changes(
            _boxes_alone(cache, settings, on) if cache.of_boxes else _alone(cache, settings, on),
            ["", ""],
            contract,
            title=f"{experiment.name}: each change alone, as strong as data.augment allows",
            note="What goes two ways is shown at both ends of its range, the rest at half and at all of its strength.",
            blocks=2 if len(on) > 4 else 1,
        )
    else:
        epochs = range(epoch, epoch + versions)
        if cache.of_boxes:
            shown = _box_versions(cache, experiment, items, places, epochs, contract)
        else:
            shown = _versions(cache, experiment, places, epochs)
        figure = changes(
            shown,
            [f"epoch {number}" for number in range(epoch, epoch + versions)],
            contract,
            title=f"{experiment.name}: pictures of {split} before and after augmentation (seed {experiment.seed})",
            note=note if on else "no change is switched on",
        )
    try:
        save(figure, file)
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror or error})", remedy="change --out") from error
    return file


def switched_on(settings: Augment) -> list[str]:
    """The changes whose strength is above 0, in the order of the experiment file's reference."""
    names = list(Augment.model_fields)
    by_chance = [name for name in names[names.index("chance") + 1 :] if name not in _COMPOSED]
    on = [name for name in names if name not in ("chance", "mosaic_close") and getattr(settings, name)]
    return [name for name in on if settings.chance or name not in by_chance]


def spread(sources: Sequence[str], number: int) -> list[int]:
    """``number`` places of a split, sorted: as many from each source as can be, each source's evenly spaced.

    Args:
        sources: the source of each picture in the split.
        number: how many to choose, at most ``len(sources)``.
    """
    places = {name: [i for i, source in enumerate(sources) if source == name] for name in dict.fromkeys(sources)}
    quota = dict.fromkeys(places, 0)
    while sum(quota.values()) < number:
        for name in [name for name in places if quota[name] < len(places[name])][: number - sum(quota.values())]:
            quota[name] += 1
    chosen = []
    for name, own in places.items():
        chosen += [own[(2 * i + 1) * len(own) // (2 * quota[name])] for i in range(quota[name])]
    return sorted(chosen)


def _check(split: str, number: int, versions: int, epoch: int, file: Path) -> None:
    if split not in SPLITS:
        raise ConfigError(f"--split {split}: no such split", remedy=f"one of {', '.join(SPLITS)}")
    for option, value, low, high in (
        ("number", number, 1, MOST_PICTURES),
        ("versions", versions, 1, MOST_VERSIONS),
        ("epoch", epoch, 0, 2**31 - 1),
    ):
        if not low <= value <= high:
            raise ConfigError(f"--{option} {value}: out of range", remedy=f"{low} to {high}")
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--out {file}: is not the name of a PNG file", remedy="let it end in .png")
    if file.is_dir():
        raise ConfigError(f"--out {file}: is a folder", remedy="name a file in it")


def _decoded(experiment: Experiment, items: Sequence[Item], contract: Contract) -> Cache:
    *_, cache = fill(items, contract, truth_tables(experiment.data, experiment.task.classes))
    assert isinstance(cache, Cache)  # what fill yields last
    if len(cache.targets.shape) < 3:  # what is said of whole pictures does not move with them: nothing is outlined
        return replace(cache, targets=np.full((len(cache), *contract.inputs[contract.primary].size), IGNORE, np.uint8))
    return cache


def _sample(cache: Cache, row: int) -> Panel:
    return Panel({name: images[row] for name, images in cache.inputs.items()}, cache.targets[row])


def _versions(cache: Cache, experiment: Experiment, places: Sequence[int], epochs: Sequence[int]) -> list[Row]:
    rows = []
    for row, place in enumerate(places):
        before = _sample(cache, row)
        keys = [training_key(experiment.seed, epoch=epoch, index=place) for epoch in epochs]
        after = [augment(before.inputs, before.truth, experiment.data.augment, key=key) for key in keys]
        rows.append(Row(_short(cache.ids[row]), before, [Panel(*changed) for changed in after]))
    return rows


def _alone(cache: Cache, settings: Augment, names: Sequence[str]) -> list[Row]:
    rows = []
    for number, name in enumerate(names):
        before = _sample(cache, number % len(cache))
        after = [
            Panel(*augment_alone(before.inputs, before.truth, settings, name, point=point), caption)
            for point, caption in points(settings, name)
        ]
        rows.append(Row(name, before, after))
    return rows


def _boxed(cache: Cache, row: int) -> Panel:
    inputs, boxes = cache.fetch(row)
    return Panel(inputs, np.zeros(cache.size, np.uint8), boxes=boxes)


def _box_versions(
    cache: Cache,
    experiment: Experiment,
    items: Sequence[Item],
    places: Sequence[int],
    epochs: Sequence[int],
    contract: Contract,
) -> list[Row]:
    settings = experiment.data.augment
    closing = experiment.train.total_epochs - settings.mosaic_close
    known = {place: cache.fetch(row) for row, place in enumerate(places)}
    frame = np.zeros(cache.size, np.uint8)

    def fetch(place: int) -> tuple[dict[str, Pixels], Boxes]:
        if place not in known:  # one that a mosaic or mixup draws
            known[place] = _decoded(experiment, [items[place]], contract).fetch(0)
        return known[place]

    rows = []
    for row, place in enumerate(places):
        after = []
        for epoch in epochs:
            inputs, boxes = changed_picture(
                fetch,
                often(experiment, items),
                settings,
                size=cache.size,
                seed=experiment.seed,
                epoch=epoch,
                index=place,
                composed=epoch < closing,
            )
            after.append(Panel(inputs, frame, boxes=boxes))
        rows.append(Row(_short(cache.ids[row]), _boxed(cache, row), after))
    return rows


def _boxes_alone(cache: Cache, settings: Augment, names: Sequence[str]) -> list[Row]:
    rows = []
    for number, name in enumerate(names):
        before, after = _boxed(cache, number % len(cache)), []
        for point, caption in points(settings, name):
            assert before.boxes is not None
            if name in _COMPOSED:
                inputs, boxes = changed_picture(
                    cache.fetch,
                    [1.0] * len(cache),
                    only(settings, name).model_copy(update={name: 1.0}),
                    size=cache.size,
                    seed=0,
                    epoch=0,
                    index=number % len(cache),
                )
            else:
                inputs, boxes = augment_boxes_alone(
                    before.inputs, before.boxes, settings, name, size=cache.size, point=point
                )
            after.append(Panel(inputs, before.truth, caption, boxes))
        rows.append(Row(name, before, after))
    return rows


def _short(text: str) -> str:
    return text if len(text) <= 22 else "…" + text[-21:]
