"""What our edge runtime adds to the bare one, on the same file in the same process: time in `invoke`, and outside it.

    python benchmarks/edge.py [--runs 60] [--threads 1,2] [--formats tflite_float32,onnx_float32] [--models unet,...]
        [--keep DIR]

The models have random weights: ResNet18 U-Net at 256 px, ResNet50 classifier at 224 px, YOLOv8n at 256 px. The peer is
LiteRT or ONNX Runtime as their own documentation calls them, with an array of the model's size; it takes turns with our
`predict` of a VGA frame, now the one first and now the other. Limits: 1.05 times the peer's time in `invoke`; outside
it, on one thread, 15 % of `invoke` (to detect 25 %). ``--keep`` keeps the converted files for the next time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import numpy.typing as npt

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends import open_backend
from leakdet_tf.formats.bundle import FORMATS

RATIO = 1.05
OUTSIDE = {"segment": 0.15, "classify": 0.15, "detect": 0.25}
"""Of `invoke` on one thread; on more, `invoke` shrinks and what is outside does not: told, not held."""
MODELS: dict[str, tuple[str, int, str, dict[str, Any]]] = {
    "unet": ("segment", 256, "leakdet_tf.models.segmenter:unet", {"encoder": "resnet18", "classes": 3}),
    "resnet50": ("classify", 224, "leakdet_tf.models.classifier:resnet_classifier", {"classes": 3}),
    "yolov8n": ("detect", 256, "leakdet_tf.models.detector:yolov8", {"classes": 3, "implementation": "native"}),
}
_WARM_UP = 5
_CALIBRATION = 8


def main() -> int:
    """Measure and print; the exit status says whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=60)
    for name, default in (("threads", "1,2"), ("formats", "tflite_float32,onnx_float32"), ("models", ",".join(MODELS))):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--keep", metavar="DIR")
    given = parser.parse_args()
    held = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(given.keep or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.models.split(","):
            contract = contract_of(name)
            for form in given.formats.split(","):
                content = converted(folder, name, form, contract)
                for threads in map(int, given.threads.split(",")):
                    held &= measured(name, form, content, contract, threads, given.runs)
    return 0 if held else 1


def contract_of(name: str) -> Contract:
    """The contract of a model of three classes; a device's detector answers with decoded boxes."""
    task, side, *_ = MODELS[name]
    spec = {"image": ImageSpec(side, side)}
    classes = classes_of(["one", "two", "three"])
    if task == "detect":
        return Contract("detect", spec, classes, "linear")
    return Contract("segment" if task == "segment" else "classify", spec, classes)


def converted(folder: Path, name: str, form: str, contract: Contract) -> bytes:
    """The model's file in a format; int8 is calibrated on noise, which its speed does not know."""
    out = folder / f"{name}.{form}"
    if not out.is_file():
        contract.save(folder / f"{name}.json")
        keras_file, pictures = folder / f"{name}.keras", folder / f"{name}.npz"
        if not keras_file.is_file():
            built(name, contract).save(keras_file)
        noise = np.random.default_rng(0).integers(0, 256, (_CALIBRATION, *contract.inputs["image"].shape), np.uint8)
        noise[-2:] = np.array([0, 255], np.uint8)[:, None, None, None]
        np.savez(pictures, image=noise)
        calibration = pictures if FORMATS[form].calibrated else None
        FORMATS[form].convert(keras_file, folder / f"{name}.json", out, calibration=calibration)
    return out.read_bytes()


def built(name: str, contract: Contract) -> Any:
    """The Keras model with random weights."""
    import importlib

    _, side, path, options = MODELS[name]
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)((side, side, 3), seed=0, **options)


def measured(name: str, form: str, content: bytes, contract: Contract, threads: int, runs: int) -> bool:
    """Take turns, print a line, and say whether it is within the limits."""
    file = FORMATS[form].file
    predictor = Predictor.over(open_backend(file, content, contract, threads=threads), contract)
    frame = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    (array,) = contract.prepare(predictor.load(frame))[0].values()
    peer = (bare_litert if file == "model.tflite" else bare_onnx)(content, threads, array[None])
    theirs, invoke, outside = [], [], []
    for number in range(runs + _WARM_UP):
        bare = 0.0
        for turn in (0, 1) if number % 2 else (1, 0):
            if turn:
                start = perf_counter()
                peer()
                bare = (perf_counter() - start) * 1e3
            else:
                answer = predictor.predict(frame)
        if number >= _WARM_UP:
            theirs.append(bare)
            invoke.append(answer.invoke_ms)
            outside.append(answer.total_ms - answer.invoke_ms)
    ratio = statistics.median(ours / bare for ours, bare in zip(invoke, theirs, strict=True))
    middle = statistics.median(invoke)
    share, limit = statistics.median(outside) / middle, OUTSIDE[contract.task]
    print(
        f"{name} {form}, {threads} threads: invoke p50 {middle:.2f} ms (least {min(invoke):.2f}), bare "
        f"{statistics.median(theirs):.2f} ({min(theirs):.2f}); ratio, median of {runs} pairs, {ratio:.3f} "
        f"(of the least {min(invoke) / min(theirs):.3f}), limit {RATIO}; outside {statistics.median(outside):.2f} ms = "
        f"{share:.1%} of invoke, limit {limit:.0%} ({share / (1 + share):.1%} of predict)",
        flush=True,
    )
    return bool(ratio <= RATIO and (share <= limit or threads > 1))


def bare_litert(content: bytes, threads: int, array: npt.NDArray[Any]) -> Callable[[], Any]:
    """LiteRT's interpreter as its documentation calls it."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    (put,), gets = interpreter.get_input_details(), interpreter.get_output_details()

    def run() -> Any:
        interpreter.set_tensor(put["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(get["index"]) for get in gets]

    return run


def bare_onnx(content: bytes, threads: int, array: npt.NDArray[Any]) -> Callable[[], Any]:
    """ONNX Runtime's session as its documentation calls it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: array})


if __name__ == "__main__":
    sys.exit(main())
