"""Boxes in memory and in batches: void rows, static shapes, mosaic that ends, streams that go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from leakdet_tf.config.data import Augment, Data
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks import task_of
from leakdet_tf.core.tasks.detect import VOID
from leakdet_tf.data import cache as room
from leakdet_tf.data.cache import Cache, bytes_needed, fill, stacked
from leakdet_tf.data.mosaic import changed_picture
from leakdet_tf.data.pipeline import plain, training
from leakdet_tf.data.readers import find_items, read, truth_tables

Array = np.ndarray[Any, Any]
CLASSES = ["hotspot", "diode"]
SIZE = (32, 64)
MOVES = {"shift": 0.2, "scale": 0.4, "rotation": 10.0, "hue": 0.1}
VOID_ROW = [0, 0, 0, 0, VOID, 0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of 40x20 px with 0 to 4 boxes, YOLO."""
    random = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(5):
        Image.fromarray(random.integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(tmp_path / f"images/p{number}.png")
        lines = [f"{row % 2} 0.5 0.5 {0.1 * (row + 1):.1f} 0.5" for row in range(number)]
        (tmp_path / f"labels/p{number}.txt").write_text("\n".join(lines))
    return tmp_path


def filled(folder: Path, **keys: Any) -> tuple[Cache, Contract, list[Any]]:
    table = {"root": str(folder), "labels": "yolo", "inputs": {"image": {"size": list(SIZE)}}} | keys
    data = Data.model_validate(table)
    items = find_items(folder, data.sources[0], data.inputs)
    agreed = Contract("detect", {"image": ImageSpec(*SIZE, 3, fit="letterbox")}, classes_of(CLASSES), "linear")
    tables = truth_tables(data, CLASSES)
    *counted, found = fill(items, agreed, tables)
    assert counted == list(range(1, len(items) + 1)) and isinstance(found, Cache)
    truths = [read(item, tables["data"]).sample.truth for item in items]
    return found, agreed, truths


def test_the_cache_holds_boxes_in_the_models_pixels_and_void_rows(folder: Path) -> None:
    found, agreed, truths = filled(folder)
    assert (found.targets.dtype, found.targets.shape) == (np.float32, (5, 4, 6))
    geometry = agreed.inputs["image"].apply(np.zeros((20, 40, 3), np.uint8))[1]
    for number, truth in enumerate(truths):
        assert len(truth) == number
        assert np.array_equal(found.targets[number, :number], task_of(agreed).targets(truth, geometry))
        assert (found.targets[number, number:] == VOID_ROW).all()
        pixels, boxes = found.fetch(number)
        assert boxes.shape == (number, 6) and pixels["image"].shape == (*SIZE, 3)
    assert list(task_of(agreed).amounts(found.targets)[:2]) == [6, 4]
    assert found.size == SIZE


def test_a_split_of_negatives_has_one_void_row(folder: Path) -> None:
    for path in (folder / "labels").iterdir():
        path.write_text("\n")
    assert filled(folder)[0].targets.tolist() == [[VOID_ROW]] * 5


def test_memory_is_told_with_the_boxes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, agreed, _ = filled(folder)
    assert bytes_needed(3, agreed, boxes=7) == 3 * (32 * 64 * 3 + 7 * 6 * 4)
    monkeypatch.setattr(room, "free_bytes", lambda: 10_000)
    with pytest.raises(DataError, match="5 pictures take"):
        filled(folder)


def test_more_boxes_than_rows_leave_the_largest() -> None:
    boxes = np.zeros((3, 6), np.float32)
    boxes[:, 2:4] = [[3, 3], [1, 1], [2, 9]]
    assert stacked([boxes, boxes[:0]], 2)[0, :, 3].tolist() == [3, 9]
    assert (stacked([boxes[:0]], 2) == VOID_ROW).all()


def batches(cache: Cache, *, settings: dict[str, float], epochs: int = 2, first: int = 0, **keys: Any) -> list[Any]:
    augment = Augment.model_validate(settings)
    stream = training(cache, batch_size=2, seed=3, settings=augment, epochs=epochs, first_epoch=first, **keys)
    return [[one.inputs["image"].numpy(), one.targets.numpy(), one.weights.numpy()] for one in stream]


def same(ours: list[Any], others: list[Any]) -> bool:
    return len(ours) == len(others) and all(
        np.array_equal(x, y) for one, other in zip(ours, others, strict=True) for x, y in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("extra", "most"), [({}, 4), ({"mosaic": 0.5}, 16), ({"mosaic": 0.5, "mixup": 0.5}, 32)])
def test_batches_are_static_and_fillers_are_void(folder: Path, extra: dict[str, float], most: int) -> None:
    cache, _, _ = filled(folder)
    settings = Augment.model_validate(MOVES | extra)
    stream = training(cache, batch_size=2, seed=3, settings=settings, epochs=2)
    assert stream.element_spec.targets == tf.TensorSpec((2, most, 6), tf.float32)
    assert stream.element_spec.inputs["image"] == tf.TensorSpec((2, *SIZE, 3), tf.uint8)
    found = list(stream)
    assert len(found) == 6
    for batch in (found[2], found[5], list(plain(cache, batch_size=2))[2]):
        assert batch.weights.numpy().tolist() == [2.0, 0.0]
        assert (batch.targets.numpy()[1] == VOID_ROW).all()
    held = np.concatenate([batch.targets.numpy() for batch in found])
    assert set(np.unique(held[..., 4])) <= {VOID, 0.0, 1.0} and (held[held[..., 4] == VOID] == VOID_ROW).all()


def test_plain_batches_are_the_cache(folder: Path) -> None:
    cache, _, _ = filled(folder)
    stream = plain(cache, batch_size=5)
    assert stream.element_spec.targets == tf.TensorSpec((5, 4, 6), tf.float32)
    (batch,) = stream
    assert np.array_equal(batch.targets.numpy(), cache.targets)
    assert np.array_equal(batch.inputs["image"].numpy(), cache.inputs["image"])


def test_a_stream_that_begins_later_goes_on_as_the_whole(folder: Path) -> None:
    cache, _, _ = filled(folder)
    settings = MOVES | {"mosaic": 0.7, "mixup": 0.3, "mosaic_close": 1}
    whole = batches(cache, settings=settings, epochs=4)
    assert same(whole, batches(cache, settings=settings, epochs=4))
    assert same(whole[6:], batches(cache, settings=settings, epochs=4, first=2))
    assert same(whole[:6], batches(cache, settings=settings, epochs=2, last_epoch=4))
    assert not same(whole[:6], batches(cache, settings=settings, epochs=2))


def test_the_last_epochs_are_without_mosaic_and_mixup(folder: Path) -> None:
    cache, _, _ = filled(folder)
    mixed = batches(cache, settings=MOVES | {"mosaic": 1.0, "mixup": 1.0, "mosaic_close": 2}, epochs=3)
    alone = batches(cache, settings=MOVES, epochs=3)
    for place, (one, other) in enumerate(zip(mixed, alone, strict=True)):
        assert np.array_equal(one[0], other[0]) == (place >= 3)
        if place >= 3:
            assert np.array_equal(one[1][:, :4], other[1]) and (one[1][:, 4:] == VOID_ROW).all()


def test_a_batch_holds_the_pictures_that_their_places_make(folder: Path) -> None:
    cache, _, _ = filled(folder)
    settings = MOVES | {"mosaic": 0.5, "mosaic_close": 0}
    often = [1.0, 2.0, 1.0, 1.0, 1.0]
    found = batches(cache, settings=settings, epochs=1, weights=often)
    made = [
        changed_picture(
            cache.fetch, often, Augment.model_validate(settings), size=SIZE, seed=3, epoch=0, index=index, copy=copy
        )
        for index in range(5)
        for copy in range(int(often[index]))
    ]
    rows = {boxes.tobytes() + image["image"].tobytes() for image, boxes in made}
    seen = set()
    for images, targets, weights in found:
        for image, boxes in zip(images[weights > 0], targets[weights > 0], strict=True):
            seen.add(boxes[boxes[:, 4] != VOID].tobytes() + image.tobytes())
    assert seen == rows
