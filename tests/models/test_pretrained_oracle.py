"""The encoders and what is read into them, against published sizes, plain NumPy, and keras.applications."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import save_file

from leakdet_tf.models import mobilenet_classifier, resnet_classifier
from leakdet_tf.models.mobilenets import application
from leakdet_tf.models.pretrained import encoder_source

Arrays = dict[str, np.ndarray]
DEPTHS = {"resnet18_v1": (2, 2, 2, 2), "resnet34_v1": (3, 4, 6, 3), "resnet50_v1": (3, 4, 6, 3)}
# Learned parameters of torchvision's models with 1000 classes, from its documentation.
PARAMETERS = {"resnet18_v1": 11_689_512, "resnet34_v1": 21_797_672, "resnet50_v1": 25_557_032}


def learned(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def answers(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(batch, training=False))


def pooled(model: keras.Model) -> keras.Model:
    return keras.Model(model.input, model.get_layer("head_pool").output)


@pytest.mark.parametrize("encoder", PARAMETERS)
def test_resnets_have_torchvisions_size(encoder: str) -> None:
    assert learned(resnet_classifier((224, 224, 3), 1000, encoder)) == PARAMETERS[encoder]


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [
        ("mobilenet", "MobileNet"),
        ("mobilenet_v2", "MobileNetV2"),
        ("mobilenet_v3_small", "MobileNetV3Small"),
        ("mobilenet_v3_large", "MobileNetV3Large"),
    ],
)
def test_mobilenets_equal_keras_applications(encoder: str, kind: str) -> None:
    """As many parameters, weights in the same order, and with the same values the same features."""
    theirs = application(kind, 0.5)
    random = np.random.default_rng(0)
    theirs.set_weights([lively(w.name, tuple(w.shape), random) for w in theirs.weights])
    ours = mobilenet_classifier((64, 64, 3), 2, encoder, alpha=0.5)
    head = ours.get_layer("head_dense").weights
    assert ours.count_params() == theirs.count_params() + sum(int(np.prod(weight.shape)) for weight in head)
    ours.set_weights([*theirs.get_weights(), *(keras.ops.convert_to_numpy(weight) for weight in head)])
    batch = random.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = answers(theirs, batch.astype(np.float32) / 127.5 - 1).mean((1, 2))
    assert np.abs(expected[0] - expected[1]).max() > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(answers(pooled(ours), batch), expected, atol=1e-5 * np.abs(expected).max())


def lively(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Values for one weight that keep a signal alive through many layers."""
    if len(shape) > 1:
        fan = np.prod(shape[:2]) * (1 if shape[-1] == 1 else shape[2])
        return random.normal(0.0, np.sqrt(2.0 / fan), shape).astype(np.float32)
    if name in ("gamma", "moving_variance"):
        return random.uniform(0.8, 1.2, shape).astype(np.float32)
    return random.normal(0.0, 0.1, shape).astype(np.float32)


# --- ResNets in torchvision's naming, written out in NumPy ----------------------------------------------------------


