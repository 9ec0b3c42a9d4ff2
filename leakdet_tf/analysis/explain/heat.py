"""Where a model looked: heat maps of a class, over the picture.

Grad-CAM: R. R. Selvaraju et al., Visual explanations from deep networks via gradient-based localization, ICCV 2017,
arXiv 1610.02391. For segmentation K. Vinogradova, A. Dibrov, G. Myers: Towards interpretable semantic segmentation via
gradient-weighted class activation mapping, AAAI 2020, arXiv 2002.11434.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from leakdet_tf.analysis.explain.pointing import Flags, Heat, peak
from leakdet_tf.core.errors import ContractError, ModelError, did_you_mean
from leakdet_tf.core.images import Geometry, Pixels, Size, as_channels
from leakdet_tf.core.tasks.segment import decide, viewable

_LOGITS = "logits"
_UNKNOWN_SIZE = 256  # stands for sizes that a model leaves open, to find its coarsest map
_PALETTE, _OPACITY = "inferno", (0.3, 0.7)  # of no heat and of most


class GradCam:
    """Grad-CAM on one layer of a functional Keras model that has a layer named ``logits``.

    Channels stand last. Building one adds nodes to the model's graph: keep it for many pictures.

    Args:
        model: logits (B, C) for a classifier, (B, h, w, C) for a segmenter.
        layer: name of a layer before the logits whose output is (B, h, w, C), more than one pixel large and used once.
            By default the last one of the coarsest resolution: for a U-Net the encoder's last. A model inside the
            model counts as one layer.

    Raises:
        ModelError: the model has no such layer, or no logits, or is no functional model.
    """

    def __init__(self, model: Any, *, layer: str | None = None) -> None:
        import keras

        logits = _logits_of(model)
        maps = _maps(model, logits)
        self.layer: str = _coarsest(model, maps) if layer is None else _named(model, maps, layer)
        self.classes = int(logits.shape[-1])
        self.segmenter = len(logits.shape) == 4
        self._names = [tensor.name for tensor in model.inputs]
        self._dtypes = [tensor.dtype for tensor in model.inputs]
        self._shapes = [tuple(tensor.shape) for tensor in model.inputs]
        activation = maps[self.layer]
        self._front = keras.Model(model.inputs, [activation, logits])
        self._rest = keras.Model([*model.inputs, activation], logits)  # what is upstream of the layer is not in it

    def __call__(
        self,
        inputs: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any],
        *,
        target: int | Sequence[int] | None = None,
        region: Flags | None = None,
    ) -> Heat:
        """Heat maps float32 (B, h, w) at the layer's resolution, each divided by its own maximum: 0 to 1.

        A map without any positive value stays 0 everywhere. The heat is max(0, Σₖ αₖ Aₖ), where Aₖ are the layer's
        channels and αₖ the mean over its pixels of the gradient of the class's logit; of a segmenter that logit is
        summed over ``region``, and is 0 without a pixel in it.

        Args:
            inputs: what the model takes, (B, h, w, C) raw pixels by input name; bare for a model with one input.
            target: index of the class to explain, one for all or one for each picture. By default the decided one:
                that of the largest logit, of a segmenter the one decided for most pixels.
            region: segmenters only, bool (B, h, w) at the logits' resolution. By default the pixels that are decided
                as the class.

        Raises:
            ModelError: an input, the target or the region does not fit the model, or a gradient is not finite.
            ContractError: a logit is not finite.
        """
        import keras

        batch = self._batch(inputs)
        activation, logits = map(np.asarray, self._front.predict_on_batch(batch))
        weights = self._weights(np.asarray(logits, np.float32), target, region)
        pictures = [keras.ops.convert_to_tensor(pixels) for pixels in batch]
        slopes = _GRADIENTS[keras.backend.backend()](self._rest, pictures, activation, weights)
        if not np.isfinite(slopes).all():
            raise ModelError(f"the gradient at layer '{self.layer}' is NaN or infinite", remedy="choose another layer")
        weighted = np.einsum("bhwc,bc->bhw", activation.astype(np.float64), slopes.astype(np.float64).mean((1, 2)))
        heat = np.maximum(weighted, 0)
        most = heat.max((1, 2), keepdims=True)
        scaled: Heat = np.divide(heat, most, out=np.zeros_like(heat), where=most > 0).astype(np.float32)
        return scaled

    def _batch(self, inputs: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        given = inputs if isinstance(inputs, Mapping) else dict.fromkeys(self._names[:1], inputs)
        if sorted(given) != sorted(self._names):
            raise ModelError(f"the model takes {sorted(self._names)}, got {sorted(given)}", remedy="name each input")
        for name, dtype, shape in zip(self._names, self._dtypes, self._shapes, strict=True):
            array = given[name]
            same = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
            if array.dtype != dtype or not same:
                raise ModelError(f"the model takes '{name}' as {dtype} {shape}, got {array.dtype} {array.shape}")
        return [given[name] for name in self._names]

    def _weights(self, logits: Heat, target: int | Sequence[int] | None, region: Flags | None) -> Heat:
        # What the logits are multiplied by before they are summed up: 1 where they are explained.
        labels, _ = decide(logits)
        rows = labels.reshape(len(labels), -1)
        chosen = [int(np.bincount(row).argmax()) for row in rows] if target is None else target
        targets = np.broadcast_to(np.asarray(chosen), (len(logits),)) if np.ndim(chosen) == 0 else np.asarray(chosen)
        if targets.shape != (len(logits),) or targets.dtype.kind not in "iu":
            raise ModelError(f"target must be one class index, or one for each of {len(logits)} pictures")
        if odd := [int(index) for index in targets if not 0 <= index < self.classes]:
            raise ModelError(f"target class {odd[0]}: unknown", remedy=f"the model has 0 to {self.classes - 1}")
        weights = np.zeros(logits.shape, np.float32)
        if not self.segmenter:
            if region is not None:
                raise ModelError("a classifier's logits have no pixels, and so no region", remedy="leave region out")
            weights[np.arange(len(logits)), targets] = 1
            return weights
        inside = labels == targets[:, None, None] if region is None else np.asarray(region)
        if inside.shape != labels.shape or inside.dtype != np.bool_:
            raise ModelError(f"region must be bool {labels.shape}, is {inside.dtype} {inside.shape}")
        for plane, index, flags in zip(weights, targets, inside, strict=True):
            plane[..., index] = flags
        return weights


def grad_cam(
    model: Any,
    inputs: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any],
    *,
    layer: str | None = None,
    target: int | Sequence[int] | None = None,
    region: Flags | None = None,
) -> Heat:
    """Heat maps float32 (B, h, w) of one batch, from 0 to 1: :class:`GradCam` built and called once."""
    return GradCam(model, layer=layer)(inputs, target=target, region=region)


def _by_tensorflow(model: Any, inputs: list[Any], at: Any, weights: Heat) -> npt.NDArray[Any]:
    import tensorflow as tf

    point = tf.cast(tf.convert_to_tensor(at), model.inputs[-1].dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(point)
        logits = model([*inputs, point], training=False)
    zero = tf.UnconnectedGradients.ZERO
    slopes = tape.gradient(logits, point, output_gradients=tf.cast(weights, logits.dtype), unconnected_gradients=zero)
    return np.asarray(tf.cast(slopes, tf.float32))


def _by_jax(model: Any, inputs: list[Any], at: Any, weights: Heat) -> npt.NDArray[Any]:
    import jax

    trained = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]

    def logits_of(point: Any) -> Any:
        return model.stateless_call(trained, fixed, [*inputs, point], training=False)[0]

    logits, back = jax.vjp(logits_of, jax.numpy.asarray(at, model.inputs[-1].dtype))
    return np.asarray(back(jax.numpy.asarray(weights, logits.dtype))[0], np.float32)


def _by_torch(model: Any, inputs: list[Any], at: Any, weights: Heat) -> npt.NDArray[Any]:
    import keras
    import torch

    point = keras.ops.convert_to_tensor(at, dtype=model.inputs[-1].dtype).detach().clone().requires_grad_(True)
    with torch.enable_grad():
        logits = model([*inputs, point], training=False)
    outward = torch.as_tensor(weights, dtype=logits.dtype, device=logits.device)
    (slopes,) = torch.autograd.grad(logits, point, grad_outputs=outward, materialize_grads=True)
    return np.asarray(slopes.detach().float().cpu().numpy())


_GRADIENTS: dict[str, Callable[[Any, list[Any], Any, Heat], npt.NDArray[Any]]] = {
    "tensorflow": _by_tensorflow,
    "jax": _by_jax,
    "torch": _by_torch,
}
"""By Keras backend: d(Σ weights · logits) / d(the model's last input), at the given value of that input."""


def _logits_of(model: Any) -> Any:
    tensors = [tensor for tensor, _ in _upstream(getattr(model, "outputs", None) or [])]
    found = [tensor for tensor in tensors if tensor._keras_history.operation.name == _LOGITS]
    if len(found) != 1 or len(found[0].shape) not in (2, 4):
        raise ModelError(
            f"model '{getattr(model, 'name', model)}': has no layer 'logits' with an output (B, C) or (B, h, w, C)",
            remedy="make it of keras.Input and keras.Model(in, out), with a layer of that name before its activation",
        )
    return found[0]


def _upstream(tensors: Sequence[Any]) -> list[tuple[Any, Any]]:
    # Every tensor that these are made of, themselves among them, with the node of Keras's graph that it comes from.
    found: dict[int, tuple[Any, Any]] = {}
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in found:
            history = tensor._keras_history
            node = history.operation._inbound_nodes[history.node_index]
            found[id(tensor)] = (tensor, node)
            waiting += node.input_tensors
    return list(found.values())


def _maps(model: Any, logits: Any) -> dict[str, Any]:
    # Outputs (B, h, w, C) of more than a pixel before the logits, by layer, in the order of the graph. Keras cuts a
    # graph by operation, so one that is used twice or gives several tensors cannot be cut at.
    by_operation: dict[int, list[tuple[Any, Any]]] = {}
    for tensor, node in _upstream([logits]):
        by_operation.setdefault(id(node.operation), []).append((tensor, node))
    maps = {}
    for operation in model.operations:
        ends = by_operation.get(id(operation), [])
        if len(ends) == 1 and len(ends[0][1].output_tensors) == 1 and ends[0][0] is not logits:
            (tensor, node), inner = ends[0], len(ends[0][0].shape) == 4
            if inner and tuple(tensor.shape[1:3]) != (1, 1) and node.input_tensors:
                maps[operation.name] = tensor
    return maps


def _coarsest(model: Any, maps: Mapping[str, Any]) -> str:
    import keras

    if not maps:
        raise ModelError(f"model '{model.name}': no layer before its logits gives a map (B, h, w, C)")
    sizes = [tensor.shape for tensor in maps.values()]
    if any(None in size[1:3] for size in sizes):
        shapes = [(1, *(length or _UNKNOWN_SIZE for length in tensor.shape[1:])) for tensor in model.inputs]
        sizes = keras.Model(model.inputs, list(maps.values())).compute_output_shape(shapes)
    areas = [height * width for _, height, width, _ in sizes]
    return [name for name, area in zip(maps, areas, strict=True) if area == min(areas)][-1]


def _named(model: Any, maps: Mapping[str, Any], layer: str) -> str:
    if layer in maps:
        return layer
    known = {operation.name: operation for operation in model.operations}
    if layer not in known:
        raise ModelError(f"model '{model.name}': has no layer '{layer}'", remedy=did_you_mean(layer, maps))
    shape = tuple(getattr(known[layer].output, "shape", ()))
    spatial = len(shape) == 4 and shape[1:3] != (1, 1)
    why = (
        "does not lie before the logits, once and with one output" if spatial else f"gives {shape}, no map (B, h, w, C)"
    )
    raise ModelError(f"layer '{layer}' {why}", remedy=f"choose another, such as '{_coarsest(model, maps)}'")


def spread(heat: Heat, geometry: Geometry) -> Heat:
    """A map (h, w) of the model's whole input → float32 (H, W) in the original picture's pixels.

    Bilinear up to the model's input, then as answers are carried back: padding is cut away, nearest neighbour.
    """
    height, width = geometry.target
    plane = Image.fromarray(np.ascontiguousarray(heat, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    carried: Heat = geometry.to_source(np.asarray(plane))
    return carried


def overlay(image: Pixels, heat: Heat) -> npt.NDArray[np.uint8]:
    """Picture (H, W, C) and its heat (H, W), 0 to 1 → uint8 (H, W, 3): the picture in grey under the heat's colours.

    The colours are those of a map that is perceptually uniform, from black to pale yellow; the hotter, the denser.

    Raises:
        ContractError: picture and heat differ in size.
    """
    if image.shape[:2] != heat.shape:
        raise ContractError(f"heat of {heat.shape} px cannot be drawn on a picture of {image.shape[:2]} px")
    table = np.round(255 * colormaps[_PALETTE](np.arange(256))[:, :3]).astype(np.float32)
    grey = as_channels(viewable(image), 1).astype(np.float32)
    steps = np.round(255 * np.clip(heat, 0, 1)).astype(np.uint8)
    least, most = _OPACITY
    dense = (least + (most - least) * np.arange(256, dtype=np.float32) / 255)[steps][..., None]
    return np.round(grey + dense * (table[steps] - grey)).astype(np.uint8)


def thumbnail(
    image: npt.NDArray[np.uint8], longest: int, *, heat: Heat | None = None, mask: Flags | None = None
) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3) → at most ``longest`` pixels long, with the mask's outline in cyan and a cross at the peak."""
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size: Size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    if mask is not None and mask.any():
        outlines, _ = cv2.findContours(
            cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_AREA),
            cv2.RETR_LIST,
            cv2.CHAIN_APPROX_NONE,
        )
        cv2.drawContours(small, outlines, -1, (0, 255, 255), 1)
    if heat is not None and (place := peak(heat)) is not None:
        centre = (int((place[1] + 0.5) * size[1] / width), int((place[0] + 0.5) * size[0] / height))
        cv2.drawMarker(small, centre, (255, 255, 255), cv2.MARKER_CROSS, max(7, max(size) // 20), 1)
    return small
