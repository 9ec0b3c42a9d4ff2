"""What spoils training or its figures, looked for before a model sees a picture: all of it, not the first alone."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.data import Data, Input
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import DataError, ImageError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import Labels, Pixels, decode, decode_mask
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE
from leakdet_tf.core.tasks import classify, detect, segment
from leakdet_tf.core.tasks.protocol import Task
from leakdet_tf.data.box_truth import Aside, Boxes, BoxTable, boxes_of, set_aside
from leakdet_tf.data.cache import Cache, amounts_of
from leakdet_tf.data.findings import KINDS, Finding, Level, Parts, doubts, said
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import MaskTable, TruthTable, WordTable, labelling_of, row_of, truth_tables, written_of
from leakdet_tf.data.similar import Thumbnails, thumbnail

IMBALANCE = 10
"""How many times more pictures of one class than of another are told."""

_Told = Callable[[str, Path, str], None]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What is kept of a sample that could be read.

    ``digests``: SHA-256 of each input's pixels, shape and type, by input. ``truth``: of the mask's or picture's labels,
    or its boxes. ``pixels``: int64 (256,), how many have each label; of whole pictures' labels 1 each, of boxes their
    number. ``small``: uint8 (128, 128), or None when not asked for. ``aside``: of boxes, as
    :func:`~leakdet_tf.data.box_truth.set_aside` gives it.
    """

    split: str
    item: Item
    digests: dict[str, str]
    truth: str
    pixels: npt.NDArray[np.int64]
    small: Thumbnails | None
    aside: Aside | None = None


@dataclass(frozen=True, eq=False)
class Checked:
    """All that was found. ``parts`` are the samples that have all their files, ``decoded`` those that could be read."""

    parts: Parts
    findings: tuple[Finding, ...]
    decoded: tuple[Decoded, ...]
    labelling: Labelling

    def at(self, level: Level) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level == level]

    def usable(self) -> Parts:
        """The samples that no error names."""
        return without(self.parts, self.findings)

    def pixels(self, split: str, source: str) -> npt.NDArray[np.int64]:
        """int64 (256,): pixels (or pictures) by label, at the pictures' own size."""
        chosen = [seen.pixels for seen in self.decoded if seen.split == split and seen.item.source == source]
        return np.sum(chosen, axis=0, dtype=np.int64) if chosen else np.zeros(256, np.int64)

    def sha256(self, split: str) -> str:
        """One digest of a split's decoded pixels and labels, with their ids, in the split's order."""
        lines = [
            f"{seen.item.id} {' '.join(seen.digests.values())} {seen.truth}\n"
            for seen in self.decoded
            if seen.split == split
        ]
        return sha256_bytes("".join(lines).encode("utf-8", "surrogateescape"))


def without(parts: Mapping[str, Sequence[Item]], findings: Sequence[Finding]) -> Parts:
    """The parts less every sample one of whose files an error names."""
    left_out = {finding.file for finding in findings if finding.level == "error"}
    return {
        split: [item for item in items if left_out.isdisjoint(map(str, item.files))] for split, items in parts.items()
    }


