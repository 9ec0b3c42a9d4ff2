"""Pictures and masks on disk: found, paired by stem, decoded, checked.

Layout: ``<folder>/images/NAME.jpg`` with ``<folder>/masks/NAME.png``, stems equal, suffixes free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.data import Data, Input, Source
from leakdet_tf.config.fields import SPLITS, value_range
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import SUFFIXES, decode, decode_mask
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import IGNORE, Origin, Sample
from leakdet_tf.data.splits import divide

_UNKNOWN = -1  # stands in the lookup table for mask values that data.values does not name


@dataclass(frozen=True)
class Item:
    """One sample on disk: its pictures by input name, its mask, and the name of the source that it belongs to."""

    id: str
    images: dict[str, Path]
    mask: Path
    origin: Origin
    source: str = "data"


@dataclass(frozen=True, eq=False)
class Read:
    """A decoded sample with the SHA-256 of each file that it came from, in the order pictures, mask."""

    sample: Sample
    sha256: tuple[str, ...]


def find_splits(data: Data) -> dict[str, list[Item]]:
    """The items of ``train``, ``val`` and ``test`` of all sources, in their order, each source's sorted by id.

    A root with these folders is taken as it is; a root that holds pictures and masks itself is divided by
    ``[data.split]``. With several sources an id begins with its source's name.

    Raises:
        DataError: a root has neither layout, a split is empty, or pictures and masks do not pair up.
    """
    parts: dict[str, list[Item]] = {name: [] for name in SPLITS}
    for source in data.sources:
        prefix = f"{source.name}/" if data.source else ""
        for name, items in _splits_of(source, data.inputs).items():
            if name in source.parts:
                parts[name] += [replace(item, id=prefix + item.id) for item in items]
    return parts


def _splits_of(source: Source, inputs: Mapping[str, Input]) -> dict[str, list[Item]]:
    root = Path(source.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", remedy="set data.root, or have pictures rendered by [data.synth]")
    present = [name for name in SPLITS if (root / name).is_dir()]
    if present:
        if missing := [name for name in source.parts if name not in present]:
            raise DataError(f"{root}: has {', '.join(present)} but no {missing[0]} folder", remedy="add it")
        if source.split is not None:
            raise DataError(f"{root}: has its own train, val and test folders", remedy="remove [data.split]")
        return {name: find_items(root / name, source, inputs) for name in source.parts}
    if source.split is None:
        raise DataError(
            f"{root}: has no train, val and test folders", remedy="add them, or a [data.split] table to divide it"
        )
    items = {item.id: item for item in find_items(root, source, inputs)}
    parts = divide(sorted(items), source.split, where=str(root))
    return {name: [items[key] for key in parts[name]] for name in SPLITS}


def find_items(folder: Path, source: Source, inputs: Mapping[str, Input]) -> list[Item]:
    """The items of one folder with pictures and masks in it, sorted by id (the stem, with its sub-folder).

    Raises:
        DataError: a folder is missing or empty, two files share a stem, or a picture or mask has no partner.
    """
    items, odd = pair_up(folder, source, inputs)
    if odd:
        file, partner = odd[0]
        raise DataError(
            f"{file}: has no partner in {partner} ({len(odd)} such file{'s' if len(odd) > 1 else ''})",
            remedy="pictures and masks need equal stems: add or remove files",
        )
    return items


def pair_up(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], list[tuple[Path, Path]]]:
    """As :func:`find_items`, with the files that lack a partner (and the folder where it should be) beside the items.

    Raises:
        DataError: a folder is missing or empty, two files share a stem, or a name is not UTF-8.
    """
    places = {name: source.folders.get(name, item.folder) for name, item in inputs.items()}
    found = {name: _by_stem(folder / place) for name, place in places.items()}
    masks = _by_stem(folder / source.masks)
    first, home = next(iter(found.values())), next(iter(places.values()))
    odd: list[tuple[Path, Path]] = []
    for files, place in [*((found[name], place) for name, place in places.items()), (masks, source.masks)]:
        odd += [(files[stem], folder / home) for stem in sorted(set(files) - set(first))]
        odd += [(first[stem], folder / place) for stem in sorted(set(first) - set(files))]
    rendered = _rendered(folder)
    whole = sorted(set(first).intersection(masks, *found.values()))
    items = []
    for stem in whole:
        origin = rendered.get(first[stem]) or Origin(str(first[stem]))
        images = {name: files[stem] for name, files in found.items()}
        items.append(Item(stem, images, masks[stem], origin, source.name))
    return items, odd


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", remedy="[data] names the folders of pictures and masks")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in place.parts):
            continue
        if any("\ud800" <= letter <= "\udfff" for letter in place.as_posix()):
            raise DataError(f"{path}: its name is not UTF-8 text", remedy="rename it")
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path}: is a link to nothing", remedy="fetch the file that it names, or remove it")
        if not path.is_file():
            continue
        stem = place.with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same stem", remedy="rename or remove one")
        found[stem] = path
    if not found:
        raise DataError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})", remedy="add some or change data.root")
    return found


def _rendered(folder: Path) -> dict[Path, Origin]:
    # Origins by file, from the manifest that a generator left beside the split folders.
    path = folder.parent / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or "generator" not in manifest:
            return {}  # somebody else's file of that name
        generator = str(manifest["generator"])
        return {
            folder.parent / entry["file"]: Origin(
                entry["file"], "rendered", generator, int(entry["seed"]), dict(entry.get("parameters", {}))
            )
            for entry in manifest["pictures"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: malformed manifest ({error})", remedy="render the folder anew, or rename the file"
        ) from error


def labelling_of(data: Data, classes: Sequence[str]) -> Labelling:
    """The labels that the sources' masks are read to: the classes, and every set of classes that a value names."""
    lists = [names for source in data.sources for names in source.values.values() if isinstance(names, list)]
    sets = {tuple(sorted(classes.index(name) for name in names)) for names in lists if len(names) > 1}
    return Labelling(len(classes), tuple(sorted(sets)))


def label_tables(data: Data, classes: Sequence[str]) -> dict[str, npt.NDArray[np.int16]]:
    """By source, a lookup table int16 (256,) from mask value to label or IGNORE; -1 for values without meaning."""
    labelling = labelling_of(data, classes)
    return {source.name: _label_table(source.values, classes, labelling) for source in data.sources}


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


def read(item: Item, table: npt.NDArray[np.int16]) -> Read:
    """Decode an item's pictures and mask; the mask's values become labels by ``table``, its source's.

    Raises:
        ImageError: a file cannot be decoded.
        DataError: mask and picture differ in size, or the mask holds a value without meaning.
    """
    content = {path: _bytes(path) for path in (*item.images.values(), item.mask)}
    images = {name: decode(content[path], name=str(path)) for name, path in item.images.items()}
    mask = decode_mask(content[item.mask], name=str(item.mask))
    for name, image in images.items():
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{item.mask}: is {mask.shape[1]}x{mask.shape[0]} px, its picture {item.images[name].name} "
                f"{image.shape[1]}x{image.shape[0]}",
                remedy="a mask has its picture's size",
            )
    truth = table[mask]
    if (truth == _UNKNOWN).any():
        wrong = np.unique(mask[truth == _UNKNOWN])
        shown = ", ".join(map(str, wrong[:5])) + (" …" if len(wrong) > 5 else "")
        raise DataError(f"{item.mask}: holds values that data.values does not name: {shown}", remedy="name them there")
    sample = Sample(item.id, images, truth.astype(np.uint8), item.origin)
    return Read(sample, tuple(sha256_bytes(data) for data in content.values()))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy="was it moved meanwhile?") from error
