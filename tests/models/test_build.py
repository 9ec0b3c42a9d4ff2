"""From the ``[model]`` table to a model: what is passed, what is refused, and in which words."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from leakdet_tf.core.errors import ConfigError, ModelError
from leakdet_tf.core.images import ImageSpec
from leakdet_tf.models import unet
from leakdet_tf.models.factories import activation_of, build

ONE = {"image": ImageSpec(32, 32, 3)}
TWO = {"rgb": ImageSpec(32, 32, 3), "thermal": ImageSpec(32, 32, 1, "uint16")}
NARROW: dict[str, Any] = {"encoder_options": {"width": 8}, "decoder_filters": [16, 16, 8, 8, 4]}
Factory = Callable[..., Any]


def make(factory: str, *, inputs: Any = ONE, classes: int = 3, seed: int = 1, **arguments: Any) -> Any:
    return build(factory, arguments, inputs=inputs, classes=classes, seed=seed)


def small(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 3,
    *,
    input_dtype: str = "uint8",
    input_name: str = "image",
    activation: str = "softmax",
    width: int = 4,
) -> Any:
    """Somebody's own factory, with three of the derived arguments and one of its own."""
    image = keras.Input(input_shape, dtype=input_dtype, name=input_name)
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Conv2D(width, 3, padding="same")(x)
    x = keras.layers.Conv2D(classes, 1, name="logits")(x)
    return keras.Model(image, keras.layers.Activation(activation, name="probabilities")(x), name="small")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Callable[[Factory], str]:
    """``own(factory)``: its name ``"module:function"`` in a module of the user's."""
    module = types.ModuleType("somebodys_models")
    monkeypatch.setitem(sys.modules, "somebodys_models", module)

    def _own(factory: Factory) -> str:
        module.__dict__["factory"] = factory
        return "somebodys_models:factory"

    return _own


def one_line(kind: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_factory_computes_as_asked_and_else_as_the_user_has_set() -> None:
    before = keras.config.dtype_policy()

    def policies(**keys: Any) -> set[str]:
        model = build("unet", NARROW, inputs=ONE, classes=3, seed=0, **keys)
        return {layer.dtype_policy.name for layer in model.layers}

    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        assert "mixed_bfloat16" in policies()
        assert policies(precision="float32") == {"float32"}
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(before)


def test_the_registered_unet_gets_what_follows_from_the_experiment() -> None:
    inputs = {"frame": ImageSpec(32, 64, 1, "uint16")}
    model = make("unet", inputs=inputs, classes=4, **NARROW)
    (tensor,) = model.inputs
    assert (tensor.name, tensor.dtype, tensor.shape) == ("frame", "uint16", (None, 32, 64, 1))
    assert model.output.shape == (None, 32, 64, 4)
    same = unet((32, 64, 1), 4, input_dtype="uint16", input_name="frame", seed=1, **NARROW)
    for a, b in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_argument_is_answered_with_the_nearest() -> None:
    text = one_line(ConfigError, lambda: make("unet", encodr="resnet18"))
    assert text == "model.encodr: 'unet' has no such argument; did you mean 'encoder'?"


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("classes", "task.classes"),
        ("seed", "the key seed at the top"),
        ("input_shape", "[data.inputs]"),
        ("input_dtype", "[data.inputs]"),
        ("input_name", "[data.inputs]"),
        ("inputs", "[data.inputs]"),
    ],
)
def test_an_argument_that_is_set_elsewhere_is_refused(key: str, where: str) -> None:
    text = one_line(ConfigError, lambda: build("unet", {key: 3}, inputs=ONE, classes=3, seed=1))
    assert text.startswith(f"model.{key}: follows from the rest of the experiment")
    assert where in text


def test_what_the_factory_refuses_is_a_model_error() -> None:
    assert "decoder_filters" in one_line(ModelError, lambda: make("unet", decoder_filters=[8]))


def test_an_unknown_factory_is_answered_with_the_nearest() -> None:
    assert "did you mean 'unet'?" in one_line(ModelError, lambda: make("unett"))
    assert "no module 'nobodys_models'" in one_line(ModelError, lambda: make("nobodys_models:unet"))