def check(
    parts: Parts, findings: Sequence[Finding], data: Data, classes: Sequence[str], *, thumbnails: bool = False
) -> Iterator[int | Checked]:
    """Decode everything with all cores: yields how many are done after each, and at the end :class:`Checked`.

    Args:
        parts: from :func:`survey`.
        findings: those of :func:`survey`, to which the others are added.
        data: the experiment's ``[data]``.
        classes: their names, in order.
        thumbnails: keep one of each first input, 16 KiB a picture, for :mod:`~leakdet_tf.data.similar`.
    """
    tables, labelling = truth_tables(data, classes), labelling_of(data, classes)
    work = [(split, item) for split, items in parts.items() for item in items]
    found, decoded = list(findings), []

    def one(position: int) -> Decoded | list[Finding]:
        split, item = work[position]
        return _examine(split, item, tables[item.source], data.inputs, thumbnails)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        try:
            for done, seen in enumerate(pool.map(one, range(len(work))), start=1):
                if isinstance(seen, Decoded):
                    decoded.append(seen)
                else:
                    found += seen
                yield done
        finally:
            pool.shutdown(cancel_futures=True)
    where = {
        split: [(seen.item, seen.digests, seen.truth) for seen in decoded if seen.split == split] for split in parts
    }
    found += duplicates(where)
    left = {id(item) for items in without(parts, found).values() for item in items}
    kept = [seen for seen in decoded if id(seen.item) in left]
    for split in SPLITS:
        pixels = [seen.pixels for seen in kept if seen.split == split]
        if pixels:
            amounts = np.asarray(np.sum(pixels, axis=0, dtype=np.int64))
            found += unseen(split, amounts, classes, labelling, data)
            found += imbalance(split, amounts, classes, data)
        elif parts.get(split):
            found.append(Finding("empty", "", split, data.where, f"no picture of {split} can be used", "fatal"))
    order = sorted(found, key=lambda finding: KINDS.index(finding.kind))
    yield Checked(dict(parts), tuple(order), tuple(decoded), labelling)


def _examine(
    split: str, item: Item, table: TruthTable, inputs: Mapping[str, Input], thumbnails: bool
) -> Decoded | list[Finding]:
    faults: list[Finding] = []

    def fault(kind: str, path: Path, detail: str) -> None:
        faults.append(Finding(kind, item.source, split, str(path), detail))

    images: dict[str, Pixels] = {}
    for name, path in item.images.items():
        content = _content(path, fault)
        try:
            if content:
                images[name] = decode(content, name=str(path))
        except ImageError as error:
            fault("undecodable", path, said(error, path))
    for name, image in images.items():
        if image.dtype != inputs[name].dtype:
            fault("mis-valued", item.images[name], f"has {image.dtype} pixels, data.inputs.{name} {inputs[name].dtype}")
    truth: npt.NDArray[Any] | None
    aside: Aside | None = None
    if isinstance(table, tuple):
        truth = _row(item, table, fault)
        amounts = None if truth is None else classify.amounts(truth)
    elif isinstance(table, BoxTable):
        truth, aside = _boxes(item, table, images, fault)
        amounts = None if truth is None else detect.amounts(truth)
    else:
        truth = _labels(item, table, images, fault)
        amounts = None if truth is None else segment.amounts(truth)
    if faults or truth is None or amounts is None:
        return faults
    digests = {name: _digest(image) for name, image in images.items()}
    small = thumbnail(next(iter(images.values()))) if thumbnails else None
    return Decoded(split, item, digests, _truth_digest(truth), amounts, small, aside)


def _row(item: Item, table: tuple[WordTable, int], fault: _Told) -> Labels | None:
    try:
        return row_of(item, table)
    except DataError as error:
        first = next(iter(item.images.values()))
        fault("mis-valued", first, said(error, first))
        return None


def _labels(item: Item, table: MaskTable, images: Mapping[str, Pixels], fault: _Told) -> Labels | None:
    assert item.mask is not None
    mask = _mask(item.mask, fault)
    if mask is None:
        return None
    for name, image in images.items():
        if image.shape[:2] != mask.shape:
            sizes = f"is {mask.shape[1]}x{mask.shape[0]} px, its picture {item.images[name].name}"
            fault("mis-sized", item.mask, f"{sizes} {image.shape[1]}x{image.shape[0]}")
    counts = np.bincount(mask.ravel(), minlength=256)
    if wrong := [value for value in range(256) if counts[value] and table[value] < 0]:
        shown = ", ".join(map(str, wrong[:5])) + (" …" if len(wrong) > 5 else "")
        fault("mis-valued", item.mask, f"holds values that data.values does not name: {shown}")
    elif all(table[value] == IGNORE for value in range(256) if counts[value]):
        fault("empty", item.mask, "every pixel of it is ignored")
    truth: Labels = table[mask].astype(np.uint8)
    return truth