def torch_file(encoder: str, width: int, classes: int = 10, seed: int = 0) -> Arrays:
    """Random arrays under torchvision's names, (out, in, h, w) kernels."""
    random, arrays = np.random.default_rng(seed), Arrays()
    bottleneck = encoder == "resnet50_v1"

    def conv(name: str, outputs: int, inputs: int, size: int) -> None:
        scale = np.sqrt(2.0 / (inputs * size * size))
        arrays[f"{name}.weight"] = random.normal(0, scale, (outputs, inputs, size, size)).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        arrays[f"{name}.weight"] = random.uniform(0.5, 1.0, channels).astype(np.float32)
        arrays[f"{name}.bias"] = random.normal(0, 0.3, channels).astype(np.float32)
        arrays[f"{name}.running_mean"] = random.normal(0, 0.3, channels).astype(np.float32)
        arrays[f"{name}.running_var"] = random.uniform(0.7, 1.5, channels).astype(np.float32)
        arrays[f"{name}.num_batches_tracked"] = np.array(7, np.int64)

    conv("conv1", width, 3, 7)
    norm("bn1", width)
    inputs = width
    for stage, depth in enumerate(DEPTHS[encoder], start=1):
        filters = width * 2 ** (stage - 1)
        outputs = filters * 4 if bottleneck else filters
        plan = [(filters, 1), (filters, 3), (outputs, 1)] if bottleneck else [(filters, 3), (filters, 3)]
        for unit in range(depth):
            name, before = f"layer{stage}.{unit}", inputs
            for place, (count, size) in enumerate(plan, start=1):
                conv(f"{name}.conv{place}", count, before, size)
                norm(f"{name}.bn{place}", count)
                before = count
            if unit == 0 and (stage > 1 or inputs != outputs):
                conv(f"{name}.downsample.0", outputs, inputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    arrays["fc.weight"] = random.normal(0, 0.1, (classes, inputs)).astype(np.float32)
    arrays["fc.bias"] = np.zeros(classes, np.float32)
    return arrays


def convolved(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """(B, C, H, W) by (out, in, h, w), zeros of half the kernel's size around."""
    size = kernel.shape[-1]
    edge = size // 2
    x = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bihwkl,oikl->bohw", windows, kernel, optimize=True)


def normed(x: np.ndarray, arrays: Arrays, name: str) -> np.ndarray:
    gamma, beta, mean, variance = (
        arrays[f"{name}.{part}"].astype(np.float64)[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def forward(arrays: Arrays, encoder: str, pictures: np.ndarray) -> list[np.ndarray]:
    """uint8 (B, H, W, 3) → the five maps (B, C, H/s, W/s), in float64."""
    x = pictures.astype(np.float64) / 255.0
    x = (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    x = normed(convolved(x.transpose(0, 3, 1, 2), arrays["conv1.weight"], 2), arrays, "bn1")
    x = np.maximum(x, 0)
    maps = [x]
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max((-2, -1))
    strided = "conv2" if encoder == "resnet50_v1" else "conv1"
    convs = ["conv1", "conv2", "conv3"] if encoder == "resnet50_v1" else ["conv1", "conv2"]
    for stage, depth in enumerate(DEPTHS[encoder], start=1):
        for unit in range(depth):
            name, stride = f"layer{stage}.{unit}", 2 if stage > 1 and unit == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in arrays:
                shortcut = convolved(x, arrays[f"{name}.downsample.0.weight"], stride)
                shortcut = normed(shortcut, arrays, f"{name}.downsample.1")
            for conv in convs:
                x = convolved(x, arrays[f"{name}.{conv}.weight"], stride if conv == strided else 1)
                x = normed(x, arrays, f"{name}.{conv.replace('conv', 'bn')}")
                x = np.maximum(x, 0) if conv != convs[-1] else x
            x = np.maximum(x + shortcut, 0)
        maps.append(x)
    return maps


@pytest.mark.parametrize("encoder", DEPTHS)
def test_a_torchvision_file_gives_what_numpy_computes(encoder: str, tmp_path: Path) -> None:
    arrays = torch_file(encoder, 4)
    save_file(arrays, tmp_path / "model.safetensors")
    pictures = np.random.default_rng(1).integers(0, 256, (2, 64, 32, 3), dtype=np.uint8)
    model = resnet_classifier(
        (64, 32, 3),
        3,
        encoder,
        encoder_options={"width": 4},
        encoder_weights=str(tmp_path / "model.safetensors"),
        seed=0,
    )
    source = encoder_source(model)
    assert source is not None
    count = sum(not name.startswith("fc.") and not name.endswith("tracked") for name in arrays)
    assert (source.loaded, source.total, set(source.dropped)) == (count, count, {"fc.weight", "fc.bias"})
    expected = forward(arrays, encoder, pictures)
    last = len(DEPTHS[encoder]) + 1
    assert len(expected) == last
    convolutions = 3 if encoder == "resnet50_v1" else 2
    ends = [f"encoder_stage{s}_unit{n}_relu{convolutions}" for s, n in enumerate(DEPTHS[encoder], start=1)]
    probe = keras.Model(model.input, [model.get_layer(name).output for name in ["encoder_relu0", *ends]])
    for actual, wanted in zip(probe(pictures, training=False), expected, strict=True):
        assert wanted.std() > 0.1
        found = keras.ops.convert_to_numpy(actual).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * max(1.0, np.abs(wanted).max()))


def test_kerass_resnet50_is_taken_with_its_biases_and_channel_order(tmp_path: Path) -> None:
    """Keras's network has biases, blue first, another epsilon and strides in the 1x1; ours must answer the same."""
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(32, 32, 3))
    random = np.random.default_rng(2)
    theirs.set_weights([lively(w.name, tuple(w.shape), random) for w in theirs.weights])
    theirs.save_weights(tmp_path / "resnet50.weights.h5")
    ours = resnet_classifier(
        (32, 32, 3),
        2,
        encoder_options={"stride_in": "1x1"},
        encoder_weights=str(tmp_path / "resnet50.weights.h5"),
    )
    batch = random.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = answers(theirs, keras.applications.resnet.preprocess_input(batch.astype(np.float32))).mean((1, 2))
    assert expected.std() > 0.1
    np.testing.assert_allclose(answers(pooled(ours), batch), expected, atol=1e-4 * np.abs(expected).max())


# --- the real files -------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    ("encoder", "file", "arguments", "folded"),
    [
        ("mobilenet", "mobilenet_v1_0.25_224_imagenet.weights.h5", {"alpha": 0.25}, False),
        ("mobilenet_v2", "mobilenet_v2_1.0_224_imagenet_1001.weights.h5", {"classes": 1001}, True),
    ],
)
def test_real_files_give_the_features_of_keras_applications(
    shared: Path, encoder: str, file: str, arguments: dict[str, Any], folded: bool
) -> None:
    path = shared / "weights" / file
    kind = {"mobilenet": keras.applications.MobileNet, "mobilenet_v2": keras.applications.MobileNetV2}[encoder]
    whole = kind(weights=None, **arguments)
    whole.load_weights(path)
    last = {"mobilenet": "conv_pw_13_relu", "mobilenet_v2": "out_relu"}[encoder]
    theirs = keras.Model(whole.input, whole.get_layer(last).output)
    alpha = arguments.get("alpha", 1.0)
    ours = mobilenet_classifier((224, 224, 3), 2, encoder, alpha=alpha, encoder_weights=str(path), seed=0)
    source = encoder_source(ours)
    assert source is not None
    assert source.loaded == source.total == len(theirs.weights)
    assert len(source.dropped) == 2
    assert source.folded is folded
    batch = np.random.default_rng(3).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    expected = answers(theirs, batch.astype(np.float32) / 127.5 - 1).mean((1, 2))
    assert expected.std() > 0.01
    np.testing.assert_allclose(answers(pooled(ours), batch), expected, atol=1e-5 * np.abs(expected).max())
