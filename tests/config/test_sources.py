"""Several sources, sets of classes and what must agree across tables; each fault is one line that names the key."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from leakdet_tf.config.loading import load, parse
from leakdet_tf.core.errors import ConfigError

PLAIN: dict[str, Any] = {
    "name": "merged",
    "task": {"classes": ["background", "gas", "machine"]},
    "data": {
        "inputs": {"image": {"size": [32, 32]}},
        "source": [
            {"name": "plant", "root": "a", "values": {"0": "background", "1": "gas", "2": "machine"}},
            {"name": "smoke", "root": "b", "values": {"0": ["background", "machine"], "255": "gas"}, "weight": 0.5},
        ],
    },
    "model": {"factory": "unet"},
}


def changed(place: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(PLAIN)
    *parents, last = place.split(".")
    table: Any = data
    for part in parents:
        table = table[int(part)] if part.isdecimal() else table.setdefault(part, {})
    table[last] = value
    return data


def said(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_sources_are_read_with_their_weights_and_sets() -> None:
    data = parse(PLAIN).data
    assert [source.name for source in data.sources] == ["plant", "smoke"]
    assert data.sources[1].values["0"] == ["background", "machine"]
    assert [source.weight for source in data.sources] == [1.0, 0.5]
    assert data.where == "a, b"


def test_one_folder_is_one_source() -> None:
    data = copy.deepcopy(PLAIN)
    data["data"] = {"root": "a", "values": {"0": "background"}, "inputs": PLAIN["data"]["inputs"], "masks": "truth"}
    (source,) = parse(data).data.sources
    assert (source.name, source.root, source.masks, source.weight) == ("data", "a", "truth", 1.0)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        ("data.root", "x", "data.root: belongs into each [[data.source]]"),
        ("data.values", {"0": "gas"}, "data.values: belongs into each [[data.source]]"),
        ("data.source", [], "data.root: missing"),
        ("data.source.1.name", "plant", "data.source: a name stands twice"),
        ("data.source.1.folders", {"thermal": "t"}, "folders.thermal is not among data.inputs"),
        ("data.source.1.values", {"0": ["background", "smoke"]}, "'smoke' is not among task.classes"),
        ("data.source.1.values", {"0": ["background", "gas", "machine"]}, "says nothing"),
        ("data.source.1.values", {"0": ["gas", "gas"]}, "data.source.1.values: '0' names a class twice"),
        ("data.source.1.values", {"0": ["gas", "ignore"]}, "'ignore' stands alone"),
        ("data.source.1.weight", 0, "data.source.1.weight: input should be greater than 0"),
        ("data.source.0.roots", "x", "data.source.0.roots: unknown key; did you mean 'root'?"),
        ("data.source.0.parts", [], "data.source.0.parts: "),
        ("train", {"loss_weights": [1.0]}, "train.loss_weights: 1 factors for 2 losses"),
        ("train", {"class_weights": [1.0]}, "train.class_weights: 1 for 3 classes"),
        ("train", {"class_weights": [0.0, 0.0, 0.0]}, "train.class_weights: all are 0"),
        ("train", {"class_weights": "some"}, "train.class_weights: input should be 'none', 'pixels' or 'pictures'"),
        ("train", {"class_weights": [1.0, math.nan, 1.0]}, "train.class_weights.1: input should be a finite number"),
        ("train", {"class_weights": [-1.0, 1.0, 1.0]}, "train.class_weights.0: input should be greater than or equal"),
        ("data.source.1.values", {"0": []}, "data.source.1.values.0: list should have at least 1 item"),
        ("data.augment", {"rotation": 200.0}, "data.augment.rotation: "),
        ("data.inputs.image.dtype", "uint16", ""),
    ],
)
def test_faults_name_their_key(place: str, value: Any, text: str) -> None:
    data = changed(place, value)
    if place.endswith("dtype"):
        data["data"]["augment"] = {"jpeg": 0.5}
        text = "data.augment.jpeg: JPEG holds 8 bits, data.inputs.image has uint16"
    assert text in said(data)


def test_a_source_is_overridden_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "merged.toml"
    path.write_text(tomli_w.dumps(PLAIN))
    assert load(path, ["data.source.1.weight=2"]).data.sources[1].weight == 2
    assert load(path, ["data.source.0.root=2024"]).data.sources[0].root == "2024"
    for wrong in ("data.source.2.weight=1", "data.source.x.weight=1", "data.source.0=3"):
        with pytest.raises(ConfigError, match=r"data\.source"):
            load(path, [wrong])
