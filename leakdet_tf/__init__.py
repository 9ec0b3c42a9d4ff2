"""Leak detection for industrial inspection: from an experiment file to a model that a robot can be trusted with.

What the command line does stands here by name: :func:`fit`, :func:`evaluate`, :func:`predict`, :func:`export`,
:func:`render`; and the :class:`Predictor` that answers on a device. Nothing heavy is imported before it is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from leakdet_tf.core.version import __version__

if TYPE_CHECKING:
    from leakdet_tf.edge.predictor import Predictor
    from leakdet_tf.jobs.evaluate import evaluate
    from leakdet_tf.jobs.export import export
    from leakdet_tf.jobs.fit import fit
    from leakdet_tf.jobs.predict import predict
    from leakdet_tf.jobs.synth_render import render

__all__ = ["Predictor", "__version__", "evaluate", "export", "fit", "predict", "render"]
_WHERE = {
    "Predictor": "leakdet_tf.edge.predictor",
    "evaluate": "leakdet_tf.jobs.evaluate",
    "export": "leakdet_tf.jobs.export",
    "fit": "leakdet_tf.jobs.fit",
    "predict": "leakdet_tf.jobs.predict",
    "render": "leakdet_tf.jobs.synth_render",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'leakdet_tf' has no attribute '{name}'")
    try:
        return getattr(import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        from leakdet_tf.core.errors import missing_extra

        missing = missing_extra(error, f"leakdet_tf.{name}")
        if missing is None:
            raise
        raise missing from error


def __dir__() -> list[str]:
    return list(__all__)
