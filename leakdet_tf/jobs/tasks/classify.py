"""A classifier's jobs: its report, its calibration, and what of it a heat map is scored by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.classify import calibration
from leakdet_tf.analysis.classify.figures import Shown, confusion, reliability, risk_coverage, sheet
from leakdet_tf.analysis.classify.report import Measured, lines, report
from leakdet_tf.analysis.classify.report import measure as measured_of
from leakdet_tf.analysis.classify.scores import SCORES, Answers, save_scores
from leakdet_tf.analysis.explain.reading import EMPTY, NO_MASK, NOT_THERE, NOTHING, UNKNOWN, Case, Reading, joined
from leakdet_tf.analysis.figures import save
from leakdet_tf.analysis.stats.inflation import Weights
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import write_json
from leakdet_tf.core.records import IGNORE, UNSURE, Classification, Sample
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.items import Item
from leakdet_tf.data.mask_files import thing
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.run.data import groups_of, samples
from leakdet_tf.jobs.run.runs import Log, Opened
from leakdet_tf.jobs.tasks.protocol import Asked, Calibrating, Comparing, Evaluation, Explaining, Report, Weighted
from leakdet_tf.training.progress import track

if TYPE_CHECKING:
    from leakdet_tf.training.measure import Score  # imports Keras, whose backend is chosen later

EXAMPLES = 24
METRIC = "accuracy"
COMPARING: Comparing | None = None
CALIBRATION = "calibration.json"
_FEW = 20  # groups; with 8 of them the temperature was seen to triple the error of ten others


def validation_score(contract: Contract, cache: Cache) -> Score | None:
    """None: what is right is counted while Keras trains."""
    return None


def answer(predictor: Predictor, settings: Experiment, items: Sequence[Item], *, kind: str = "") -> Answers:
    """A classifier's raw scores on items, with their truth, sources and groups.

    Raises:
        DataError: there are no items, or one cannot be read.
    """
    if not items:
        raise DataError("there are no pictures to evaluate on", remedy="check data.root and the split's name")
    work = track(samples(settings, items), f"answering {kind}".strip(), len(items))
    rows = [(sample.truth, next(iter(predictor.outputs(sample.images).values()))) for sample in work]
    contract = predictor.contract
    return Answers(
        tuple(item.id for item in items),
        np.stack([truth for truth, _ in rows if truth is not None]).astype(np.uint8),
        np.stack([scores for _, scores in rows]).astype(np.float32),
        contract.class_names,
        contract.activation,
        tuple(item.source for item in items),
        groups_of(settings, items),
    )


def measure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Measured:
    """Classify every item, and count what is right."""
    return _measured(answer(predictor, settings, items), settings, predictor.contract)


def _measured(answers: Answers, settings: Experiment, contract: Contract) -> Measured:
    return measured_of(
        answers, settings.evaluate, seed=settings.seed, temperature=contract.temperature, abstain=contract.abstain
    )


def weighted_figure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Weighted:
    """Accuracy, by how often each picture counts."""
    right = measure(predictor, settings, items).right.astype(np.float64)

    def accuracy(weights: Weights) -> Weights:
        return np.asarray(weights @ right / weights.sum(axis=1))

    return "accuracy", accuracy


def write_report(asked: Evaluation) -> Report:
    """Measure an open classifier on items and write ``metrics.json``, ``scores.npz`` and pictures into ``folder``."""
    settings, items, predictor, where = asked.settings, asked.items, asked.opened.predictor, asked.where
    answers = answer(predictor, settings, items, kind=asked.opened.kind)
    measured = _measured(answers, settings, predictor.contract)
    found = report(measured, settings.evaluate, asked.about | {"contract": predictor.contract.id})
    files = [asked.folder / name for name in ("metrics.json", SCORES, "confusion.png", "reliability.png", "risk.png")]
    write_json(files[0], found)
    save_scores(files[1], answers)
    save(confusion(found, where), files[2])
    save(reliability(found["calibration"], where), files[3])
    curve = calibration.risk_coverage(answers, predictor.contract.temperature)
    save(risk_coverage({settings.name: curve}, where, found["abstain"]), files[4])
    if chosen := measured.worst(settings.evaluate.worst):
        files.append(asked.folder / "worst.png")
        shown = list(samples(settings, [items[i] for i in chosen]))
        captions = _captions(shown, chosen, measured, predictor.contract.primary)
        save(sheet(captions, f"most confident errors of {len(items)} pictures"), files[-1])
    for line in lines(found):
        asked.log(line)
    return found, files


def draw_examples(
    shown: Sequence[Sample], predictions: Sequence[Classification], settings: Experiment, contract: Contract, title: str
) -> Any:
    """Pictures with what they are and what was said."""
    found = []
    for sample, given in zip(shown, predictions, strict=True):
        assert sample.truth is not None
        there = tuple(name for name, inside in zip(given.classes, sample.truth, strict=True) if inside)
        text = (sample.id, f"is {'+'.join(there) or 'none'}", f"said {given.answer} {given.scores.max():.2f}")
        found.append(Shown(sample.images[contract.primary], text, there == given.labels))
    return sheet(found, title)


def _captions(shown: Sequence[Sample], places: Sequence[int], measured: Measured, primary: str) -> list[Shown]:
    found = []
    for sample, place in zip(shown, places, strict=True):
        truth = "+".join(measured.labels(place, measured.answers.truth)) or "none"
        said = "+".join(measured.labels(place)) if measured.answered[place] else UNSURE
        text = (sample.id, f"is {truth}", f"said {said or 'none'} {measured.sure[place]:.2f}")
        found.append(Shown(sample.images[primary], text, bool(measured.right[place])))
    return found


def _calibrate(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, threshold: float | None = None, log: Log
) -> Opened:
    """The run with a calibrated contract, which is written over ``contract.json``; what was found is kept beside it.

    A contract that was calibrated before is replaced: the new one names the uncalibrated one as its parent.
    """
    predictor = opened.predictor
    bare = replace(predictor.contract, temperature=1.0, abstain=0.0, parent=None)
    answers = answer(Predictor.over(predictor.backend, bare), settings, items, kind="validation")
    fitted = calibration.fit_temperature(answers)
    temperature = 1.0 if fitted.note else round(fitted.value, 6)
    evaluate = settings.evaluate
    chosen = calibration.choose_abstain(
        answers, evaluate.max_risk, temperature=temperature, confidence=evaluate.confidence
    )
    contract = replace(bare, temperature=temperature, abstain=chosen.threshold or 0.0, parent=bare.id)
    if (contract.temperature, contract.abstain) == (1.0, 0.0):
        contract = bare
    before, after = (calibration.quality(answers, value) for value in (1.0, temperature))
    log(
        f"calibrated on {len(items)} validation pictures: temperature {temperature:.3f}, "
        f"ECE {before['ece']:.4f} → {after['ece']:.4f}" + (f" ({fitted.note})" if fitted.note else "")
    )
    if (groups := len(set(answers.groups))) < _FEW:
        log(
            f"warning: these pictures are of {groups} groups; a temperature fitted on so few may not suit others: see "
            "both lines of the report, or set evaluate.calibrate = false"
        )
    if chosen.threshold is None:
        log(f"warning: no answer is called unsure: {chosen.note}")
    else:
        log(
            f"answers below {contract.abstain:.3f} are unsure: {chosen.coverage:.1%} answered, "
            f"{chosen.risk:.2%} of them wrong (at most {chosen.bound:.2%} with {chosen.confidence:.0%} confidence)"
        )
    contract.save(opened.folder / CONTRACT)
    _keep(opened.folder, bare, contract, fitted, chosen, before, after)
    return replace(opened, predictor=Predictor.over(predictor.backend, contract))


def _keep(folder: Path, bare: Contract, contract: Contract, fitted: Any, chosen: Any, before: Any, after: Any) -> None:
    if contract is not bare:
        bare.save(folder / f"contract-{bare.id}.json")
    write_json(
        folder / CALIBRATION,
        {
            "format": 1,
            "contract": contract.id,
            "parent": bare.id,
            "temperature": {"fitted": fitted.value, "used": contract.temperature, "note": fitted.note},
            "abstain": {
                key: getattr(chosen, key)
                for key in ("threshold", "target", "confidence", "answered", "coverage", "risk", "bound", "note")
            },
            "validation": {"before": before, "after": after},
        },
    )


CALIBRATING: Calibrating | None = Calibrating(_calibrate, threshold=False)


def _read(prediction: Classification, truth: npt.NDArray[Any] | None, asked: Asked) -> Reading:
    # The class of the highest score.
    names = asked.contract.class_names
    known = None if truth is None or truth[0] == IGNORE else np.flatnonzero(truth)
    true = "" if known is None else joined(names, known)
    among = np.arange(len(names)) if not asked.truly else known if known is not None else np.arange(0)
    best = (
        asked.index
        if asked.index is not None
        else int(among[prediction.scores[among].argmax()])
        if len(among)
        else None
    )
    return Reading(best, None if best is None else float(prediction.scores[best]), prediction.answer, true)


def _mask_of(case: Case, reading: Reading, asked: Asked) -> tuple[npt.NDArray[np.bool_] | None, str]:
    if case.mask is None:
        return None, NO_MASK
    if reading.index is None:
        return None, UNKNOWN if asked.truly else NOTHING
    mask = thing(case.mask, case.names, asked.contract.class_names[reading.index])
    if case.truth is not None and case.truth[reading.index] == 0:
        return mask, NOT_THERE
    return mask, "" if mask.any() else EMPTY


EXPLAINING: Explaining | None = Explaining(_read, _mask_of)
