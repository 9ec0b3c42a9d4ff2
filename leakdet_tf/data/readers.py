"""The pictures of an experiment on disk: its splits found, its truth read, decoded and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.data import BOXES, Data, Input, Source
from leakdet_tf.config.fields import SPLITS, value_range
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import SUFFIXES, Pixels, decode, decode_mask
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE, Sample
from leakdet_tf.data.box_files import COCO, Written, form_of, parse
from leakdet_tf.data.box_files import SUFFIXES as BOX_SUFFIXES
from leakdet_tf.data.box_truth import BoxTable, box_table, boxes_of
from leakdet_tf.data.items import FOLDERS, Item, pair_up
from leakdet_tf.data.splits import divide

_UNKNOWN = -1  # stands in the lookup table for mask values that data.values does not name

MaskTable = npt.NDArray[np.int16]
WordTable = Mapping[str, tuple[int, ...]]
TruthTable = MaskTable | tuple[WordTable, int] | BoxTable
"""What a source's truth is read by: see :func:`truth_tables`."""


@dataclass(frozen=True, eq=False)
class Read:
    """A decoded sample with the SHA-256 of each file that it came from, in the order pictures, mask or boxes' file.

    Of labels and boxes there is one more, of the truth that was made of them.
    """

    sample: Sample
    sha256: tuple[str, ...]


def find_splits(data: Data) -> dict[str, list[Item]]:
    """The items of ``train``, ``val`` and ``test`` of all sources, in their order, each source's sorted by id.

    A root with these folders is taken as it is, and so is one whose folders of pictures, masks or boxes hold them; a
    root that holds pictures and masks itself is divided by ``[data.split]``. With several sources an id begins with its
    source's name.

    Raises:
        DataError: a root has neither layout, a split is empty, pictures and masks do not pair up, or rendered pictures
            stand beside real ones where training is measured, or in their place though it saw real ones.
    """
    parts: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for source in data.sources:
        prefix = f"{source.name}/" if data.source else ""
        for name, items in _splits_of(source, data.inputs).items():
            if name in source.parts:
                parts[name] += [replace(item, id=prefix + item.id) for item in taken(items, name, source)]
    for name in ("val", "test"):
        if fault := mixed(parts[name], parts["train"]):
            raise DataError(
                f"{data.where}: {name}: {fault}",
                remedy='give the rendered source parts = ["train"], and real pictures to val and test',
            )
    return parts


def taken(items: Sequence[Item], split: str, source: Source) -> list[Item]:
    """At most ``source.take`` of its training pictures: those whose ids' hashes are lowest, so more keep the fewer."""
    if split != "train" or not 0 < source.take < len(items):
        return list(items)
    lowest = set(sorted((sha256_bytes(item.id.encode()), item.id) for item in items)[: source.take])
    return [item for item in items if (sha256_bytes(item.id.encode()), item.id) in lowest]


def mixed(items: Sequence[Item], training: Sequence[Item]) -> str:
    """What is wrong with the origins of a split that is measured on; empty where nothing is.

    It may not mix real and rendered pictures, nor hold rendered ones alone when some of those in training are real.
    """
    rendered = [item for item in items if item.origin.kind == "rendered"]
    if not rendered:
        return ""
    first = next(iter(rendered[0].images.values()))
    if len(rendered) < len(items):
        return (
            f"{len(rendered)} of {len(items)} pictures are rendered, such as {first}, and would be taken for real ones"
        )
    if real := sum(item.origin.kind == "real" for item in training):
        return (
            f"all {len(items)} pictures are rendered, such as {first}, though {real} of {len(training)} in training "
            "are real: nothing would be said of real ones"
        )
    return ""


