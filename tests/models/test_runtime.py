"""A Keras model behind the backends' interface, and files that are damaged or belong to another model."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ModelError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.models.initialize import draw_weights
from leakdet_tf.models.runtime import KerasBackend, load_model, weights_sha256

CLASSES = classes_of(["background", "blob"])
ONE = Contract("segment", {"image": ImageSpec(8, 8, 1)}, CLASSES)
TWO = Contract("segment", {"rgb": ImageSpec(8, 8, 3), "thermal": ImageSpec(8, 8, 1, "uint16")}, CLASSES)
FRAME = np.random.default_rng(0).integers(0, 256, (8, 8, 1), dtype=np.uint8)


def small(seed: int = 0) -> Any:
    image = keras.Input((8, 8, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(2, 1, name="second")(x)
    model = keras.Model(image, keras.layers.Activation("softmax", name="probabilities")(x), name="small")
    draw_weights(model, seed)
    return model


def fused(shape: str) -> Any:
    """A model of two inputs, declared as a list, as another list, or by name."""
    rgb = keras.Input((8, 8, 3), dtype="uint8", name="rgb")
    thermal = keras.Input((8, 8, 1), dtype="uint16", name="thermal")
    x = keras.layers.Concatenate()(
        [keras.layers.Rescaling(s, dtype="float32")(t) for t, s in ((rgb, 1 / 255), (thermal, 1e-4))]
    )
    x = keras.layers.Activation("softmax")(keras.layers.Conv2D(2, 1)(x))
    inputs = {"list": [rgb, thermal], "other": [thermal, rgb], "names": {"thermal": thermal, "rgb": rgb}}[shape]
    model = keras.Model(inputs, x)
    draw_weights(model, 5)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Contract]:
    """A saved model and the contract that names its weights."""
    model, path = small(), tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(path)
    return path, replace(ONE, weights_sha256=weights_sha256(model))


def test_the_backend_answers_one_picture_as_the_model_does() -> None:
    model = small()
    found = KerasBackend(model, ONE).run({"image": FRAME})
    assert list(found) == ["output_0"]
    assert (found["output_0"].dtype, found["output_0"].shape) == (np.float32, (8, 8, 2))
    expected = keras.ops.convert_to_numpy(model(FRAME[None], training=False))[0]
    np.testing.assert_allclose(found["output_0"], expected, atol=1e-6)


def test_inputs_go_by_name_however_the_model_declares_them() -> None:
    values = np.random.default_rng(1)
    frames = {
        "thermal": values.integers(0, 65536, (8, 8, 1)).astype(np.uint16),
        "rgb": values.integers(0, 256, (8, 8, 3), dtype=np.uint8),
    }
    answers = [KerasBackend(fused(shape), TWO).run(frames)["output_0"] for shape in ("list", "other", "names")]
    np.testing.assert_array_equal(answers[1], answers[0])
    np.testing.assert_array_equal(answers[2], answers[0])


@pytest.mark.parametrize(("model", "contract"), [(small, TWO), (lambda: fused("list"), ONE)])
def test_other_inputs_than_the_contracts_are_refused(model: Callable[[], Any], contract: Contract) -> None:
    with pytest.raises(ModelError, match=r"the model takes \[.*\], the experiment gives \["):
        KerasBackend(model(), contract)


def test_a_saved_model_comes_back_as_it_was(saved: tuple[Path, Contract]) -> None:
    path, contract = saved
    loaded = load_model(path, contract)
    for a, b in zip(loaded.get_weights(), small().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    answers = [KerasBackend(model, contract).run({"image": FRAME})["output_0"] for model in (loaded, small())]
    np.testing.assert_array_equal(*answers)


def test_the_digest_is_of_values_and_shapes() -> None:
    model = small()
    first = weights_sha256(model)
    assert weights_sha256(small()) == first
    assert weights_sha256(small(1)) != first
    kernel = model.get_layer("first").kernel
    value = kernel.numpy()
    value[0, 0, 0, 0] = np.nextafter(value[0, 0, 0, 0], np.float32(1))
    kernel.assign(value)
    assert weights_sha256(model) != first
    model = small()
    model.get_layer("norm").moving_mean.assign([0, 0, 0, 1e-9])
    assert weights_sha256(model) != first


def test_the_weights_of_another_model_are_refused(saved: tuple[Path, Contract], tmp_path: Path) -> None:
    other = tmp_path / "other.keras"
    small(1).save(other)
    with pytest.raises(ModelError, match=r"other\.keras: its weights are not those of its contract"):
        load_model(other, saved[1])
    assert load_model(other, ONE), "a contract that names no weights takes any"


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.keras: no such file"):
        load_model(tmp_path / "none.keras", ONE)
    for content in (b"", b"PK", b"not a model", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path = tmp_path / "bad.keras"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"bad\.keras: cannot be loaded \(") as caught:
            load_model(path, ONE)
        assert "\n" not in str(caught.value)


def attempt(data: bytes, path: Path, contract: Contract) -> bool:
    """True for the model as it was saved, False for a ModelError; anything else fails the test."""
    path.write_bytes(data)
    try:
        model = load_model(path, contract)
    except ModelError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
        return False
    expected = small()
    answers = [keras.ops.convert_to_numpy(m(FRAME[None], training=False)) for m in (model, expected)]
    np.testing.assert_array_equal(*answers)
    return True


def test_a_truncated_file_is_always_refused(saved: tuple[Path, Contract], tmp_path: Path) -> None:
    raw, contract = saved[0].read_bytes(), saved[1]
    for length in [*range(0, len(raw), len(raw) // 40), len(raw) - 1]:
        assert not attempt(raw[:length], tmp_path / "cut.keras", contract), length


def test_a_flipped_bit_is_refused_or_harmless(saved: tuple[Path, Contract], tmp_path: Path) -> None:
    raw, contract = saved[0].read_bytes(), saved[1]
    chosen = random.Random(0)
    harmless = 0
    for _ in range(120):
        place, bit = chosen.randrange(len(raw)), chosen.randrange(8)
        damaged = bytearray(raw)
        damaged[place] ^= 1 << bit
        harmless += attempt(bytes(damaged), tmp_path / "flip.keras", contract)
    assert harmless < 12


def packed(parts: dict[str, bytes]) -> bytes:
    """A ``.keras`` file of these parts: its checksums are right, whatever they hold."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return stream.getvalue()


