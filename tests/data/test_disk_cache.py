"""A split on the disk: the batches of one in memory, bit for bit, of every task; chosen as asked; memory stays flat."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leakdet_tf.config.data import Augment, Data
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks import task_of
from leakdet_tf.data import cache as room
from leakdet_tf.data.cache import Cache, amounts_of, bytes_needed, bytes_stored, fill, store_for
from leakdet_tf.data.checks import cheap
from leakdet_tf.data.items import Item
from leakdet_tf.data.pipeline import plain, plain_disk_errors, training
from leakdet_tf.data.readers import find_items, truth_tables
from leakdet_tf.data.store import Store, Stored

MOVING = {"flip_vertical": 0.5, "shift": 0.2, "scale": 0.3, "rotation": 20.0, "blur": 1.0, "noise": 0.1}
COUNT = 11
FLAT = """
import json, re, sys
from pathlib import Path
from leakdet_tf.config.data import Data
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks import task_of
from leakdet_tf.data.cache import amounts_of, bytes_stored, fill
from leakdet_tf.data.checks import cheap
from leakdet_tf.data.readers import find_items, truth_tables
from leakdet_tf.data.store import Store

def own():
    return [int(re.search(rf"{key}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
            for key in ("RssAnon", "VmRSS")]

root = Path(sys.argv[1])
data = Data.model_validate({"root": str(root), "values": {"0": "background", "1": "blob", "255": "ignore"},
                            "inputs": {"image": {"size": [256, 256]}}})
agreed = Contract("segment", {"image": ImageSpec(256, 256)}, classes_of(["background", "blob"]))
tables = truth_tables(data, ["background", "blob"])
items = find_items(root, data.sources[0], data.inputs)
list(fill(items[:8], agreed, tables))  # threads, decoders
size, grown = bytes_stored(len(items), agreed), {}
for where in ("disk", "memory"):
    before = own()
    store = Store(root, size) if where == "disk" else None
    *_, cache = fill(items, agreed, tables, store=store)
    amounts_of(task_of(agreed), cache.targets)
    cheap({"train": items}, {"train": cache}, data, ["background", "blob"], task_of(agreed))
    grown[where] = [now - then for now, then in zip(own(), before)]
print(json.dumps({"size": size, **grown}))
"""


@pytest.fixture(params=["segment", "classify", "detect"])
def task(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Data, Contract, list[Item]]:
    """Eleven pictures, of 8 and 16 bits to segment, and what they are to become."""
    kind, random = request.param, np.random.default_rng(0)
    classes, folder = ["background", "blob"], tmp_path / "data"
    table: dict[str, Any] = {"root": str(folder), "inputs": {"image": {"size": [16, 24]}}}
    specs = {"image": ImageSpec(16, 24)}
    if kind == "segment":
        table["values"] = {"0": "background", "1": "blob", "255": "ignore"}
        table["inputs"]["heat"] = {"size": [8, 10], "folder": "heat", "dtype": "uint16", "channels": 1}
        specs["heat"] = ImageSpec(8, 10, 1, "uint16")
    else:
        table["labels"] = "folders" if kind == "classify" else "yolo"
    for number in range(COUNT):
        place = folder / (classes[number % 2] if kind == "classify" else "images")
        for own in (place, folder / "masks", folder / "heat", folder / "labels"):
            own.mkdir(parents=True, exist_ok=True)
        name = f"p{number:02d}.png"
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(place / name)
        Image.fromarray(random.choice(np.array([0, 1, 255], np.uint8), (20, 30))).save(folder / "masks" / name)
        Image.fromarray(random.integers(0, 65536, (20, 30)).astype(np.uint16)).save(folder / "heat" / name)
        lines = [f"{row % 2} 0.5 0.5 {0.2 * (row + 1):.1f} 0.5" for row in range(number % 4)]
        (folder / "labels" / f"p{number:02d}.txt").write_text("\n".join(lines))
    if kind == "classify":
        for own in ("masks", "heat", "labels"):
            for path in (folder / own).iterdir():
                path.unlink()
            (folder / own).rmdir()
    data = Data.model_validate(table)
    items = find_items(folder, data.sources[0], data.inputs)
    assert len(items) == COUNT
    return kind, data, Contract(kind, specs, classes_of(classes), "linear" if kind == "detect" else "softmax"), items


def filled(data: Data, agreed: Contract, items: list[Item], store: Store | None) -> Cache:
    *_, found = fill(items, agreed, truth_tables(data, agreed.class_names), store=store)
    assert isinstance(found, Cache)
    return found


def batches(stream: Any) -> list[list[np.ndarray]]:
    return [[*(one.inputs[name].numpy() for name in sorted(one.inputs)), one.targets.numpy()] for one in stream]


def test_the_batches_are_those_from_memory(task: tuple[str, Data, Contract, list[Item]], tmp_path: Path) -> None:
    kind, data, agreed, items = task
    store = Store(tmp_path / "runs", bytes_stored(COUNT, agreed))
    memory, disk = filled(data, agreed, items, None), filled(data, agreed, items, store)
    assert all(isinstance(rows, Stored) for rows in disk.inputs.values())
    assert isinstance(disk.targets, Stored) == (kind == "segment"), "labels and boxes are small"
    assert (disk.store, memory.store) == (store, None)
    assert (disk.ids, disk.digests, disk.sha256) == (memory.ids, memory.digests, memory.sha256)
    settings = Augment.model_validate(MOVING | ({"mosaic": 0.7, "mixup": 0.5} if kind == "detect" else {}))
    often = [1.0 + (i % 3) / 2 for i in range(COUNT)]
    keys = {"batch_size": 4, "seed": 3, "settings": settings, "epochs": 3, "weights": often, "last_epoch": 20}
    for make in (lambda cache: training(cache, **keys), lambda cache: plain(cache, batch_size=4)):
        ours, others = batches(make(disk)), batches(make(memory))
        assert len(ours) == len(others) >= 3
        for one, other in zip(ours, others, strict=True):
            for x, y in zip(one, other, strict=True):
                assert x.dtype == y.dtype
                np.testing.assert_array_equal(x, y)
    whole = task_of(agreed).amounts(memory.targets)
    assert np.array_equal(amounts_of(task_of(agreed), disk.targets), whole)
    places = [9, 0, 5]
    assert np.array_equal(
        amounts_of(task_of(agreed), disk.targets, places), task_of(agreed).amounts(memory.targets[places])
    )
    parts = {"train": items}
    assert cheap(parts, {"train": disk}, data, agreed.class_names, task_of(agreed)) == cheap(
        parts, {"train": memory}, data, agreed.class_names, task_of(agreed)
    )


def test_targets_are_counted_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_AT_A_TIME", 4 * 25)
    masks = np.random.default_rng(0).integers(0, 3, (11, 5, 5)).astype(np.uint8)
    task = task_of(Contract("segment", {"image": ImageSpec(5, 5)}, classes_of(["a", "b", "c"])))
    assert np.array_equal(amounts_of(task, masks), np.bincount(masks.ravel(), minlength=256))
    assert np.array_equal(amounts_of(task, masks, [3, 4, 5, 6, 10]), task.amounts(masks[[3, 4, 5, 6, 10]]))
    assert not amounts_of(task, masks, []).any()


def agreed_of(size: int = 32) -> Contract:
    return Contract("segment", {"image": ImageSpec(size, size)}, classes_of(["background", "blob"]))


@pytest.mark.parametrize("where", ["auto", "memory", "disk"])
@pytest.mark.parametrize(("share", "fits"), [(0.81, False), (0.79, True), (0.0, True)])
def test_which_it_is(where: Any, share: float, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 % of what is free; a system that does not tell (0 here) has enough."""
    agreed, lines = agreed_of(), list[str]()
    needed = bytes_needed(1000, agreed)
    assert needed == bytes_stored(1000, agreed) == 1000 * 32 * 32 * 4
    monkeypatch.setattr(room, "free_bytes", lambda: int(needed / share) if share else None)
    keys: dict[str, Any] = {"where": where, "folder": tmp_path / "runs", "log": lines.append}
    if where == "memory" and not fits:
        with pytest.raises(
            DataError, match=r"1000 pictures take 4 MiB of memory .*, 5 MiB are free; set data\.cache ="
        ):
            store_for(1000, agreed, **keys)
        return
    store = store_for(1000, agreed, **keys)
    assert (store is not None) == (where == "disk" or (where == "auto" and not fits))
    kept = f"decoded pictures are kept on the disk: 4 MiB in {tmp_path / 'runs'}"
    lack = "" if fits else "1000 pictures take 4 MiB of memory at the model's size, 5 MiB are free: "
    assert lines == ([f"{lack}{kept}"] if store else [])


@pytest.mark.parametrize("kind", ["tmpfs", "ramfs", "ext4", ""])
def test_auto_takes_no_folder_that_is_itself_in_memory(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 4096)
    monkeypatch.setattr(room, "file_system", lambda folder: kind)
    keys: Any = {"folder": tmp_path, "log": lambda line: None}
    assert store_for(1000, agreed_of(), where="disk", **keys), "who asks for it gets it"
    if not kind.endswith("fs"):
        assert store_for(1000, agreed_of(), where="auto", **keys)
        return
    with pytest.raises(DataError, match=rf"0 MiB are free, and {tmp_path} is itself in memory \({kind}\)") as caught:
        store_for(1000, agreed_of(), where="auto", **keys)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("where", ["auto", "disk"])
def test_neither_fits(where: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 4096)
    with pytest.raises(DataError, match=r"of disk, .* are free \(No space left on device\); free some room") as caught:
        store_for(10**12, agreed_of(), where=where, folder=tmp_path, log=lambda line: None)
    assert ("of memory at the model's size, 0 MiB are free, and " in str(caught.value)) == (where == "auto")
    assert str(tmp_path) in str(caught.value) and str(caught.value).isprintable()


def test_a_damaged_picture_is_named_from_the_disk_too(task: tuple[str, Data, Contract, list[Item]]) -> None:
    _, data, agreed, items = task
    broken = items[5].images["image"]
    broken.write_bytes(broken.read_bytes()[:-60])
    with pytest.raises(DataError, match=broken.name):
        filled(data, agreed, items, Store(broken.parent, bytes_stored(COUNT, agreed)))


def test_a_disk_that_fails_in_mid_epoch_is_one_line(
    task: tuple[str, Data, Contract, list[Item]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, data, agreed, items = task
    cache = filled(data, agreed, items, Store(tmp_path / "runs", bytes_stored(COUNT, agreed)))
    stream, read = training(cache, batch_size=4, seed=0, settings=Augment(), epochs=100), os.preadv
    read_rows: list[int] = []

    def fail(handle: int, into: Any, offset: int) -> int:
        read_rows.append(offset)
        if len(read_rows) > 60:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(handle, into, offset)

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(DataError, match="Input/output error; check the disk") as caught, plain_disk_errors([cache]):
        for _ in stream:
            pass
    assert str(caught.value).startswith(f"{tmp_path / 'runs'}: ") and str(caught.value).isprintable()


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc, which tells what memory is")
def test_memory_stays_flat(tmp_path: Path, fill_folder: Callable[..., Path]) -> None:
    """60 MB of pictures and masks, looked through as before training; beside it the same in memory."""
    fill_folder(tmp_path, [f"p{number:03d}" for number in range(240)])
    done = subprocess.run([sys.executable, "-c", FLAT, str(tmp_path)], capture_output=True, text=True, check=True)
    grown = json.loads(done.stdout)
    assert grown["size"] == 240 * 256 * 256 * 4
    assert min(grown["memory"]) > 0.9 * grown["size"]
    assert max(grown["disk"]) < 0.25 * grown["size"]
