"""What the folders of an experiment hold, with what is wrong with them told and not raised."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from leakdet_tf.config.data import BOXES, Data, Input, Source
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.images import SUFFIXES
from leakdet_tf.data.items import FOLDERS, Item, pair_up
from leakdet_tf.data.readers import divided, mixed, pooled, taken, turned_parts
from leakdet_tf.synth.scenery.photos import shared

KINDS = (
    "folder",
    "empty",
    "unpaired",
    "undecodable",
    "mis-sized",
    "mis-valued",
    "mis-boxed",
    "class-never-seen",
    "imbalance",
    "rendered",
    "background",
    "fewer",
    "conflict",
    "duplicate",
)
Level = Literal["fatal", "error", "warning"]
Parts = dict[str, list[Item]]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where.

    ``level``: an ``error`` goes away when its file is left out, a ``fatal`` one concerns a whole folder or split, a
    ``warning`` does not stop training. ``split`` is empty where a file belongs to none yet.
    """

    kind: str
    source: str
    split: str
    file: str
    detail: str
    level: Level = "error"

    def __str__(self) -> str:
        """One line that any terminal can print."""
        return str(DataError(f"{self.file}: {self.detail}"))


def survey(data: Data) -> tuple[Parts, list[Finding]]:
    """As :func:`~leakdet_tf.data.readers.find_splits`, but what is wrong with folders and names is told, not raised."""
    parts: Parts = {name: [] for name in SPLITS}
    findings: list[Finding] = []
    for source in data.sources:
        prefix = f"{source.name}/" if data.source else ""
        for name, items in _splits_of(source, data.inputs, findings).items():
            if name in source.parts:
                parts[name] += [replace(item, id=prefix + item.id) for item in taken(items, name, source)]
    told = {finding.split for finding in findings if finding.level == "fatal"}
    for name, items in parts.items():
        if not items and not told & {name, ""}:
            findings.append(Finding("empty", "", name, data.where, f"the {name} split holds no pictures", "fatal"))
        if name != "train" and (fault := mixed(items, parts["train"])):
            findings.append(Finding("rendered", "", name, data.where, fault, "fatal"))
    return parts, findings + doubts(parts, data)


def doubts(parts: Mapping[str, Sequence[Item]], data: Data) -> list[Finding]:
    """Warnings of what needs no pictures decoded: rendered pictures of several splits that are drawn on the same
    photographs, and a source that has fewer training pictures than are to be taken."""
    told = shared((split, item.origin.parameters) for split, items in parts.items() for item in items)
    found = [Finding("background", "", "", data.where, told, "warning")] if told else []
    for source in data.sources:
        count = sum(item.source == source.name for item in parts["train"])
        if count < source.take and "train" in source.parts:
            detail = f"has {count} training pictures, though {source.take} are to be taken (data.source.take)"
            found.append(Finding("fewer", source.name, "train", source.root, detail, "warning"))
    return found


def _splits_of(source: Source, inputs: Mapping[str, Input], findings: list[Finding]) -> Parts:
    root = Path(source.root)

    def fatal(split: str, file: Path, detail: str) -> Parts:
        findings.append(Finding("folder", source.name, split, str(file), detail, "fatal"))
        return {}

    if fault := _folder_fault(root):
        return fatal("", root, fault)
    present = [name for name in SPLITS if (root / name).is_dir()]
    pool = source.split is not None and source.split.pool
    if present and source.split is not None and not pool:
        return fatal("", root, "has its own train, val and test folders, and a [data.split] table")
    if present and not pool:
        parts: Parts = {}
        for name in source.parts:
            if name in present:
                parts[name] = _items(root / name, source, inputs, name, findings)
            else:
                fatal(name, root / name, "no such folder")
        return parts
    if source.split is None and (turned := turned_parts(source, inputs)):
        return {name: _items(root, part, inputs, name, findings) for name, part in turned.items()}
    if source.split is None:
        return fatal("", root, "has no train, val and test folders, and there is no [data.split] table")
    listed = pooled(root, present, lambda folder: _items(folder, source, inputs, "", findings))
    items = {item.id: item for item in listed}
    try:
        return divided(items, source, root) if items else {}
    except DataError as error:
        return fatal("", root, said(error, root))


def _items(
    folder: Path, source: Source, inputs: Mapping[str, Input], split: str, findings: list[Finding]
) -> list[Item]:
    def fatal(kind: str, file: Path, detail: str) -> None:
        findings.append(Finding(kind, source.name, split, str(file), detail, "fatal"))

    pictures = [source.folders.get(name, item.folder) for name, item in inputs.items()]
    places = [*pictures, source.masks]
    if source.of_boxes:
        places = [*pictures, *([source.annotations] if source.labels in BOXES else [])]
    elif source.labels:
        pictures = places = [""] if source.labels == FOLDERS else []
    faults = [(place, fault) for place in dict.fromkeys(places) if (fault := _folder_fault(folder / place))]
    for place, fault in faults:
        fatal("folder", folder / place, fault)
    if faults:
        return []
    for place in dict.fromkeys(pictures if source.of_boxes else places):
        if not any(path.suffix.lower() in SUFFIXES for path in (folder / place).rglob("*")):
            fatal("empty", folder / place, f"holds no picture ({', '.join(SUFFIXES)})")
            return []
    try:
        items, odd = pair_up(folder, source, inputs)
    except DataError as error:  # a link to nothing, two files of one stem, a malformed manifest
        fatal("folder", folder, said(error, folder))
        return []
    of_folders = source.labels in ("", FOLDERS, *BOXES)
    for file, partner in odd:
        if of_folders or file.suffix.lower() in SUFFIXES:
            findings.append(Finding("unpaired", source.name, split, str(file), f"has no partner in {partner}"))
        else:
            findings.append(Finding("unpaired", source.name, split, str(partner), f"is not there, yet named by {file}"))
    if not items:
        fatal("empty", folder, "no picture can be used" if source.labels else "no picture has a mask of its stem")
    return items


def _folder_fault(folder: Path) -> str:
    try:
        if not folder.is_dir():
            return "no such folder"
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    return "" if os.access(folder, os.R_OK | os.X_OK) else "may not be read: its rights forbid it"


def said(error: DataError, place: Path) -> str:
    """What an error says, without the place that a finding names anyway."""
    return str(error.args[0]).removeprefix(f"{place}: ")
