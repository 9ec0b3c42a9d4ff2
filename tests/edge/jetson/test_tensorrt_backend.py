"""Engines as a backend: answers, buffers, refusals; on stand-ins for TensorRT and CUDA."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.errors import BundleError, ContractError
from leakdet_tf.edge import Predictor, open_bundle
from leakdet_tf.edge.backends.tensorrt import TensorRTBackend
from leakdet_tf.edge.tensorrt import Settings, open_engine
from leakdet_tf.edge.tensorrt_build import build

VERSIONS = ["8.6.2", "10.3.0", "10.13.3"]


def opened(folder: Path) -> Predictor:
    backend, _ = open_engine(open_bundle(folder))
    return Predictor.over(backend, open_bundle(folder).contract)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("contract", ["CONTRACT", "WIDE"])
def test_a_float32_engine_answers_as_onnxruntime(device: Any, tmp_path: Path, contract: str, version: str) -> None:
    device.trt.behave(version)
    meaning = getattr(device.make, contract)
    folder = device.make.bundle(tmp_path / contract, meaning)
    build(folder, Settings("float32"))
    ours, theirs = opened(folder), device.make.reference(meaning, (folder / "model.onnx").read_bytes())
    for images in device.make.frames(meaning, 4, seed=9):
        found, kept = ours.outputs(images)["output"], theirs.outputs(images)["output"]
        assert found.dtype == np.float32
        assert np.array_equal(found, kept)
        assert np.array_equal(ours.predict(images).labels, theirs.predict(images).labels)


def test_answers_stay_when_the_next_frame_is_asked_for(device: Any, bundle: Path) -> None:
    build(bundle)
    predictor = opened(bundle)
    first, second = device.make.frames(predictor.contract, 2, seed=5)
    kept = predictor.outputs(first)["output"]
    before = kept.copy()
    assert not np.array_equal(predictor.outputs(second)["output"], before)
    assert np.array_equal(kept, before)


def test_frames_from_several_threads_get_their_own_answers(device: Any, bundle: Path) -> None:
    build(bundle)
    predictor = opened(bundle)
    pictures = device.make.frames(predictor.contract, 24, seed=6)
    alone = [predictor.outputs(images)["output"] for images in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda images: predictor.outputs(images)["output"], pictures * 3))
    assert all(np.array_equal(found, kept) for found, kept in zip(together, alone * 3, strict=True))


def test_closing_gives_everything_back(device: Any, bundle: Path) -> None:
    plan = build(bundle).engine.plan
    assert device.cuda.left == 0
    backend = TensorRTBackend(plan, device.make.CONTRACT)
    assert device.cuda.left == 5
    backend.close()
    backend.close()
    assert device.cuda.left == 0
    with pytest.raises(BundleError, match="has been closed"):
        backend.run({"image": np.zeros((8, 16, 3), np.uint8)})
    backend = TensorRTBackend(plan, device.make.CONTRACT)
    del backend
    assert device.cuda.left == 0


def test_no_room_on_the_gpu_is_told_and_leaves_nothing(device: Any, bundle: Path) -> None:
    plan = build(bundle).engine.plan
    device.cuda.room = 1000
    with pytest.raises(BundleError, match="cudaMalloc: out of memory"):
        TensorRTBackend(plan, device.make.CONTRACT)
    assert device.cuda.left == 0


def test_engines_of_another_machine_version_or_contract_are_refused(device: Any, bundle: Path) -> None:
    plan, contract = build(bundle).engine.plan, device.make.CONTRACT
    with pytest.raises(BundleError, match="the engine takes"):
        TensorRTBackend(plan, device.make.WIDE)
    with pytest.raises(BundleError, match=r"input 'image' is uint8 \(-1, 8, 16, 3\)"):
        TensorRTBackend(plan, replace(contract, inputs={"image": replace(contract.inputs["image"], height=16)}))
    with pytest.raises(BundleError, match="magicTag does not match"):
        TensorRTBackend(b"rubbish", contract)
    device.trt.behave("10.4.0")
    with pytest.raises(BundleError, match="not compatible with this version"):
        TensorRTBackend(plan, contract)
    assert device.cuda.left == 0


@pytest.mark.parametrize("pixels", [np.zeros((8, 16, 3), np.float32), np.zeros((4, 16, 3), np.uint8)])
def test_pixels_of_another_shape_or_dtype_are_refused(device: Any, bundle: Path, pixels: Any) -> None:
    backend = TensorRTBackend(build(bundle).engine.plan, device.make.CONTRACT)
    with pytest.raises(ContractError, match="the engine's input 'image' is uint8"):
        backend.run({"image": pixels})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("cudaMemcpyAsync", "cudaMemcpyAsync: an illegal memory access"),
        ("cudaStreamSynchronize", "cudaStreamSynchronize: an illegal memory access"),
        ("execute_async_v3", "TensorRT cannot compute the engine"),
    ],
)
def test_a_gpu_that_fails_while_running_is_told(device: Any, bundle: Path, call: str, said: str) -> None:
    backend = TensorRTBackend(build(bundle).engine.plan, device.make.CONTRACT)
    device.cuda.failing[call] = 700
    with pytest.raises(BundleError, match=said):
        backend.run({"image": np.zeros((8, 16, 3), np.uint8)})