def check_root(source: Source) -> Path:
    """A source's folder.

    Raises:
        DataError: there is none.
    """
    root = Path(source.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", remedy="set data.root, or have pictures rendered by [data.synth]")
    return root


def _splits_of(source: Source, inputs: Mapping[str, Input]) -> dict[str, list[Item]]:
    root = check_root(source)
    present = [name for name in SPLITS if (root / name).is_dir()]
    if present:
        missing = [name for name in source.parts if name not in present]
        if missing and not (source.split and source.split.pool):
            raise DataError(f"{root}: has {', '.join(present)} but no {missing[0]} folder", remedy="add it")
        if source.split is not None and not source.split.pool:
            raise DataError(
                f"{root}: has its own train, val and test folders",
                remedy="remove [data.split], or set its pool to throw them together",
            )
        if source.split is None:
            return {name: find_items(root / name, source, inputs) for name in source.parts}
    if source.split is None and (turned := turned_parts(source, inputs)):
        return {name: find_items(root, part, inputs) for name, part in turned.items()}
    if source.split is None:
        raise DataError(
            f"{root}: has no train, val and test folders", remedy="add them, or a [data.split] table to divide it"
        )
    items = {item.id: item for item in pooled(root, present, lambda folder: find_items(folder, source, inputs))}
    return divided(items, source, root)


def turned_parts(source: Source, inputs: Mapping[str, Input]) -> dict[str, Source]:
    """By part, the source as its root holds that part in ``images/train`` and ``labels/train``, as programs of YOLO
    write them; nothing where the root holds no such folder, or labels that are not in files beside pictures."""
    if source.labels not in ("", *BOXES):
        return {}
    found: dict[str, Source] = {}
    for part in source.parts:
        folders = {name: f"{source.folders.get(name, item.folder)}/{part}" for name, item in inputs.items()}
        places = {"masks": f"{source.masks}/{part}", "annotations": f"{source.annotations}/{part}"}
        found[part] = source.model_copy(update={"folders": folders, **places})
    there = any((Path(source.root) / place).is_dir() for one in found.values() for place in one.folders.values())
    return found if there else {}


def pooled(root: Path, present: Sequence[str], listed: Callable[[Path], list[Item]]) -> list[Item]:
    """The items of a root to be divided: its own, or those of its split folders with the folder before their ids."""
    if not present:
        return listed(root)
    return [replace(item, id=f"{name}/{item.id}") for name in present for item in listed(root / name)]


def divided(items: Mapping[str, Item], source: Source, root: Path) -> dict[str, list[Item]]:
    """Items by id, divided as the source's ``[data.split]`` says."""
    assert source.split is not None
    words = words_of if source.split.balance and source.of_boxes else lambda item: item.words
    labels = {key: ";".join(words(item)) for key, item in items.items()}
    parts = divide(sorted(items), source.split, where=str(root), labels=labels)
    return {name: [items[key] for key in parts[name]] for name in SPLITS}


def find_items(folder: Path, source: Source, inputs: Mapping[str, Input]) -> list[Item]:
    """The items of one folder with pictures and their masks or labels in it, sorted by id.

    Raises:
        DataError: a folder is missing or empty, two files share a stem, or a picture or mask has no partner.
    """
    items, odd = pair_up(folder, source, inputs)
    if odd:
        file, partner = odd[0]
        number = f"({len(odd)} such file{'s' if len(odd) > 1 else ''})"
        if file.suffix.lower() in SUFFIXES and source.of_boxes:
            raise DataError(
                f"{file}: is not in {partner} {number}",
                remedy="where nothing is, an empty text file, an XML without objects or an entry in the JSON says so",
            )
        if source.labels not in ("", FOLDERS, *BOXES):
            raise DataError(f"{file}: names {partner}, which is not there {number}", remedy="add it, or drop its line")
        what = "the inputs' pictures" if source.labels else "pictures and masks"
        what = "pictures and their boxes' files" if source.of_boxes else what
        raise DataError(
            f"{file}: has no partner in {partner} {number}", remedy=f"{what} need equal stems: add or remove files"
        )
    if not items:
        raise DataError(f"{folder}: every picture in it is ignored", remedy="fix data.values")
    return items


def labelling_of(data: Data, classes: Sequence[str]) -> Labelling:
    """The labels that the sources' masks are read to: the classes, and every set of classes that a value names."""
    lists = [
        names
        for source in data.sources
        if not source.labels
        for names in source.values.values()
        if isinstance(names, list)
    ]
    sets = {tuple(sorted(classes.index(name) for name in names)) for names in lists if len(names) > 1}
    return Labelling(len(classes), tuple(sorted(sets)))


def truth_tables(data: Data, classes: Sequence[str]) -> dict[str, TruthTable]:
    """By source, what its truth is read by.

    For masks a lookup table int16 (256,) from value to label or IGNORE, -1 for values without meaning; for labels the
    class indices of each word, with the number of classes; for boxes a :class:`~leakdet_tf.data.box_truth.BoxTable`.
    """
    labelling = labelling_of(data, classes)

    def table(source: Source) -> TruthTable:
        if source.of_boxes:
            return box_table(source.values, classes, form_of(source.labels))
        if source.labels:
            return _word_table(source.values, classes), len(classes)
        return _label_table(source.values, classes, labelling)

    return {source.name: table(source) for source in data.sources}


def _word_table(values: Mapping[str, str | list[str]], classes: Sequence[str]) -> WordTable:
    if not values:
        return {name: (index,) for index, name in enumerate(classes)}
    listed = {word: names if isinstance(names, list) else [names] for word, names in values.items()}
    return {word: tuple(classes.index(name) for name in names) for word, names in listed.items() if names != ["ignore"]}


def _label_table(
    values: Mapping[str, str | list[str]], classes: Sequence[str], labelling: Labelling
) -> npt.NDArray[np.int16]:
    table = np.full(256, _UNKNOWN, np.int16)
    for key, names in values.items():
        listed = names if isinstance(names, list) else [names]
        span = value_range(key)
        if listed == ["ignore"]:
            label = IGNORE
        elif len(listed) == 1:
            label = classes.index(listed[0])
        else:
            members = tuple(sorted(classes.index(name) for name in listed))
            label = labelling.classes + labelling.sets.index(members)
        table[span.start : span.stop] = label
    return table


def read(item: Item, table: TruthTable) -> Read:
    """Decode an item's pictures and its mask, labels or boxes; what these say is read by ``table``, its source's.

    Raises:
        ImageError: a file cannot be decoded.
        DataError: mask and picture differ in size, or the mask holds a value, or the labels a word, without meaning;
            or something is wrong with a box.
    """
    content = {path: _bytes(path) for path in item.files}
    images = {name: decode(content[path], name=str(path)) for name, path in item.images.items()}
    if isinstance(table, BoxTable):
        return _with_boxes(item, table, content, images)
    if isinstance(table, tuple):
        truth = row_of(item, table)
        digests = (*map(sha256_bytes, content.values()), sha256_bytes(truth.tobytes()))
        return Read(Sample(item.id, images, truth, item.origin), digests)
    assert item.mask is not None
    mask = decode_mask(content[item.mask], name=str(item.mask))
    for name, image in images.items():
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{item.mask}: is {mask.shape[1]}x{mask.shape[0]} px, its picture {item.images[name].name} "
                f"{image.shape[1]}x{image.shape[0]}",
                remedy="a mask has its picture's size",
            )
    labels = table[mask]
    if (labels == _UNKNOWN).any():
        wrong = np.unique(mask[labels == _UNKNOWN])
        shown = ", ".join(map(str, wrong[:5])) + (" …" if len(wrong) > 5 else "")
        raise DataError(f"{item.mask}: holds values that data.values does not name: {shown}", remedy="name them there")
    sample = Sample(item.id, images, labels.astype(np.uint8), item.origin)
    return Read(sample, tuple(sha256_bytes(data) for data in content.values()))


