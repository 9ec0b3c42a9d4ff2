"""Initial weights drawn in NumPy, so that one seed gives one start on TensorFlow, JAX and Torch alike.

Keras draws with its backend's generator: the same seed gives other weights on another backend. Here each weight has a
generator of its own, seeded from (seed, path of the weight), so a draw depends neither on the order of the layers nor
on what else the process has built.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from leakdet_tf.core.errors import ModelError

# Standard deviation of a standard normal cut off at ±2, by which Keras divides: sqrt(1 - 4 φ(2) / (2 Φ(2) - 1)).
_TRUNCATED_STD = 0.87962566103423978

_FIXED = (
    keras.initializers.Zeros,
    keras.initializers.Ones,
    keras.initializers.Constant,
    keras.initializers.Identity,
)


def draw_weights(model: keras.Model, seed: int, *, keep: Iterable[keras.layers.Layer] = ()) -> None:
    """Draw every weight that starts random again, in place, from (seed, path of the weight).

    The path is layer names and weight name, without the model's own name: ``encoder_conv0/kernel``. A name that Keras
    numbered by itself (``conv2d_5``) is replaced by its place among its like in the model (``Conv2D#0``), because that
    number depends on what was built before. Weights that start as zeros, ones or another constant are left as they are.

    Supported are the initializers of Keras that draw by variance (Glorot & Bengio 2010; He et al., arXiv 1502.01852;
    LeCun et al. 1998), uniform, normal, truncated normal and orthogonal (Saxe et al., arXiv 1312.6120), each with the
    distribution that Keras gives it. The numbers are PCG64's; NumPy may change its distributions between versions.

    Args:
        model: a built model; nested models and layers within layers are walked too.
        seed: any whole number.
        keep: layers whose weights stay as they are, pretrained ones for example.

    Raises:
        ModelError: the seed is not a whole number, the model has no weights yet, or a weight has no initializer that
            is known here. Nothing was changed then.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ModelError(f"seed must be a whole number, not {seed!r}", remedy="give one such as 0")
    if not model.built or not model.weights:
        raise ModelError(
            f"model '{model.name}' has no weights to draw", remedy="build it first, by calling it or with build()"
        )
    kept = {id(variable) for layer in keep for variable in layer.weights}
    for variable, path, initializer in _random_weights(model, kept):
        variable.assign(_draw(initializer, tuple(variable.shape), _generator(seed, path)))


def named_weights(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """(path, variable) of each weight once; the path is that of :func:`draw_weights`."""
    for _, variable, path in _walk(model, "", set()):
        yield path, variable


def _random_weights(model: keras.Model, kept: set[int]) -> list[tuple[Any, str, Any]]:
    """(variable, path, initializer) of every weight that starts random but those kept; complete, or ModelError."""
    found = []
    seen = set(kept)
    for layer, variable, path in _walk(model, "", seen):
        initializer = _initializer(layer, variable)
        if initializer is None:
            if _looks_fixed(variable):
                continue
            raise ModelError(
                f"weight '{path}' ({type(layer).__name__}): its initializer is not to be found",
                remedy=f"keep it as the layer's attribute '{variable.name}_initializer'",
            )
        if isinstance(initializer, _FIXED):
            continue
        if _kind(initializer) is None:
            raise ModelError(
                f"weight '{path}': its initializer {type(initializer).__name__} cannot be drawn in NumPy",
                remedy="use one of keras.initializers, or build the model with seed=None",
            )
        found.append((variable, path, initializer))
    missed = [variable.path for variable in model.weights if id(variable) not in seen]
    if missed:
        raise ModelError(
            f"weight '{missed[0]}' belongs to no layer of model '{model.name}'", remedy="make it the weight of a layer"
        )
    return found


def _walk(layer: Any, path: str, seen: set[int]) -> Iterator[tuple[Any, Any, str]]:
    """(owner, variable, path) of each weight once, the inner layers' before the outer's own."""
    inner = layer.layers if isinstance(layer, keras.Model) else layer._flatten_layers(False, recursive=False)
    counts: Counter[str] = Counter()
    for child in inner:
        automatic = _squeeze(re.sub(r"_\d+$", "", child.name)) == _squeeze(type(child).__name__)
        step = _step(type(child).__name__ if automatic else child.name, automatic, counts)
        yield from _walk(child, f"{path}{step}/", seen)
    counts.clear()
    for variable in layer.weights:
        if id(variable) in seen:
            continue
        seen.add(id(variable))
        automatic = re.fullmatch(r"variable(_\d+)?", variable.name) is not None
        yield layer, variable, path + _step("variable" if automatic else variable.name, automatic, counts)


def _squeeze(name: str) -> str:
    return name.replace("_", "").lower()


def _step(name: str, automatic: bool, counts: Counter[str]) -> str:
    place = counts[name]
    counts[name] += 1
    return f"{name}#{place}" if automatic or place else name


def _initializer(layer: Any, variable: Any) -> Any:
    """The initializer a layer keeps for its variable, under the names Keras uses; None if there is none."""
    attributes = [f"{variable.name}_initializer", f"{variable.name.removesuffix('_kernel')}_initializer"]
    if variable.name == "kernel":
        attributes.append("depthwise_initializer")
    for attribute in attributes:
        initializer = getattr(layer, attribute, None)
        if initializer is not None:
            return _with_fan_axes(keras.initializers.get(initializer), layer, variable)
    return None


def _with_fan_axes(initializer: Any, layer: Any, variable: Any) -> Any:
    """An einsum kernel's fans are told by the equation; Keras tells them to a copy of the initializer it does not keep.

    Kernel axes that the output has are outputs, the others are inputs.
    """
    if not isinstance(layer, keras.layers.EinsumDense) or variable.name != "kernel":
        return initializer
    if _kind(initializer) is not keras.initializers.VarianceScaling or initializer.input_axes is not None:
        return initializer
    kernel, output = layer.equation.replace(" ", "").split(",")[1].split("->")
    return keras.initializers.VarianceScaling(
        initializer.scale,
        initializer.mode,
        initializer.distribution,
        seed=0,  # not used; without one Keras would take a number from Python's global generator
        input_axes=[axis for axis, letter in enumerate(kernel) if letter not in output],
        output_axes=[axis for axis, letter in enumerate(kernel) if letter in output],
    )


def _looks_fixed(variable: Any) -> bool:
    """Whether a weight without known initializer starts as a constant: a random draw has not one value throughout."""
    values = np.asarray(variable.numpy())
    if values.size == 0 or not np.issubdtype(values.dtype, np.floating):
        return True
    first = values.flat[0]
    return bool((values == first).all()) and (values.size > 1 or first in (0, 1))


def _kind(initializer: Any) -> Any:
    """The Keras class whose ``__call__`` this initializer uses unchanged, if :func:`_draw` knows it; else None."""
    known = keras.initializers
    for kind in (
        known.VarianceScaling,
        known.RandomUniform,
        known.RandomNormal,
        known.TruncatedNormal,
        known.Orthogonal,
    ):
        if isinstance(initializer, kind) and type(initializer).__call__ is kind.__call__:
            return kind
    return None


def _generator(seed: int, path: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{int(seed)}\n{path}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _draw(initializer: Any, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float32]:
    """float32 array of ``shape`` with the distribution of the Keras initializer."""
    kind, known = _kind(initializer), keras.initializers
    if kind is known.VarianceScaling:
        values = _scaled(initializer, shape, random)
    elif kind is known.RandomUniform:
        values = random.uniform(initializer.minval, initializer.maxval, shape)
    elif kind is known.RandomNormal:
        values = random.normal(initializer.mean, initializer.stddev, shape)
    elif kind is known.TruncatedNormal:
        values = initializer.mean + initializer.stddev * _truncated(shape, random)
    else:
        values = initializer.gain * _orthogonal(shape, random)
    return np.asarray(values, dtype=np.float32)


def _scaled(initializer: Any, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    """Variance scale / fan, by the fan (in, out or their mean) and the distribution that the initializer names."""
    fan_in, fan_out = _fans(initializer, shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out}.get(initializer.mode, (fan_in + fan_out) / 2)
    std = math.sqrt(initializer.scale / max(1.0, fan))
    if initializer.distribution == "truncated_normal":
        return std / _TRUNCATED_STD * _truncated(shape, random)
    if initializer.distribution == "untruncated_normal":
        return random.normal(0.0, std, shape)
    limit = math.sqrt(3.0) * std
    return random.uniform(-limit, limit, shape)


def _fans(initializer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of one unit. Kernels are (…, in, out) with the window in front, unless axes are named."""
    axes = getattr(initializer, "input_axes", None), getattr(initializer, "output_axes", None)
    if axes[0] is not None and axes[1] is not None:
        return math.prod(shape[axis] for axis in axes[0]), math.prod(shape[axis] for axis in axes[1])
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _truncated(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    """Standard normal with what lies beyond ±2 drawn again."""
    values = random.standard_normal(shape)
    while (beyond := np.abs(values) > 2.0).any():
        values[beyond] = random.standard_normal(int(beyond.sum()))
    return values


def _orthogonal(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    """Orthonormal rows or columns, whichever are fewer, of the array flattened to (rest, last axis)."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(random.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return (q.T if rows < columns else q).reshape(shape)
