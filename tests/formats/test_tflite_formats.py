"""The four TFLite formats: what each file holds, how near it answers, and what int8 does to pixels and layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakdet_tf.core.contract import Contract, classes_of
from leakdet_tf.core.errors import ExportError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.tasks.detect import decoded, output_shape
from leakdet_tf.edge.backends.litert import LiteRTBackend
from leakdet_tf.formats import calibration_set, tflite
from leakdet_tf.formats.child import Asked, Layer

SIDE = 32


@dataclass(frozen=True)
class Made:
    """One model's file in one format: its path, its layers' errors, and a runtime over it."""

    file: Path
    layers: list[Layer]
    backend: LiteRTBackend

    def answers(self, pictures: np.ndarray) -> np.ndarray:
        return np.stack([next(iter(self.backend.run({"image": picture}).values())) for picture in pictures])


def textured(number: int, channels: int, low: int, high: int, dtype: str, seed: int) -> np.ndarray:
    """Pictures (number, 32, 32, channels) of blotches of several sizes, from ``low`` to ``high``."""
    random, pictures = np.random.default_rng(seed), []
    for _ in range(number):
        sums = random.normal(0, 0.3, (SIDE, SIDE, channels))
        for cells in (2, 4, 8, 16):
            sums += np.kron(random.normal(0, 1, (cells, cells, channels)), np.ones((SIDE // cells, SIDE // cells, 1)))
        pictures.append(low + (sums - sums.min()) / np.ptp(sums) * (high - low))
    return np.stack(pictures).astype(dtype)


def with_ends(pictures: np.ndarray) -> np.ndarray:
    if pictures.dtype != np.uint8:
        return pictures
    ends = [np.zeros_like(pictures[:1]), np.full_like(pictures[:1], np.iinfo(pictures.dtype).max)]
    return np.concatenate([pictures, *ends])


def segmenter(keras: Any) -> Any:
    """A U-Net of 16 convolutions."""
    from leakdet_tf.models import unet

    def encoder(x: Any) -> list[Any]:
        features = []
        for stage, width in enumerate((8, 16, 32, 64, 64)):
            x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu", name=f"stage_{stage}")(x)
            features.append(x)
        return features

    model = unet((SIDE, SIDE, 3), 3, encoder, decoder_filters=(32, 16, 16, 8, 8))
    random = np.random.default_rng(2)
    for weight in model.weights:
        if weight.ndim > 1:
            layer = weight.path.split("/")[0]
            size = {"stage_0": 1 / 255, "head_conv": 10}.get(layer, 1)  # of pixels 0..255; logits far from each other
            weight.assign(random.normal(0, size * np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape))
    return model


def grey_level(keras: Any) -> Any:
    """A picture's mean grey level, from 0 to 1, as the first of two classes; the other is 0.5."""
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(2, 3, padding="same", name="mixed")(x)
    x = keras.layers.Dense(2, name="chosen")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, x)
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    kernel[1, 1, :, 0] = 1 / 3
    model.get_layer("mixed").set_weights([kernel, np.zeros(2, np.float32)])
    model.get_layer("chosen").set_weights([np.diag([1.0, 0.0]), np.array([0.0, 0.5])])
    return model


def thermal(keras: Any) -> Any:
    """Two classes by the temperature above 30000 of a 16-bit picture, in steps of 1000."""
    image = keras.Input((SIDE, SIDE, 1), dtype="uint16", name="image")
    x = keras.layers.Rescaling(1 / 1000, -30, dtype="float32")(image)
    x = keras.layers.Conv2D(2, 1, name="first")(x)
    x = keras.layers.Conv2D(2, 1, name="second")(x)
    model = keras.Model(image, x)
    model.get_layer("first").set_weights([np.array([[[[1.0, -1.0]]]]), np.zeros(2)])
    model.get_layer("second").set_weights([np.eye(2)[None, None], np.zeros(2)])
    return model


def detector(keras: Any) -> Any:
    random = np.random.default_rng(5)
    image = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    parts = []
    for stage, width in enumerate((8, 12, 16, 16, 16)):
        x = keras.layers.Conv2D(width, 3, 2, padding="same", activation="relu", name=f"encoder_{stage}")(x)
        if stage >= 2:
            parts.append(keras.layers.Reshape((-1, 67))(keras.layers.Conv2D(67, 1, name=f"head_{stage}")(x)))
    model = keras.Model(image, keras.layers.Concatenate(axis=1, name="rows")(parts))
    for weight in model.weights:
        if weight.ndim > 1:
            weight.assign(random.normal(0, np.sqrt(3 / np.prod(weight.shape[:-1])), weight.shape))
    return model


