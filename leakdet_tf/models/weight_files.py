"""Files of published weights: found by name or path, and read into arrays by the names that they have there.

Three kinds are read: ``.safetensors`` in torchvision's naming (timm's ResNets have the same), and of networks of
``keras.applications`` the weights (``.weights.h5``, ``.h5``) or the model (``.keras``). Pickled checkpoints run code
when they are read and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt

from leakdet_tf.core.errors import LeakdetError, MissingExtraError, ModelError
from leakdet_tf.models.mobilenets import application
from leakdet_tf.models.runtime import load_model

Arrays = dict[str, npt.NDArray[Any]]

# Of each encoder the network of keras.applications that is the same, if there is one.
_APPLICATIONS = {
    "resnet18_v1": None,
    "resnet34_v1": None,
    "resnet50_v1": "ResNet50",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mobilenet_v3_large": "MobileNetV3Large",
}
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_V2_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
# By encoder and alpha: file without a head under _KERAS, and the MD5 that Keras knows of it. Where it knows none, "",
# the file is read unchecked.
_DOWNLOADS: dict[str, dict[float, tuple[str, str]]] = {
    "resnet50_v1": {
        1.0: ("resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "4d473c1dd8becc155b73f8504c6f6626")
    },
    "mobilenet": {
        alpha: (f"mobilenet/mobilenet_{text}_224_tf_no_top.h5", "")
        for alpha, text in {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}.items()
    },
    "mobilenet_v2": {
        alpha: (f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5", "")
        for alpha in _V2_ALPHAS
    },
    "mobilenet_v3_small": {
        0.75: (
            "mobilenet_v3/weights_mobilenet_v3_small_224_0.75_float_no_top_v2.h5",
            "ebdb5cc8e0b497cd13a7c275d475c819",
        ),
        1.0: ("mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    },
    "mobilenet_v3_large": {
        0.75: (
            "mobilenet_v3/weights_mobilenet_v3_large_224_0.75_float_no_top_v2.h5",
            "40af19a13ebea4e2ee0c676887f69a2e",
        ),
        1.0: ("mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "07fb09a5933dd0c8eaafa16978110389"),
    },
}
_PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_KERAS_EPSILON, _EPSILON = 1.001e-5, 1e-5  # of the batch norms of Keras's ResNets and of ours


@dataclass(frozen=True)
class WeightFile:
    """A file of weights for an encoder, found but not read. ``source`` is what the user named, or its address."""

    encoder: str
    path: Path
    source: str

    @property
    def torch(self) -> bool:
        """Whether it is in torchvision's naming; else it is Keras's."""
        return self.path.suffix == ".safetensors"

    @property
    def preprocessing(self) -> str | None:
        """The encoder's option of that name with which the weights were trained; None where there is no choice."""
        if self.torch:
            return "torchvision"
        return "caffe" if self.encoder.startswith("resnet") else None

    @property
    def stride_in(self) -> str | None:
        """The same of the encoder's option ``stride_in``."""
        if self.encoder != "resnet50_v1":
            return None
        return "3x3" if self.torch else "1x1"

    @property
    def options(self) -> dict[str, str]:
        """The encoder's options that follow from the weights; any other value would give them another meaning."""
        found = {"preprocessing": self.preprocessing, "stride_in": self.stride_in}
        return {key: value for key, value in found.items() if value is not None}