def _boxes(
    item: Item, table: BoxTable, images: Mapping[str, Pixels], fault: _Told
) -> tuple[Boxes | None, Aside | None]:
    assert item.boxes is not None
    sizes = {name: (image.shape[0], image.shape[1]) for name, image in images.items()}
    first = next(iter(item.images))
    for name, (height, width) in sizes.items():
        if (height, width) != sizes.get(first, (height, width)):
            other = f"{item.images[first].name} {sizes[first][1]}x{sizes[first][0]}"
            fault("mis-sized", item.images[name], f"is {width}x{height} px, {other}: boxes are for one size")
    try:
        written = written_of(item)
    except DataError as error:
        fault("undecodable", item.boxes, f"{said(error, item.boxes)}; {error.remedy}")
        return None, None
    if first not in sizes:
        return None, None
    truth, faults = boxes_of(written, sizes[first], table)
    where = (item.images[first], f"{item.boxes.name}: ") if item.written else (item.boxes, "")
    for one in faults:
        fault(one.kind, where[0], f"{where[1]}{one}; {one.remedy}")
    return truth, set_aside(written, table)


def _content(path: Path, fault: _Told) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        fault("undecodable", path, f"cannot be read ({error.strerror})")
        return b""
    if not content:
        fault("empty", path, "holds no bytes")
    return content


def _mask(path: Path, fault: _Told) -> Labels | None:
    content = _content(path, fault)
    if not content:
        return None
    try:
        return decode_mask(content, name=str(path))
    except ImageError as error:
        try:
            decode(content, name=str(path))
        except ImageError:
            fault("undecodable", path, said(error, path))
        else:  # a picture, yet no mask: colour, or 16 bits
            fault("mis-valued", path, said(error, path))
        return None


def _digest(array: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.shape} {array.dtype}\n".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def _truth_digest(truth: npt.NDArray[Any]) -> str:
    if truth.dtype == np.float32 and truth.ndim == 2:  # boxes: neither their order nor rows that hold none say anything
        rows = truth[truth[:, 4] != detect.VOID]
        truth = rows[np.lexsort(rows.T)]
    return _digest(truth)


def duplicates(parts: Mapping[str, Sequence[tuple[Item, Mapping[str, str], str]]]) -> list[Finding]:
    """Equal pictures, from each split's samples with the digests of their inputs and of their truth.

    Across splits each copy is an error but those in the latest of its splits, so that test stays as it is and val too,
    unless a picture stands in both. Within a split there is one warning, with the count. But copies that are labelled
    otherwise, in one split or in several, are errors, all of them, for one of them is wrong and nobody knows which.
    """
    groups: dict[tuple[str, str], list[tuple[str, Item, str]]] = {}
    for split in SPLITS:
        for item, digests, truth in parts.get(split, ()):
            for name, digest in digests.items():
                groups.setdefault((name, digest), []).append((split, item, truth))
    found: dict[str, Finding] = {}
    within: dict[str, list[tuple[Item, Item]]] = {}
    for (name, _), group in groups.items():
        last, kept, truth = group[-1]
        for split, item, own in group[:-1]:
            if split != last:
                one, several = ("mask", "masks") if item.mask else ("label", "labels")
                one, several = ("boxes", "boxes") if item.boxes else (one, several)
                masks = f"same {one}" if own == truth else f"different {several}"
                detail = f"has the pixels of {kept.images[name]} ({split} and {last}; {masks})"
                file = str(item.images[name])
                found.setdefault(file, Finding("duplicate", item.source, split, file, detail))
        if len({truth for _, item, truth in group if item.mask is None}) > 1:
            for split, item, own in group:
                other = next(one for _, one, truth in group if truth != own)
                file, words = str(item.images[name]), ";".join(other.words) or "none"
                detail = f"is labelled {';'.join(item.words) or 'none'}, its copy {other.images[name]} {words}"
                if item.boxes:
                    detail = f"has other boxes than its copy {other.images[name]}"
                found.setdefault(file, Finding("conflict", item.source, split, file, detail))
        for split in dict.fromkeys(entry[0] for entry in group):
            same = [item for place, item, _ in group if place == split]
            if name == next(iter(same[0].images)):
                within.setdefault(split, []).extend((same[0], other) for other in same[1:])
    warnings = []
    for split, pairs in within.items():
        if pairs:
            first, second = (next(iter(item.images.values())) for item in pairs[0])
            detail = f"{len(pairs)} pictures of {split} are copies of others in it, this one of {first}"
            warnings.append(Finding("duplicate", pairs[0][1].source, split, str(second), detail, "warning"))
    return [*found.values(), *warnings]