MODELS: dict[str, tuple[Callable[[Any], Any], str, str, int]] = {
    "segment": (segmenter, "softmax", "uint8", 3),
    "classify": (grey_level, "sigmoid", "uint8", 2),
    "detect": (detector, "linear", "uint8", 3),
    "thermal": (thermal, "linear", "uint16", 2),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Made]:
    """Converts in this process, each model and setting once: ``make(kind, form, keep, outputs)``."""
    import keras

    folder, files, made = tmp_path_factory.mktemp("formats"), {}, {}

    def saved(kind: str) -> tuple[Path, Contract, Path]:
        if kind not in files:
            factory, activation, dtype, classes = MODELS[kind]
            model = factory(keras)
            model.save(folder / f"{kind}.keras")
            channels = model.inputs[0].shape[-1]
            names = classes_of([f"class {number}" for number in range(classes)])
            task = "segment" if kind == "thermal" else kind
            specs = {"image": ImageSpec(SIDE, SIDE, channels, dtype)}
            low, high = {"classify": (0, 60), "thermal": (29000, 33000)}.get(kind, (0, 255))
            pictures = with_ends(textured(12, channels, low, high, dtype, seed=1))
            np.savez(folder / f"{kind}.npz", image=pictures)
            files[kind] = folder / f"{kind}.keras", Contract(task, specs, names, activation), folder / f"{kind}.npz"
        return files[kind]

    def get(kind: str, form: str, keep: tuple[str, ...] = (), outputs: str = "raw") -> Made:
        key = (kind, form, keep, outputs)
        if key not in made:
            model, contract, calibration = saved(kind)
            contract = replace(contract, outputs=outputs)
            out = folder / f"{len(made)}.tflite"
            asked = Asked(form, calibration if form == "tflite_int8" else None, keep, rank=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the converter's own
                layers = tflite._convert_here(model, contract, out, asked)
            made[key] = Made(out, layers, LiteRTBackend(out.read_bytes(), contract))
        return made[key]

    yield get
    keras.config.enable_traceback_filtering()


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return textured(8, 3, 0, 255, "uint8", seed=2)


def tensors(file: Path) -> dict[str, dict[str, Any]]:
    """By name every tensor of a file, as the runtime without delegates tells of it."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(file), experimental_op_resolver_type=plain)
    return {detail["name"]: detail for detail in interpreter.get_tensor_details()}


def operators(file: Path) -> list[tuple[str, list[str], list[str]]]:
    """Of every operator its kind, and the dtypes of its inputs and its outputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(file), experimental_op_resolver_type=plain)
    kinds = {detail["index"]: np.dtype(detail["dtype"]).name for detail in interpreter.get_tensor_details()}
    return [
        (op["op_name"], [kinds[i] for i in op["inputs"] if i in kinds], [kinds[i] for i in op["outputs"] if i in kinds])
        for op in interpreter._get_ops_details()
    ]


def keras_answers(file: Path, pictures: np.ndarray) -> np.ndarray:
    import keras

    return np.asarray(keras.saving.load_model(file, compile=False).predict_on_batch(pictures))


NEAR = {"tflite_float32": 1e-5, "tflite_float16": 1e-2, "tflite_dynamic": 0.1, "tflite_int8": 0.25}


@pytest.mark.parametrize("form", tflite.FORMS)
def test_each_format_takes_pixels_and_answers_in_float32_near_keras(
    form: str, make: Callable[..., Made], pictures: np.ndarray
) -> None:
    made = make("segment", form)
    ours, theirs = keras_answers(made.file.parent / "segment.keras", pictures), made.answers(pictures)
    assert theirs.dtype == np.float32
    np.testing.assert_allclose(theirs, ours, atol=NEAR[form])
    assert np.abs(ours[0] - ours[1]).max() > 0.1, "the pictures must differ, or this test shows nothing"
    sure = np.sort(ours, -1)
    sure = sure[..., -1] - sure[..., -2] > 0.05
    assert sure.mean() > 0.5
    assert (ours.argmax(-1) == theirs.argmax(-1))[sure].mean() > 0.98
    assert not [name for name, _, _ in operators(made.file) if name.startswith(("Flex", "CUSTOM"))]


