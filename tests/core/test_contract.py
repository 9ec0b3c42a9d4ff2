"""The contract: checked when made, whole through JSON, and one id for one meaning."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.contract import PALETTE, ClassSpec, Contract, classes_of
from leakdet_tf.core.errors import ContractError
from leakdet_tf.core.images import ImageSpec

RGB = ImageSpec(64, 96)
THERMAL = ImageSpec(64, 96, 1, "uint16", "letterbox", 300)
CONTRACT = Contract(
    task="segment",
    inputs={"rgb": RGB, "thermal": THERMAL},
    classes=(ClassSpec("background"), ClassSpec("gás", "#f58231"), ClassSpec("machine", "#4363D8")),
    experiment="gas_unet",
    weights_sha256="ab" * 32,
)


def changed(**fields: Any) -> dict[str, Any]:
    """The contract as JSON data with some keys replaced, or left out where the value is ``...``."""
    data = json.loads(json.dumps(CONTRACT.to_dict()))
    data.update(fields)
    return {key: value for key, value in data.items() if value is not ...}


def test_json_returns_an_equal_contract(tmp_path: Path) -> None:
    for contract in (CONTRACT, dataclasses.replace(CONTRACT, parent="0123456789abcdef", activation="linear")):
        contract.save(tmp_path / "deep" / "contract.json")
        loaded = Contract.load(tmp_path / "deep" / "contract.json")
        assert loaded == contract
        assert loaded.id == contract.id
        assert list(loaded.inputs) == ["rgb", "thermal"]
        assert isinstance(loaded.classes, tuple)
        assert Contract.from_dict(contract.to_dict()) == contract


def test_it_tells_names_primary_input_and_colours() -> None:
    assert CONTRACT.class_names == ("background", "gás", "machine")
    assert CONTRACT.primary == "rgb"
    assert [item.rgb for item in CONTRACT.classes] == [None, (0xF5, 0x82, 0x31), (0x43, 0x63, 0xD8)]


def test_the_id_stays() -> None:
    assert CONTRACT.id == "40cdaaf2ce2f2cea"  # stands in written bundles: a change needs a new format number
    assert copy.deepcopy(CONTRACT).id == CONTRACT.id
    assert len(CONTRACT.id) == 16


def test_the_id_tells_every_meaning_apart() -> None:
    others = [
        {"inputs": {"rgb": RGB}},
        {"inputs": {"thermal": THERMAL, "rgb": RGB}},  # another primary input
        {"inputs": {"RGB": RGB, "thermal": THERMAL}},
        *(
            {"inputs": {"rgb": RGB, "thermal": dataclasses.replace(THERMAL, **{key: value})}}
            for key, value in {"height": 65, "width": 97, "channels": 3, "fit": "stretch", "pad": 301}.items()
        ),
        {"inputs": {"rgb": dataclasses.replace(RGB, dtype="uint16"), "thermal": THERMAL}},
        {"classes": CONTRACT.classes[::-1]},
        {"classes": CONTRACT.classes[:2]},
        {"classes": (*CONTRACT.classes[:2], ClassSpec("machine", "#4363d9"))},
        {"activation": "sigmoid"},
        {"experiment": "other"},
        {"weights_sha256": "ac" * 32},
        {"parent": CONTRACT.id},
    ]
    ids = {CONTRACT.id, *(dataclasses.replace(CONTRACT, **fields).id for fields in others)}
    assert len(ids) == 1 + len(others)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], r"^c\.json: not a contract but list"),
        (None, r"^c\.json: not a contract but NoneType"),
        (changed(format=2), r"^c\.json: contract format 2, this version reads 1; update leakdet_tf$"),
        (changed(format=...), r"^c\.json: contract format None"),
        (changed(format=True), r"^c\.json: contract format True"),
        (changed(format="1"), r"^c\.json: contract format '1'"),
        (changed(extra=1), r"^c\.json: malformed contract .*'extra'"),
        (changed(task=...), r"^c\.json: 'task' is missing"),
        (changed(inputs=...), r"^c\.json: 'inputs' is missing"),
        (changed(classes=...), r"^c\.json: 'classes' is missing"),
        (changed(task="caption"), r"^c\.json: unknown task 'caption'"),
        (changed(task=["segment"]), r"^c\.json: unknown task"),
        (changed(activation="relu"), r"^c\.json: unknown activation 'relu'"),
        (changed(inputs={}), r"^c\.json: a contract needs at least one input"),
        (changed(inputs={"": {"height": 3, "width": 3}}), r"^c\.json: a contract needs at least one input, and a name"),
        (changed(inputs=[1]), r"^c\.json: malformed contract"),
        (changed(inputs={"rgb": {"height": 3}}), r"^c\.json: malformed contract .*'width'"),
        (changed(inputs={"rgb": {"height": 3, "width": 3, "depth": 1}}), r"^c\.json: malformed contract .*'depth'"),
        (changed(inputs={"rgb": {"height": 0, "width": 3}}), r"^c\.json: an input needs a positive size"),
        (changed(inputs={"rgb": {"height": 3.5, "width": 3}}), r"^c\.json: an input's height must be an integer"),
        (changed(inputs={"rgb": {"height": 10**9, "width": 10**9}}), r"^c\.json: an input of .* limit"),
        (changed(classes=[]), r"^c\.json: a contract needs 2 to 255 classes, has 0"),
        (changed(classes=[{"name": "one"}]), r"^c\.json: a contract needs 2 to 255 classes, has 1"),
        (changed(classes=[{"name": f"c{i}"} for i in range(256)]), r"2 to 255 classes, has 256"),
        (changed(classes=[{"name": "a"}] * 2), r"^c\.json: class names repeat: a, a"),
        (changed(classes=[{"name": ""}, {"name": "b"}]), r"^c\.json: a class needs a name"),
        (changed(classes=[{"name": 5}, {"name": "b"}]), r"^c\.json: a class needs a name, not 5"),
        (changed(classes=["a", "b"]), r"^c\.json: malformed contract"),
        (changed(classes=[{"name": "a", "color": "red"}, {"name": "b"}]), r"colour 'red' is not of the form #rrggbb"),
        (changed(classes=[{"name": "a", "color": "#12345"}, {"name": "b"}]), r"is not of the form #rrggbb"),
        (changed(classes=[{"name": "a", "color": 7}, {"name": "b"}]), r"^c\.json: malformed contract"),
        (changed(experiment=None), r"^c\.json: experiment must be text, is None"),
        (changed(weights_sha256=3), r"^c\.json: weights_sha256 must be text, is 3"),
        (changed(parent=3), r"^c\.json: parent must be text, is 3"),
    ],
)
def test_wrong_data_is_an_error_that_names_the_file(data: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        Contract.from_dict(data, where="c.json")


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"NaN"])
def test_what_is_not_json_is_an_error(text: bytes) -> None:
    with pytest.raises(ContractError, match=r"^c\.json: not "):
        Contract.from_bytes(text, where="c.json")


def test_nan_is_no_size() -> None:
    text = json.dumps(changed(inputs={"rgb": {"height": float("nan"), "width": 3}})).encode()
    with pytest.raises(ContractError, match="height must be an integer, is nan"):
        Contract.from_bytes(text)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ContractError, match=r"cannot be read \(.+\); is this a run or a bundle\?$") as caught:
            Contract.load(path)
        assert str(path) in str(caught.value)


def test_colours_are_given_in_turn_and_background_is_not_painted() -> None:
    specs = classes_of(["background", "gas", "machine"])
    assert [item.color for item in specs] == [None, PALETTE[0], PALETTE[1]]
    assert [item.color for item in classes_of(["gas", "background"])] == [PALETTE[0], None]
    own = classes_of(["background", "gas", "machine"], {"gas": "#010203", "background": "#040506"})
    assert [item.color for item in own] == ["#040506", "#010203", PALETTE[1]]


def test_a_colour_of_the_palette_is_not_given_twice() -> None:
    specs = classes_of(["background", "gas", "machine"], {"machine": PALETTE[0].upper()})
    colors = [item.rgb for item in specs if item.rgb]
    assert len(set(colors)) == 2


def test_more_classes_than_colours_repeat_them() -> None:
    specs = classes_of([f"c{i}" for i in range(255)])
    assert [item.color for item in specs[: len(PALETTE)]] == list(PALETTE)
    assert specs[len(PALETTE)].color == PALETTE[0]
    every = {f"d{i}": color for i, color in enumerate(PALETTE)}
    assert classes_of([*every, "one more"], every)[-1].color in PALETTE


def detector(**changes: Any) -> Contract:
    return Contract("detect", {"image": ImageSpec(64, 96)}, classes_of(["hotspot"]), "linear", **changes)


def test_a_detector_has_one_class_and_keeps_its_settings(tmp_path: Path) -> None:
    contract = detector(threshold=0.4, nms_iou=0.5, max_boxes=20, outputs="decoded")
    contract.save(tmp_path / "contract.json")
    assert Contract.load(tmp_path / "contract.json") == contract
    assert len({contract.id, detector().id, detector(threshold=0.3).id, detector(outputs="final").id}) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"nms_iou": float("nan")}, "nms_iou"),
        ({"max_boxes": 0}, "max_boxes"),
        ({"max_boxes": 3.0}, "max_boxes"),
        ({"outputs": "cooked"}, "cooked"),
        ({"activation": "softmax"}, "linear"),
    ],
)
def test_a_detector_refuses(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError, match=said):
        dataclasses.replace(detector(), **changes)


def test_other_tasks_have_no_threshold_and_write_none() -> None:
    plain = Contract("segment", {"image": ImageSpec(64, 64)}, classes_of(["background", "gas"]))
    assert "threshold" not in plain.to_dict()
    with pytest.raises(ContractError, match="threshold has no meaning to segment"):
        dataclasses.replace(plain, threshold=0.4)


def test_prepare_gives_every_input_and_where_the_primary_frame_lies() -> None:
    inputs = {"image": ImageSpec(64, 96), "thermal": ImageSpec(32, 32, channels=1, dtype="uint16")}
    contract = Contract("classify", inputs, classes_of(["a", "b"]))
    images = {"thermal": np.zeros((50, 70, 1), np.uint16), "image": np.zeros((48, 40, 3), np.uint8)}
    given, geometry = contract.prepare(images)
    assert {name: (array.shape, array.dtype) for name, array in given.items()} == {
        "image": ((64, 96, 3), np.uint8),
        "thermal": ((32, 32, 1), np.uint16),
    }
    assert list(given) == ["image", "thermal"]
    assert geometry == inputs["image"].apply(images["image"])[1]
    with pytest.raises(ContractError, match="thermal: has uint8 pixels"):
        contract.prepare({**images, "thermal": np.zeros((50, 70, 1), np.uint8)})
