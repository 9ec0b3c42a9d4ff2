"""Dividing a folder: the same division every time, nothing twice, relatives together."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leakdet_tf.config.data import Split
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.core.errors import DataError
from leakdet_tf.data.readers import find_splits
from leakdet_tf.data.splits import divide, save_manifest

IDS = [f"plant{i % 7}/cam{i % 11:02d}_{i:04d}" for i in range(200)]


def groups_in(parts: dict[str, list[str]]) -> dict[str, set[str]]:
    return {name: {key.rpartition("/")[2].partition("_")[0] for key in keys} for name, keys in parts.items()}


def check_partition(parts: dict[str, list[str]], ids: list[str]) -> None:
    assert list(parts) == list(SPLITS)
    assert sorted(key for part in parts.values() for key in part) == sorted(ids)
    assert all(part == sorted(part) for part in parts.values())


def test_shares_are_kept_and_every_picture_is_in_one_split() -> None:
    parts = divide(IDS, Split(), where="root")
    check_partition(parts, IDS)
    assert {name: len(part) for name, part in parts.items()} == {"train": 140, "val": 30, "test": 30}


def test_the_division_does_not_depend_on_the_order_of_the_ids() -> None:
    first = divide(IDS, Split(group="(cam[0-9]+)_"), where="root")
    for seed in range(3):
        mixed = random.Random(seed).sample(IDS, len(IDS))
        assert divide(mixed, Split(group="(cam[0-9]+)_"), where="root") == first
        assert divide(mixed, Split(), where="root") == divide(IDS, Split(), where="root")


def test_the_division_depends_on_the_seed() -> None:
    assert divide(IDS, Split(seed=0), where="root") != divide(IDS, Split(seed=1), where="root")


def test_the_division_is_the_same_in_every_version() -> None:
    parts = divide([f"p{i}" for i in range(10)], Split(train=0.6, val=0.2, test=0.2, seed=3), where="root")
    assert parts == {"train": ["p0", "p1", "p2", "p4", "p6", "p9"], "val": ["p5", "p7"], "test": ["p3", "p8"]}


def test_groups_stay_together() -> None:
    parts = divide(IDS, Split(group="(cam[0-9]+)_"), where="root")
    check_partition(parts, IDS)
    found = groups_in(parts)
    assert not (found["train"] & found["val"] or found["train"] & found["test"] or found["val"] & found["test"])
    assert {name: len(group) for name, group in found.items()} == {"train": 8, "val": 1, "test": 2}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=8, max_size=40),
    shares=st.sampled_from(
        [(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.2, 0.0), (0.0, 0.0, 1.0), (1 / 3, 1 / 3, 1 / 3)]
    ),
    seed=st.integers(0, 10**6),
)
def test_any_groups_are_divided_within_one_group_of_their_shares(
    sizes: list[int], shares: tuple[float, float, float], seed: int
) -> None:
    ids = [f"cam{group:02d}_{i}" for group, size in enumerate(sizes) for i in range(size)]
    split = Split(train=shares[0], val=shares[1], test=shares[2], seed=seed, group="(cam[0-9]+)_")
    parts = divide(ids, split, where="root")
    check_partition(parts, ids)
    found = groups_in(parts)
    assert sum(map(len, found.values())) == len(sizes)
    for share, name in zip(shares, SPLITS, strict=True):
        assert abs(len(found[name]) - share * len(sizes)) <= 1
        assert bool(parts[name]) == (share > 0)


def test_a_split_that_would_be_empty_is_refused() -> None:
    with pytest.raises(DataError, match="root: 3 pictures leave none for test"):
        divide(["a", "b", "c"], Split(), where="root")
    with pytest.raises(DataError, match="2 groups leave none for val"):
        divide(["x_1", "x_2", "y_1", "y_2"], Split(train=0.5, val=0.1, test=0.4, group="(.)_"), where="root")
    assert divide(["a"], Split(train=1.0, val=0.0, test=0.0), where="root")["train"] == ["a"]


def test_a_stem_that_does_not_match_is_named() -> None:
    with pytest.raises(DataError, match=r"'site/odd' does not match data\.split\.group"):
        divide([*IDS, "site/odd"], Split(group="(cam[0-9]+)_"), where="root")
    with pytest.raises(DataError, match="'cam_1' does not match"):
        divide(["cam_1", "cam2_2"], Split(group="cam([0-9])?_"), where="root")


def test_the_expression_sees_the_stem_without_its_folder() -> None:
    with pytest.raises(DataError, match="does not match"):
        divide(IDS, Split(group="(plant[0-9])"), where="root")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "split.json"
    split = Split(group="(cam[0-9]+)_", seed=5)
    save_manifest(path, divide(IDS, split, where="root"), split, "root")
    return path


def test_a_saved_division_is_used_as_it_is(manifest: Path) -> None:
    before = divide(IDS, Split(group="(cam[0-9]+)_", seed=5), where="root")
    assert divide(list(reversed(IDS)), Split(manifest=str(manifest), seed=99), where="root") == before
    saved = json.loads(manifest.read_text(encoding="utf-8"))
    assert saved["splits"] == before
    assert (saved["format"], saved["root"], saved["seed"], saved["group"]) == (1, "root", 5, "(cam[0-9]+)_")


def test_a_saved_division_reaches_the_items(
    tmp_path: Path, fill_folder: Callable[..., Path], settings: Callable[..., Any]
) -> None:
    names = [f"p{i}" for i in range(8)]
    root = fill_folder(tmp_path / "set", names)
    split = Split(train=0.5, val=0.25, test=0.25)
    first = {name: [item.id for item in items] for name, items in find_splits(settings(root, split=split)).items()}
    save_manifest(tmp_path / "split.json", first, split, str(root))
    again = find_splits(settings(root, split={"manifest": str(tmp_path / "split.json"), "seed": 1}))
    assert {name: [item.id for item in items] for name, items in again.items()} == first


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda m: m["splits"]["val"].pop(), "is not named, yet in root \\(1 such\\)"),
        (lambda m: m["splits"]["val"].append("more"), "'more' is not in root \\(1 such\\)"),
        (lambda m: m["splits"]["val"].append(m["splits"]["train"][0]), "'plant.*' stands there twice"),
        (lambda m: m["splits"]["val"].append(m["splits"]["val"][0]), "stands there twice"),
        (lambda m: m["splits"].pop("test"), "not a split manifest"),
        (lambda m: m["splits"].update(test="plant"), "a split is a list of names"),
        (lambda m: m["splits"]["test"].append(3), "a split is a list of names"),
        (lambda m: m.pop("splits"), "not a split manifest"),
        (lambda m: m.update(format=2), "format 2, this version reads 1"),
        (lambda m: m.pop("format"), "not a split manifest"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    manifest: Path, edit: Callable[[dict[str, Any]], Any], said: str
) -> None:
    change(manifest, edit)
    with pytest.raises(DataError, match=said) as caught:
        divide(IDS, Split(manifest=str(manifest)), where="root")
    assert str(caught.value).startswith(f"{manifest}: ")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"format": 1}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a split manifest") as caught:
        divide(IDS, Split(manifest=str(path)), where="root")
    assert str(path) in str(caught.value)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        divide(IDS, Split(manifest=str(tmp_path / "none.json")), where="root")
