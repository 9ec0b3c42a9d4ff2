"""Pictures and masks on disk: found, paired by stem, decoded, checked.

Layout: ``<folder>/images/NAME.jpg`` with ``<folder>/masks/NAME.png``, stems equal, suffixes free.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leakdet_tf.config.schema import SPLITS, Data, value_range
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes
from leakdet_tf.core.images import SUFFIXES, decode, decode_mask
from leakdet_tf.core.records import IGNORE, Origin, Sample
from leakdet_tf.data.splits import divide

_UNKNOWN = -1  # stands in the lookup table for mask values that data.values does not name


@dataclass(frozen=True)
class Item:
    """One sample on disk: its pictures by input name, and its mask."""

    id: str
    images: dict[str, Path]
    mask: Path
    origin: Origin


@dataclass(frozen=True, eq=False)
class Read:
    """A decoded sample with the SHA-256 of each file that it came from, in the order pictures, mask."""

    sample: Sample
    sha256: tuple[str, ...]


def find_splits(data: Data) -> dict[str, list[Item]]:
    """The items of ``train``, ``val`` and ``test``, sorted by id.

    A root with these folders is taken as it is; a root that holds pictures and masks itself is divided by
    ``[data.split]``.

    Raises:
        DataError: the root has neither layout, a split is empty, or pictures and masks do not pair up.
    """
    root = Path(data.root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder", remedy="set data.root, or have pictures rendered by [data.synth]")
    present = [name for name in SPLITS if (root / name).is_dir()]
    if present:
        if missing := [name for name in SPLITS if name not in present]:
            raise DataError(f"{root}: has {', '.join(present)} but no {missing[0]} folder", remedy="add it")
        if data.split is not None:
            raise DataError(f"{root}: has its own train, val and test folders", remedy="remove [data.split]")
        return {name: find_items(root / name, data) for name in SPLITS}
    if data.split is None:
        raise DataError(
            f"{root}: has no train, val and test folders", remedy="add them, or a [data.split] table to divide it"
        )
    items = {item.id: item for item in find_items(root, data)}
    parts = divide(sorted(items), data.split, where=str(root))
    return {name: [items[key] for key in parts[name]] for name in SPLITS}


def find_items(folder: Path, data: Data) -> list[Item]:
    """The items of one folder with pictures and masks in it, sorted by id (the stem, with its sub-folder).

    Raises:
        DataError: a folder is missing or empty, two files share a stem, or a picture or mask has no partner.
    """
    masks = _by_stem(folder / data.masks)
    pictures = {name: _by_stem(folder / spec.folder) for name, spec in data.inputs.items()}
    rendered = _rendered(folder)
    first = next(iter(pictures.values()))
    home = next(iter(data.inputs.values())).folder
    for other, found in [*((data.inputs[name].folder, found) for name, found in pictures.items()), (data.masks, masks)]:
        if odd := sorted(set(found) ^ set(first)):
            file, partner = (first[odd[0]], other) if odd[0] in first else (found[odd[0]], home)
            raise DataError(
                f"{file}: has no partner in {folder / partner} ({len(odd)} such file{'s' if len(odd) > 1 else ''})",
                remedy="pictures and masks need equal stems: add or remove files",
            )
    items = []
    for stem in sorted(first):
        origin = rendered.get(first[stem]) or Origin(str(first[stem]))
        items.append(Item(stem, {name: found[stem] for name, found in pictures.items()}, masks[stem], origin))
    return items


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", remedy="[data] names the folders of pictures and masks")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in place.parts):
            continue
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
            folder.parent / entry["file"]: Origin(entry["file"], "rendered", generator, int(entry["seed"]))
            for entry in manifest["pictures"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: malformed manifest ({error})", remedy="render the folder anew, or rename the file"
        ) from error


def label_table(values: Mapping[str, str], classes: Sequence[str]) -> npt.NDArray[np.int16]:
    """Lookup table int16 (256,) from mask value to class index or IGNORE; -1 for values that have no meaning."""
    table = np.full(256, _UNKNOWN, np.int16)
    for key, name in values.items():
        span = value_range(key)
        table[span.start : span.stop] = IGNORE if name == "ignore" else classes.index(name)
    return table


def read(item: Item, table: npt.NDArray[np.int16]) -> Read:
    """Decode an item's pictures and mask; the mask's values become class indices by ``table``.

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
