"""What the package does today, as numbers: rendered folders, three tiny runs, and runs that are kept as they were made.

``python tests/golden/freeze.py`` writes them down again, for a change of behaviour that is meant. Runs that are kept in
``runs/`` are made only where there are none: they stand for those that users have.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

# All that the frozen values need of the package stands here.
from leakdet_tf.config.loading import load
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.tasks import task_of
from leakdet_tf.edge import Predictor
from leakdet_tf.jobs.fit import fit
from leakdet_tf.jobs.run import backend
from leakdet_tf.jobs.run.runs import open_model
from leakdet_tf.synth.folder.request import Request
from leakdet_tf.synth.folder.writer import render_folder

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tests/conftest.py does
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "jobs"))  # for few_layers, by which the models are named
VALUES, RUNS, ANSWERS = HERE / "values.json", HERE / "runs", HERE / "answers.json"
FOLDERS = {
    f"{generator}-{seed}": Request(generator, {"train": 2, "val": 1, "test": 1}, (64, 64), seed, clip=clip)
    for generator, seed, clip in (
        *((generator, seed, 1) for generator in ("crack", "hotspot", "leak") for seed in (3, 11)),
        ("gas", 3, 1),
        ("gas", 11, 2),
    )
}
"""What is rendered, by name."""
_RUN = """
model={{factory = "few_layers:{factory}"{options}}}
data.synth.counts={{train = {train}, val = 4, test = 4}}
data.synth.size=[{px}, {px}]
data.inputs.image.size=[{px}, {px}]
data.root=data/{task}
runs=runs
name={task}
train.batch_size=4
train.epochs={epochs}
train.learning_rate=0.01
train.warmup=0
train.patience=0
evaluate.resamples=100
export.formats={formats}
export.pictures=4
export.golden=1
"""
_TASKS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "segment": ("gas_unet", {"factory": "few_layers", "formats": ["tflite_float32", "onnx_float32"]}, []),
    "classify": ("leak_rendered", {"factory": "few_labels"}, []),
    "detect": (
        "hotspot_yolov8",
        {"factory": "few_grids", "options": ", widths = [8, 8, 16, 16, 16]", "px": 64, "train": 64, "epochs": 4},
        ["data.synth.options={least_side = 0.1, least_shown = 0.4}", "train.batch_size=8"],
    ),
}
_USUAL = {"options": "", "px": 32, "train": 8, "epochs": 2, "formats": ["tflite_float32"]}
TASKS = tuple(_TASKS)
_KEPT = re.compile(r"(experiment|contract.*|metrics|data|calibration|threshold)\.(json|toml)|model\.keras|export/.*")
"""The files of a run that are kept: none that names the machine."""
_OF_WEIGHTS = ("weights_sha256", "id", "parent", "threshold", "temperature", "abstain")
Log = Callable[[str], None]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, values: Any) -> None:
    text = json.dumps(values, indent=1, sort_keys=True)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda row: " ".join(row[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def fingerprint() -> str:
    """SHA-256 of what this machine and its packages compute: where it is the same, so are all frozen values."""
    backend.start("tensorflow", deterministic=True)
    import cv2
    import keras

    names = ("numpy", "pillow", "opencv-python-headless", "tensorflow", "keras", "ai-edge-litert")
    parts: list[Any] = [*map(metadata.version, names), str(os.cpu_count())]
    for dtype in (np.float32, np.float64):
        grid = np.linspace(-3, 3, 96 * 96, dtype=dtype).reshape(96, 96)
        parts += [np.exp(grid), np.sin(grid * 9), np.abs(grid) ** dtype(0.7), np.hypot(grid, 2), grid.sum(0)]
        parts += [grid @ grid.T, np.fft.rfft2(grid), cv2.GaussianBlur(grid, (0, 0), 1.7)]
    steps = (
        keras.layers.Conv2D(8, 3, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    )
    net = keras.Sequential([keras.Input((32, 32, 3)), *steps])
    random = np.random.default_rng(0)
    for weight in net.trainable_weights:
        weight.assign(random.normal(0, 0.3, weight.shape).astype(np.float32))
    images, labels = random.random((8, 32, 32, 3), np.float32), np.arange(8) % 3
    net.compile("adam", "sparse_categorical_crossentropy")
    for _ in range(3):
        parts.append(np.float64(net.train_on_batch(images, labels)))
    parts += [net.predict_on_batch(images), *(np.asarray(weight) for weight in net.weights)]
    return _sha256(b"|".join(part.encode() if isinstance(part, str) else part.tobytes() for part in parts))


def rendered(name: str, root: Path) -> dict[str, Any]:
    """A rendered folder's digest, and the mean grey of 8x8 cells of each picture by file."""
    for _ in render_folder(root, FOLDERS[name], workers=1):
        pass
    digest, cells = hashlib.sha256(), {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        file, data = path.relative_to(root).as_posix(), path.read_bytes()
        if path.name == "manifest.json":
            data = re.sub(rb'"package_version": "[^"]*"', b"", data, count=1)
        digest.update(f"{file}\0{len(data)}\0".encode() + data)
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path), np.float64).reshape(8, 8, 8, 8, -1)
            cells[file] = pixels.mean(axis=(1, 3)).round().astype(np.uint8).tobytes().hex()
    return {"sha256": digest.hexdigest(), "cells": cells}


