"""How much of a test score is owed to test pictures that training or validation has, nearly, as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.evaluate import measure
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.confusion_matrix import Counts, ratios
from leakdet_tf.core.errors import ConfigError
from leakdet_tf.data.items import Item
from leakdet_tf.data.readers import labelling_of
from leakdet_tf.jobs.data import samples
from leakdet_tf.jobs.runs import Opened, open_model
from leakdet_tf.training.progress import track

_BATCH = 200  # resamples at a time, to bound memory
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Inflation:
    """The figure of all test pictures, of those without a twin elsewhere, and the difference with its bounds, 0..1."""

    pictures: int
    leaked: int
    whole: float
    rest: float
    low: float
    high: float
    figure: str = "mean IoU"

    def line(self, confidence: float) -> str:
        """One line for the user; differences in points of the figure."""
        told = f"{self.figure} on test: {self.whole:.4f} on all {self.pictures} pictures"
        if not self.leaked:
            return f"{told}, none of which has a twin in train or val"
        if self.leaked == self.pictures:
            return f"{told}, each of which has a twin in train or val: there is no rest to compare with"
        return (
            f"{told}, {self.rest:.4f} on the {self.pictures - self.leaked} without a twin in train or val: inflation "
            f"{100 * (self.whole - self.rest):+.2f} points [{100 * self.low:+.2f}, {100 * self.high:+.2f}], "
            f"{confidence:.0%} interval"
        )


def inflation(experiment: Experiment, model: str, items: Sequence[Item], leaked: npt.NDArray[np.bool_]) -> Inflation:
    """Measure a run or a bundle on the test split with and without the pictures in ``leaked``, bool (N,).

    The figure is mean IoU, or to detect mAP50.

    Raises:
        ConfigError: the model's classes are not the experiment's.
        DataError: there are no test pictures.
    """
    opened = open_model(model)
    _same_classes(opened, experiment, model)
    if experiment.task.kind == "detect":
        return _of_boxes(opened, experiment, items, leaked)
    settings, labelling = experiment.evaluate, labelling_of(experiment.data, experiment.task.classes)
    work = track(samples(experiment, items), "evaluating", len(items))
    measured = measure(opened.predictor, work, settings, seed=experiment.seed, labelling=labelling)
    return difference(
        measured.counts,
        leaked,
        labelling.members,
        resamples=settings.resamples,
        confidence=settings.confidence,
        seed=experiment.seed,
    )


def _same_classes(opened: Opened, experiment: Experiment, model: str) -> None:
    names = opened.predictor.contract.class_names
    if list(names) != experiment.task.classes:
        raise ConfigError(f"{model}: its classes ({', '.join(names)}) are not the experiment's")


def difference(
    counts: Counts,
    leaked: npt.NDArray[np.bool_],
    members: npt.NDArray[np.bool_] | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Inflation:
    """Mean IoU of all pictures less that of the rest, from counts (N, L, C), with a paired bootstrap interval.

    Pictures are drawn with replacement; both figures come from the same draw (Efron 1979). Draws without a picture of
    the rest are left out. Without leaked pictures, or without others, the bounds are NaN.
    """
    flat = counts.reshape(len(counts), -1).astype(np.float64)

    def mean_iou(weights: Weights) -> Weights:
        sums = (weights @ flat).reshape(len(weights), *counts.shape[1:])
        return np.asarray(ratios(sums, members)["mean_iou"], np.float64)

    return _compared(mean_iou, leaked, resamples=resamples, confidence=confidence, seed=seed)


def _of_boxes(
    opened: Opened, experiment: Experiment, items: Sequence[Item], leaked: npt.NDArray[np.bool_]
) -> Inflation:
    from leakdet_tf.analysis.box_coco import matches
    from leakdet_tf.analysis.box_metrics import averages, mean
    from leakdet_tf.jobs.detect import answer

    settings = experiment.evaluate
    found = matches(answer(opened.predictor, experiment, items), overlaps=1, sizes=False)

    def map50(weights: Weights) -> Weights:
        return mean(averages(found, weights)[0][:, 0, :, 0])

    told = _compared(map50, leaked, resamples=settings.resamples, confidence=settings.confidence, seed=experiment.seed)
    return replace(told, figure="mAP50")


def _compared(
    figure: Callable[[Weights], Weights],
    leaked: npt.NDArray[np.bool_],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Inflation:
    # ``figure`` takes how often each picture counts, (R, N), and gives (R,).
    number = len(leaked)
    others = (~leaked).astype(np.float64)
    whole, rest = (float(value) for value in figure(np.stack([np.ones(number), others])))
    if not leaked.any() or leaked.all():
        return Inflation(number, int(leaked.sum()), whole, rest, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _BATCH):
        size = min(_BATCH, resamples - start)
        weights = generator.multinomial(number, np.full(number, 1 / number), size=size).astype(np.float64)
        drawn.append(figure(weights) - figure(weights * others))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    return Inflation(number, int(leaked.sum()), whole, rest, float(low), float(high))
