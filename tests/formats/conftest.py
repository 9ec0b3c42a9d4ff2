"""Tiny models of each task, and conversion without its child process, for the tests that look at what comes out."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.config.schema import Export
from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec, Pixels
from leakdet_tf.edge import Predictor
from leakdet_tf.formats.bundle import Calibration, Evidence, Exported, Metric, make_bundle
from leakdet_tf.formats.child import Asked


@dataclass(frozen=True)
class Tiny:
    """A saved model with random weights, its contract and reference, and random pictures of another size."""

    file: Path
    contract: Contract
    reference: Predictor
    frames: list[dict[str, Pixels]]

    def bundle(self, folder: Path, form: str, settings: Export | None = None) -> Exported:
        """Exported at ``folder``; any change of a decision is an error."""
        settings = settings or Export(max_changed=0.0)
        evidence = evidence_of(self.reference, self.frames, calibration=self.calibration())
        return make_bundle(self.file, self.contract, evidence, folder, settings, {}, form)

    def calibration(self) -> Calibration:
        """Its frames, and for 8-bit inputs black and white, as the model takes them."""
        path = self.file.with_name("calibration.npz")
        if not path.is_file():
            parts = [self.contract.prepare(images)[0] for images in self.frames]
            for value in (0, 255):
                parts.append({n: np.full_like(a, value) if a.dtype == np.uint8 else a for n, a in parts[0].items()})
            np.savez(path, **{name: np.stack([part[name] for part in parts]) for name in parts[0]})
        inputs = self.contract.inputs.items()
        return Calibration(path, len(self.frames), {n: 2 if spec.dtype == "uint8" else 0 for n, spec in inputs})


def evidence_of(
    reference: Predictor, frames: list[dict[str, Pixels]], *, drop: float = 0.0, calibration: Calibration | None = None
) -> Evidence:
    """Frames with a figure that falls by ``drop`` in every file, whatever it answers."""
    return Evidence(
        reference,
        frames,
        Metric("figure", 0.9, 0.8, 1.0),
        lambda _: Metric("figure", 0.9 - drop, None, None),
        calibration,
    )


@pytest.fixture(scope="session")
def evidence() -> Callable[..., Evidence]:
    """:func:`evidence_of`, for tests that cannot import this file."""
    return evidence_of


def _segment(inputs: list[Any], layers: Any) -> Any:
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(_pixels(inputs, layers))
    skip = layers.BatchNormalization()(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(skip)
    x = layers.Concatenate()([layers.UpSampling2D(interpolation="nearest")(x), skip])
    return layers.Activation("softmax", dtype="float32")(layers.Conv2D(3, 1)(x))


def _classify(inputs: list[Any], layers: Any) -> Any:
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(_pixels(inputs, layers))
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Activation("softmax", dtype="float32")(layers.Dense(3)(x))


def _detect(inputs: list[Any], layers: Any) -> Any:
    x, found = _pixels(inputs, layers), []
    for stride in (8, 16, 32):
        cells = layers.Conv2D(64 + 3, stride, strides=stride, name=f"cells_{stride}")(x)
        found.append(layers.Reshape((-1, 64 + 3))(cells))
    x = layers.Activation("linear", dtype="float32", name="logits")(layers.Concatenate(axis=1)(found))
    return layers.Activation("linear", dtype="float32")(x)


def _pixels(inputs: list[Any], layers: Any) -> Any:
    scaled = [layers.Rescaling(2 / (255 if x.dtype == "uint8" else 65535), -1, dtype="float32")(x) for x in inputs]
    return layers.Concatenate()(scaled) if len(scaled) > 1 else scaled[0]


_HEADS = {"segment": _segment, "classify": _classify, "detect": _detect}


def _made(folder: Path, task: str, specs: dict[str, ImageSpec]) -> Tiny:
    import keras

    from leakdet_tf.models.runtime import KerasBackend

    random = np.random.default_rng(7)
    inputs = [keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in specs.items()]
    model = keras.Model(inputs, _HEADS[task](inputs, keras.layers))
    for weight in model.weights:
        if "moving" not in weight.path and "gamma" not in weight.path:
            weight.assign(random.normal(0, 0.15 if weight.ndim > 1 else 0.5, weight.shape))
    model.save(folder / f"{task}.keras")
    activation = "linear" if task == "detect" else "softmax"
    contract = Contract(task, specs, classes_of(["one", "two", "three"]), activation)
    tops = {name: 256 if spec.dtype == "uint8" else 65536 for name, spec in specs.items()}
    frames = [
        {n: random.integers(0, tops[n], (50, 80, spec.channels)).astype(spec.dtype) for n, spec in specs.items()}
        for _ in range(3)
    ]
    return Tiny(folder / f"{task}.keras", contract, Predictor.over(KerasBackend(model, contract), contract), frames)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """By task a model of 64 × 96 pixels; ``two inputs`` is a segmenter of a colour and a 16-bit thermal picture."""
    made: dict[str, Tiny] = {}
    picture = ImageSpec(64, 96, fit="letterbox", pad=114)

    def get(task: str) -> Tiny:
        if task not in made:
            both = {"image": ImageSpec(64, 96), "thermal": ImageSpec(64, 96, 1, "uint16")}
            specs = both if task == "two inputs" else {"image": picture}
            kind = "segment" if task == "two inputs" else task
            made[task] = _made(tmp_path_factory.mktemp("tiny"), kind, specs)
        return made[task]

    return get


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Converts in this process: the same functions, without the seconds that a new one takes to start."""
    import keras

    def run(module: str, model: Path, contract: Path, out: Path, *, to: str, asked: Asked) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters' own
            return importlib.import_module(module)._convert_here(model, Contract.load(contract), out, asked)

    monkeypatch.setattr("leakdet_tf.formats.child.run", run)
    yield
    keras.config.enable_traceback_filtering()
