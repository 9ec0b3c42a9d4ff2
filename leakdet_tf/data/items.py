"""What folders hold: pictures with their masks, labels or boxes, paired by stem.

Layouts: ``<folder>/images/NAME.jpg`` with ``<folder>/masks/NAME.png``, stems equal, suffixes free; or
``<folder>/<class>/NAME.jpg``; or a CSV file ``<folder>/labels.csv`` with the columns ``file`` and ``label``. Boxes:
``<folder>/images/NAME.jpg`` with ``<folder>/labels/NAME.txt`` (YOLO, empty where nothing is) or ``NAME.xml`` (VOC); or
``<folder>/coco.json``, whose ``file_name`` is a path in ``<folder>/images``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leakdet_tf.config.data import Input, Source
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import SUFFIXES
from leakdet_tf.core.records import Origin
from leakdet_tf.data import box_files
from leakdet_tf.data.box_files import Written

FOLDERS = "folders"
"""The value of ``data.labels`` for class folders; any other is a CSV file's name."""
_IGNORE = "ignore"

Odd = list[tuple[Path, Path]]


@dataclass(frozen=True)
class Item:
    """One sample on disk: its pictures by input name, its mask, its labels' words or its boxes, and its source's name.

    ``boxes`` is the file that holds its boxes; where that file is of all pictures, ``written`` is what it says of this.
    """

    id: str
    images: dict[str, Path]
    mask: Path | None
    origin: Origin
    source: str = "data"
    words: tuple[str, ...] = ()
    boxes: Path | None = None
    written: Written | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Its own files: pictures, then its mask or its boxes' file."""
        own = self.mask or (None if self.written else self.boxes)
        return (*self.images.values(), *([own] if own else []))


def count_rendered(items: Iterable[Item]) -> int:
    """How many are pictures that somebody rendered, by their manifests."""
    return sum(item.origin.kind == "rendered" for item in items)


def note_on_rendered(rendered: int, pictures: int) -> str:
    """What to say of figures on so many ``pictures`` of which so many are ``rendered``; empty where none is."""
    if not rendered:
        return ""
    whose = "those of photographs" + (", nor those of rendered pictures alone" if rendered < pictures else "")
    return f"{rendered} of {pictures} pictures are rendered: the figures are not {whose}"


def pair_up(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], Odd]:
    """The items of one folder, sorted by id (the stem, with its sub-folder), and the files that lack a partner.

    With each of these comes the folder where its partner should be. Pictures whose word means ``ignore`` are left out.

    Raises:
        DataError: a folder is missing or empty, two files share a stem, a name is not UTF-8, or the CSV is no table.
    """
    if not source.labels:
        return _with_masks(folder, source, inputs)
    if source.of_boxes:
        form = box_files.form_of(source.labels)
        return (_in_coco if form == box_files.COCO else _with_boxes)(folder, source, inputs)
    return _in_folders(folder, source, inputs) if source.labels == FOLDERS else _in_table(folder, source, inputs)


def _with_masks(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], Odd]:
    places = {name: folder / source.folders.get(name, item.folder) for name, item in inputs.items()}
    found = {name: by_stem(place) for name, place in places.items()}
    masks = by_stem(folder / source.masks)
    whole, odd = _paired({**found, "": masks}, {**places, "": folder / source.masks})
    first, rendered = next(iter(found.values())), _rendered(folder)
    items = []
    for stem in whole:
        origin = rendered.get(first[stem]) or Origin(str(first[stem]))
        items.append(Item(stem, {name: files[stem] for name, files in found.items()}, masks[stem], origin, source.name))
    return items, odd


