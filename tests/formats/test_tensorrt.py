"""Files for TensorRT of 16-bit pixels, which it has not: they are float32 in the file and uint16 everywhere else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from leakdet_tf.config.schema import Export
from leakdet_tf.core.errors import ExportError
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.edge.backends import cuda
from leakdet_tf.edge.backends.onnx import OnnxBackend
from leakdet_tf.edge.tensorrt import Settings
from leakdet_tf.edge.tensorrt_build import build
from leakdet_tf.formats import tensorrt
from leakdet_tf.formats.bundle import make_bundle
from leakdet_tf.formats.onnx_graph import widened
from leakdet_tf.formats.onnx_lint import findings

Get = Callable[[str], Any]
U16, F = TensorProto.UINT16, TensorProto.FLOAT
STANDINS = Path(__file__).parents[1] / "edge" / "jetson" / "standins"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Stand-ins for TensorRT and CUDA."""
    for name in ("tensorrt", "fake_cuda", "standin_world"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(STANDINS))
    monkeypatch.setattr(cuda, "load", cuda.load)
    monkeypatch.setenv("LEAKDET_CACHE", str(tmp_path / "cache"))
    yield importlib.import_module("standin_world").install()
    for name in ("tensorrt", "fake_cuda", "standin_world"):
        sys.modules.pop(name, None)


def graph(nodes: list[Any], names: tuple[str, ...] = ("heat",), opset: int = 17) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, U16, ["batch", 2, 3]) for name in names]
    outputs = [helper.make_tensor_value_info("y", F, ["batch", None, None])]
    scale = helper.make_tensor("scale", F, [], [0.37])
    body = helper.make_graph(nodes, "tiny", inputs, outputs, [scale])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def kinds(proto: onnx.ModelProto) -> list[int]:
    return [value.type.tensor_type.elem_type for value in proto.graph.input]


def ran(proto: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


PIXELS = {name: np.random.default_rng(i).integers(0, 65536, (2, 2, 3)).astype(np.uint16) for i, name in enumerate("ab")}


def cast(name: str, out: str, to: int = F) -> Any:
    return helper.make_node("Cast", [name], [out], to=to)


@pytest.mark.parametrize("number", [1, 2])
def test_every_value_of_16_bits_is_answered_as_before(number: int) -> None:
    names = ("a", "b")[:number]
    nodes = [node for name in names for node in (cast(name, f"{name}1"), cast(name, f"{name}2"))]
    nodes += [helper.make_node("Mul", ["a1", "scale"], ["m"]), helper.make_node("Sum", ["m", f"{names[-1]}2"], ["y"])]
    before = graph(nodes, names)
    content = before.SerializeToString()
    after = widened(before)
    assert kinds(after) == [F] * number
    assert not [node for node in after.graph.node if node.op_type == "Cast"]
    assert before.SerializeToString() == content, "the graph that was given stays as it was"
    assert findings(after) == []
    given = {name: PIXELS[name] for name in names}
    given["a"][0, 0] = 0, 1, 65535
    floats = {name: pixels.astype(np.float32) for name, pixels in given.items()}
    np.testing.assert_array_equal(ran(after, floats), ran(before, given))


def inner(name: str) -> Any:
    """A branch that takes a tensor of the graph around it."""
    nodes = [cast(name, f"{name}_inside") if name == "heat" else helper.make_node("Neg", [name], [f"{name}_inside"])]
    made = [helper.make_tensor_value_info(f"{name}_inside", F, ["batch", None, None])]
    return helper.make_graph(nodes, "branch", [], made)


def chosen(name: str) -> list[Any]:
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    branch = helper.make_node("If", ["which"], ["z"], then_branch=inner(name), else_branch=inner(name))
    return [helper.make_node("Constant", [], ["which"], value=yes), branch, helper.make_node("Neg", ["wide"], ["y"])]


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Transpose", ["heat"], ["m"], perm=[0, 2, 1]), cast("m", "y")],
        [cast("heat", "m"), helper.make_node("Identity", ["heat"], ["n"]), helper.make_node("Neg", ["m"], ["y"])],
        [cast("heat", "m", TensorProto.DOUBLE), cast("m", "y")],
        [cast("heat", "y")],
        [cast("heat", "wide"), *chosen("heat")],
        [cast("heat", "wide"), *chosen("wide")],
    ],
    ids=["moved", "and another", "double", "output", "inside", "cast inside"],
)
def test_an_input_that_is_not_simply_cast_stays(nodes: list[Any]) -> None:
    proto = graph(nodes)
    onnx.checker.check_model(proto, full_check=True)
    assert kinds(widened(proto)) == [U16]


