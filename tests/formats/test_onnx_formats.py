"""ONNX files: simple graphs of the same answers, and int8 ones that hold what they promise."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.formats import child, onnx_int8
from leakdet_tf.formats import onnx as format_onnx
from leakdet_tf.formats.calibration_set import read
from leakdet_tf.formats.onnx_int8 import Graph, Pictures
from leakdet_tf.models import yolov8

SIDE = 32
KEPT = "early/Conv"


@pytest.fixture(scope="module", autouse=True)
def at_once() -> Iterator[None]:
    """Converts in this process: the same functions, without the seconds that a new one takes to start."""
    import importlib

    import keras

    def run(module: str, model: Path, contract: Path, out: Path, *, to: str, asked: child.Asked) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters' own
            return importlib.import_module(module)._convert_here(model, Contract.load(contract), out, asked)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "run", run)
        yield
    keras.config.enable_traceback_filtering()


@dataclass(frozen=True)
class Case:
    """A saved Keras model, its contract, calibration pictures, and where its files go."""

    folder: Path
    model: Any
    contract: Contract
    frames: dict[str, np.ndarray]

    def convert(self, form: str, name: str, **options: Any) -> tuple[onnx.ModelProto, list[child.Layer]]:
        out = self.folder / f"{name}.onnx"
        options.setdefault("rank", "calibration" in options)
        layers = format_onnx.convert(
            self.folder / "model.keras", self.folder / "contract.json", out, form=form, **options
        )
        return onnx.load(out, load_external_data=False), layers

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.npz"

    def answers(self, pictures: dict[str, np.ndarray]) -> np.ndarray:
        given = list(pictures.values())
        return np.asarray(self.model(given if len(given) > 1 else given[0], training=False))


def case(folder: Path, model: Any, contract: Contract) -> Case:
    folder.mkdir()
    model.save(folder / "model.keras")
    contract.save(folder / "contract.json")
    random = np.random.default_rng(3)
    frames = {}
    for name, spec in contract.inputs.items():
        top = np.iinfo(spec.dtype).max
        dark = random.integers(0, top // 5, (6, *spec.shape)).astype(spec.dtype)
        flat = np.stack([np.zeros(spec.shape, spec.dtype), np.full(spec.shape, top, spec.dtype)])
        frames[name] = np.concatenate([dark, flat if spec.dtype == "uint8" else dark[:1].repeat(2, axis=0)])
    np.savez(folder / "calibration.npz", **frames)
    return Case(folder, model, contract, frames)


def segmenter(inputs: list[Any]) -> Any:
    import keras
    from keras import layers

    x = [layers.Rescaling(1 / (255 if one.dtype == "uint8" else 65535), dtype="float32")(one) for one in inputs]
    x = layers.Concatenate()(x) if len(x) > 1 else x[0]
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="early")(x)
    skip = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="swish", name="middle")(skip)
    x = layers.Concatenate(name="join")([layers.UpSampling2D(name="up")(x), skip])
    x = layers.DepthwiseConv2D(3, padding="same", name="apart")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="late")(x)
    x = layers.Conv2D(3, 1, name="logits")(x)
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], layers.Activation("softmax", dtype="float32")(x))
    random = np.random.default_rng(7)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(random.normal(0, 1.4 / np.prod(weight.shape[:-1]) ** 0.5, weight.shape))
        elif weight.path.endswith("gamma"):
            weight.assign(random.uniform(0.3, 2, weight.shape))
    return model


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Case:
    import keras

    model = segmenter([keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")])
    contract = Contract("segment", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["one", "two", "three"]))
    return case(tmp_path_factory.mktemp("onnx") / "colour", model, contract)


@pytest.fixture(scope="module")
def thermal(tmp_path_factory: pytest.TempPathFactory) -> Case:
    import keras

    specs = {"image": ImageSpec(SIDE, SIDE), "thermal": ImageSpec(SIDE, SIDE, 1, "uint16")}
    model = segmenter([keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in specs.items()])
    return case(
        tmp_path_factory.mktemp("onnx") / "both", model, Contract("segment", specs, classes_of(["one", "two", "three"]))
    )


@pytest.fixture(scope="module")
def exact(colour: Case) -> onnx.ModelProto:
    proto, layers = colour.convert("onnx_float32", "float")
    assert layers == []
    return proto


@pytest.fixture(scope="module")
def int8(colour: Case) -> tuple[onnx.ModelProto, list[child.Layer]]:
    return colour.convert("onnx_int8", "int8", calibration=colour.calibration)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)


def ran(proto: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["output"], inputs)[0])


def ends(proto: onnx.ModelProto) -> list[tuple[str, int, Any]]:
    values = [(one.name, one.type.tensor_type) for one in (*proto.graph.input, *proto.graph.output)]
    return [(name, kind.elem_type, kind.shape.dim[0].dim_param) for name, kind in values]


def quantized(proto: onnx.ModelProto) -> set[str]:
    """The layers whose stored weights are int8."""
    graph = Graph(proto.graph)
    found = set()
    for name, node in graph.nodes.items():
        made = graph.maker.get(node.input[1]) if node.op_type == "Conv" else None
        if made is not None:
            assert made.op_type == "DequantizeLinear"
            assert graph.constants[made.input[0]].data_type == onnx.TensorProto.INT8
            assert np.prod(graph.constants[made.input[1]].dims) > 1, "a scale each channel"
            largest = np.abs(onnx.numpy_helper.to_array(graph.constants[made.input[0]]).astype(int)).max()
            alone = graph.constants[made.input[0]].dims[1] == 1
            assert (64 < largest <= 127) if alone else (32 < largest <= 64), "no sum of two products overflows 16 bits"
            found.add(name)
    return found


def test_a_float_file_is_simple_and_answers_as_its_model(
    colour: Case, exact: onnx.ModelProto, pictures: np.ndarray
) -> None:
    np.testing.assert_allclose(ran(exact, image=pictures), colour.answers({"image": pictures}), atol=2e-5)
    assert ends(exact) == [("image", onnx.TensorProto.UINT8, "batch"), ("output", onnx.TensorProto.FLOAT, "batch")]
    assert [(entry.domain, entry.version) for entry in exact.opset_import] == [("", 17)]
    counts = Counter(node.op_type for node in exact.graph.node)
    assert counts["Resize"] == 1
    assert not {"Shape", "Gather", "Slice", "Tile", "Reshape", "Identity", "Pad"} & set(counts)
    assert counts["Transpose"] == 2, "pixels in, scores out"
    assert {node.name for node in exact.graph.node if node.op_type == "Conv"} == {
        "early/Conv", "middle/Conv", "apart/Conv", "late/Conv", "logits/Conv",
    }  # fmt: skip


def test_simplifying_changes_no_answer(
    colour: Case, exact: onnx.ModelProto, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(format_onnx, "simplified", lambda proto: proto)
    monkeypatch.setattr(format_onnx, "plainly_called", lambda model: model)
    long, _ = colour.convert("onnx_float32", "long")
    assert len(long.graph.node) > 1.5 * len(exact.graph.node)
    np.testing.assert_allclose(ran(exact, image=pictures), ran(long, image=pictures), atol=1e-6)


@pytest.mark.slow
def test_a_reshaped_detector_keeps_no_shape_arithmetic(tmp_path: Path) -> None:
    size = {"channels": (8, 8, 16, 16), "depths": (1, 1, 1, 1)}
    model = yolov8((SIDE, SIDE, 3), 2, implementation="native", seed=0, **size)
    contract = Contract("detect", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["a", "b"]), "linear")
    own = case(tmp_path / "x", model, contract)
    proto, _ = own.convert("onnx_float32", "float")
    assert not {"Shape", "Gather", "Slice", "Tile"} & {node.op_type for node in proto.graph.node}
    given = np.concatenate([own.frames["image"][:2], own.frames["image"][-1:]])
    np.testing.assert_allclose(ran(proto, image=given), own.answers({"image": given}), atol=1e-4)
    small = onnx_int8.quantized(proto, contract, own.frames, [], ranges=tmp_path / "ranges.json")
    last = {name for name in Graph(small.graph).nodes if name.startswith("head_") and name.endswith("_3_conv/Conv")}
    assert len(last) == 6
    assert not last & quantized(small)
    assert len(quantized(small)) > 20
    assert ran(small, image=given).shape == ran(proto, image=given).shape


def test_an_int8_file_holds_int8_between_pixels_and_scores(
    colour: Case, exact: onnx.ModelProto, int8: tuple[onnx.ModelProto, Any], pictures: np.ndarray
) -> None:
    proto, layers = int8
    onnx.checker.check_model(proto, full_check=True)
    assert ends(proto) == ends(exact)
    assert quantized(proto) == {"early/Conv", "middle/Conv", "apart/Conv", "late/Conv"}, "the last one gives the scores"
    graph = Graph(proto.graph)
    zero = {graph.constants[n.input[2]].data_type for n in graph.nodes.values() if n.op_type == "QuantizeLinear"}
    assert zero == {onnx.TensorProto.UINT8}
    for name, node in graph.nodes.items():
        if name.startswith("logits/") or node.op_type == "Softmax":
            after = {graph.nodes[other].op_type for other in graph.after(name)}
            assert "QuantizeLinear" not in after, "scores stay in float"
    ours, theirs = colour.answers({"image": pictures}), ran(proto, image=pictures)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, atol=0.06)
    assert 1e-5 < np.abs(theirs - ours).mean() < 0.01
    for answer, one in zip(theirs, pictures, strict=True):  # a batch of 3 is three pictures
        np.testing.assert_allclose(answer, ran(proto, image=one[None])[0], atol=1e-6)
    errors = [layer.error for layer in layers]
    assert errors == sorted(errors, reverse=True)
    assert (
        {"early/Conv", "middle/Conv", "apart/Conv", "late/Conv"} <= {layer.name for layer in layers} <= set(graph.nodes)
    )
    assert all(0 < error < 0.1 for error in errors)


def test_black_and_white_frames_keep_bright_pixels(colour: Case, int8: tuple[onnx.ModelProto, Any]) -> None:
    bright = np.full((1, SIDE, SIDE, 3), 255, np.uint8)
    bright[:, ::2] = 180
    near = np.abs(ran(int8[0], image=bright) - colour.answers({"image": bright})).max()
    assert near < 0.06
    dark = colour.folder / "dark.npz"
    np.savez(dark, image=colour.frames["image"][:-2])
    with pytest.raises(ExportError, match="'image' do not reach from 0 to 255"):
        colour.convert("onnx_int8", "dark", calibration=dark)
    assert not (colour.folder / "dark.onnx").exists()


def test_kept_layers_stay_in_float(colour: Case, int8: tuple[onnx.ModelProto, Any], pictures: np.ndarray) -> None:
    names = [layer.name for layer in int8[1]]
    assert KEPT in names
    proto, layers = colour.convert("onnx_int8", "kept", calibration=colour.calibration, keep=[KEPT])
    assert quantized(proto) == {"middle/Conv", "apart/Conv", "late/Conv"}
    assert KEPT not in {layer.name for layer in layers}
    graph = Graph(proto.graph)
    (weights,) = [graph.constants[name] for name in graph.nodes[KEPT].input[1:2]]
    assert weights.data_type == onnx.TensorProto.FLOAT
    assert {graph.nodes[name].op_type for name in graph.after(KEPT)} == {"Relu"}, "its activation is in float as well"
    np.testing.assert_allclose(ran(proto, image=pictures), colour.answers({"image": pictures}), atol=0.06)


def test_a_layer_of_odd_ranges_is_the_most_sensitive(colour: Case, tmp_path: Path) -> None:
    import keras

    model = keras.models.clone_model(colour.model)
    model.set_weights(colour.model.get_weights())
    kernel, bias = model.get_layer("middle").get_weights()
    bias[0] = 3000  # one output channel is far above the others, to which the tensor's one scale leaves a step or two
    model.get_layer("middle").set_weights([kernel, bias])
    kernel, bias = model.get_layer("apart").get_weights()
    kernel[:, :, 0] = 0  # and it goes no further
    model.get_layer("apart").set_weights([kernel, bias])
    own = case(tmp_path / "odd", model, colour.contract)
    _, layers = own.convert("onnx_int8", "int8", calibration=own.calibration)
    assert {layer.name for layer in layers[:3]} == {"middle/Conv", "apart/Conv", "join/Concat"}, "a step of 12"
    assert layers[2].error > 5 * layers[3].error


def test_16_bits_reach_the_first_layer_in_float(thermal: Case) -> None:
    proto, layers = thermal.convert("onnx_int8", "int8", calibration=thermal.calibration)
    assert quantized(proto) == {"middle/Conv", "apart/Conv", "late/Conv"}
    assert "early/Conv" not in {layer.name for layer in layers}
    random = np.random.default_rng(5)
    given = {name: random.permutation(array.ravel()).reshape(array.shape) for name, array in thermal.frames.items()}
    given["thermal"] //= 4
    np.testing.assert_allclose(ran(proto, **given), thermal.answers(given), atol=0.08)
    assert ends(proto)[1] == ("thermal", onnx.TensorProto.UINT16, "batch")


def test_pictures_are_given_one_at_a_time(thermal: Case) -> None:
    frames = read(thermal.calibration, thermal.contract)
    for name, array in frames.items():
        np.testing.assert_array_equal(array, thermal.frames[name])
    seen = list(Pictures(frames))
    assert len(seen) == 8
    assert all(one["thermal"].shape == (1, SIDE, SIDE, 1) for one in seen)
    assert [len(list(Pictures(frames, number))) for number in (3, 8, 20)] == [3, 8, 8]


def test_what_cannot_be_done_is_one_line(colour: Case) -> None:
    with pytest.raises(ExportError, match=r"needs calibration pictures; give it some of the training split$"):
        colour.convert("onnx_int8", "x")
    with pytest.raises(
        ExportError, match="no layer of the converted model is called 'early/Con'; did you mean 'early/"
    ):
        colour.convert("onnx_int8", "x", calibration=colour.calibration, keep=["early/Con"])
    with pytest.raises(ExportError, match="nothing is left to quantize"):
        every = ["early/Conv", "middle/Conv", "apart/Conv", "late/Conv"]
        colour.convert("onnx_int8", "x", calibration=colour.calibration, keep=every)
    with pytest.raises(ExportError, match="no ONNX format is called 'onnx_int4'; did you mean 'onnx_int8'"):
        colour.convert("onnx_int4", "x")
    with pytest.raises(ExportError, match="every layer of onnx_float32 is in float"):
        colour.convert("onnx_float32", "x", keep=[KEPT])
    assert not (colour.folder / "x.onnx").exists()
