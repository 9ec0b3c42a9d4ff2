"""``data show``, ``data split`` and the figure of leaks where truth is boxes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.analysis.detect.answers import answers_of
from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.records import Boxes, Origin, Sample
from leakdet_tf.data.cache import Cache, fill
from leakdet_tf.data.mosaic import changed_picture
from leakdet_tf.data.readers import find_splits, truth_tables
from leakdet_tf.jobs import data_show as show
from leakdet_tf.jobs.data_check import inflation_of
from leakdet_tf.jobs.data_split import NONE, parts_of, rows
from leakdet_tf.jobs.run.data import contract_of
from leakdet_tf.jobs.tasks import detect

EXPERIMENT = """
name = "boxed"
[task]
kind = "detect"
classes = ["hotspot", "diode"]
[data]
root = "ROOT"
labels = "yolo"
values = {0 = "hotspot", 1 = "diode", 2 = "ignore"}
[data.inputs.image]
size = [32, 64]
fit = "letterbox"
[data.augment]
shift = 0.1
rotation = 10.0
mosaic = 0.8
mosaic_close = 1
mixup = 0.4
chance = 0.0
hue = 0.1
[model]
factory = "yolov8"
[train]
epochs = 3
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Three splits of six pictures with none to two boxes and, in every third, an ignored region."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for folder in ("images", "labels"):
            (tmp_path / split / folder).mkdir(parents=True)
        for number in range(6):
            pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / f"images/{number}.png")
            lines = ["0 .5 .5 .4 .4", "1 .2 .2 .2 .2"][: number % 3] + ["2 .8 .8 .2 .2"][: number % 3 == 0]
            (tmp_path / split / f"labels/{number}.txt").write_text("\n".join(lines))
    path = tmp_path / "boxed.toml"
    path.write_text(EXPERIMENT.replace("ROOT", str(tmp_path)))
    return path


def filled(path: Path) -> tuple[Any, Any, Cache, Any]:
    settings = load(path)
    items = find_splits(settings.data)["train"]
    contract = contract_of(settings, "linear")
    *_, cache = fill(items, contract, truth_tables(settings.data, settings.task.classes))
    assert isinstance(cache, Cache)
    return settings, items, cache, contract


@pytest.mark.parametrize("alone", [False, True])
def test_the_figure_is_drawn(experiment: Path, tmp_path: Path, alone: bool) -> None:
    out = show.show(str(experiment), number=2, versions=3, alone=alone, out=str(tmp_path / "f.png"))
    with Image.open(out) as picture:
        assert min(picture.size) > 300


def test_what_is_shown_is_what_training_sees(experiment: Path) -> None:
    settings, items, whole, contract = filled(experiment)
    places = [1, 4]
    chosen = show._decoded(settings, [items[place] for place in places], contract)
    shown = show._box_versions(chosen, settings, items, places, range(4), contract)
    mixed = 0
    for place, row in zip(places, shown, strict=True):
        for epoch, panel in enumerate(row.after):
            inputs, boxes = changed_picture(
                whole.fetch,
                [1.0] * 6,
                settings.data.augment,
                size=whole.size,
                seed=settings.seed,
                epoch=epoch,
                index=place,
                composed=epoch < 2,  # of three epochs the last is without
            )
            assert np.array_equal(panel.inputs["image"], inputs["image"]) and np.array_equal(panel.boxes, boxes)
            mixed += len(boxes) > len(row.before.boxes)
    assert mixed


def test_what_is_switched_on_counts_mosaic_but_not_when_it_ends(experiment: Path) -> None:
    on = show.switched_on(load(experiment).data.augment)
    assert on == ["flip_horizontal", "shift", "rotation", "brightness", "contrast", "mosaic", "mixup"]


def test_a_division_is_told_by_the_classes_that_pictures_hold(experiment: Path) -> None:
    divided = {"pool": True, "train": 0.5, "val": 0.25, "test": 0.25}
    data = load(experiment).data.model_copy(update={"split": None})
    data = type(data).model_validate(data.model_dump(exclude_unset=True) | {"split": divided})
    source = data.sources[0]
    parts = parts_of(data, source)
    found = rows(parts, data, source, ["hotspot", "diode"])
    total = {label: sum(row.pictures for row in found if row.label == label) for label in ("hotspot", "diode", NONE)}
    assert total == {"hotspot": 12, "diode": 6, NONE: 6}
    parts["test"][0].boxes.write_text("9 .5 .5 .1 .1")  # type: ignore[union-attr]
    with pytest.raises(DataError, match="its class '9' means nothing"):
        rows(parts, data, source, ["hotspot", "diode"])


def test_leaked_pictures_that_are_answered_better_inflate_map50(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(experiment)
    true = np.array([[2, 2, 12, 12, 0, 0]], np.float32)
    truths, answers = [], []
    for number in range(8):
        right = number < 4
        found = true[:, :4] if right else true[:, :4] + 15
        score = np.array([0.9 if right else 0.8], np.float32)
        image = {"image": np.zeros((32, 32, 3), np.uint8)}
        truths.append(Sample(f"p{number}", image, true, Origin("x")))
        label = np.zeros(1, np.int64)
        answers.append(Boxes(boxes=found, scores=score, labels=label, classes=("hotspot", "diode"), size=(32, 32)))
    given = answers_of(truths, answers, sources=("data",) * 8, groups=tuple(sample.id for sample in truths))
    monkeypatch.setattr(detect, "answer", lambda *_: given)
    leaked = np.arange(8) < 2
    contract = SimpleNamespace(class_names=("hotspot", "diode"))
    opened = SimpleNamespace(predictor=SimpleNamespace(contract=contract))
    monkeypatch.setattr("leakdet_tf.jobs.run.runs.open_model", lambda _: opened)
    told = inflation_of(settings, "somewhere", [], leaked)
    assert told.figure == "mAP50"
    assert (round(told.whole, 2), round(told.rest, 2)) == (0.5, 0.34)  # of 101 steps of recall 51, 34
    assert told.low <= told.whole - told.rest <= told.high and told.high > 0.1
    assert told.line(0.95).startswith("mAP50 on test: 0.50")