def test_what_stays_16_bit_is_refused(tiny: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = graph([helper.make_node("Transpose", ["heat"], ["m"], perm=[0, 2, 1]), cast("m", "y")])
    monkeypatch.setattr(tensorrt.onnx, "convert", lambda model, contract, out: onnx.save(moved, out))
    with pytest.raises(ExportError, match=r"heat: uint16 is no type .*let 16-bit inputs be cast to float32") as caught:
        tensorrt.convert(tmp_path / "m.keras", tmp_path / "contract.json", tmp_path / "out.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_tensorrt_takes_under_a_condition_is_told_and_stays_in_the_card(
    tiny: Get, evidence: Any, at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, lines = tiny("detect"), list[str]()
    what = (own.file, own.contract, evidence(own.reference, own.frames, calibration=own.calibration()))
    how: Any = {"settings": Export(max_changed=0.0, outputs="final"), "facts": {}, "form": "tensorrt"}
    with pytest.raises(ExportError, match=r"CumSum.*does not take int64; use other layers or raw outputs"):
        make_bundle(*what, tmp_path / "x", **how, log=lines.append)
    assert lines == []
    monkeypatch.setattr("leakdet_tf.formats.onnx_lint.unsupported", lambda _: [])
    make_bundle(*what, tmp_path / "x", **how, log=lines.append)
    limits = open_bundle(tmp_path / "x").card["limits"]
    assert [line for line in limits if "known only at run time" in line]
    assert lines == [f"tensorrt: under a condition: {line}" for line in limits]


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    return {}


@pytest.fixture
def exported(tiny: Get, at_once: None, made: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "folder" not in made:
        made["folder"] = tiny("two inputs").bundle(tmp_path_factory.mktemp("trt") / "tensorrt", "tensorrt").folder
    return made["folder"]


def test_a_file_of_two_inputs_takes_floats_for_16_bits(tiny: Get, exported: Path) -> None:
    own, bundle = tiny("two inputs"), open_bundle(exported)
    assert bundle.contract == own.contract
    assert bundle.golden[0].images["thermal"].dtype == np.uint16
    with np.load(exported / "calibration.npz") as pictures:
        assert pictures["thermal"].dtype == np.uint16
    proto = onnx.load_from_string(bundle.model)
    assert {one.name: one.type.tensor_type.elem_type for one in proto.graph.input} == {
        "image": TensorProto.UINT8,
        "thermal": F,
    }
    assert findings(proto) == []
    assert bundle.card["limits"] == []
    predictor = Predictor.over(OnnxBackend(bundle.model, bundle.contract), bundle.contract)
    for images in own.frames:
        (ours,), (theirs,) = own.reference.outputs(images).values(), predictor.outputs(images).values()
        np.testing.assert_allclose(theirs, ours, atol=2e-5)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_an_engine_of_it_is_built_and_answers(tiny: Get, exported: Path, device: Any, precision: str) -> None:
    build(exported, Settings(precision))
    held = bool(device.world.held)
    assert held == (precision != "float32")
    predictor = Predictor(exported)
    for images in tiny("two inputs").frames:
        (ours,) = tiny("two inputs").reference.outputs(images).values()
        np.testing.assert_allclose(predictor.outputs(images)["output"], ours, atol=5e-3)
