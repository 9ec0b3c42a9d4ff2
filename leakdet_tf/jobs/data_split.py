"""``leakdet-tf data split``: the division that ``[data.split]`` makes, written down so that it stays what it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leakdet_tf.config.data import Data, Source
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import ConfigError, DataError
from leakdet_tf.data.box_truth import BoxTable
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import find_splits, row_of, truth_tables, words_of
from leakdet_tf.data.splits import groups_of, manifest_of, save_manifest

NONE, ALL = "(none)", "(all)"
"""The labels of rows for pictures of no class, and for all of a part."""

Log = Callable[[str], None]
Parts = Mapping[str, Sequence[Item]]


@dataclass(frozen=True)
class Row:
    """A line of the table: so many pictures, from so many groups, of one label in one part."""

    part: str
    label: str
    pictures: int
    groups: int


def split(path: str, overrides: Sequence[str], *, out: str, log: Log) -> list[Path]:
    """Divide an experiment's folders as its ``[data.split]`` tables say, and write what ``data.split.manifest`` takes.

    All pictures of a folder are divided, whatever the source's ``take`` and ``parts`` use of them later.

    Args:
        path: the experiment file.
        overrides: ``table.key=value`` for it.
        out: the manifest's file; with ``[[data.source]]`` tables each source's name stands in its manifest's.
        log: takes lines for the user: a table of parts and labels, and which classes a part lacks.

    Returns:
        The manifests.

    Raises:
        ConfigError: no source has a ``[data.split]`` table.
        DataError: a folder cannot be divided, a label means nothing, or another division stands in a manifest's place.
    """
    experiment = load(path, overrides)
    data, classes = experiment.data, experiment.task.classes
    divided = [source for source in data.sources if source.split is not None]
    if not divided:
        raise ConfigError(
            f"{path}: has no [data.split] table", remedy="add one; docs/experiment-file.md lists its keys"
        )
    done: list[tuple[Path, Source, dict[str, list[str]]]] = []
    for source in divided:
        parts = parts_of(data, source)
        found = rows(parts, data, source, classes)
        if data.source:
            log(f"source {source.name}, {source.root}:")
        for line in [*table(found), *(f"warning: {line}" for line in lacking(found))]:
            log(line)
        file = _manifest(Path(out), source, several=bool(data.source))
        ids = {name: [item.id for item in parts[name]] for name in SPLITS}
        _refuse_another(file, source, ids)
        done.append((file, source, ids))
    for file, source, ids in done:  # all of them, or none
        assert source.split is not None
        save_manifest(file, ids, source.split, source.root)
    return [file for file, _, _ in done]


def parts_of(data: Data, source: Source) -> dict[str, list[Item]]:
    """All items of a source as its ``[data.split]`` divides them; their ids are those that its manifest names."""
    whole = source.model_copy(update={"take": 0, "parts": list(SPLITS)})
    prefix = f"{source.name}/"
    parts = find_splits(data.model_copy(update={"source": [whole]}))
    return {name: [replace(item, id=item.id.removeprefix(prefix)) for item in items] for name, items in parts.items()}


def rows(parts: Parts, data: Data, source: Source, classes: Sequence[str]) -> list[Row]:
    """How many pictures and groups each part has: in all, and to classify or detect also by class and without any.

    A picture of several classes is counted in each of them.
    """
    assert source.split is not None
    known = truth_tables(data, classes)[source.name]
    found = []
    for name, items in parts.items():
        groups = groups_of([item.id for item in items], source.split, where=source.root)

        def row(label: str, chosen: Sequence[int], name: str = name, groups: Sequence[str] = groups) -> Row:
            return Row(name, label, len(chosen), len({groups[i] for i in chosen}))

        held: list[set[int]] | None = None
        if isinstance(known, tuple):
            held = [{index for index, there in enumerate(row_of(item, known)) if there} for item in items]
        elif isinstance(known, BoxTable):
            held = [_classes_of(item, known) for item in items]
        if held is not None:
            for index, label in enumerate(classes):
                found.append(row(label, [i for i, those in enumerate(held) if index in those]))
            if without := [i for i, those in enumerate(held) if not those]:
                found.append(row(NONE, without))
        found.append(row(ALL, range(len(items))))
    return found


def _classes_of(item: Item, known: BoxTable) -> set[int]:
    words = words_of(item)
    if odd := [word for word in words if word not in known.words]:
        raise DataError(
            f"{item.boxes}: its class '{odd[0]}' means nothing", remedy="name it in data.values, or in task.classes"
        )
    return {label for word in words if (label := known.words[word]) >= 0}


def table(found: Sequence[Row]) -> list[str]:
    """The rows as lines of text, with the share of a label's pictures that a part has."""
    total = {row.label: sum(one.pictures for one in found if one.label == row.label) for row in found}
    width = max(5, *(len(row.label) for row in found))
    lines = [f"{'part':5}  {'class':{width}}  pictures   share  groups"]
    for row in found:
        share = f"{row.pictures / total[row.label]:.1%}" if total[row.label] else ""
        lines.append(f"{row.part:5}  {row.label:{width}}  {row.pictures:8}  {share:>6}  {row.groups:6}")
    return lines


def lacking(found: Sequence[Row]) -> list[str]:
    """A line for each part that has pictures, yet none of some classes."""
    lines = []
    for whole in [row for row in found if row.label == ALL and row.pictures]:
        if absent := [row.label for row in found if row.part == whole.part and not row.pictures]:
            lines.append(f"{whole.part} has no picture of {', '.join(absent)}")
    return lines


def _manifest(out: Path, source: Source, *, several: bool) -> Path:
    return out.with_name(f"{out.stem}-{source.name}{out.suffix}") if several else out


def _refuse_another(file: Path, source: Source, ids: dict[str, list[str]]) -> None:
    # A manifest that says the same may be written again; anything else was somebody's.
    assert source.split is not None
    try:
        there: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise DataError(f"{file}: stands there and cannot be read ({reason})", remedy="change --out") from error
    if there != manifest_of(ids, source.split, source.root):
        raise DataError(
            f"{file}: stands there already and is of another division or folder",
            remedy="change --out, remove it, or use it: set data.split.manifest",
        )
