"""What a task says of itself on this floor: its report, its pictures, and what else commands may ask of its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.comparison import Run
from leakdet_tf.analysis.explain.reading import Case, Reading
from leakdet_tf.analysis.stats.inflation import Weights
from leakdet_tf.analysis.stats.intervals import Bounded
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.records import Sample
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.items import Item
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.run.runs import Log, Opened

if TYPE_CHECKING:
    from leakdet_tf.training.measure import Score  # imports Keras, whose backend is chosen later


@dataclass(frozen=True)
class Calibrating:
    """What is chosen on the validation pictures once the weights stand.

    ``run`` writes a new contract over ``contract.json`` and gives the model with it; ``threshold`` says whether the
    user may choose one instead, which ``run`` then takes.
    """

    run: Callable[..., Opened]
    threshold: bool


@dataclass(frozen=True)
class Comparing:
    """How runs are put side by side: by ``metric`` unless the user names another.

    ``load`` takes a folder that ``evaluate`` wrote and its report, and gives what was found on each picture.
    ``compare`` takes runs and a metric, and gives the comparison as plain data.
    """

    metric: str
    load: Callable[[Path, Mapping[str, Any]], Any]
    compare: Callable[[Sequence[Run[Any]], str], dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """Of which class a heat map is: the ``index``, or where that is None the predicted one, or, ``truly``, the true."""

    contract: Contract
    index: int | None
    truly: bool


@dataclass(frozen=True)
class Explaining:
    """How a heat map is asked for and scored.

    ``read`` takes a prediction, the truth or None, and what is asked. ``mask_of`` takes a case, its reading and what is
    asked; it says where the class truly is, bool (H, W) or None, and why the picture is not scored, empty when it is.
    """

    read: Callable[[Any, npt.NDArray[Any] | None, Asked], Reading]
    mask_of: Callable[[Case, Reading, Asked], tuple[npt.NDArray[np.bool_] | None, str]]


@dataclass(frozen=True)
class Evaluation:
    """What is measured, on which items, what a report says of both (``about``), and where it goes."""

    opened: Opened
    settings: Experiment
    items: Sequence[Item]
    about: dict[str, Any]
    folder: Path
    log: Log

    @property
    def where(self) -> str:
        """The title of its figures."""
        kind, about = self.opened.kind, self.about
        return f"{kind} on {about['split']} of {about['data']}: {len(self.items)} pictures"


Report = tuple[dict[str, Any], list[Path]]
"""What ``metrics.json`` holds, and the files that were written."""
Weighted = tuple[str, Callable[[Weights], Weights]]
"""A figure's name for people, and how it depends on how often each picture counts, (R, N) → (R,)."""


class JobsTask(Protocol):
    """A module of ``jobs/tasks``."""

    @property
    def EXAMPLES(self) -> int:
        """Validation pictures that ``fit`` draws."""

    @property
    def METRIC(self) -> str:
        """The figure of :meth:`measure` that a reduced format may not lose."""

    @property
    def CALIBRATING(self) -> Calibrating | None:
        """None where there is nothing to calibrate."""

    @property
    def COMPARING(self) -> Comparing | None:
        """None where ``compare`` has no test for such runs."""

    @property
    def EXPLAINING(self) -> Explaining | None:
        """None where a heat map of a class says nothing."""

    def validation_score(self, contract: Contract, cache: Cache) -> Score | None:
        """What training is watched by where no metric counts while Keras trains; None where one does."""

    def measure(self, predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Bounded:
        """The figures of a model on items, with bounds."""

    def weighted_figure(self, predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Weighted:
        """A figure of a model on items."""

    def write_report(self, asked: Evaluation) -> Report:
        """Measure, and write ``metrics.json`` and what belongs to it."""

    def draw_examples(
        self, shown: Sequence[Sample], predictions: Sequence[Any], settings: Experiment, contract: Contract, title: str
    ) -> Any:
        """Pictures with their truth and what was predicted, as a matplotlib figure; each sample has its truth."""
