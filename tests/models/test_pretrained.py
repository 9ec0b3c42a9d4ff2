"""Published weights: what is read, what is refused and told, downloads, and statistics computed again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from leakdet_tf.config.loading import load
from leakdet_tf.core.errors import MissingExtraError, ModelError
from leakdet_tf.jobs.run.start import new_model
from leakdet_tf.models import mobilenet_classifier, resnet_classifier, unet, weight_files
from leakdet_tf.models.initialize import named_weights
from leakdet_tf.models.mobilenets import application
from leakdet_tf.models.pretrained import encoder_source, load_encoder
from leakdet_tf.models.weight_files import WeightFile, fetch, find_weights

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def values(model: keras.Model) -> dict[str, np.ndarray]:
    return {path: keras.ops.convert_to_numpy(variable).copy() for path, variable in named_weights(model)}


def narrow(encoder: str = "resnet18_v1", weights: str | None = None, **arguments: Any) -> keras.Model:
    options = {"width": 4, **arguments.pop("encoder_options", {})}
    return resnet_classifier(
        (32, 32, 3), 2, encoder, encoder_weights=weights, encoder_options=options, seed=0, **arguments
    )


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 of width 4 under torchvision's names, each value telling its place. Read only."""
    plan = [("conv1", "bn1", (4, 3, 7, 7))]
    inputs = 4
    for stage, filters in enumerate((4, 8, 16, 32), start=1):
        for unit in range(2):
            name = f"layer{stage}.{unit}"
            plan.append((f"{name}.conv1", f"{name}.bn1", (filters, inputs, 3, 3)))
            plan.append((f"{name}.conv2", f"{name}.bn2", (filters, filters, 3, 3)))
            if inputs != filters:
                plan.append((f"{name}.downsample.0", f"{name}.downsample.1", (filters, inputs, 1, 1)))
            inputs = filters
    random, arrays = np.random.default_rng(0), {}
    for conv, norm, shape in plan:
        arrays[f"{conv}.weight"] = random.normal(0, 0.1, shape).astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{norm}.{part}"] = random.uniform(0.5, 1.5, shape[0]).astype(np.float32)
        arrays[f"{norm}.num_batches_tracked"] = np.array(1, np.int64)
    arrays["fc.weight"], arrays["fc.bias"] = np.ones((5, 32), np.float32), np.ones(5, np.float32)
    path = tmp_path_factory.mktemp("torch") / "model.safetensors"
    save_file(arrays, path)
    return path


def changed(torch_file: Path, folder: Path, change: Any) -> str:
    arrays = load_file(torch_file)
    change(arrays)
    save_file(arrays, folder / "changed.safetensors")
    return str(folder / "changed.safetensors")


# --- what is taken --------------------------------------------------------------------------------------------------


def test_the_encoder_is_taken_and_the_head_starts_anew(torch_file: Path, tmp_path: Path) -> None:
    model, bare = narrow(weights=str(torch_file)), narrow()
    source = encoder_source(model)
    assert source is not None
    assert source.sha256 == hashlib.sha256(torch_file.read_bytes()).hexdigest()
    assert (source.encoder, source.source, source.folded) == ("resnet18_v1", str(torch_file), False)
    assert source.loaded == source.total == 100
    assert source.lines() == [
        f"encoder: 100 of 100 weights taken from {torch_file} (SHA-256 {source.sha256[:12]})",
        "  not taken, its own head: fc.bias, fc.weight",
    ]
    taken, fresh = values(model), values(bare)
    for path in taken:
        same = np.array_equal(taken[path], fresh[path])
        assert same == path.startswith("head_")
    kernel = load_file(torch_file)["layer2.0.downsample.0.weight"]
    np.testing.assert_array_equal(taken["encoder_stage2_unit1_conv_shortcut/kernel"][0, 0], kernel[:, :, 0, 0].T)

    layer = model.get_layer("encoder_preprocessing")
    np.testing.assert_allclose(layer.get_config()["mean"], [123.675, 116.28, 103.53])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    picture = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again(picture, training=False), model(picture, training=False))
    assert encoder_source(again) is None
    assert encoder_source(bare) is None


