"""From an experiment's ``[model]`` table to a model: arguments checked against the factory's signature."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import keras

from leakdet_tf.core.errors import ConfigError, ModelError, did_you_mean
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.core.registry import resolve
from leakdet_tf.core.tasks import task_named

_ACTIVATIONS = ("softmax", "sigmoid", "linear")


def build(
    factory: str,
    arguments: Mapping[str, Any],
    *,
    inputs: Mapping[str, ImageSpec],
    classes: int,
    seed: int,
    task: str = "segment",
    precision: str | None = None,
) -> keras.Model:
    """Call a factory with the user's arguments and those that follow from the rest of the experiment.

    A factory says by its parameters what it takes. With ``inputs`` it is given every input's
    :class:`~leakdet_tf.core.images.ImageSpec` by name; with ``input_shape`` (h, w, C), and if it likes ``input_dtype``
    and ``input_name``, it is one for a single input. ``classes`` and ``seed`` are passed to those that have them. Its
    model must declare exactly the inputs that were given, by name, dtype and shape; sizes may be None.

    Args:
        factory: a registered name or a ``"package.module:function"`` path.
        arguments: the factory's own keyword arguments.
        inputs: what the model takes, by name.
        classes: how many there are, background among them where the task has one.
        seed: for the initial weights.
        task: says what shape the output must have, ``"segment"``, ``"classify"`` or ``"detect"``.
        precision: Keras's name of a dtype policy, what layers compute in; None: the one that is set.

    Returns:
        The model, with integer inputs and one float32 output.

    Raises:
        ConfigError: an argument that the factory does not have, or one that the experiment sets elsewhere.
        ModelError: the factory refuses, does not take these inputs, or its model does not fit the experiment.
    """
    function = resolve("model", factory)
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:  # callables of compiled code have no signature to read
        raise ModelError(f"model '{factory}': {error}", remedy="name a Python function") from error
    derived = _inputs_for(factory, parameters, inputs) | {"classes": classes, "seed": seed}
    for key in arguments:
        if key in _SET_BY:
            raise ConfigError(
                f"model.{key}: follows from the rest of the experiment",
                remedy=f"remove it from [model] ({_SET_BY[key]})",
            )
        if key not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            own = [name for name in parameters if name not in _SET_BY]
            raise ConfigError(f"model.{key}: '{factory}' has no such argument", remedy=did_you_mean(key, own))
    passed = {key: value for key, value in derived.items() if key in parameters}
    keras.utils.set_random_seed(seed)  # for what the factory leaves to Keras
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision or before)
    try:
        model = function(**passed, **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"model '{factory}': {error}", remedy="check the arguments in [model]") from error
    finally:
        keras.config.set_dtype_policy(before)
    _check(model, factory, inputs, classes, task)
    return model


_SET_BY = {
    "inputs": "[data.inputs] sets it",
    "input_shape": "[data.inputs] sets it",
    "input_dtype": "[data.inputs] sets it",
    "input_name": "[data.inputs] sets it",
    "classes": "task.classes sets it",
    "seed": "the key seed at the top sets it",
}


def _inputs_for(factory: str, parameters: Collection[str], inputs: Mapping[str, ImageSpec]) -> dict[str, Any]:
    """The inputs as the factory declares that it takes them: by name, or a single one."""
    single = [key for key in ("input_shape", "input_dtype", "input_name") if key in parameters]
    if "inputs" in parameters:
        if single:
            raise ModelError(
                f"model '{factory}': has the parameters 'inputs' and '{single[0]}', which say different things",
                remedy="keep 'inputs' to take inputs by name, or the others to take one",
            )
        return {"inputs": _Given(factory, inputs)}
    if len(inputs) == 1:
        ((name, spec),) = inputs.items()
        return {"input_shape": spec.shape, "input_dtype": spec.dtype, "input_name": name}
    if single:
        raise ModelError(
            f"model '{factory}': takes one input; the experiment gives {_listed(_specs(inputs))}",
            remedy="leave one in [data.inputs], or choose a factory with the parameter 'inputs'",
        )
    return {}


class _Given(dict[str, ImageSpec]):
    """The experiment's inputs by name. To ask for one that is not there is to refuse them."""

    def __init__(self, factory: str, inputs: Mapping[str, ImageSpec]) -> None:
        super().__init__(inputs)
        self._factory = factory

    def __missing__(self, name: str) -> ImageSpec:
        raise ModelError(
            f"model '{self._factory}': takes an input '{name}'; the experiment gives {_listed(_specs(self))}",
            remedy=f"add it as [data.inputs.{name}], or choose another model.factory",
        )


def _check(model: Any, factory: str, inputs: Mapping[str, ImageSpec], classes: int, task: str) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"model '{factory}': returned {type(model).__name__}", remedy="a factory returns a keras.Model"
        )
    if not model.built or not getattr(model, "inputs", None):
        raise ModelError(
            f"model '{factory}': does not say what its inputs are",
            remedy="make it of keras.Input and keras.Model(in, out)",
        )
    if len(model.outputs) != 1:
        raise ModelError(f"model '{factory}': has {len(model.outputs)} outputs, expected one", remedy="fix the factory")
    taken = {tensor.name: (str(tensor.dtype), tuple(tensor.shape[1:])) for tensor in model.inputs}
    given = _specs(inputs)
    if sorted(taken) != sorted(given) or not all(_takes(taken[name], given[name]) for name in given):
        raise ModelError(
            f"model '{factory}': takes {_listed(taken)}; the experiment gives {_listed(given)}",
            remedy="change [data.inputs], or let the factory declare each keras.Input as it is given",
        )
    size = next(iter(inputs.values())).size
    found = tuple(model.outputs[0].shape[1:])
    wanted = task_named(task).output_shape(size, classes)
    if not _takes(("", found), ("", wanted)):
        raise ModelError(
            f"model '{factory}': its output is {found}, expected {wanted} to {task}",
            remedy="choose a model.factory of this task.kind" if len(found) != len(wanted) else "fix the factory",
        )
    activation_of(model)


def _takes(declared: tuple[str, tuple[int | None, ...]], given: tuple[str, tuple[int, ...]]) -> bool:
    # The same dtype, and the same shape but for sizes that are declared as None.
    (kind, shape), (other, sizes) = declared, given
    same = len(shape) == len(sizes) and all(want in (None, have) for want, have in zip(shape, sizes, strict=True))
    return kind == other and same


def _specs(inputs: Mapping[str, ImageSpec]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (spec.dtype, spec.shape) for name, spec in inputs.items()}


def _listed(inputs: Mapping[str, tuple[str, tuple[Any, ...]]]) -> str:
    return ", ".join(f"'{name}' as {kind} {shape}" for name, (kind, shape) in sorted(inputs.items()))


def activation_of(model: Any) -> str:
    """The activation of the model's last layer: ``softmax``, ``sigmoid`` or ``linear``.

    Raises:
        ModelError: the last layer is not an Activation layer with one of these.
    """
    last = model.layers[-1]
    used = last.activation if isinstance(last, keras.layers.Activation) else None
    name = next((name for name in _ACTIVATIONS if used is keras.activations.get(name)), None)
    if name is None:
        raise ModelError(
            f"model '{model.name}': its last layer '{last.name}' is not a softmax, sigmoid or linear Activation",
            remedy="end it with keras.layers.Activation(activation, dtype='float32', name='probabilities')",
        )
    return name
