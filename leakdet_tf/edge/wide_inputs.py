"""16-bit pixels on their way into a TensorRT engine: what computes with them stays in float32.

float16 ends at 65504 and takes steps of 16 counts at 30000, where thermal cameras show a warm pipe; int8 has 256 levels
for 65536. So of an engine in either, the layers from such an input up to and with the first that has weights are held
to float32, as the converters for int8 do. The constraints are NVIDIA's: ``ILayer.precision``,
``ILayer.set_output_type`` and ``OBEY_PRECISION_CONSTRAINTS``, with which a build fails rather than compute otherwise.
"""

from __future__ import annotations

from typing import Any

from leakdet_tf.core.contract import Contract

_WEIGHTED = ("CONVOLUTION", "DECONVOLUTION", "FULLY_CONNECTED", "MATRIX_MULTIPLY")  # names of trt.LayerType


def wide(contract: Contract) -> list[str]:
    """The names of the inputs of more than 8 bits."""
    return [name for name, spec in contract.inputs.items() if spec.dtype != "uint8"]


def hold_in_float32(trt: Any, network: Any, config: Any, contract: Contract) -> None:
    """Constrain the layers of a parsed network that :func:`wide` inputs reach before weights do; none without them."""
    reached = set(wide(contract))
    if not reached:
        return
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    for layer in (network.get_layer(place) for place in range(network.num_layers)):
        given = [layer.get_input(place) for place in range(layer.num_inputs)]
        if not reached.intersection(tensor.name for tensor in given if tensor is not None):
            continue
        made = {place: layer.get_output(place) for place in range(layer.num_outputs)}
        floats = {place: tensor.name for place, tensor in made.items() if tensor.dtype == trt.DataType.FLOAT}
        if not floats:  # the size of a picture, which TensorRT computes in integers
            continue
        layer.precision = trt.DataType.FLOAT
        for place in floats:
            layer.set_output_type(place, trt.DataType.FLOAT)
        if layer.type.name not in _WEIGHTED:
            reached.update(floats.values())
