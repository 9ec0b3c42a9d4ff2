"""A machine with TensorRT and a GPU, all of it stand-ins, and small bundles for it."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_cuda
import numpy as np
import onnx
import tensorrt
from onnx import TensorProto, helper, numpy_helper

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends import cuda
from leakdet_tf.edge.backends.onnx import OnnxBackend
from leakdet_tf.edge.bundle import golden_bytes

CLASSES = classes_of(["background", "gas", "dust"])
CONTRACT = Contract("segment", {"image": ImageSpec(8, 16)}, CLASSES)
WIDE = Contract("segment", {"image": ImageSpec(8, 16), "thermal": ImageSpec(8, 16, 1, "uint16")}, CLASSES)


def install() -> SimpleNamespace:
    """Everything as a new machine has it. The caller takes the path and the modules away again."""
    cuda.load = fake_cuda.load
    return SimpleNamespace(cuda=fake_cuda.state, trt=tensorrt, world=tensorrt.world)


def graph(contract: Contract = CONTRACT, *, seed: int = 0) -> bytes:
    """Pixels → softmax of a matrix product a pixel. uint16 inputs are float32 ones, as TensorRT has no uint16."""
    rng, nodes, parts, inputs, kernels = np.random.default_rng(seed), [], [], [], []
    for name, spec in contract.inputs.items():
        kind = TensorProto.UINT8 if spec.dtype == "uint8" else TensorProto.FLOAT
        scale = 0.05 if spec.dtype == "uint8" else 2e-4
        inputs.append(helper.make_tensor_value_info(name, kind, ["batch", *spec.shape]))
        kernel = rng.normal(0, scale, (spec.channels, 3)).astype(np.float32)
        kernels.append(numpy_helper.from_array(kernel, f"{name}_kernel"))
        if kind == TensorProto.UINT8:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT))
        pixels = f"{name}_float" if kind == TensorProto.UINT8 else name
        nodes.append(helper.make_node("MatMul", [pixels, f"{name}_kernel"], [f"{name}_part"]))
        parts.append(f"{name}_part")
    nodes.append(helper.make_node("Sum", parts, ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["output"], axis=-1))
    height, width = contract.inputs[contract.primary].size
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", height, width, 3])]
    body = helper.make_graph(nodes, "tiny", inputs, outputs, kernels)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def frames(contract: Contract, number: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Original pictures, larger than the model takes them."""
    rng = np.random.default_rng(seed)
    return [
        {
            name: rng.integers(0, np.iinfo(spec.dtype).max, (24, 48, spec.channels), dtype=spec.dtype)
            for name, spec in contract.inputs.items()
        }
        for _ in range(number)
    ]


def reference(contract: Contract, model: bytes) -> Predictor:
    """The model under ONNX Runtime."""
    return Predictor.over(OnnxBackend(model, contract), contract)


def bundle(
    folder: Path,
    contract: Contract = CONTRACT,
    *,
    model: bytes | None = None,
    kind: str = "tensorrt",
    pictures: bool = True,
) -> Path:
    """A sealed bundle with two golden frames and, unless told otherwise, seven calibration pictures."""
    folder.mkdir()
    content = graph(contract) if model is None else model
    contract.save(folder / "contract.json")
    (folder / "model.onnx").write_bytes(content)
    (folder / "card.json").write_text(json.dumps({"kind": kind, "golden": {"tolerance": 1e-3}}))
    maker = reference(contract, content)
    (folder / "golden.npz").write_bytes(golden_bytes([maker.golden(images) for images in frames(contract, 2)]))
    if pictures:
        stream, fitted = io.BytesIO(), [contract.prepare(images)[0] for images in frames(contract, 5, seed=3)]
        arrays = {}
        for name, spec in contract.inputs.items():
            shape = (1, *spec.shape)
            ends = [np.zeros(shape, spec.dtype), np.full(shape, np.iinfo(spec.dtype).max, spec.dtype)]
            arrays[name] = np.concatenate([np.stack([one[name] for one in fitted]), *ends])
        np.savez(stream, **arrays)
        (folder / "calibration.npz").write_bytes(stream.getvalue())
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write the sums of all files that are there."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS" and path.is_file())
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def trtexec(folder: Path) -> Path:
    """The stand-in for trtexec as a program of this Python."""
    source = (Path(__file__).parent / "trtexec").read_text()
    program = folder / "trtexec"
    source = source.replace("#!/usr/bin/env python3", f"#!{sys.executable}")
    program.write_text(source.replace("Path(__file__).parent", f"Path({str(Path(__file__).parent)!r})"))
    program.chmod(0o755)
    return program


def model_of(folder: Path) -> onnx.ModelProto:
    """The bundle's graph."""
    return onnx.load_from_string((folder / "model.onnx").read_bytes())
