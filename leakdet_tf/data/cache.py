"""A split decoded once, by ``core``, in parallel, and kept as raw pixels at the model's size.

Everything is decoded before the first step, so that a bad file is named at once and not in the middle of an epoch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.boxes import areas
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ContractError, DataError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Geometry, ImageSpec, Pixels
from leakdet_tf.core.tasks import task_of
from leakdet_tf.core.tasks.detect import COLUMNS, VOID
from leakdet_tf.core.tasks.protocol import Task
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import TruthTable, read
from leakdet_tf.data.store import Rows, Store, Stored, file_system, size_text
from leakdet_tf.edge.machine import free_bytes

Where = Literal["auto", "memory", "disk"]
_IN_MEMORY = ("tmpfs", "ramfs")  # file systems, which take from the memory what they hold
_MANY = 300  # boxes a picture that the memory is asked for before any is read
_SHARE = 0.8  # of the free memory that pictures may take
_AT_A_TIME = 1 << 18  # bytes of targets that are counted together; to count, NumPy makes eight of each
_REMEDY = 'set data.cache = "disk", or use a smaller data.inputs size or fewer pictures'


@dataclass(frozen=True, eq=False)
class Cache:
    """A split, decoded: in memory, or its pictures and masks on the disk.

    ``inputs``: uint8 or uint16 (N, h, w, C) by input name. ``targets``: the task's arrays, for segmentation uint8
    (N, h, w), for classification uint8 (N, C), for detection float32 (N, M, 6) of BOX_COLUMNS in the model's pixels,
    M the most boxes of a picture (at least 1), rows without a box labelled VOID. ``digests``: SHA-256 of each item's
    files and labels. Labels and boxes are small and always in memory; whoever reads inputs or masks takes some rows at
    a time, for they may be on the disk.
    """

    ids: tuple[str, ...]
    inputs: Mapping[str, Rows]
    targets: Rows
    digests: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first input, in whose pixels boxes are."""
        first = next(iter(self.inputs.values()))
        return first.shape[1], first.shape[2]

    @property
    def of_boxes(self) -> bool:
        """Whether the targets are boxes, float32 (N, M, 6)."""
        return len(self.targets.shape) == 3 and self.targets.dtype == np.float32

    def fetch(self, place: int) -> tuple[dict[str, Pixels], npt.NDArray[np.float32]]:
        """A picture's inputs (h, w, C) and its boxes float32 (N, 6), those that are there."""
        own = self.targets[place]
        return {name: pixels[place] for name, pixels in self.inputs.items()}, own[own[:, 4] != VOID]

    @property
    def store(self) -> Store | None:
        """Where its rows are when they are on the disk."""
        arrays = (*self.inputs.values(), self.targets)
        return next((array.store for array in arrays if isinstance(array, Stored)), None)

    @property
    def sha256(self) -> str:
        """One digest of all files and their ids, in the split's order."""
        lines = (f"{key} {' '.join(digest)}\n" for key, digest in zip(self.ids, self.digests, strict=True))
        return sha256_bytes("".join(lines).encode())


def bytes_stored(count: int, contract: Contract) -> int:
    """Bytes of the inputs and masks of ``count`` pictures, which is what the disk can hold of them."""
    pixels = sum(int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for spec in contract.inputs.values())
    return count * (pixels + (_target_bytes(contract) if _is_a_picture(_target_shape(contract)) else 0))


def bytes_needed(count: int, contract: Contract, *, boxes: int = _MANY) -> int:
    """Memory that :func:`fill` takes for ``count`` pictures, in bytes; to detect, of up to ``boxes`` boxes each."""
    stored = bytes_stored(count, contract)
    return stored + (0 if _is_a_picture(_target_shape(contract)) else count * _target_bytes(contract, boxes))


def store_for(
    count: int, contract: Contract, *, where: Where, folder: Path, log: Callable[[str], None]
) -> Store | None:
    """The place on the disk for ``count`` pictures of all splits together, or None where they go into memory.

    Args:
        count: pictures.
        contract: what is kept of each.
        where: ``auto`` takes the memory where they fit into 80 % of what is free, or where the system does not tell;
            and no folder that is itself in memory.
        folder: on the disk, for a file without a name.
        log: told when it is the disk.

    Raises:
        DataError: they do not fit where they are to go.
    """
    lack = _lack(count, contract)
    if where == "memory" or (where == "auto" and not lack):
        if lack:
            raise DataError(lack, remedy=_REMEDY)
        return None
    if where == "auto" and (kind := file_system(folder)) in _IN_MEMORY:
        raise DataError(f"{lack}, and {folder} is itself in memory ({kind})", remedy="set runs to a folder on a disk")
    size = bytes_stored(count, contract)
    try:
        store = Store(folder, size)
    except DataError as error:
        if where == "disk":
            raise
        raise DataError(f"{lack}, and {error.args[0]}", remedy=error.remedy) from error
    kept = f"decoded pictures are kept on the disk: {size_text(size)} in {folder}"
    log(f"{lack}: {kept}" if lack else kept)
    return store


