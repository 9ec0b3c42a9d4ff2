"""Dividing one folder into train, val and test: by picture, or by group so that relatives stay together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from leakdet_tf.config.data import Split
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import write_json
from leakdet_tf.core.images import SUFFIXES

FORMAT = 1


def divide(
    ids: Sequence[str], split: Split, *, where: str, labels: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Ids by split, sorted. The same ids and seed give the same division, whatever order they come in.

    Args:
        ids: what to divide.
        split: shares, seed and grouping; or a manifest of an earlier division, or of the part of each file, used as
            it is.
        where: the folder, for messages.
        labels: each id's label, for ``balance``.

    Raises:
        DataError: a stem does not match ``group``, a split that has a share would be empty, the manifest does not name
            exactly these ids, or a group of it is in several parts.
    """
    if split.manifest:
        return _from_manifest(ids, split, where)
    groups: dict[str, list[str]] = {}
    for key in sorted(ids):
        groups.setdefault(group_of(key, split.group, where=where), []).append(key)
    names = sorted(groups)
    order = [names[i] for i in np.random.default_rng(split.seed).permutation(len(names))]
    if split.balance:
        parts = _balanced(order, groups, split, labels or {})
    else:
        first = round(split.train * len(order))
        second = round((split.train + split.val) * len(order))
        parts = {"train": order[:first], "val": order[first:second], "test": order[second:]}
    for name in SPLITS:
        if getattr(split, name) > 0 and not parts[name]:
            what = "groups" if split.group else "pictures"
            raise DataError(
                f"{where}: {len(order)} {what} leave none for {name}", remedy="change the shares or add pictures"
            )
    return {name: sorted(key for group in parts[name] for key in groups[group]) for name in SPLITS}


def _balanced(
    order: Sequence[str], groups: Mapping[str, Sequence[str]], split: Split, labels: Mapping[str, str]
) -> dict[str, list[str]]:
    # The largest groups first, each to the split that then lies nearest to its share of every label's pictures.
    counts = {name: Counter(labels.get(key, "") for key in groups[name]) for name in order}
    total = sum(counts.values(), Counter[str]())
    shares = {name: getattr(split, name) for name in SPLITS if getattr(split, name) > 0}
    have: dict[str, Counter[str]] = {name: Counter() for name in shares}
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}

    def gain(name: str, group: str) -> tuple[float, float]:
        # How much of what the split still lacks, label by label as a share of the label, the group would bring; among
        # equals, how many pictures the split lacks.
        found = 0.0
        for label, count in counts[group].items():
            lack = shares[name] * total[label] - have[name][label]
            found += (lack**2 - (lack - count) ** 2) / (shares[name] * total[label] ** 2)
        return round(found, 9), shares[name] * total.total() - have[name].total()

    for group in sorted(order, key=lambda name: -len(groups[name])):  # stable: the seed orders equal sizes
        best = max(shares, key=lambda name: gain(name, group))
        parts[best].append(group)
        have[best] += counts[group]
    return parts


def manifest_of(parts: dict[str, list[str]], split: Split, root: str) -> dict[str, Any]:
    """A division as plain data for ``split.json``; with the groups of the manifest that it came from, if there are."""
    found = {"format": FORMAT, "root": root, "seed": split.seed, "group": split.group, "splits": parts}
    if split.manifest:
        ids = sorted(key for part in parts.values() for key in part)
        groups = dict(zip(ids, groups_of(ids, split, where=root), strict=True))
        found |= {"groups": groups} if len(set(groups.values())) < len(ids) else {}
    return found


def save_manifest(path: Path, parts: dict[str, list[str]], split: Split, root: str) -> None:
    """Write ``split.json``, which ``data.split.manifest`` takes."""
    write_json(path, manifest_of(parts, split, root))


def group_of(key: str, pattern: str, *, where: str) -> str:
    """What a picture belongs to: the text that ``pattern`` captures of its stem, or without one its id.

    Raises:
        DataError: the stem does not match.
    """
    if not pattern:
        return key
    match = re.search(pattern, Path(key).name)
    if match is None or match[1] is None:
        raise DataError(f"{where}: '{key}' does not match data.split.group '{pattern}'", remedy="widen the expression")
    return match[1]


