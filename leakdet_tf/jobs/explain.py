"""``leakdet-tf explain``: where a run's model looked, as overlays, contact sheets, a table and a pointing score."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from leakdet_tf.analysis.contact import Twins, sheet
from leakdet_tf.analysis.explain import pointing
from leakdet_tf.analysis.explain.pointing import Heat, Pointed, point
from leakdet_tf.analysis.explain.reading import NOT_THERE, NOTHING, UNKNOWN, Case, Reading
from leakdet_tf.analysis.figures import save
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, DataError, ImageError, ModelError, did_you_mean
from leakdet_tf.core.files import whole_file, write_json
from leakdet_tf.core.images import decode_mask
from leakdet_tf.core.records import Origin
from leakdet_tf.core.tasks import task_of
from leakdet_tf.core.tasks.segment import viewable
from leakdet_tf.data.items import Item
from leakdet_tf.data.mask_files import MaskFinder
from leakdet_tf.data.readers import read, truth_tables
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.edge.sums import SUMS
from leakdet_tf.jobs.predict import find_pictures, out_names
from leakdet_tf.jobs.run.partners import pair_pictures
from leakdet_tf.jobs.run.parts import parts_of_run
from leakdet_tf.jobs.run.runs import EXPERIMENT, Log, open_model
from leakdet_tf.jobs.tasks import jobs_task
from leakdet_tf.jobs.tasks.protocol import Asked, Explaining
from leakdet_tf.training.progress import track

SHEET = 24
"""Most pictures on a contact sheet."""
THUMBNAIL = 288
"""Longest side of a picture on it, in pixels."""
FIELDS = ("picture", "class", "score", "decided", "truth", "hit", "chance", "heat_inside", "mask_share", "overlay")
"""The columns of ``explain.csv``."""
TRUTH = "truth"
"""The target that is the true class, unless a class has that name."""


@dataclass(frozen=True)
class Explained:
    """How many pictures were explained, how many could not be read, the pointing score if asked for, and the files."""

    explained: int
    refused: int
    pointing: dict[str, Any] | None
    files: list[Path]


def explain(
    model: str,
    sources: Sequence[str],
    *,
    split: str | None = None,
    masks: bool = False,
    layer: str | None = None,
    target: str | None = None,
    inputs: Mapping[str, str | Path] | None = None,
    out: str,
    log: Log,
) -> Explained:
    """Draw where a model looked: ``<out>/overlays/``, ``sheet_01.png`` and on, ``explain.csv`` and ``explain.json``.

    Args:
        model: a run's folder.
        sources: pictures, folders and patterns, as for ``predict``; none with ``split``.
        split: the experiment's own pictures instead, with their truth; these are scored.
        masks: score ``sources`` too, by the masks that :class:`MaskFinder` finds.
        layer: whose activations are weighted; by default the last of the coarsest resolution.
        target: name of the class to explain; by default a classifier's of the highest score, a segmenter's painted
            one with most pixels. ``truth`` is the true one, whatever was decided: of several a classifier's of the
            highest score, a segmenter's with most pixels.
        inputs: as for ``predict``: folders of a model's other inputs.
        out: folder for the answers.
        log: takes lines for the user; a picture that cannot be read gets one, and the rest go on.

    Raises:
        LeakdetError: it is a bundle, there is no such class, layer or picture, a mask is not of its picture's size, or
            the answers cannot be written.
    """
    run = Path(model)
    if (run / SUMS).is_file():
        raise ModelError(f"{run}: exported files have no gradients to explain them by", remedy="give the run")
    if bool(sources) == bool(split):
        raise ConfigError("explain takes either pictures or --split", remedy="give one of them")
    if split and split not in SPLITS:
        raise ConfigError(f"--split {split}: unknown", remedy=did_you_mean(split, SPLITS))
    pictures = find_pictures(sources)
    opened = open_model(run)
    if opened.note:
        log(opened.note)
    from leakdet_tf.analysis.explain.heat import GradCam

    settings, predictor = load(run / EXPERIMENT), opened.predictor
    task = jobs_task(predictor.contract.task).EXPLAINING
    if task is None:
        raise ModelError(
            f"{run}: is a model to {predictor.contract.task}", remedy="explain takes classifiers and segmenters"
        )
    names = predictor.contract.class_names
    truly = target == TRUTH and target not in names
    if target is not None and not truly and target not in names:
        raise ConfigError(f"--target {target}: no such class", remedy=did_you_mean(target, [*names, TRUTH]))
    by_masks = task_of(predictor.contract).TRUTH == "masks"
    if truly and not split and not (masks and by_masks):
        remedy = "use --split, or --masks" if by_masks else "use --split"
        raise ConfigError(f"--target {TRUTH}: what is true of the pictures is not known", remedy=remedy)
    if split:
        items = parts_of_run(settings, run, log=log)[split]
    else:
        frames = pair_pictures(pictures, opened, inputs, log=log)
        items = _items(frames, settings, predictor.contract, masks=masks)
    index = None if target is None or truly else names.index(target)
    cam = GradCam(predictor.backend.model, layer=layer)  # type: ignore[attr-defined]  # a run's is a KerasBackend
    work = _Work(settings, predictor, task, cam, index, truly=truly, split=bool(split), masks=masks)
    try:
        return work.write(items, Path(out), log, refused=0 if split else len(pictures) - len(items))
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror or error})", remedy="free disk space or change --out"
        ) from error


class _Work:
    """What is done with each picture, and what is kept of it for the sheets and the score."""

    def __init__(
        self,
        settings: Experiment,
        predictor: Predictor,
        task: Explaining,
        cam: Any,
        index: int | None,
        *,
        truly: bool,
        split: bool,
        masks: bool,
    ) -> None:
        self.truly, self.task = truly, task
        self.settings, self.predictor, self.cam, self.index = settings, predictor, cam, index
        self.split, self.scored = split, split or masks
        self.contract = predictor.contract
        self.masks_apart = self.scored and task_of(self.contract).TRUTH != "masks"  # their truth says no place
        self.tables = truth_tables(settings.data, settings.task.classes)
        self.finder = MaskFinder()
        self.pointed: list[Pointed] = []
        self.left_out: Counter[str] = Counter()
        self.shown: list[Twins] = []
        self.sheets: list[Path] = []

    def write(self, items: Sequence[Item], folder: Path, log: Log, *, refused: int) -> Explained:
        names = out_names([item.images[self.contract.primary] for item in items])
        table, number = folder / "explain.csv", len(items) + refused
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="", encoding="utf-8", buffering=1) as file:
            writer = csv.DictWriter(file, fieldnames=FIELDS, lineterminator="\n")
            writer.writeheader()
            for item in track(items, "explaining", len(items)):
                path = item.images[self.contract.primary]
                try:
                    case = self.case(item)
                except ImageError as error:
                    log(str(error))
                    refused += 1
                    continue
                writer.writerow(self.row(case, path, folder / "overlays" / f"{names[path]}.png"))
                if len(self.shown) == SHEET:
                    self.flush(folder)
        self.flush(folder)
        found = pointing.summary(self.pointed, confidence=self.settings.evaluate.confidence) if self.scored else None
        about = {
            "experiment": self.settings.name,
            "model": self.contract.id,
            "layer": self.cam.layer,
            "target": self.target,
            "explained": number - refused,
            "refused": refused,
            "pointing": found,
            "not_counted": dict(self.left_out),
        }
        write_json(folder / "explain.json", about)
        if found is not None:
            for line in [*pointing.lines(found), *self.counted()]:
                log(line)
        return Explained(number - refused, refused, found, [table, folder / "explain.json", *self.sheets])

    @property
    def target(self) -> str:
        if self.index is None:
            return TRUTH if self.truly else "decided"
        return self.contract.class_names[self.index]

    def counted(self) -> list[str]:
        """Of how many pictures the score is, and why the others are not in it."""
        whole = len(self.pointed) + self.left_out.total()
        chosen = self.left_out[NOT_THERE] and self.target == "decided"
        rest = f": where the class that was decided is there; --target {TRUTH} scores the true one" if chosen else ""
        lines = [f"not counted, {why}: {number}" for why, number in self.left_out.items()]
        return [f"scored: {len(self.pointed)} of {whole} pictures{rest}", *lines]

    def case(self, item: Item) -> Case:
        path = item.images[self.contract.primary]
        if self.split or item.mask:
            sample = read(item, self.tables[item.source]).sample
            images, truth = sample.images, sample.truth
        else:
            images, truth = self.predictor.load(item.images), None
        file = self.finder.find(path) if self.masks_apart else None
        if file is None:
            return Case(images, truth)
        mask, size = decode_mask(file), images[self.contract.primary].shape[:2]
        if mask.shape != size:
            raise DataError(
                f"{file}: is {mask.shape[1]}x{mask.shape[0]} px, its picture {path.name} {size[1]}x{size[0]}",
                remedy="a mask has its picture's size",
            )
        return Case(images, truth, mask, self.finder.names(path))

    def row(self, case: Case, path: Path, drawn: Path) -> dict[str, Any]:
        from leakdet_tf.analysis.explain.heat import overlay, spread, thumbnail

        image = case.images[self.contract.primary]
        predicted, asked = self.predictor.predict(case.images), Asked(self.contract, self.index, self.truly)
        reading = self.task.read(predicted, case.truth, asked)
        inputs, geometry = self.contract.prepare(case.images)
        heat: Heat = np.zeros(image.shape[:2], np.float32)
        if reading.index is not None:
            batch = {name: pixels[None] for name, pixels in inputs.items()}
            heat = spread(self.cam(batch, target=reading.index)[0], geometry)
        mask, why = self.task.mask_of(case, reading, asked)
        pointed = point(heat, mask) if self.scored and mask is not None and not why else None
        if pointed is not None:
            self.pointed.append(pointed)
        elif self.scored:
            self.left_out[why] += 1
        picture = overlay(image, heat)
        with whole_file(drawn) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
        name = "" if reading.index is None else self.contract.class_names[reading.index]
        pair = (thumbnail(viewable(image), THUMBNAIL), thumbnail(picture, THUMBNAIL, heat=heat, mask=mask))
        under = (path.name, f"heat of {name}" if name else UNKNOWN if self.truly else NOTHING)
        self.shown.append(Twins(*pair, under, caption(reading, pointed)))
        return {
            "picture": str(path),
            "class": name,
            "score": _text(reading.score),
            "decided": reading.decided,
            "truth": reading.truth,
            "hit": "" if pointed is None else int(pointed.hit),
            "chance": _text(None if pointed is None else pointed.chance),
            "heat_inside": _text(None if pointed is None else pointed.inside),
            "mask_share": _text(None if pointed is None else pointed.area),
            "overlay": str(drawn),
        }

    def flush(self, folder: Path) -> None:
        if not self.shown:
            return
        title = f"{self.settings.name}: heat at {self.cam.layer}, each map scaled to its own maximum (cross)"
        title += "; the truth outlined in cyan" if self.scored else ""
        self.sheets.append(folder / f"sheet_{len(self.sheets) + 1:02d}.png")
        save(sheet(self.shown, title), self.sheets[-1])
        self.shown = []


def caption(reading: Reading, pointed: Pointed | None) -> str:
    """A line for the contact sheet: decided, score of the class explained, truth, and whether the maximum is on it."""
    parts = [reading.decided + ("" if reading.score is None else f" {reading.score:.2f}")]
    if reading.truth:
        parts.append(f"truth {reading.truth}")
    if pointed is not None:
        parts.append(f"{'hit' if pointed.hit else 'miss'} (chance {pointed.chance:.0%})")
    return " · ".join(parts)


def _items(frames: Sequence[dict[str, Path]], settings: Experiment, contract: Contract, *, masks: bool) -> list[Item]:
    # Pictures as if a reader had found them; a segmenter's with their masks, whose values its source explains.
    first, *others = settings.data.sources
    wanted = masks and task_of(contract).TRUTH == "masks"
    if wanted and others:
        raise ConfigError(
            "--masks: the experiment's sources differ in what mask values mean", remedy="use --split, or leave it out"
        )
    finder = MaskFinder(first.masks)
    return [
        Item(str(path), frame, finder.find(path) if wanted else None, Origin(str(path)), first.name)
        for frame in frames
        for path in (frame[contract.primary],)
    ]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