def test_weights_changed_behind_a_right_checksum_are_refused(saved: tuple[Path, Contract], tmp_path: Path) -> None:
    with zipfile.ZipFile(saved[0]) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert attempt(packed(parts), tmp_path / "same.keras", saved[1])
    kernel = small().get_layer("first").kernel.numpy().tobytes()
    weights = bytearray(parts["model.weights.h5"])
    weights[weights.index(kernel) + 1] ^= 1
    assert not attempt(packed(parts | {"model.weights.h5": bytes(weights)}), tmp_path / "bit.keras", saved[1])
    assert load_model(tmp_path / "bit.keras", ONE), "only the digest tells"


EDITS: list[Callable[[dict[str, Any]], Any]] = [
    lambda config: config.clear(),
    lambda config: config.update(config=None),
    lambda config: config.update(config=[]),
    lambda config: config.update(class_name="Nonesuch"),
    lambda config: config.update(module=[1]),
    lambda config: config["config"].update(output_layers=[["probabilities", 3, 9]]),
    lambda config: config["config"].update(output_layers=["probabilities", 0]),
    lambda config: config["config"].update(output_layers=[["nowhere", 0, 0]]),
    lambda config: config["config"]["layers"].pop(2),
    lambda config: config["config"]["layers"][2].update(module=[1]),
    lambda config: config["config"]["layers"][2]["config"].update(filters="x"),
    lambda config: config["config"]["layers"][1]["inbound_nodes"][0].update(args=["x"]),
]


@pytest.mark.parametrize("number", range(len(EDITS)))
def test_a_config_of_nonsense_is_a_model_error(saved: tuple[Path, Contract], tmp_path: Path, number: int) -> None:
    with zipfile.ZipFile(saved[0]) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    EDITS[number](config)
    path = tmp_path / "odd.keras"
    path.write_bytes(packed(parts | {"config.json": json.dumps(config).encode()}))
    with pytest.raises(ModelError) as caught:
        load_model(path, saved[1])
    assert str(caught.value).startswith(f"{path}: cannot be loaded (")


def test_code_in_a_model_file_is_not_run(saved: tuple[Path, Contract], tmp_path: Path) -> None:
    image = keras.Input((8, 8, 1), dtype="uint8", name="image")
    x = keras.layers.Lambda(lambda t: keras.ops.cast(t, "float32"), output_shape=(8, 8, 1))(image)
    path = tmp_path / "code.keras"
    keras.Model(image, x).save(path)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(path, ONE)
