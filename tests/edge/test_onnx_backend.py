"""ONNX Runtime behind the interface of every runtime, and its bundles under the rules of every bundle."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import BundleError, MissingExtraError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends.onnx import OnnxBackend
from leakdet_tf.edge.bundle import golden_bytes

CONTRACT = Contract("segment", {"image": ImageSpec(8, 16)}, classes_of(["background", "gas", "dust"]))
KERNEL = np.random.default_rng(0).normal(0, 0.02, (3, 3)).astype(np.float32)
Graph = Callable[..., Any]


def graph(*, name: str = "image", dtype: int = TensorProto.UINT8, rows: Any = 8, nodes: Any = None) -> onnx.ModelProto:
    """Pixels → softmax of a matrix product a pixel."""
    nodes = nodes or [
        helper.make_node("Cast", [name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["float", "kernel"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["output"], axis=-1),
    ]
    body = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, dtype, ["batch", rows, 16, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", rows, 16, 3])],
        [numpy_helper.from_array(KERNEL, "kernel")],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seal(folder: Path, model: bytes) -> None:
    """Writes the folder's model and the sums of all its files."""
    (folder / "model.onnx").write_bytes(model)
    names = ["model.onnx", "contract.json", "golden.npz", "card.json"]
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    content = graph().SerializeToString()
    CONTRACT.save(folder / "contract.json")
    (folder / "card.json").write_text(json.dumps({"kind": "onnx_float32", "golden": {"tolerance": 1e-3}}))
    maker = Predictor.over(OnnxBackend(content, CONTRACT), CONTRACT)
    frame = np.random.default_rng(1).integers(0, 255, (24, 48, 3), dtype=np.uint8)
    (folder / "golden.npz").write_bytes(golden_bytes([maker.golden({"image": frame})]))
    seal(folder, content)
    return folder


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_frame_is_answered_at_its_own_size(bundle: Path, threads: int | None) -> None:
    predictor = Predictor(bundle, threads=threads)
    frame = np.random.default_rng(2).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    answer = predictor.predict(frame)
    logits = frame.astype(np.float32) @ KERNEL
    np.testing.assert_array_equal(answer.labels, logits.argmax(-1))
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(answer.scores, (shares / shares.sum(-1, keepdims=True)).max(-1), atol=1e-6)
    assert answer.invoke_ms > 0
    assert predictor.predict(np.zeros((100, 30, 3), np.uint8)).size == (100, 30)


def test_outputs_have_the_file_s_names_and_no_batch_axis(bundle: Path) -> None:
    (item,) = Predictor(bundle).outputs({"image": np.zeros((8, 16, 3), np.uint8)}).items()
    assert item[0] == "output"
    assert item[1].shape == (8, 16, 3)
    assert item[1].dtype == np.float32


@pytest.mark.parametrize("place", [0.0, 0.4, 0.95])
def test_one_flipped_bit_is_refused_before_the_runtime_sees_it(
    bundle: Path, place: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object, **__: object) -> None:
        pytest.fail("the runtime saw unchecked bytes")

    monkeypatch.setattr("leakdet_tf.edge.predictor.open_backend", reached)
    path = bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256") as caught:
        Predictor(bundle)
    assert str(path) in str(caught.value)


BROKEN = {
    "rubbish": b"rubbish" * 100,
    "empty": b"",
    "half": graph().SerializeToString()[: len(graph().SerializeToString()) // 2],
    "unknown operator": graph(nodes=[helper.make_node("NoSuch", ["image"], ["output"])]).SerializeToString(),
    "shapes that do not fit": graph(
        nodes=[
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Concat", ["float", "kernel"], ["output"], axis=0),
        ]
    ).SerializeToString(),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_a_malformed_file_with_right_hashes_is_one_line(
    bundle: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    seal(bundle, content)
    place = re.escape(str(bundle / "model.onnx"))
    with pytest.raises(BundleError, match=f"^{place}: the runtime refuses it .*; export the model again$") as caught:
        Predictor(bundle)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", ""), "the runtime's own log lines belong in the exception"


def test_a_graph_that_fails_when_it_runs_is_one_line() -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["float"], ["shape"]),
        helper.make_node("Gather", ["float", "far"], ["output"], axis=1),
    ]
    broken = graph(nodes=nodes, rows="rows")
    broken.graph.initializer.append(numpy_helper.from_array(np.array([99], np.int64), "far"))
    broken.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 8
    backend = OnnxBackend(broken.SerializeToString(), CONTRACT)
    with pytest.raises(BundleError, match=r"^model\.onnx: the runtime cannot compute it") as caught:
        backend.run({"image": np.zeros((8, 16, 3), np.uint8)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["secret.bin", "../secret.bin"])
def test_weights_outside_the_file_are_not_read(bundle: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / place).write_bytes(KERNEL.tobytes())
    model = graph()
    (kernel,) = model.graph.initializer
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value=place)
    seal(bundle, model.SerializeToString())
    monkeypatch.chdir(bundle)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        Predictor(bundle)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (graph(name="thermal"), r"takes \['thermal'\], the contract \['image'\]"),
        (graph(dtype=TensorProto.UINT16), r"input 'image' is tensor\(uint16\)"),
        (graph(dtype=TensorProto.FLOAT), r"input 'image' is tensor\(float\)"),
        (graph(rows=16), r"input 'image' is .*16, 16, 3\), the contract says uint8 \('batch', 8, 16, 3\)"),
        (graph(rows="rows"), "input 'image' is .*'rows'"),
    ],
    ids=["name", "dtype", "float", "size", "free size"],
)
def test_other_inputs_than_the_contract_s_are_refused(bundle: Path, model: onnx.ModelProto, says: str) -> None:
    seal(bundle, model.SerializeToString())
    with pytest.raises(BundleError, match=says):
        Predictor(bundle)


def test_another_model_under_the_same_golden_answers_is_refused(bundle: Path) -> None:
    other = graph()
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(KERNEL * 1.1, "kernel"))
    seal(bundle, other.SerializeToString())
    with pytest.raises(BundleError, match=r"golden frame 0 is answered otherwise .*update onnxruntime"):
        Predictor(bundle)


def test_threads_must_be_positive(bundle: Path) -> None:
    with pytest.raises(BundleError, match="threads"):
        Predictor(bundle, threads=0)


def test_without_the_runtime_one_line_says_what_to_type(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"ONNX Runtime cannot be imported .*; pip install onnxruntime$"):
        Predictor(bundle)


def test_a_folder_with_two_models_is_refused(bundle: Path) -> None:
    (bundle / "model.tflite").write_bytes(b"")
    digest = hashlib.sha256(b"").hexdigest()
    (bundle / "SHA256SUMS").write_text((bundle / "SHA256SUMS").read_text() + f"{digest}  model.tflite\n")
    with pytest.raises(BundleError, match=r"does not list model\.tflite or model\.onnx"):
        Predictor(bundle)


def test_the_runtime_brings_no_trainer_and_prints_nothing(bundle: Path) -> None:
    code = (
        "import sys\n"
        "from leakdet_tf.edge import Predictor\n"
        "import numpy as np\n"
        f"Predictor({str(bundle)!r}).predict(np.zeros((48, 64, 3), np.uint8))\n"
        "heavy = {'tensorflow', 'keras', 'pydantic', 'rich', 'matplotlib', 'torch', 'onnx', 'ai_edge_litert'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
