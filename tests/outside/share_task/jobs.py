"""What commands ask of models to ``share``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from leakdet_tf.analysis.stats.intervals import bounded, bounds, drawn
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.files import write_json
from leakdet_tf.core.records import Sample
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.items import Item
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.run.data import samples
from leakdet_tf.jobs.tasks.protocol import Evaluation, Report, Weighted
from share_task.core import Share

EXAMPLES = 4
METRIC = "closeness"
CALIBRATING = COMPARING = EXPLAINING = None


@dataclass(frozen=True)
class Measured:
    figures: dict[str, Any]
    low: dict[str, Any]
    high: dict[str, Any]
    apart: npt.NDArray[np.float64]


def validation_score(contract: Contract, cache: Cache) -> None:
    return None


def measure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Measured:
    given = [(sample.truth, predictor.predict(sample.images)) for sample in samples(settings, items)]
    apart = np.array([abs(float((truth == 1).mean()) - found.share) for truth, found in given])
    figures = {"closeness": np.asarray(1 - apart.mean())}
    parts = [1 - part @ apart / part.sum(axis=1) for part in drawn(len(apart), 100, seed=settings.seed, batch=100)]
    low, high = bounds({"closeness": np.concatenate(parts)}, figures, settings.evaluate.confidence)
    return Measured(figures, low, high, apart)


def weighted_figure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Weighted:
    apart = measure(predictor, settings, items).apart
    return "closeness", lambda weights: 1 - weights @ apart / weights.sum(axis=1)


def write_report(asked: Evaluation) -> Report:
    measured = measure(asked.opened.predictor, asked.settings, asked.items)
    found = {"format": 1, "task": "share", **asked.about, "metrics": {"closeness": bounded(measured, "closeness")}}
    write_json(asked.folder / "metrics.json", found)
    asked.log(f"closeness {found['metrics']['closeness']['value']:.4f}")
    return found, [asked.folder / "metrics.json"]


def draw_examples(
    shown: Sequence[Sample], predictions: Sequence[Share], settings: Experiment, contract: Contract, title: str
) -> Figure:
    figure = Figure()
    figure.suptitle(title)
    return figure
