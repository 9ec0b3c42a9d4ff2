"""Whether a classifier's scores mean what they say: reliability, temperature, and from which score to answer at all.

Temperature scaling and the expected calibration error (ECE) are those of C. Guo, G. Pleiss, Y. Sun, K. Weinberger: On
Calibration of Modern Neural Networks, ICML 2017; risk and coverage those of Y. Geifman, R. El-Yaniv: Selective
Classification for Deep Neural Networks, NeurIPS 2017.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.classify.scores import Answers, Flags, check_labelled
from leakdet_tf.analysis.stats.significance import binomial_cdf, upper_bound, wilson
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.tasks.classify import TINY, certainty, decided, logits_of, tempered

BINS = 15
LEAST_T, MOST_T = 0.05, 20.0
"""Temperatures beyond these are not searched: they would say that the set is too small, or the scores mean nothing."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS, _FLAT, _AT_END = 80, 1e-12, 1e-3
_FIRST_ERRORS = 2
_FIRST_STEP = 0.2  # of the pictures: earlier thresholds answer too few to be of use, and may fail by one picture
Floats = npt.NDArray[np.float64]


def apply_temperature(scores: npt.ArrayLike, temperature: float, activation: str) -> Floats:
    """:func:`~leakdet_tf.core.tasks.classify.tempered`, which a device uses too, with the temperature checked.

    Raises:
        DataError: the temperature is not above 0.
    """
    if not 0 < temperature < math.inf:
        raise DataError(f"a temperature must be above 0, is {temperature}")
    return tempered(scores, temperature, activation)


