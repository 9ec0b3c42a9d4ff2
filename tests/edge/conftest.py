"""A small model for LiteRT, made in seconds and without training, in a bundle with its golden frames."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.edge import Predictor
from leakdet_tf.edge.backends import open_backend
from leakdet_tf.edge.bundle import golden_bytes

SIZE = (32, 48)
CONTRACT = Contract("segment", {"image": ImageSpec(*SIZE)}, classes_of(["background", "gas", "machine"]))
_MAKE = """
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

random = np.random.default_rng(3)
image = keras.Input(batch_shape=(1, 32, 48, 3), dtype="uint8", name="image")
x = keras.layers.Rescaling(2 / 255, -1, dtype="float32")(image)
x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
x = keras.layers.UpSampling2D(interpolation="nearest")(x)
x = keras.layers.Conv2D(3, 1, activation="softmax")(x)
model = keras.Model(image, {"output": x})
for weight in model.weights:
    weight.assign(random.normal(0, 0.5, weight.shape))
with tempfile.TemporaryDirectory() as folder:
    model.export(folder, format="tf_saved_model", verbose=False)
    content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
with open(sys.argv[1], "wb") as file:
    file.write(content)
"""


def _seal(folder: Path) -> None:
    unlisted = {"SHA256SUMS", "certificate.json", "certificate.sig"}
    names = sorted(path.name for path in folder.iterdir() if path.name not in unlisted)
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture(scope="session")
def seal() -> Callable[[Path], None]:
    """Writes ``SHA256SUMS`` of a bundle's files as they are now."""
    return _seal


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter of 32 × 48 pixels for LiteRT. Read only: copy it before changing it."""
    folder = tmp_path_factory.mktemp("small") / "bundle"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", _MAKE, str(folder / "model.tflite")], check=True, capture_output=True)
    CONTRACT.save(folder / "contract.json")
    (folder / "card.json").write_text(json.dumps({"kind": "tflite_float32", "golden": {"tolerance": 1e-3}}))
    maker = Predictor.over(open_backend("model.tflite", (folder / "model.tflite").read_bytes(), CONTRACT), CONTRACT)
    random = np.random.default_rng(4)
    frames = [{"image": random.integers(0, 256, (40, 60, 3), dtype=np.uint8)} for _ in range(2)]
    (folder / "golden.npz").write_bytes(golden_bytes([maker.golden(images) for images in frames]))
    _seal(folder)
    return folder


@pytest.fixture
def own_small(small_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle that a test may damage."""
    return Path(shutil.copytree(small_bundle, tmp_path / "small"))