def _target_shape(contract: Contract) -> tuple[int, ...]:
    return task_of(contract).target_shape(contract.inputs[contract.primary].size, len(contract.classes))


def _is_a_picture(shape: tuple[int, ...]) -> bool:
    # such a target is large, and lies where the pictures lie; what is as long as it happens to be has -1 in front
    return len(shape) > 1 and shape[0] >= 0


def _target_bytes(contract: Contract, most: int = 1) -> int:
    # of one picture's target, with at most so many rows where their number is open
    shape = [most if length < 0 else length for length in _target_shape(contract)]
    return int(np.prod(shape)) * np.dtype(task_of(contract).TARGET_DTYPE).itemsize


def fill(
    items: Sequence[Item], contract: Contract, tables: Mapping[str, TruthTable], *, store: Store | None = None
) -> Iterator[int | Cache]:
    """Decode items with all cores: yields how many are done after each, and at the end the :class:`Cache`.

    ``tables`` are :func:`~leakdet_tf.data.readers.truth_tables`; ``store`` takes inputs and masks, else memory does.

    Raises:
        DataError: a file is damaged or of the wrong kind, or has no or several labels for a softmax model, and is
            named; or there are no items, or not enough memory.
    """
    if not items:
        raise DataError("a split holds no pictures", remedy="training needs some in each of train, val and test")
    if store is None and (lack := _lack(len(items), contract)):
        raise DataError(lack, remedy=_REMEDY)
    make: Callable[..., Any] = np.empty if store is None else store.rows
    inputs = {name: make((len(items), *spec.shape), spec.dtype) for name, spec in contract.inputs.items()}
    task, shape = task_of(contract), _target_shape(contract)
    ragged = shape[0] < 0
    targets: Any = [None] * len(items)
    if not ragged:
        make = make if _is_a_picture(shape) else np.empty
        targets = make((len(items), *shape), task.TARGET_DTYPE)

    def one(position: int) -> tuple[str, ...]:
        item = items[position]
        loaded = read(item, tables[item.source])
        truth = loaded.sample.truth
        assert truth is not None  # a reader's has one
        if task.CHECK_TRUTH is not None:
            try:
                task.CHECK_TRUTH(truth, contract)
            except DataError as error:
                raise DataError(f"{next(iter(item.images.values()))}: {error.args[0]}", remedy=error.remedy) from error
        for name, spec in contract.inputs.items():
            inputs[name][position], geometry = _applied(spec, loaded.sample.images[name], str(item.images[name]))
            if name == contract.primary:
                targets[position] = task.targets(truth, geometry)
        return loaded.sha256

    digests = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        try:
            for done, digest in enumerate(pool.map(one, range(len(items))), start=1):
                digests.append(digest)
                yield done
        finally:
            pool.shutdown(cancel_futures=True)
    if store is not None:
        store.flush()
    yield Cache(tuple(item.id for item in items), inputs, stacked(targets) if ragged else targets, tuple(digests))


def amounts_of(task: Task, targets: Rows, places: Sequence[int] | None = None) -> npt.NDArray[np.int64]:
    """What a task's ``amounts`` finds in targets (N, ...), or in those at ``places``, some at a time: int64 (256,)."""
    found = np.zeros(256, np.int64)
    step = max(1, _AT_A_TIME // (int(np.prod(targets.shape[1:])) * targets.dtype.itemsize))
    for start in range(0, len(targets) if places is None else len(places), step):
        part = slice(start, start + step)
        found += task.amounts(targets[part if places is None else places[part]])
    return found


def _lack(count: int, contract: Contract) -> str:
    # What to say where the memory is too small for so many pictures; nothing where it is not.
    needed, free = bytes_needed(count, contract), free_bytes()
    if free is None or needed <= _SHARE * free:
        return ""
    return f"{count} pictures take {size_text(needed)} of memory at the model's size, {size_text(free)} are free"


def stacked(boxes: Sequence[npt.NDArray[np.float32]], rows: int | None = None) -> npt.NDArray[np.float32]:
    """Boxes float32 (N, 6) of each picture → float32 (B, M, 6), filled up with rows whose label is VOID and the rest 0.

    M is ``rows``, or the most that a picture has, at least 1. Where it has more than M its largest stay.
    """
    most = max([1, *map(len, boxes)]) if rows is None else rows
    found = np.zeros((len(boxes), most, COLUMNS), np.float32)
    found[..., 4] = VOID
    for place, own in enumerate(boxes):
        kept = largest(own, most)
        found[place, : len(kept)] = kept
    return found


def largest(boxes: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.float32]:
    """The ``most`` largest of boxes float32 (N, 6), in their order."""
    if len(boxes) <= most:
        return boxes
    return boxes[np.sort(np.argsort(-areas(boxes[:, :4]), kind="stable")[:most])]


def _applied(spec: ImageSpec, image: Pixels, path: str) -> tuple[Pixels, Geometry]:
    try:
        return spec.apply(image, name=path)
    except ContractError as error:
        said = str(error.args[0])
        raise DataError(said if path in said else f"{path}: {said}", remedy=error.remedy) from error