def test_a_factory_of_ones_own(own: Callable[[Factory], str]) -> None:
    model = make(own(small), classes=5, width=7)
    assert model.output.shape == (None, 32, 32, 5)
    assert model.layers[2].filters == 7
    text = one_line(ConfigError, lambda: make("somebodys_models:factory", widht=7))
    assert text == "model.widht: 'somebodys_models:factory' has no such argument; did you mean 'width'?"


def test_a_factory_without_seed_starts_the_same_each_time(own: Callable[[Factory], str]) -> None:
    name = own(small)
    first, second, other = (make(name, seed=seed).get_weights() for seed in (3, 3, 4))
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[0], other[0])


def test_free_keywords_take_every_argument(own: Callable[[Factory], str]) -> None:
    seen: dict[str, Any] = {}

    def factory(classes: int, **rest: Any) -> Any:
        seen.update(rest)
        return small(classes=classes)

    make(own(factory), anything=1)
    assert seen == {"anything": 1}


def test_two_inputs_come_as_specs_by_name(own: Callable[[Factory], str]) -> None:
    def factory(inputs: dict[str, ImageSpec], classes: int) -> Any:
        tensors = {name: keras.Input(spec.shape, dtype=spec.dtype, name=name) for name, spec in inputs.items()}
        x = keras.layers.Concatenate()([keras.layers.Rescaling(1.0, dtype="float32")(t) for t in tensors.values()])
        x = keras.layers.Conv2D(classes, 1)(x)
        return keras.Model(tensors, keras.layers.Activation("softmax")(x))

    model = make(own(factory), inputs=TWO)
    assert sorted(tensor.name for tensor in model.inputs) == ["rgb", "thermal"]