def _with_boxes(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], Odd]:
    places = {name: folder / source.folders.get(name, item.folder) for name, item in inputs.items()}
    found = {name: by_stem(place) for name, place in places.items()}
    home, suffix = folder / source.annotations, box_files.SUFFIXES[source.labels]
    boxes = _by_stem(home, (suffix,))
    if suffix == ".txt" and "classes" not in next(iter(found.values())):
        boxes.pop("classes", None)  # the list of names that annotation programs leave there
    whole, odd = _paired({**found, "": boxes}, {**places, "": home})
    first, rendered = next(iter(found.values())), _rendered(folder)
    items = []
    for stem in whole:
        origin = rendered.get(first[stem]) or Origin(str(first[stem]))
        images = {name: files[stem] for name, files in found.items()}
        items.append(Item(stem, images, None, origin, source.name, boxes=boxes[stem]))
    return items, odd


def _in_coco(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], Odd]:
    path = folder / source.labels
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy="data.labels names it") from error
    listed = box_files.parse_coco(content, name=str(path))
    places = {name: folder / source.folders.get(name, item.folder) for name, item in inputs.items()}
    found = {name: by_stem(place) for name, place in places.items()}
    (home, first), rendered = next(iter(found.items())), _rendered(folder)
    odd: Odd = [(path, places[home] / file) for file in listed if not (places[home] / file).is_file()]
    written = {Path(file).with_suffix("").as_posix(): said for file, said in listed.items()}
    odd += [(first[stem], path) for stem in sorted(set(first) - set(written))]
    items = []
    whole, lacking = _paired(found, places)
    for stem in whole:
        if stem in written:
            origin = rendered.get(first[stem]) or Origin(str(first[stem]))
            images = {name: files[stem] for name, files in found.items()}
            items.append(Item(stem, images, None, origin, source.name, boxes=path, written=written[stem]))
    return items, odd + lacking


def _in_folders(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], Odd]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", remedy="set data.root")
    rendered = _rendered(folder)
    items: list[Item] = []
    odd: Odd = []
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise DataError(f"{folder}: holds no class folders", remedy="data.labels says that there is one for each class")
    for place in classes:
        word = text_of(place.name, place)
        if source.values.get(word) == _IGNORE:
            continue
        places = {name: place / source.folders.get(name, item.folder) for name, item in inputs.items()}
        if len(inputs) == 1:  # pictures may lie in the class folder itself
            places = {name: inner if inner.is_dir() else place for name, inner in places.items()}
        found = {name: by_stem(inner) for name, inner in places.items()}
        whole, lacking = _paired(found, places)
        odd += lacking
        first = next(iter(found.values()))
        for stem in whole:
            origin = rendered.get(first[stem]) or Origin(str(first[stem]))
            images = {name: files[stem] for name, files in found.items()}
            items.append(Item(f"{word}/{stem}", images, None, origin, source.name, (word,)))
    return items, odd


def _in_table(folder: Path, source: Source, inputs: Mapping[str, Input]) -> tuple[list[Item], Odd]:
    path = folder / source.labels
    columns = {name: "file" if len(inputs) == 1 else name for name in inputs}
    files: dict[str, dict[str, Path]] = {}
    words: dict[str, list[str]] = {}
    for number, row in _rows(path, [*columns.values(), "label"]):
        named = {name: row[column].strip() for name, column in columns.items()}
        if not all(named.values()):
            raise DataError(f"{path}: line {number}: names no file", remedy="every line needs one for each input")
        if out := [text for text in named.values() if not _inside(Path(text))]:
            raise DataError(f"{path}: line {number}: '{out[0]}' leads out of the folder", remedy="name files inside it")
        key = Path(next(iter(named.values()))).with_suffix("").as_posix()
        found = {name: folder / text for name, text in named.items()}
        if files.setdefault(key, found) != found:
            raise DataError(f"{path}: line {number}: '{key}' has other files above", remedy="rename one")
        listed = words.setdefault(key, [])
        listed += [word for part in row["label"].split(";") if (word := part.strip()) and word not in listed]
    rendered = _rendered(folder)
    items: list[Item] = []
    odd: Odd = []
    for key in sorted(files):
        if lacking := [file for file in files[key].values() if not file.is_file()]:
            odd += [(path, file) for file in lacking]
            continue
        if any(source.values.get(word) == _IGNORE for word in words[key]):
            continue
        primary = next(iter(files[key].values()))
        origin = rendered.get(primary) or Origin(str(primary))
        items.append(Item(key, files[key], None, origin, source.name, tuple(words[key])))
    return items, odd