def _with_boxes(item: Item, table: BoxTable, content: Mapping[Path, bytes], images: Mapping[str, Pixels]) -> Read:
    assert item.boxes is not None
    (first, picture), *others = images.items()
    for name, image in others:
        if image.shape[:2] != picture.shape[:2]:
            raise DataError(
                f"{item.images[name]}: is {image.shape[1]}x{image.shape[0]} px, {item.images[first].name} "
                f"{picture.shape[1]}x{picture.shape[0]}",
                remedy="the inputs' pictures have one size, in which their boxes are",
            )
    written = written_of(item, content.get(item.boxes))
    truth, faults = boxes_of(written, (picture.shape[0], picture.shape[1]), table)
    if faults:
        where = f"{item.boxes}: {item.images[first].name}" if written.form == COCO else str(item.boxes)
        more = f" ({len(faults)} such in it)" if len(faults) > 1 else ""
        raise DataError(f"{where}: {faults[0]}{more}", remedy=faults[0].remedy)
    said = repr(written).encode() if item.written else content[item.boxes]
    digests = [*(sha256_bytes(content[path]) for path in item.images.values()), sha256_bytes(said)]
    return Read(Sample(item.id, dict(images), truth, item.origin), (*digests, sha256_bytes(truth.tobytes())))


def written_of(item: Item, content: bytes | None = None) -> Written:
    """What is written of an item's boxes; ``content`` is their file's, read here when left out.

    Raises:
        DataError: the file cannot be read.
    """
    assert item.boxes is not None
    if item.written is not None:
        return item.written
    given = _bytes(item.boxes) if content is None else content
    form = next(form for form, suffix in BOX_SUFFIXES.items() if suffix == item.boxes.suffix.lower())
    return parse(given, form, name=str(item.boxes))


def words_of(item: Item) -> tuple[str, ...]:
    """The words of an item's boxes, each once, sorted.

    Raises:
        DataError: their file cannot be read.
    """
    return tuple(sorted({entry.word for entry in written_of(item).entries}))


def row_of(item: Item, table: tuple[WordTable, int]) -> npt.NDArray[np.uint8]:
    """An item's labels as uint8 (C,), 1 for each class that is there.

    Raises:
        DataError: a word that means no class.
    """
    words, classes = table
    truth = np.zeros(classes, np.uint8)
    for word in item.words:
        if word not in words:
            first = next(iter(item.images.values()))
            raise DataError(
                f"{first}: its label '{word}' means no class", remedy="name it in data.values, or in task.classes"
            )
        truth[list(words[word])] = 1
    return truth


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy="was it moved meanwhile?") from error
