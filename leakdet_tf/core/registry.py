"""Names to callables, as data: listing imports nothing, and ``module:attribute`` names anyone's own code."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Any

from leakdet_tf.core.errors import ModelError, did_you_mean

REGISTRY: dict[str, dict[str, str]] = {
    "model": {
        "unet": "leakdet_tf.models.segmenter:unet",
        "resnet_classifier": "leakdet_tf.models.classifier:resnet_classifier",
        "mobilenet_classifier": "leakdet_tf.models.classifier:mobilenet_classifier",
        "yolov8": "leakdet_tf.models.detector:yolov8",
        "segmentation_models": "leakdet_tf.models.sm:segmentation_models",
    },
    "encoder": {
        "resnet18": "leakdet_tf.models.resnet:resnet18",
        "resnet34": "leakdet_tf.models.resnet:resnet34",
        "resnet50": "leakdet_tf.models.resnet:resnet50",
        "resnet18_v1": "leakdet_tf.models.residual:resnet18_v1",
        "resnet34_v1": "leakdet_tf.models.residual:resnet34_v1",
        "resnet50_v1": "leakdet_tf.models.residual:resnet50_v1",
        "mobilenet": "leakdet_tf.models.mobilenets:mobilenet",
        "mobilenet_v2": "leakdet_tf.models.mobilenets:mobilenet_v2",
        "mobilenet_v3_small": "leakdet_tf.models.mobilenets:mobilenet_v3_small",
        "mobilenet_v3_large": "leakdet_tf.models.mobilenets:mobilenet_v3_large",
    },
    "head": {
        "conv": "leakdet_tf.models.heads:conv_head",
    },
    "generator": {
        "crack": "leakdet_tf.synth.crack.generator:render",
        "gas": "leakdet_tf.synth.gas.generator:render",
        "hotspot": "leakdet_tf.synth.hotspot.generator:render",
        "leak": "leakdet_tf.synth.leak.generator:render",
    },
    "loss": {
        "cross_entropy": "leakdet_tf.training.losses:cross_entropy",
        "focal": "leakdet_tf.training.losses:focal",
        "dice": "leakdet_tf.training.losses:dice",
        "jaccard": "leakdet_tf.training.losses:jaccard",
    },
    "label_loss": {
        "cross_entropy": "leakdet_tf.training.label_losses:cross_entropy",
        "focal": "leakdet_tf.training.label_losses:focal",
    },
}


TASKS = {
    "segment": "leakdet_tf.{floor}.tasks.segment",
    "classify": "leakdet_tf.{floor}.tasks.classify",
    "detect": "leakdet_tf.{floor}.tasks.detect",
}
"""The tasks: a module on each floor, ``core``, ``training`` and ``jobs``."""
TASKS_ENTRY = "leakdet_tf.tasks"
"""The entry points by which an installed package adds a task: ``name = package``, with a module for each floor."""


def names(kind: str) -> list[str]:
    """The registered names of a kind (``model``, ``encoder``, ``head``, ``generator``, ``loss``), sorted."""
    return sorted(REGISTRY[kind])


def task_path(name: object) -> str | None:
    """The modules of a task, with ``{floor}`` for ``core``, ``training`` or ``jobs``; None where there is no such task.

    A task is registered here, or by a package that is installed: a name alone imports nothing that is not.
    """
    if not isinstance(name, str):
        return None
    if name in TASKS:
        return TASKS[name]
    found = metadata.entry_points(group=TASKS_ENTRY, name=name)
    return next((f"{point.value}.{{floor}}" for point in found), None)


@cache
def task_module(name: str, floor: str, protocol: type) -> Any:
    """A task's module on a floor, which must have all that the floor's protocol names.

    Raises:
        ModelError: there is no such task, or its module lacks something.
    """
    path = task_path(name)
    if path is None:
        raise ModelError(f"unknown task '{name}'", remedy=did_you_mean(name, TASKS))
    module = importlib.import_module(path.format(floor=floor))
    wanted = [key for key in (*protocol.__annotations__, *vars(protocol)) if not key.startswith("_")]
    if missing := [key for key in wanted if not hasattr(module, key)]:
        raise ModelError(f"task '{name}': {module.__name__} lacks {', '.join(missing)}", remedy="add it")
    return module


def resolve(kind: str, name: str | Callable[..., Any]) -> Callable[..., Any]:
    """The callable behind a registered name or a ``package.module:attribute`` path; a callable is returned as it is.

    Raises:
        ModelError: nothing has that name, the module cannot be imported, or it lacks the attribute.
    """
    if callable(name):
        return name
    if not isinstance(name, str):
        raise ModelError(f"a {kind} is named by text, not by {name!r}", remedy=f"choose from: {', '.join(names(kind))}")
    path = REGISTRY[kind].get(name, name)
    module_name, separator, attribute = path.partition(":")
    if not separator:
        near = did_you_mean(name, REGISTRY[kind])
        raise ModelError(
            f"unknown {kind} '{name}'",
            remedy=f"{near}{'' if near.endswith('?') else '.'} Code of your own is named 'package.module:function'",
        )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ModelError(
            f"{kind} '{name}': '{module_name}' is no module's name", remedy="write 'package.module:function'"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if not (module_name == missing or module_name.startswith(missing + ".")):
            raise
        raise ModelError(
            f"{kind} '{name}': there is no module '{missing}'",
            remedy="install its package or put its folder on PYTHONPATH",
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise ModelError(
            f"{kind} '{name}': module '{module_name}' has no callable '{attribute}'",
            remedy="check the part after the colon",
        )
    return found  # type: ignore[no-any-return]