def find_weights(encoder: Any, weights: str, options: Mapping[str, Any]) -> WeightFile:
    """The file that a name stands for: a path, or ``"imagenet"``, which is downloaded once into Keras's cache.

    Downloads are checked against the MD5 that Keras publishes of them. It publishes none of ``mobilenet`` and
    ``mobilenet_v2``, which are read as they come; there is no download for ``resnet18_v1`` and ``resnet34_v1``.

    Args:
        encoder: registered name of the encoder.
        weights: path of a file, or ``"imagenet"``.
        options: the encoder's own options, of which ``alpha`` chooses the download. It fits one ``stride_in``.

    Raises:
        ModelError: no weights are known for this encoder, or the file is not there or of a kind that is not read.
    """
    if not isinstance(encoder, str) or encoder not in _APPLICATIONS:
        label = encoder if isinstance(encoder, str) else getattr(encoder, "__qualname__", type(encoder).__name__)
        raise ModelError(
            f"encoder '{label}': no pretrained weights are known for it",
            remedy=f"leave encoder_weights out, or use one of: {', '.join(sorted(_APPLICATIONS))}",
        )
    if weights == "imagenet":
        address, md5 = _download_of(encoder, options)
        return WeightFile(encoder, fetch(address, md5), address)
    path = Path(weights)
    if path.suffix in _PICKLED:
        raise ModelError(
            f"{weights}: a pickled checkpoint can run code when it is read",
            remedy='convert it where you trust it: python -c "import torch; from safetensors.torch import save_file; '
            f"save_file(torch.load('{path.name}', weights_only=True), '{path.stem}.safetensors')\"",
        )
    readable = _readable(encoder)
    if path.suffix not in readable:
        raise ModelError(
            f"encoder_weights '{weights}': not a file that encoder '{encoder}' reads",
            remedy=f"give one that ends in {' or '.join(readable)}, or 'imagenet', or leave encoder_weights out",
        )
    if not path.is_file():
        raise ModelError(f"{weights}: no such file", remedy="check encoder_weights")
    return WeightFile(encoder, path, weights)


def _readable(encoder: str) -> tuple[str, ...]:
    torch = (".safetensors",) if encoder.startswith("resnet") else ()
    return (*torch, ".h5", ".keras") if _APPLICATIONS[encoder] else torch


def fetch(address: str, md5: str) -> Path:
    """The file of that address in Keras's cache, downloaded if it is not there.

    Raises:
        ModelError: there is no network, or the file is not the one with that hash.
    """
    name = address.rsplit("/", 1)[1]
    try:
        return Path(keras.utils.get_file(name, origin=address, cache_subdir="models", file_hash=md5 or None))
    except Exception as error:  # Keras raises a bare Exception for what the network does
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{address}: cannot be fetched ({reason})", remedy="give a local file as encoder_weights"
        ) from error


def _download_of(encoder: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """(address, MD5 or nothing) of an encoder's ImageNet weights."""
    if encoder not in _DOWNLOADS:
        name = encoder.removesuffix("_v1")
        raise ModelError(
            f"encoder '{encoder}': 'imagenet' is no download of known hash",
            remedy=f"fetch model.safetensors of https://huggingface.co/timm/{name}.tv_in1k and give its path as "
            "encoder_weights",
        )
    if encoder == "resnet50_v1" and options.get("stride_in", "1x1") != "1x1":
        raise ModelError(
            "encoder 'resnet50_v1': the 'imagenet' weights, Keras's, are for strides in the 1x1 convolutions",
            remedy="leave stride_in out, or give a .safetensors file of torchvision or timm",
        )
    files, alpha = _DOWNLOADS[encoder], options.get("alpha", 1.0)
    if alpha not in files:
        raise ModelError(
            f"encoder '{encoder}': there are no 'imagenet' weights for alpha {alpha!r}",
            remedy=f"choose from: {', '.join(str(value) for value in files)}",
        )
    file, md5 = files[alpha]
    return _KERAS + file, md5


def read_torch(file: WeightFile, content: bytes) -> tuple[Arrays, set[str]]:
    """(arrays by torchvision's name, kernels as Keras has them; names of the head)."""
    try:
        import safetensors
        from safetensors.numpy import load
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{file.source}: the package safetensors is not installed", remedy="pip install 'leakdet_tf[train]'"
        ) from error
    try:
        found = load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:  # KeyError: a type NumPy lacks
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{file.source}: cannot be read ({reason})", remedy="it is damaged, or not in float16, float32 or float64"
        ) from error
    counters = [name for name in found if name.endswith(".num_batches_tracked")]
    arrays = {
        name: array.transpose(2, 3, 1, 0) if array.ndim == 4 else array  # (out, in, h, w) → (h, w, in, out)
        for name, array in found.items()
        if name not in counters
    }
    return arrays, {"fc.weight", "fc.bias"} & set(arrays)


