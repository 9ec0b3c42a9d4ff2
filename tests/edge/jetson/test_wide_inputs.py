"""16-bit pixels: float32 in the file and in the first layers of every engine; on stand-ins for TensorRT and CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from leakdet_tf.core.errors import BundleError
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.tensorrt import Settings
from leakdet_tf.edge.tensorrt_build import build
from leakdet_tf.edge.wide_inputs import hold_in_float32


@pytest.fixture
def folder(device: Any, tmp_path: Path) -> Path:
    return Path(device.make.bundle(tmp_path / "wide", device.make.WIDE))


def bright(device: Any, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What the engine and ONNX Runtime answer where thermal pixels are at their largest, infinite in float16."""
    (images,) = device.make.frames(device.make.WIDE, 1, seed=4)
    images["thermal"][:] = np.iinfo(np.uint16).max
    reference = device.make.reference(device.make.WIDE, (folder / "model.onnx").read_bytes())
    first, second = (one.backend.run(one.prepare(images)[0])["output"] for one in (Predictor(folder), reference))
    return first, second


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0"])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_what_computes_with_16_bit_pixels_is_held_to_float32(
    device: Any, folder: Path, precision: str, version: str
) -> None:
    device.trt.behave(version)
    build(folder, Settings(precision))
    assert device.world.held == ["thermal_part"]
    assert "OBEY_PRECISION_CONSTRAINTS" in device.world.log[0][0]
    np.testing.assert_allclose(*bright(device, folder), atol=5e-3)


def test_unheld_they_would_be_wrong(device: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leakdet_tf.edge.tensorrt_build.hold_in_float32", lambda *_: None)
    build(folder, Settings("float16"))
    answered, _ = bright(device, folder)
    assert np.isnan(answered).all()


def test_float32_needs_no_holding(device: Any, folder: Path) -> None:
    build(folder, Settings("float32"))
    assert device.world.held == []


def test_8_bit_pixels_are_not_held(device: Any, bundle: Path) -> None:
    build(bundle, Settings("float16"))
    assert device.world.held == []
    assert device.world.log[0][0] == ["FP16", "TF32"]


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_trtexec_which_passes_over_names_in_silence_is_not_asked(device: Any, folder: Path, precision: str) -> None:
    build(folder, Settings(precision))
    with pytest.raises(BundleError, match=r"16-bit pixels need float32 layers.*without --trtexec") as caught:
        build(folder, Settings(precision), trtexec="trtexec", anew=True)
    assert "\n" not in str(caught.value)
    program = device.make.trtexec(folder.parent)
    assert build(folder, Settings("float32"), trtexec=program).engine.card["built_by"] == "trtexec"


def test_the_first_layer_with_weights_is_the_last_that_is_held(device: Any) -> None:
    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, [4, 1, 1, 1], [1.0] * 4)
    last = helper.make_tensor("last", TensorProto.FLOAT, [3, 4, 1, 1], [1.0] * 12)
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [1e-4])
    nodes = [
        helper.make_node("Shape", ["thermal"], ["size"]),
        helper.make_node("Mul", ["thermal", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "kernel"], ["first"]),
        helper.make_node("Relu", ["first"], ["active"]),
        helper.make_node("Conv", ["active", "last"], ["second"]),
        helper.make_node("Expand", ["second", "size"], ["output"]),
    ]
    given = [helper.make_tensor_value_info("thermal", TensorProto.FLOAT, ["batch", 1, 8, 16])]
    made = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3, 8, 16])]
    body = helper.make_graph(nodes, "deep", given, made, [kernel, last, scale])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    network, config = device.trt.Network(explicit=True), device.trt.Config()
    assert device.trt.OnnxParser(network, None).parse(model.SerializeToString())
    hold_in_float32(device.trt, network, config, device.make.WIDE)
    assert [layer.name for layer in network.layers if layer.held] == ["scaled", "first"]
    assert [layer.name for layer in network.layers if layer.precision is not None] == ["scaled", "first"]