def test_half_precision_is_widened(torch_file: Path, tmp_path: Path) -> None:
    def halve(arrays: dict[str, np.ndarray]) -> None:
        arrays.update({name: array.astype(np.float16) for name, array in arrays.items()})

    found = values(narrow(weights=changed(torch_file, tmp_path, halve)))["encoder_conv0/kernel"]
    wanted = load_file(torch_file)["conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_unet_with_the_encoder_takes_the_same_file(torch_file: Path) -> None:
    options = {"width": 4, "preprocessing": "torchvision", "name": "rgb"}
    model = unet((32, 32, 3), 2, "resnet18_v1", encoder_options=options, decoder_filters=(8, 8, 8, 4, 4), seed=0)
    before = values(model)
    done = load_encoder(model, find_weights("resnet18_v1", str(torch_file), options), options)
    assert done.loaded == 100
    moved = {path for path, value in values(model).items() if not np.array_equal(value, before[path])}
    assert moved == {path for path in before if path.startswith("rgb_")}


@pytest.mark.parametrize("form", ["weights.h5", "h5", "keras"])
@pytest.mark.parametrize("classes", [None, 7])
def test_files_of_keras_applications(form: str, classes: int | None, tmp_path: Path) -> None:
    """With and without their own head, in each form that Keras writes."""
    theirs = application("MobileNet", 0.25, classes=classes)
    random = np.random.default_rng(0)
    theirs.set_weights([random.uniform(0.5, 1.5, tuple(w.shape)) for w in theirs.weights])
    path = tmp_path / f"m.{form}"
    if form == "weights.h5":
        theirs.save_weights(path)
    elif form == "keras":
        theirs.save(path)
    else:
        legacy_file(theirs, path)
    ours = mobilenet_classifier((32, 32, 3), 2, "mobilenet", alpha=0.25, encoder_weights=str(path), seed=0)
    source = encoder_source(ours)
    assert source is not None
    assert source.loaded == source.total == 27 * 5
    assert source.dropped == (() if classes is None else ("conv_preds/bias", "conv_preds/kernel"))
    wanted = theirs.get_layer("conv_dw_12_bn").get_weights()
    for a, b in zip(ours.get_layer("encoder_stage4_conv_dw_12_bn").get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def legacy_file(model: keras.Model, path: Path) -> None:
    """The layout of Keras 2's weight files, which the downloads have: a group a layer, names in attributes."""
    import h5py

    with h5py.File(path, "w") as archive:
        archive.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        archive.attrs["backend"] = b"tensorflow"
        archive.attrs["keras_version"] = b"2.9.0"
        for layer in model.layers:
            group = archive.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group.create_dataset(name, data=keras.ops.convert_to_numpy(weight))


# --- what is refused ------------------------------------------------------------------------------------------------


def widen(arrays: dict[str, np.ndarray]) -> None:
    arrays["layer3.0.conv1.weight"] = np.zeros((16, 8, 5, 5), np.float32)


def spoil(arrays: dict[str, np.ndarray]) -> None:
    arrays["bn1.bias"] = np.array([0, np.nan, 0, 0], np.float32)


def lengthen(arrays: dict[str, np.ndarray]) -> None:
    arrays["layer1.2.conv1.weight"] = np.zeros((4, 4, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("bn1.bias"), r"1 of its and the encoder's 100 weights do not fit \(bn1.bias is not"),
        (widen, r"layer3.0.conv1.weight is \(5, 5, 8, 16\), not \(3, 3, 8, 16\)"),
        (spoil, "bn1.bias holds NaN or infinity"),
        (lengthen, "layer1.2.conv1.weight has no place"),
    ],
)
def test_a_file_that_fits_in_part_changes_nothing(torch_file: Path, tmp_path: Path, change: Any, message: str) -> None:
    options = {"width": 4, "preprocessing": "torchvision"}
    model = narrow(encoder_options=options)
    before = values(model)
    file = find_weights("resnet18_v1", changed(torch_file, tmp_path, change), options)
    with pytest.raises(ModelError, match=message):
        load_encoder(model, file, options)
    for path, value in values(model).items():
        np.testing.assert_array_equal(value, before[path])
    assert encoder_source(model) is None


def test_a_file_of_another_depth_is_refused_with_the_number_of_misfits(torch_file: Path) -> None:
    """ResNet-34 has every array of ResNet-18 and more, and the other way round it lacks some: neither is taken."""
    with pytest.raises(ModelError, match=r"80 of its and the encoder's 180 weights do not fit"):
        narrow("resnet34_v1", str(torch_file))


def test_another_scale_of_pixels_or_other_strides_are_refused(torch_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"want pixels scaled as preprocessing 'torchvision'"):
        narrow(weights=str(torch_file), encoder_options={"preprocessing": "signed"})
    with pytest.raises(ModelError, match=r"strides in the 3x3 convolutions; set encoder_options"):
        narrow("resnet50_v1", str(torch_file), encoder_options={"stride_in": "1x1"})
    (tmp_path / "a.weights.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"strides in the 1x1 convolutions"):
        narrow("resnet50_v1", str(tmp_path / "a.weights.h5"), encoder_options={"stride_in": "3x3"})
    with pytest.raises(ModelError, match=r"strides in the 1x1 convolutions; leave stride_in out"):
        narrow("resnet50_v1", "imagenet", encoder_options={"stride_in": "3x3"})


def test_a_model_without_that_encoder_is_refused(torch_file: Path) -> None:
    file = find_weights("resnet18_v1", str(torch_file), {})
    with pytest.raises(ModelError, match="has no layer 'encoder_preprocessing'"):
        load_encoder(narrow("resnet18"), file, {})


@pytest.mark.parametrize(
    ("encoder", "weights", "message"),
    [
        ("resnet18_v1", "resnet18.pth", r"can run code.*weights_only=True\), 'resnet18.safetensors'\)"),
        ("resnet18_v1", "missing.safetensors", "no such file"),
        ("resnet18_v1", "imagnet", "not a file that encoder 'resnet18_v1' reads; give one that ends in .safetensors"),
        ("resnet18_v1", "a.h5", "ends in .safetensors, or"),
        ("mobilenet", "a.safetensors", "ends in .h5 or .keras"),
        ("resnet18", "imagenet", "no pretrained weights are known for it; .*resnet18_v1"),
        ("resnet34_v1", "imagenet", "fetch model.safetensors of https://huggingface.co/timm/resnet34.tv_in1k"),
        ("mobilenet", "imagenet", "no 'imagenet' weights for alpha 0.3; choose from: 0.25, 0.5, 0.75, 1.0"),
    ],
)
def test_what_is_not_read_is_told(encoder: str, weights: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_weights(encoder, weights, {"alpha": 0.3})


def test_an_encoder_of_ones_own_brings_its_own_weights() -> None:
    with pytest.raises(ModelError, match=r"encoder 'dict': no pretrained weights are known"):
        find_weights({}, "imagenet", {})
    with pytest.raises(ModelError, match="red, green and blue, the input has 1 channels"):
        resnet_classifier((32, 32, 1), 2, encoder_weights="imagenet")


@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_safetensors_are_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad.safetensors: (cannot be read|100 of its)"):
        narrow(weights=str(tmp_path / "bad.safetensors"))


@pytest.mark.parametrize("form", ["weights.h5", "h5", "keras"])
def test_damaged_keras_files_are_told(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{form}"
    path.write_bytes(b"no such thing")
    with pytest.raises(ModelError, match="bad"):
        mobilenet_classifier((32, 32, 3), 2, "mobilenet", alpha=0.25, encoder_weights=str(path))


def test_a_keras_file_of_another_network_is_refused(tmp_path: Path) -> None:
    application("MobileNet", 0.5).save_weights(tmp_path / "wide.weights.h5")
    with pytest.raises(ModelError, match="does not fit MobileNet"):
        mobilenet_classifier((32, 32, 3), 2, "mobilenet", alpha=0.25, encoder_weights=str(tmp_path / "wide.weights.h5"))
    with pytest.raises(ModelError, match="holds 135 arrays; MobileNetV3Small has 206"):
        mobilenet_classifier((32, 32, 3), 2, "mobilenet_v3_small", encoder_weights=str(tmp_path / "wide.weights.h5"))


def test_without_safetensors_the_line_to_type_is_told(torch_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'leakdet_tf\[train\]'"):
        narrow(weights=str(torch_file))


# --- downloads ------------------------------------------------------------------------------------------------------


def test_imagenet_is_fetched_by_address_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy_file(application("MobileNet", 0.25), tmp_path / "fetched.h5")
    asked = []

    def stub(address: str, md5: str) -> Path:
        asked.append((address, md5))
        return tmp_path / "fetched.h5"

    monkeypatch.setattr(weight_files, "fetch", stub)
    model = mobilenet_classifier((32, 32, 3), 2, "mobilenet", alpha=0.25, encoder_weights="imagenet")
    address = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_2_5_224_tf_no_top.h5"
    assert asked == [(address, "")]
    source = encoder_source(model)
    assert source is not None
    assert source.source == address
    assert source.sha256 == hashlib.sha256((tmp_path / "fetched.h5").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "alpha", [0.75, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (0.35, 0.5, 1.0, 1.3, 1.4))]
)
def test_addresses_are_those_of_keras(alpha: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras asks for the same file with the same hash; its own download is stopped at the door."""
    asked: list[tuple[str, str]] = []

    class Stop(Exception):
        pass

    def door(name: str, origin: str, **others: Any) -> None:
        asked.append((origin, others.get("file_hash") or ""))
        raise Stop

    def ours(address: str, md5: str) -> Path:
        asked.append((address, md5))
        return tmp_path

    monkeypatch.setattr(weight_files, "fetch", ours)
    cases: list[tuple[str, Any, dict[str, Any]]] = [("mobilenet_v2", keras.applications.MobileNetV2, {"alpha": alpha})]
    if alpha in (0.5, 0.75, 1.0):
        cases.append(("mobilenet", keras.applications.MobileNet, {"alpha": alpha}))
    if alpha in (0.75, 1.0):
        cases.append(("mobilenet_v3_small", keras.applications.MobileNetV3Small, {"alpha": alpha}))
        cases.append(("mobilenet_v3_large", keras.applications.MobileNetV3Large, {"alpha": alpha}))
    module = __import__("sys").modules[keras.utils.get_file.__module__]
    monkeypatch.setattr(module, "get_file", door)
    if alpha == 1.0:
        cases.append(("resnet50_v1", keras.applications.ResNet50, {}))
    for encoder, kind, options in cases:
        find_weights(encoder, "imagenet", options)
        arguments = {key: value for key, value in options.items() if key == "alpha"}
        with pytest.raises(Stop):
            kind(input_shape=(224, 224, 3), include_top=False, weights="imagenet", **arguments)
        assert asked[-1] == asked[-2]


def test_the_page_names_the_downloads_that_there_are() -> None:
    page = (EXPERIMENTS.parent / "docs" / "classify-leaks.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith('| `"imagenet"`')]
    files = weight_files._DOWNLOADS
    assert set(re.findall(r"`([a-z0-9_]+)`", row)) - {"alpha"} == set(files)
    for encoder, alphas in files.items():
        named = re.search(rf"`{encoder}`[^;|]*with [^;|]*?([\d., ]+)", row)
        assert named is None if list(alphas) == [1.0] else named and named[1].strip() == ", ".join(map(str, alphas))
    unchecked = {encoder for encoder, alphas in files.items() if not all(md5 for _, md5 in alphas.values())}
    assert unchecked == {"mobilenet", "mobilenet_v2"}
    assert "It publishes none of `mobilenet` and `mobilenet_v2`: those are not checked" in page


def test_no_network_ends_in_one_line() -> None:
    with pytest.raises(ModelError, match=r"cannot be fetched.*give a local file as encoder_weights") as told:
        fetch("http://127.0.0.1:9/none/leakdet_no_such_file.h5", "")
    assert "\n" not in str(told.value)


def test_what_was_fetched_is_checked_against_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    (tmp_path / "leakdet_fetched.h5").write_bytes(b"weights")
    address = (tmp_path / "leakdet_fetched.h5").as_uri()
    with pytest.raises(ModelError, match="cannot be fetched"):
        fetch(address, "0" * 32)
    assert fetch(address, hashlib.md5(b"weights").hexdigest()).read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("encoder", "path", "options"),
    [
        ("resnet50_v1", "a.safetensors", {"preprocessing": "torchvision", "stride_in": "3x3"}),
        ("resnet50_v1", "a.h5", {"preprocessing": "caffe", "stride_in": "1x1"}),
        ("resnet18_v1", "a.safetensors", {"preprocessing": "torchvision"}),
        ("mobilenet_v2", "a.h5", {}),
    ],
)
def test_the_encoders_options_follow_from_the_file(encoder: str, path: str, options: dict[str, str]) -> None:
    assert WeightFile(encoder, Path(path), "").options == options


def test_experiments_find_the_weights_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every experiment that names weights builds its model with them; a download is Keras's network in its layout."""
    files = [p for p in sorted(EXPERIMENTS.rglob("*.toml")) if "[[prompt]]" not in p.read_text(encoding="utf-8")]
    experiments = [load(path) for path in files]
    naming = [one for one in experiments if one.model.arguments.get("encoder_weights")]
    assert {one.name for one in naming} >= {"leak_hybrid_paper", "leak_real_paper", "leak_synthetic_paper"}
    networks = {"resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5": keras.applications.ResNet50}

    def stub(address: str, md5: str) -> Path:
        path = tmp_path / address.rsplit("/", 1)[1]
        if not path.exists():
            legacy_file(networks[path.name](weights=None, include_top=False), path)
        return path

    monkeypatch.setattr(weight_files, "fetch", stub)
    for experiment in {f"{one.model} {one.data.inputs} {one.task}": one for one in naming}.values():  # each model once
        source = encoder_source(new_model(experiment)[0])
        assert source is not None
        assert source.loaded == source.total