def read_keras(file: WeightFile, options: Mapping[str, Any]) -> tuple[Arrays, set[str]]:
    """(arrays by ``layer/variable`` in Keras's names; names of what follows the encoder's last layer)."""
    kind = str(_APPLICATIONS[file.encoder])
    alpha = options.get("alpha", 1.0)
    bare = _network(kind, alpha, None)
    source = load_model(file.path, None) if file.path.suffix == ".keras" else _read_h5(file, bare, kind, alpha)
    layers = [layer for layer in _flat(source) if layer.weights]
    ours = {layer.name for layer in bare.layers if layer.weights}
    last = max((place for place, layer in enumerate(layers) if layer.name in ours), default=len(layers))
    named = [
        {f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight) for weight in layer.weights}
        for layer in layers
    ]
    arrays = {key: array for part in named for key, array in part.items()}
    head = {key for part in named[last + 1 :] for key in part}
    return (_as_torchvision(arrays, head) if kind == "ResNet50" else arrays), head


def _as_torchvision(arrays: Arrays, head: set[str]) -> Arrays:
    """Keras's ResNet without biases before batch norms, for red, green, blue, and with our epsilon; the same function.

    A batch norm takes off what a bias adds, so its mean takes it; the first kernel turns from blue, green, red.
    """
    found = {}
    for key, array in arrays.items():
        if key == "conv1_conv/kernel":
            array = array[:, :, ::-1]
        elif key.endswith("_bn/moving_mean"):
            array = array - arrays.get(key.replace("_bn/moving_mean", "_conv/bias"), 0.0)
        elif key.endswith("_bn/moving_variance"):
            array = array + (_KERAS_EPSILON - _EPSILON)
        if key in head or not key.endswith("_conv/bias"):
            found[key] = array
    return found


def _network(kind: str, alpha: float, classes: int | None) -> keras.Model:
    if kind != "ResNet50":
        return application(kind, alpha, classes=classes)
    if classes is None:
        return keras.applications.ResNet50(weights=None, include_top=False)
    return keras.applications.ResNet50(weights=None, classes=classes)


def _flat(model: keras.Model) -> list[Any]:
    """A model's layers in order, those of models within it in their place."""
    return [inner for layer in model.layers for inner in (_flat(layer) if isinstance(layer, keras.Model) else [layer])]


def _read_h5(file: WeightFile, bare: keras.Model, kind: str, alpha: float) -> keras.Model:
    """The network with the file's weights; with a head of its own if the file has one."""
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(file.path, "r") as archive:
            root = archive.get("model_weights", archive)  # a whole model of Keras 2 has them one level down
            sizes: dict[str, tuple[int, ...]] = {}
            root.visititems(lambda name, item: sizes.update({name: item.shape}) if hasattr(item, "shape") else None)
        sizes = {name: size for name, size in sizes.items() if not re.search(r"seed_generator|optimizer", name)}
        source = bare
        if len(sizes) != len(bare.weights):
            source = _network(kind, alpha, _classes(sizes))
        if len(sizes) != len(source.weights):
            raise ModelError(
                f"{file.source}: holds {len(sizes)} arrays; {kind} has {len(bare.weights)}, and a head's",
                remedy=f"is it a file of '{file.encoder}'?",
            )
        source.load_weights(file.path)
    except LeakdetError:
        raise
    except Exception as error:  # a damaged file fails in any of Python's, HDF5's and Keras's ways
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{file.source}: does not fit {kind} ({reason})",
            remedy=f"is it a file of '{file.encoder}' with these encoder_options, and whole?",
        ) from error
    return source


def _classes(sizes: Mapping[str, tuple[int, ...]]) -> int:
    """Classes of a file's head, from the size of its last bias: by the names of Keras 2, or by place in Keras 3."""
    named = [
        name for name in sizes if re.search(r"(predictions|preds|logits|fc1000|/dense/).*(bias|vars/1$)", name, re.I)
    ]
    convs = sorted((int(found[1] or 0), name) for name in sizes if (found := re.search(r"conv2d_?(\d*)/vars/1$", name)))
    biases = named or [name for _, name in convs]
    return sizes[biases[-1]][0] if biases else 1