def _inside(place: Path) -> bool:
    return bool(place.name) and not place.is_absolute() and ".." not in place.parts


def _rows(path: Path, columns: list[str]) -> list[tuple[int, dict[str, str]]]:
    # Each with the number of its line.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text", remedy="save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy="data.labels names it") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV table ({error})", remedy="separate columns by commas") from error
    if missing := [name for name in columns if name not in (reader.fieldnames or [])]:
        raise DataError(f"{path}: has no column '{missing[0]}'", remedy=f"its first line names {', '.join(columns)}")
    if not rows:
        raise DataError(f"{path}: lists no pictures", remedy="add some")
    if odd := [number for number, row in rows if None in row]:
        raise DataError(f"{path}: line {odd[0]}: has more cells than columns", remedy="quote commas; join labels by ;")
    return rows


def _paired(found: Mapping[str, Mapping[str, Path]], places: Mapping[str, Path]) -> tuple[list[str], Odd]:
    # Stems that every folder has, and each file that lacks one with the folder where it should be.
    (home, first), *others = found.items()
    odd: Odd = []
    for name, files in others:
        odd += [(files[stem], places[home]) for stem in sorted(set(files) - set(first))]
        odd += [(first[stem], places[name]) for stem in sorted(set(first) - set(files))]
    return sorted(set(first).intersection(*found.values())), odd


def by_stem(folder: Path) -> dict[str, Path]:
    """The pictures below a folder by their path in it without suffix.

    Raises:
        DataError: there is no such folder or no picture in it, two share a stem, a name is no text, or a link is dead.
    """
    found = _by_stem(folder, SUFFIXES)
    if not found:
        raise DataError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})", remedy="add some or change data.root")
    return found


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", remedy="[data] names the folders of pictures and their truth")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if path.suffix.lower() not in suffixes or any(part.startswith(".") for part in place.parts):
            continue
        text_of(place.as_posix(), path)
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path}: is a link to nothing", remedy="fetch the file that it names, or remove it")
        if not path.is_file():
            continue
        stem = place.with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{path}: {found[stem].name} has the same stem", remedy="rename or remove one")
        found[stem] = path
    return found


def text_of(name: str, path: Path) -> str:
    """A file's or folder's name, if it is text; DataError that names ``path`` where it is not."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise DataError(f"{path}: its name is not UTF-8 text", remedy="rename it")
    return name


def _rendered(folder: Path) -> dict[Path, Origin]:
    # Origins by file, from the manifest that a generator left beside the split folders, or in a folder without any;
    # beside it by name and where it really lies, which differ for a link. The parent of "." is its own by name.
    found: dict[Path, Origin] = {}
    for base in dict.fromkeys((folder.resolve(), folder.absolute())):
        for home in (base.parent, base):
            inside = {path: origin for path, origin in _origins(home).items() if path.is_relative_to(base)}
            found |= {folder / path.relative_to(base): origin for path, origin in inside.items()}
    return found


def _origins(home: Path) -> dict[Path, Origin]:
    path = home / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or "generator" not in manifest:
            return {}  # somebody else's file of that name
        generator = str(manifest["generator"])
        return {
            home / entry["file"]: Origin(
                entry["file"], "rendered", generator, _seed(entry), dict(entry.get("parameters", {}))
            )
            for entry in manifest["pictures"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: malformed manifest ({error})", remedy="render the folder again, or rename the file"
        ) from error


def _seed(entry: Mapping[str, object]) -> int | None:
    # Pictures rendered elsewhere may have none.
    seed = entry.get("seed")
    return None if seed is None else int(str(seed))