def calibrated(answers: Answers, temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """The scores as a device gives them: :func:`apply_temperature`, float32 (N, C)."""
    return apply_temperature(answers.scores, temperature, answers.activation).astype(np.float32)


def nll(answers: Answers, temperature: float = 1.0) -> float:
    """Negative log likelihood of the truth in nats: mean over pictures, for sigmoid over pictures and classes."""
    check_labelled(answers)
    return _likelihood(answers)(1 / temperature)


def _likelihood(answers: Answers) -> Callable[[float], float]:
    """NLL as a function of 1 / T, in which it is convex."""
    scores, truth = np.clip(answers.scores.astype(np.float64), 0, 1), answers.truth.astype(np.bool_)
    if answers.activation == "softmax":
        logs = np.log(np.maximum(scores, TINY))
        lead = logs - logs[truth][:, None]  # over the true class

        def of_one(inverse: float) -> float:
            powers = lead * inverse
            top = powers.max(axis=1, keepdims=True)
            return float((top[:, 0] + np.log(np.exp(powers - top).sum(axis=1))).mean())

        return of_one
    wrong = np.where(truth, -logits_of(scores), logits_of(scores))
    return lambda inverse: float(np.logaddexp(0, wrong * inverse).mean())


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, the NLL without and with it, and what speaks against its use."""

    value: float
    nll_before: float
    nll_after: float
    note: str = ""


def fit_temperature(answers: Answers) -> Temperature:
    """The temperature of least NLL, by golden section over log T within [0.05, 20].

    The NLL is convex in 1 / T, so that it has one valley over log T. Where all answers are right by a margin, ever
    smaller temperatures are ever more likely, and where scores say nothing or the contrary ever larger ones: then the
    bound is returned and the note says so. Scores without any difference leave T at 1.

    Raises:
        DataError: a picture of a softmax model has no class.
    """
    check_labelled(answers)
    cost = _likelihood(answers)
    ends = cost(1 / LEAST_T), cost(1 / MOST_T)
    before = cost(1.0)
    if max(*ends, before) - min(*ends, before) < _FLAT:
        return Temperature(1.0, before, before, "the scores do not differ: temperature changes nothing")
    low, high = math.log(LEAST_T), math.log(MOST_T)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(math.exp(-left)), cost(math.exp(-right))
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = cost(math.exp(-left))
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = cost(math.exp(-right))
    value, note = math.exp((low + high) / 2), ""
    if value < LEAST_T * (1 + _AT_END):
        value, note = LEAST_T, "the pictures are answered all but without error, too few or too easy to tell: keep 1"
    elif value > MOST_T * (1 - _AT_END):
        value, note = MOST_T, "the scores say nothing about the truth, or the contrary: look at the classes' order"
    return Temperature(value, before, cost(1 / value), note)


def brier(scores: npt.ArrayLike, truth: npt.ArrayLike, activation: str) -> float:
    """Mean squared distance of the scores (N, C) from the truth (Brier 1950).

    For softmax summed over classes, from 0 to 2; for sigmoid the mean over pictures and classes, from 0 to 1.
    """
    squares = (np.asarray(scores, np.float64) - np.asarray(truth, np.float64)) ** 2
    return float(squares.sum(axis=1).mean() if activation == "softmax" else squares.mean())


def events(scores: npt.NDArray[Any], truth: npt.NDArray[np.uint8], activation: str) -> tuple[Floats, Flags]:
    """What was claimed with which probability, float64 (M,), and whether it was so, bool (M,).

    For softmax a picture's claim is its answer; for sigmoid each class of each picture is one.
    """
    if activation == "sigmoid":
        return np.asarray(scores, np.float64).ravel(), truth.astype(np.bool_).ravel()
    there = decided(scores, activation)
    return np.asarray(scores.max(axis=1), np.float64), np.asarray((truth.astype(np.bool_) & there).any(axis=1))


def reliability(
    claimed: Floats, happened: Flags, *, bins: int = BINS, equal: str = "width", confidence: float = 0.95
) -> list[dict[str, Any]]:
    """How often claims of about one probability were so, in bins; those without a claim are left out.

    Args:
        claimed: float (M,) probabilities.
        happened: bool (M,).
        bins: how many.
        equal: "width", (0, 1/15], (1/15, 2/15] ... as Guo et al. have them; or "mass", bins of about as many claims
            each, where equal claims stay together.
        confidence: of the Wilson intervals of ``share``.
    """
    if equal == "width":
        place = np.clip(np.ceil(claimed * bins).astype(np.int64) - 1, 0, bins - 1)
    else:
        inner = np.sort(claimed)[np.arange(1, bins) * claimed.size // bins]
        place = np.searchsorted(np.unique(inner), claimed, side="right")
    rows = []
    for index in np.unique(place):
        inside = place == index
        number, hits = int(inside.sum()), int(happened[inside].sum())
        low, high = wilson(hits, number, confidence)
        ends = (
            (index / bins, (index + 1) / bins) if equal == "width" else (claimed[inside].min(), claimed[inside].max())
        )
        rows.append(
            {
                "from": float(ends[0]),
                "to": float(ends[1]),
                "number": number,
                "claimed": float(claimed[inside].mean()),
                "share": hits / number,
                "low": low,
                "high": high,
            }
        )
    return rows


def ece(rows: list[dict[str, Any]]) -> float:
    """Expected calibration error of :func:`reliability`: mean distance of claim and share, weighed by number."""
    total = sum(row["number"] for row in rows)
    return float(sum(row["number"] * abs(row["claimed"] - row["share"]) for row in rows) / total)


def quality(answers: Answers, temperature: float = 1.0, *, confidence: float = 0.95) -> dict[str, Any]:
    """Calibration at a temperature as plain data for JSON: NLL, Brier, ECE in both kinds of bins, and the table.

    Raises:
        DataError: a picture of a softmax model has no class.
    """
    likelihood = nll(answers, temperature)
    scores = apply_temperature(answers.scores, temperature, answers.activation)
    claimed, happened = events(scores, answers.truth, answers.activation)
    wide = reliability(claimed, happened, confidence=confidence)
    return {
        "temperature": float(temperature),
        "nll": likelihood,
        "brier": brier(scores, answers.truth, answers.activation),
        "ece": ece(wide),
        "ece_equal_mass": ece(reliability(claimed, happened, equal="mass")),
        "claimed": float(claimed.mean()),
        "share": float(happened.mean()),
        "reliability": wide,
    }


@dataclass(frozen=True, eq=False)
class Curve:
    """Risk against coverage, each float64 (K,), from the surest answers to all.

    ``threshold``: the least certainty that is answered. ``coverage``: the share of pictures answered then. ``risk``:
    the share of wrong answers among them. Pictures of one certainty are answered together.
    """

    threshold: Floats
    coverage: Floats
    risk: Floats

    @property
    def aurc(self) -> float:
        """Area under the curve (Geifman et al. 2019): the mean risk over all coverages; 0 is best."""
        return float((self.risk * np.diff(self.coverage, prepend=0.0)).sum())


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Pictures, the surest first: certainty float32 (N,), wrong bool (N,), first int64 (N,), 1 where a group starts."""

    sure: npt.NDArray[np.float32]
    wrong: Flags
    first: npt.NDArray[np.int64]
    ends: npt.NDArray[np.intp]  # how many are answered, at the least of each certainty


def _ranked(answers: Answers, temperature: float) -> _Ranked:
    check_labelled(answers)
    scores = calibrated(answers, temperature)
    wrong = (decided(scores, answers.activation) != answers.truth.astype(np.bool_)).any(axis=1)
    sure = certainty(scores, answers.activation)
    order = np.argsort(-sure, kind="stable")
    sure, wrong = sure[order], wrong[order]
    _, places = np.unique(np.array(answers.groups)[order], return_index=True)
    first = np.zeros(sure.size, np.int64)
    first[places] = 1
    return _Ranked(sure, wrong, first, np.flatnonzero(np.append(np.diff(sure) != 0, True)) + 1)


def risk_coverage(answers: Answers, temperature: float = 1.0) -> Curve:
    """The :class:`Curve` of answering the surest pictures only.

    Raises:
        DataError: a picture of a softmax model has no class.
    """
    ranked = _ranked(answers, temperature)
    ends = ranked.ends
    errors = np.cumsum(ranked.wrong)[ends - 1]
    return Curve(ranked.sure[ends - 1].astype(np.float64), ends / ranked.sure.size, errors / ends)


@dataclass(frozen=True)
class Abstain:
    """From which certainty to answer, and what was seen of the answers then.

    ``threshold`` is None where none keeps the target, and ``note`` says why. ``bound`` is the upper bound of ``risk``.
    """

    threshold: float | None
    target: float
    confidence: float
    answered: int = 0
    coverage: float | None = None
    risk: float | None = None
    bound: float | None = None
    note: str = ""


def choose_abstain(
    answers: Answers, target_risk: float, *, temperature: float = 1.0, confidence: float = 0.95
) -> Abstain:
    """A threshold from which, with ``confidence``, at most the target's share of the answers is wrong.

    Thresholds are tried from the surest pictures on (:func:`_sequence`), each by the one-sided bound of Clopper and
    Pearson (1934), and the last before the first that fails is taken: a fixed sequence of tests, which keeps the level
    of one test without a correction (Angelopoulos et al., Learn then Test, 2021). What is promised is the risk on
    further pictures like these, ranked by the same scores. Few pictures without an error buy no threshold. Pictures of
    one group count together as one, as is right for groups of about equal size. The threshold lies halfway between the
    last picture that is answered and the first that is not; it is 0 when all are.

    Raises:
        DataError: the target or the confidence is not between 0 and 1, or a picture of a softmax model has no class.
    """
    for name, value in (("target risk", target_risk), ("confidence", confidence)):
        if not 0 < value < 1:
            raise DataError(f"the {name} must lie between 0 and 1, is {value}")
    ranked = _ranked(answers, temperature)
    errors, kept, failed = np.cumsum(ranked.wrong), None, None
    for number, groups, allowed in _sequence(ranked, target_risk, confidence):
        if errors[number - 1] > allowed:
            failed = number, allowed
            break
        kept = number, groups
    if kept:
        number, groups = kept
        wrong = int(errors[number - 1])
        return Abstain(
            _between(ranked.sure, number),
            target_risk,
            confidence,
            number,
            number / ranked.sure.size,
            wrong / number,
            upper_bound(_counted(wrong, groups, number), groups, confidence),
        )
    needed = math.ceil(math.log(1 - confidence) / math.log(1 - target_risk))
    note = f"no threshold keeps wrong answers to {target_risk:.1%} with confidence {confidence:.0%}"
    if failed:
        number, allowed = failed
        note += f": of the surest {number} answers {int(errors[number - 1])} are wrong, and {allowed} may be"
    else:
        note += f"; that takes {needed} pictures without an error, there are {int(ranked.first.sum())}"
    return Abstain(None, target_risk, confidence, note=note)


def _sequence(ranked: _Ranked, target: float, confidence: float) -> list[tuple[int, int, int]]:
    """What is tried in turn: (pictures answered, groups among them, wrong ones that pass). Truth has no say in it.

    It begins where a fifth of the pictures is answered and :data:`_FIRST_ERRORS` may be wrong, or a third of those that
    may be in the end where that is less: a first step that one picture can fail mostly ends the whole. A step that
    allows no more errors than the one before would be a further chance to fail, so the next one is where one more
    passes, or where there are twice as many pictures; the last answers all.
    """
    total, independent = ranked.sure.size, np.cumsum(ranked.first)
    steps: list[tuple[int, int, int]] = []
    counted = -1  # of the groups
    for number in map(int, ranked.ends):
        groups = int(independent[number - 1])
        while binomial_cdf(counted + 1, groups, target) <= 1 - confidence:
            counted += 1
        if counted < 0 or number < total * _FIRST_STEP:
            continue
        allowed = min(counted * number // groups, math.floor(target * number))
        if not steps or number == total or number >= 2 * steps[-1][0] or allowed > steps[-1][2]:
            steps.append((number, groups, allowed))
    least = min(_FIRST_ERRORS, steps[-1][2] // 3) if steps else 0
    return [step for step in steps if step[2] >= least]


def _counted(wrong: int, groups: int, number: int) -> int:
    """As many of the groups as are wrong of the pictures, rounded up."""
    return -(-wrong * groups // number)


def _between(sure: npt.NDArray[np.float32], number: int) -> float:
    if number == sure.size:
        return 0.0
    last, beyond = sure[number - 1], sure[number]
    middle = np.float32((float(last) + float(beyond)) / 2)
    return float(middle if middle > beyond else last)