def train(task: str, *more: str, log: Log = len, resume: Path | None = None) -> Path:
    """The run's folder, relative to the current one, in which it is made."""
    file, given, own = _TASKS[task]
    lines = [*_RUN.format_map(_USUAL | given | {"task": task}).strip().splitlines(), *own, *more]
    path = ROOT / "experiments" / f"{file}.toml"
    return fit(str(path), lines, log=log, resume=None if resume is None else str(resume)).folder


def train_in_two() -> Path:
    """The segmenter's run, ended by SIGTERM in its first epoch and resumed."""

    def end(line: str) -> None:
        if line.startswith("epoch 1/"):
            os.kill(os.getpid(), signal.SIGTERM)

    more = ("runs=resumed", "export.formats=[]")
    folder = train("segment", *more, log=end)
    if [path.name for path in folder.glob("checkpoints/epoch-*")] != ["epoch-0001"]:
        raise RuntimeError("the run was not ended")
    return train("segment", *more, resume=folder)


def of_run(folder: Path) -> dict[str, Any]:
    """What a run made; ``here`` holds what only a machine with this fingerprint makes again."""
    contract = Contract.load(folder / "contract.json")
    predictor = Predictor(folder / "export" / "tflite_float32")
    decided = hashlib.sha256()
    for path in sorted(Path("data", contract.task, "test", "images").iterdir()):
        for output in predictor.outputs(predictor.load(path)).values():
            decided.update(output.tobytes())
            decided.update(np.asarray(task_of(contract).decisions(output, contract), np.int64).tobytes())
        decided.update(json.dumps(answer(predictor, path)).encode())
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        history = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    apart = ("tensorboard/", "checkpoints/epoch-")  # with the process's number; checkpoints are tested elsewhere
    told = [re.sub(r"contract-\w{16}", "contract-ID", name) for name in files if not name.startswith(apart)]
    kept = [content(folder / name) for name in ("calibration.json", "threshold.json", "data.json") if name in files]
    return {
        "experiment": _sha256((folder / "experiment.toml").read_bytes()),
        "contract": {key: value for key, value in content(folder / "contract.json").items() if key not in _OF_WEIGHTS},
        "metrics": _without_prose(content(folder / "metrics.json")),
        "here": {
            "id": contract.id,
            "contract": content(folder / "contract.json"),
            "decided": decided.hexdigest(),
            "files": told,
            "history": history,
            "kept": _sha256(json.dumps(kept).encode()),
        },
    }


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_prose(one) for key, one in value.items()}
    return "…" if isinstance(value, str) and " " in value else value


def frame() -> Any:
    """A picture of coloured blocks, uint8 (48, 64, 3): all three models find something, and no decision is narrow."""
    blocks = np.random.default_rng(7).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return blocks.repeat(16, axis=0).repeat(16, axis=1)


def answer(predictor: Predictor, picture: Any) -> dict[str, Any]:
    """Every field of a prediction but times and the model's id, as JSON; scores and edges to six digits."""
    values = dataclasses.asdict(predictor.predict(picture))
    return {
        name: np.round(value.astype(value.dtype.kind + "8"), 6).tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
        if name not in ("model", "total_ms", "invoke_ms")
    }


def opened(folder: Path) -> Iterator[tuple[str, Predictor]]:
    """A run's models by kind: Keras, under the name in its experiment file, then those of its bundles."""
    yield load(folder / "experiment.toml").name, open_model(folder).predictor
    for bundle in sorted(folder.glob("export/*")):
        yield bundle.name, Predictor(bundle)


def differences(kept: Any, found: Any, *, exact: bool) -> list[str]:
    """Where two values differ. If not ``exact``: in keys, and in numbers by over 0.15 of the largest beside them or 1,
    but for the ends of intervals, which leap where a picture's answer is another."""
    before, now = dict(_leaves(kept)), dict(_leaves(found))
    largest: dict[str, float] = {}
    for key, value in before.items():
        if type(value) in (int, float):
            place = key.rpartition(".")[0]
            largest[place] = max(largest.get(place, 1.0), abs(value))

    def same(key: str) -> bool:
        one, other = before.get(key, "absent"), now.get(key, "absent")
        if exact or one == other or "absent" in (one, other):
            return bool(one == other)
        if type(one) in (int, float) and type(other) in (int, float):
            return key.endswith((".low", ".high")) or bool(abs(one - other) <= 0.15 * largest[key.rpartition(".")[0]])
        return type(one) is type(other) is str

    keys = sorted(before.keys() | now.keys())
    return [f"{key}: {before.get(key, 'absent')}, now {now.get(key, 'absent')}" for key in keys if not same(key)]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    parts = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
    if not parts:
        yield key, value
    for name, one in parts.items():
        yield from _leaves(one, f"{key}.{name}")


def keep(folder: Path, task: str) -> None:
    """Keep a run, and what its Keras model answers."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and _KEPT.fullmatch(name):
            (RUNS / task / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, RUNS / task / name)
    kept = content(ANSWERS) if ANSWERS.exists() else {}
    write(ANSWERS, kept | {task: answer(next(opened(folder))[1], frame())})


def main() -> None:
    """Write everything down."""
    values: dict[str, Any] = {"fingerprint": fingerprint(), "rendered": {}, "runs": {}}
    with TemporaryDirectory() as scratch:
        os.chdir(scratch)
        for name in FOLDERS:
            values["rendered"][name] = rendered(name, Path(name))
        for task in TASKS:
            folder = train(task)
            values["runs"][task] = of_run(folder)
            if not (RUNS / task).exists():
                keep(folder, task)
        os.chdir(HERE)
    write(VALUES, values)


if __name__ == "__main__":
    main()