def imbalance(split: str, pictures: npt.NDArray[np.int64], classes: Sequence[str], data: Data) -> list[Finding]:
    """A warning where training pictures (or boxes) of one class are less than a tenth of those of another; not for
    masks."""
    counts = pictures[: len(classes)]
    if split != "train" or not data.sources[0].labels or not 0 < counts.min() * IMBALANCE < counts.max():
        return []
    rare, common = int(counts.argmin()), int(counts.argmax())
    if data.sources[0].of_boxes:
        boxes = f"{counts[rare]} training boxes are of '{classes[rare]}', {counts[common]} of '{classes[common]}'"
        return [Finding("imbalance", "", split, data.where, f"{boxes}; see data.source.weight", "warning")]
    detail = (
        f"{counts[rare]} training pictures show '{classes[rare]}', {counts[common]} '{classes[common]}': accuracy will "
        "hide the rare class; see train.class_weights and data.source.weight"
    )
    return [Finding("imbalance", "", split, data.where, detail, "warning")]


def unseen(
    split: str, pixels: npt.NDArray[np.int64], classes: Sequence[str], labelling: Labelling, data: Data
) -> list[Finding]:
    """Classes that no truth of a split holds, by its amounts by label, int64 (256,): in train fatal, else warnings.

    Where no box of val is of any class that is fatal too: no epoch could be told to be the best.
    """
    if split == "val" and data.sources[0].of_boxes and not pixels[: len(classes)].any():
        detail = "no box of val counts, and mAP on val chooses the best epoch: put pictures with boxes into val"
        return [Finding("empty", "", split, data.where, detail, "fatal")]
    found = []
    level: Level = "fatal" if split == "train" else "warning"
    what = "box" if data.sources[0].of_boxes else "label" if data.sources[0].labels else "mask"
    names = labelling.names(tuple(classes))
    for index, name in enumerate(classes):
        if not pixels[index]:
            sets = [
                names[label]
                for label in range(labelling.classes, labelling.count)
                if pixels[label] and labelling.members[label, index]
            ]
            rest = f"; {', '.join(sets)} may be it, which does not say so" if sets else ""
            found.append(
                Finding(
                    "class-never-seen", "", split, data.where, f"no {what} of {split} holds class '{name}'{rest}", level
                )
            )
    return found


def cheap(
    parts: Mapping[str, Sequence[Item]], caches: Mapping[str, Cache], data: Data, classes: Sequence[str], task: Task
) -> list[Finding]:
    """What can be told from splits that are in memory anyway: duplicates and :func:`~leakdet_tf.data.findings.doubts`;
    at their size, unseen classes and no truth.

    Only pictures that are equal at the model's size are decoded once more, to see whether they are equal at their own.
    """
    entries, often = {}, Counter[tuple[str, str]]()
    for split, cache in caches.items():
        digests = [{name: _digest(pixels[i]) for name, pixels in cache.inputs.items()} for i in range(len(cache))]
        often.update(entry for one in digests for entry in one.items())
        entries[split] = list(zip(parts[split], digests, map(_truth_digest, cache.targets), strict=True))
    for listed in entries.values():
        for item, digests_of, _ in listed:
            for name, digest in digests_of.items():
                if often[name, digest] > 1:
                    digests_of[name] = _digest(decode(item.images[name]))
    found, labelling = duplicates(entries) + doubts(parts, data), labelling_of(data, classes)
    for split, cache in caches.items():
        pixels = amounts_of(task, cache.targets)
        if task.TRUTH == "masks" and not pixels[: labelling.count].any():
            found.append(Finding("empty", "", split, data.where, f"every pixel of {split} is ignored", "fatal"))
        found += unseen(split, pixels, classes, labelling, data)
        found += imbalance(split, pixels, classes, data)
    return found