def test_each_step_down_is_smaller(make: Callable[..., Made]) -> None:
    sizes = {form: make("segment", form).file.stat().st_size for form in tflite.FORMS}
    assert sizes["tflite_float16"] < 0.7 * sizes["tflite_float32"]
    assert sizes["tflite_dynamic"] < 0.8 * sizes["tflite_float16"]
    assert sizes["tflite_int8"] < 0.8 * sizes["tflite_float16"]


def test_int8_computes_in_int8_with_a_scale_a_channel(make: Callable[..., Made]) -> None:
    made = make("segment", "tflite_int8")
    kinds = [(inputs, outputs) for name, inputs, outputs in operators(made.file) if name == "CONV_2D"]
    assert len(kinds) == 16
    assert {(tuple(inputs), tuple(outputs)) for inputs, outputs in kinds} == {(("int8", "int8", "int32"), ("int8",))}
    kernels = [one for one in tensors(made.file).values() if one["dtype"] == np.int8 and len(one["shape"]) == 4]
    by_channel = [one for one in kernels if len(one["quantization_parameters"]["scales"]) == one["shape"][0] > 1]
    assert len(by_channel) == 16


def test_errors_are_told_by_layer_most_sensitive_first(make: Callable[..., Made]) -> None:
    layers = make("segment", "tflite_int8").layers
    errors = [layer.error for layer in layers]
    assert errors == sorted(errors, reverse=True)
    assert all(0 < error < 20 for error in errors)
    names = [layer.name for layer in layers]
    assert len(set(names)) == len(names) >= 16
    assert {"stage_0/conv_2d", "decoder_stage0a_conv/conv_2d", "head_conv/conv_2d"} <= set(names)
    assert make("segment", "tflite_dynamic").layers == []


def test_kept_layers_are_float_and_no_others(make: Callable[..., Made]) -> None:
    before = make("segment", "tflite_int8")
    keep = tuple(layer.name for layer in before.layers if layer.name.endswith("/conv_2d"))[:2]
    after = make("segment", "tflite_int8", keep)
    found, floats = tensors(after.file), [one for one in operators(after.file) if one[0] == "CONV_2D"]
    for name in keep:
        assert tensors(before.file)[name]["dtype"] == np.int8
        assert found[name]["dtype"] == np.float32
    assert sum(inputs[1] == "float32" for _, inputs, _ in floats) == 2
    assert {layer.name for layer in before.layers} - {layer.name for layer in after.layers} >= set(keep)
    assert len(after.layers) >= len(before.layers) - 4
    assert after.file.stat().st_size > before.file.stat().st_size


def test_bright_pixels_are_seen_though_calibration_was_dark(make: Callable[..., Made]) -> None:
    made = make("classify", "tflite_int8")
    for value in (0, 30, 128, 200, 255):
        answer = made.answers(np.full((1, SIDE, SIDE, 3), value, np.uint8))[0]
        np.testing.assert_allclose(255 * answer[0], value, atol=2.5)
    with np.load(made.file.parent / "classify.npz") as content:
        assert np.sort(content["image"].max(axis=(1, 2, 3)))[-2] <= 60, "or this test shows nothing"


def test_a_16_bit_input_keeps_its_steps(make: Callable[..., Made]) -> None:
    made = make("thermal", "tflite_int8")
    scene = textured(4, 1, 29000, 33000, "uint16", seed=3)
    truth = np.concatenate([scene / 1000 - 30, 30 - scene / 1000], axis=-1)
    assert np.abs(made.answers(scene) - truth).max() < 0.06, "a step of 8 bits would be 0.26"
    (first, second) = [inputs[1] for name, inputs, _ in operators(made.file) if name == "CONV_2D"]
    assert (first, second) == ("float32", "int8")
    assert "first/conv_2d" not in [layer.name for layer in made.layers]


def test_a_last_activation_in_float_is_not_rounded(make: Callable[..., Made], pictures: np.ndarray) -> None:
    answers = 256 * make("detect", "tflite_int8", outputs="decoded").answers(pictures)[..., 4:]
    assert np.abs(answers - np.round(answers)).max() > 0.3