def groups_of(ids: Sequence[str], split: Split | None, *, where: str, prefix: str = "") -> list[str]:
    """What each picture belongs to: what ``group`` captures, or else its group in the manifest, or else itself.

    Args:
        ids: pictures of a source, not needed to be all of it.
        split: how the source is divided.
        where: the folder, for messages.
        prefix: what stands before the ids in the manifest's place, and before the names of its groups.

    Raises:
        DataError: the manifest cannot be read, or a stem does not match.
    """
    groups, pattern = dict[str, str](), split.group if split else ""
    if split and split.manifest and not pattern:
        bare = {key.removeprefix(prefix) for key in ids}
        _, groups, pattern = _manifest(Path(split.manifest), bare)
    named = [groups.get(key.removeprefix(prefix)) for key in ids]
    return [
        group_of(key, pattern, where=where) if name is None else prefix + name
        for key, name in zip(ids, named, strict=True)
    ]


def _manifest(path: Path, ids: set[str]) -> tuple[dict[str, list[str]], dict[str, str], str]:
    # The ids of each part, the group of each id that has one, and the expression that made groups.
    try:
        manifest, pattern = json.loads(path.read_text(encoding="utf-8")), ""
        if "split" in manifest and "format" not in manifest:
            parts = _by_file(manifest["split"], ids)
        elif manifest["format"] != FORMAT:
            raise ValueError(f"format {manifest['format']!r}, this version reads {FORMAT}")
        else:
            parts = {name: _texts(manifest["splits"][name]) for name in SPLITS}
            pattern = Split(group=manifest.get("group", "")).group
        return parts, _grouped(manifest.get("groups", {}), ids), pattern
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", remedy="check data.split.manifest") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: not a split manifest ({error})",
            remedy='use a split.json written by a run, or {"split": {"NAME.jpg": "train"}, "groups": [["NAME.jpg"]]}; '
            "groups may be left out",
        ) from error


def _from_manifest(ids: Sequence[str], split: Split, where: str) -> dict[str, list[str]]:
    path = Path(split.manifest)
    parts, groups, _ = _manifest(path, set(ids))
    named = [key for part in parts.values() for key in part]
    if len(set(named)) != len(named):
        twice = next(key for key, count in Counter(named).items() if count > 1)
        raise DataError(f"{path}: '{twice}' stands there twice", remedy="each picture belongs to one split, once")
    if odd := sorted(set(named) ^ set(ids)):
        side = "is not in" if odd[0] in set(named) else "is not named, yet in"
        raise DataError(f"{path}: '{odd[0]}' {side} {where} ({len(odd)} such)", remedy="make a new split")
    home = {key: name for name, part in parts.items() for key in part}
    if odd := [key for key in groups if key not in home]:
        raise DataError(f"{path}: '{odd[0]}' of group '{groups[odd[0]]}' is not in {where}", remedy="make a new split")
    first: dict[str, str] = {}
    for key, name in zip(ids, groups_of(ids, split, where=where), strict=True):
        other = first.setdefault(name, key)
        if home[other] != home[key]:
            raise DataError(
                f"{path}: group '{name}' is in {home[other]} ('{other}') and in {home[key]} ('{key}')",
                remedy="put all of its pictures into one part",
            )
    return parts


def _by_file(value: Any, ids: set[str]) -> dict[str, list[str]]:
    # The ids of each part; a name that is no id is one with the suffix of a picture.
    if not isinstance(value, dict):
        raise TypeError("'split' says of each file to which part it belongs")
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}
    for file, part in value.items():
        if part not in parts:
            raise ValueError(f"'{file}' belongs to {part!r}")
        parts[part].append(_id_of(file, ids))
    return {name: sorted(keys) for name, keys in parts.items()}


def _grouped(value: Any, ids: set[str]) -> dict[str, str]:
    # The group of each id: lists of files, named after the first of each, or the group's name by file.
    if isinstance(value, list):
        pairs = [(file, files[0]) for files in map(_texts, value) for file in files]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        raise TypeError("'groups' says of each file to which group it belongs, or is a list of lists of files")
    found: dict[str, str] = {}
    for file, name in pairs:
        if not isinstance(name, str):
            raise TypeError(f"'{file}' belongs to group {name!r}, which is no name")
        if (key := _id_of(file, ids)) in found:
            raise ValueError(f"'{file}' stands in two groups")
        found[key] = name
    return found


def _id_of(file: str, ids: set[str]) -> str:
    named = PurePosixPath(file)
    stem = named.with_suffix("").as_posix() if named.suffix.lower() in SUFFIXES else file
    return file if file in ids else stem


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise TypeError("a split is a list of names, and so is a group")
    return sorted(value)