def test_a_model_of_one_input_is_refused_for_two(own: Callable[[Factory], str]) -> None:
    text = one_line(ModelError, lambda: make(own(lambda classes: small(classes=classes)), inputs=TWO))
    assert "takes 'image' as uint8 (32, 32, 3)" in text
    assert "gives 'rgb' as uint8 (32, 32, 3), 'thermal' as uint16 (32, 32, 1)" in text


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """``few_layers:few_pairs`` and its like can be named."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "jobs"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("name", "task", "shape"), [("few_pairs", "segment", (32, 32, 3)), ("few_pair_labels", "classify", (3,))]
)
def test_a_factory_of_two_inputs_is_built(toys: None, name: str, task: str, shape: tuple[int, ...], dtype: Any) -> None:
    inputs = {"thermal": ImageSpec(32, 32, 1, dtype), "rgb": ImageSpec(32, 32, 3)}
    model = build(f"few_layers:{name}", {}, inputs=inputs, classes=3, seed=1, task=task)
    assert {one.name: (one.dtype, one.shape[1:]) for one in model.inputs} == {
        "rgb": ("uint8", (32, 32, 3)),
        "thermal": (dtype, (32, 32, 1)),
    }
    frames = [np.full((2, *one.shape[1:]), 7, one.dtype) for one in model.inputs]
    answer = keras.ops.convert_to_numpy(model(frames))
    assert (answer.shape, answer.dtype) == ((2, *shape), np.float32)
    assert activation_of(model) == "softmax"
    other = build(f"few_layers:{name}", {}, inputs=inputs, classes=3, seed=1, task=task)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["few_pairs", "few_pair_labels"])
def test_inputs_that_a_factory_asks_for_in_vain_are_refused(toys: None, name: str) -> None:
    text = one_line(ModelError, lambda: make(f"few_layers:{name}", inputs={"rgb": ImageSpec(32, 32)}))
    assert text == (
        f"model 'few_layers:{name}': takes an input 'thermal'; the experiment gives 'rgb' as uint8 (32, 32, 3); "
        "add it as [data.inputs.thermal], or choose another model.factory"
    )


def test_inputs_that_a_factory_leaves_aside_are_refused(toys: None) -> None:
    text = one_line(ModelError, lambda: make("few_layers:few_pairs", inputs=TWO | {"depth": ImageSpec(32, 32, 1)}))
    assert "takes 'rgb' as uint8 (32, 32, 3), 'thermal' as uint16 (32, 32, 1); the experiment gives 'depth'" in text


@pytest.mark.parametrize("name", ["unet", "resnet_classifier", "mobilenet_classifier", "yolov8", "segmentation_models"])
def test_a_registered_factory_of_one_input_is_refused_for_two(name: str) -> None:
    text = one_line(ModelError, lambda: make(name, inputs=TWO))
    assert text == (
        f"model '{name}': takes one input; the experiment gives 'rgb' as uint8 (32, 32, 3), "
        "'thermal' as uint16 (32, 32, 1); "
        "leave one in [data.inputs], or choose a factory with the parameter 'inputs'"
    )


@pytest.mark.parametrize("key", ["input_shape", "input_dtype", "input_name"])
def test_a_factory_takes_inputs_by_name_or_one_not_both(own: Callable[[Factory], str], key: str) -> None:
    def by_shape(inputs: Any, input_shape: Any) -> Any: ...

    def by_dtype(inputs: Any, input_dtype: Any) -> Any: ...

    def by_name(inputs: Any, input_name: Any) -> Any: ...

    factory = {"input_shape": by_shape, "input_dtype": by_dtype, "input_name": by_name}[key]
    assert f"has the parameters 'inputs' and '{key}'" in one_line(ModelError, lambda: make(own(factory)))


def test_sizes_may_be_left_open(own: Callable[[Factory], str]) -> None:
    model = make(own(lambda classes: small((None, None, 3), classes)))  # type: ignore[arg-type]
    assert model.output.shape == (None, None, None, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"input_name": "picture"}, "takes 'picture' as uint8 (32, 32, 3); the experiment gives 'image'"),
        ({"input_dtype": "float32"}, "takes 'image' as float32"),
        ({"input_shape": (32, 32, 1)}, "takes 'image' as uint8 (32, 32, 1)"),
        ({"input_shape": (64, 64, 3)}, "takes 'image' as uint8 (64, 64, 3)"),
        ({"classes": 2}, "its output is (32, 32, 2), expected (32, 32, 3)"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(
    own: Callable[[Factory], str], arguments: dict[str, Any], said: str
) -> None:
    text = one_line(ModelError, lambda: make(own(lambda: small(**arguments))))
    assert text.startswith("model 'somebodys_models:factory': ")
    assert said in text


class Subclassed(keras.Model):
    """A model without declared inputs."""


def two_outputs() -> Any:
    model = small()
    return keras.Model(model.inputs, [model.output, model.output])


def unbuilt() -> Any:
    return keras.Sequential([keras.layers.Conv2D(3, 1), keras.layers.Activation("softmax")])


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (lambda: None, "returned NoneType"),
        (lambda: [1], "returned list"),
        (two_outputs, "has 2 outputs"),
        (Subclassed, "does not say what its inputs are"),
        (unbuilt, "does not say what its inputs are"),
        (lambda missing: small(), "missing 1 required positional argument"),
        (lambda: int("x"), "invalid literal"),
    ],
)
def test_what_is_no_usable_model_is_refused(own: Callable[[Factory], str], factory: Factory, said: str) -> None:
    assert said in one_line(ModelError, lambda: make(own(factory)))


def test_a_callable_without_signature_is_refused() -> None:
    assert "name a Python function" in one_line(ModelError, lambda: make("builtins:dict"))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
def test_the_last_activation_is_read(activation: str) -> None:
    assert activation_of(small(activation=activation)) == activation


def test_another_last_layer_is_refused(own: Callable[[Factory], str]) -> None:
    assert "'probabilities' is not a softmax" in one_line(
        ModelError, lambda: make(own(lambda: small(activation="tanh")))
    )

    def ends_in_convolution() -> Any:
        model = small()
        return keras.Model(model.inputs, model.get_layer("logits").output)

    text = one_line(ModelError, lambda: make(own(ends_in_convolution)))
    assert "'logits' is not a softmax, sigmoid or linear Activation" in text

    def by_lambda() -> Any:
        model = small()
        return keras.Model(model.inputs, keras.layers.Activation(lambda x: x + 1, name="own")(model.output))

    assert "'own' is not a softmax" in one_line(ModelError, lambda: make(own(by_lambda)))
