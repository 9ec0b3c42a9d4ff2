"""Several sets of pictures whose masks mean different things, read as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.data import Data
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.records import IGNORE
from leakdet_tf.data.readers import find_splits, labelling_of, read, truth_tables

CLASSES = ["background", "gas", "machine"]
Write = Callable[[Path, np.ndarray], Path]


@pytest.fixture
def merged(tmp_path: Path, write: Write) -> Data:
    """Two sources of other folder names and mask values; the second is divided, and of the first no test is used."""
    picture = np.zeros((4, 4, 3), np.uint8)
    for split in ("train", "val"):
        for stem in ("a", "b"):
            write(tmp_path / "plant" / split / "images" / f"{stem}.png", picture)
            write(tmp_path / "plant" / split / "masks" / f"{stem}.png", np.array([[0, 1, 2, 9]] * 4, np.uint8))
    for stem in "abcdefgh":
        write(tmp_path / "smoke" / "visual" / f"{stem}.png", picture)
        write(tmp_path / "smoke" / "truth" / f"{stem}.png", np.array([[0, 0, 255, 255]] * 4, np.uint8))
    sources = [
        {
            "name": "plant",
            "root": str(tmp_path / "plant"),
            "values": {"0": "background", "1": "gas", "2": "machine", "9": "ignore"},
            "parts": ["train", "val"],
        },
        {
            "name": "smoke",
            "root": str(tmp_path / "smoke"),
            "masks": "truth",
            "folders": {"image": "visual"},
            "values": {"0": ["machine", "background"], "255": ["gas"]},
            "split": {"train": 0.5, "val": 0.25, "test": 0.25},
        },
    ]
    return Data.model_validate({"inputs": {"image": {"size": [4, 4]}}, "source": sources})


def test_splits_are_merged_and_ids_name_their_source(merged: Data) -> None:
    parts = find_splits(merged)
    assert {name: len(items) for name, items in parts.items()} == {"train": 6, "val": 4, "test": 2}
    assert [item.id for item in parts["train"][:2]] == ["plant/a", "plant/b"]
    assert all(item.source == "smoke" and item.id.startswith("smoke/") for item in parts["test"])
    ids = [item.id for items in parts.values() for item in items]
    assert len(set(ids)) == len(ids) - 2  # plant has the same stems in train and val


def test_values_are_read_to_classes_sets_and_nothing(merged: Data) -> None:
    labelling = labelling_of(merged, CLASSES)
    assert labelling.sets == ((0, 2),)
    tables = truth_tables(merged, CLASSES)
    parts = find_splits(merged)
    truths = {item.source: read(item, tables[item.source]).sample.truth for item in parts["train"]}
    assert truths["plant"] is not None
    assert truths["smoke"] is not None
    assert truths["plant"][0].tolist() == [0, 1, 2, IGNORE]
    assert truths["smoke"][0].tolist() == [3, 3, 1, 1]


def test_a_value_of_one_source_means_nothing_in_another(merged: Data, tmp_path: Path, write: Write) -> None:
    path = write(tmp_path / "smoke" / "truth" / "a.png", np.full((4, 4), 9, np.uint8))
    tables = truth_tables(merged, CLASSES)
    (item,) = [item for items in find_splits(merged).values() for item in items if item.id == "smoke/a"]
    with pytest.raises(DataError, match=f"{path}: holds values that data.values does not name: 9"):
        read(item, tables["smoke"])


def test_a_part_that_is_asked_for_must_be_there(merged: Data, tmp_path: Path) -> None:
    plain: dict[str, Any] = merged.model_dump()
    plain["source"][0]["parts"] = ["train", "test"]
    with pytest.raises(DataError, match="has train, val but no test folder"):
        find_splits(Data.model_validate(plain))