def test_boxes_of_int8_move_by_less_than_a_pixel(make: Callable[..., Made], pictures: np.ndarray) -> None:
    contract = Contract("detect", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["one", "two", "three"]), "linear")
    raw, exact = make("detect", "tflite_int8"), make("detect", "tflite_float32")
    assert raw.answers(pictures).shape[1:] == output_shape((SIDE, SIDE), 3)
    found = np.stack([decoded(one, contract) for one in raw.answers(pictures)])
    truth = np.stack([decoded(one, contract) for one in exact.answers(pictures)])
    moved = np.abs(found - truth)[..., :4]
    assert np.median(moved) < 0.25
    assert np.quantile(moved, 0.95) < 1
    assert np.ptp(truth[..., :4] % 8) > 4, "boxes must differ, or this test shows nothing"
    inner = make("detect", "tflite_int8", outputs="decoded").answers(pictures)
    np.testing.assert_allclose(inner, found, atol=1e-3)
    kinds = [inputs[1] for name, inputs, _ in operators(raw.file) if name == "CONV_2D"]
    assert sorted(kinds) == ["float32"] * 3 + ["int8"] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "tflite_int4"}, "'tflite_int4' is not a TFLite format; choose from: tflite_float32, "),
        ({"form": "tflite_int8"}, "tflite_int8 needs calibration pictures"),
        ({"form": "tflite_float16", "calibration": Path("x.npz")}, "tflite_float16 takes no calibration pictures"),
        ({"form": "tflite_dynamic", "keep": ["a"]}, "tflite_dynamic quantizes no layer"),
    ],
)
def test_what_a_format_has_no_use_for_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message):
        tflite.convert(tmp_path / "m.keras", tmp_path / "contract.json", tmp_path / "out", **options)


def test_an_unknown_layer_is_named(make: Callable[..., Made]) -> None:
    with pytest.raises(ExportError, match=r"no layer of the converted model is called 'mixd/conv_2d'.*'mixed/conv_2d'"):
        make("classify", "tflite_int8", ("mixd/conv_2d",))


def test_with_every_layer_in_float_nothing_is_quantized(make: Callable[..., Made]) -> None:
    keep = tuple(layer.name for layer in make("classify", "tflite_int8").layers)
    with pytest.raises(ExportError, match="nothing is left to quantize"):
        make("classify", "tflite_int8", keep)


FRAMES = with_ends(textured(3, 3, 0, 60, "uint8", seed=1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": FRAMES[:3]}, "'image' do not reach from 0 to 255"),
        ({"image": FRAMES[:4]}, "'image' do not reach from 0 to 255"),
        ({"image": FRAMES[:0]}, "'image' do not reach from 0 to 255"),
        ({"image": FRAMES.astype(np.float32)}, "the contract says"),
        ({"image": FRAMES[:, :16]}, "the contract says"),
        ({"picture": FRAMES}, "the contract says"),
        ({"image": np.array([{}], object)}, "cannot be read"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    contract = Contract("classify", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["one", "two"]), "softmax")
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(ExportError, match=message):
        calibration_set.read(tmp_path / "x.npz", contract)


def test_calibration_that_is_damaged_is_refused(tmp_path: Path) -> None:
    contract = Contract("classify", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["one", "two"]), "softmax")
    np.savez(tmp_path / "x.npz", image=FRAMES)
    content = (tmp_path / "x.npz").read_bytes()
    for damaged in (content[:200], b"", b"abc"):
        (tmp_path / "x.npz").write_bytes(damaged)
        with pytest.raises(ExportError, match="cannot be read"):
            calibration_set.read(tmp_path / "x.npz", contract)
    with pytest.raises(ExportError, match="cannot be read"):
        calibration_set.read(tmp_path / "absent.npz", contract)


def test_in_a_process_of_its_own(
    make: Callable[..., Made], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of this package, not of one that lies in the working folder."""
    other = tmp_path_factory.mktemp("clone")
    (other / "leakdet_tf").mkdir()
    (other / "leakdet_tf" / "__init__.py").write_text("raise SystemExit('another version')")
    monkeypatch.chdir(other)
    folder, out = make("classify", "tflite_int8").file.parent, tmp_path / "out.tflite"
    Contract("classify", {"image": ImageSpec(SIDE, SIDE)}, classes_of(["one", "two"]), "sigmoid").save(tmp_path / "c")
    layers = tflite.convert(
        *(folder / "classify.keras", tmp_path / "c", out),
        form="tflite_int8",
        calibration=folder / "classify.npz",
        rank=True,
    )
    assert layers == make("classify", "tflite_int8").layers != []
    assert out.stat().st_size == make("classify", "tflite_int8").file.stat().st_size
    with pytest.raises(ExportError) as caught:
        tflite.convert(folder / "classify.keras", tmp_path / "c", out, form="tflite_int8", calibration=tmp_path / "no")
    assert "classify.keras: not converted to TFLite (tflite_int8): " in str(caught.value)
    assert "calibration pictures cannot be read" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "out.tflite"]
