"""A detector's jobs: its report, its threshold, and its comparison with others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt

from leakdet_tf.analysis.detect.answers import (
    BOXES,
    Answers,
    answers_of,
    decoded,
    joined,
    load_boxes,
    measuring,
    save_boxes,
)
from leakdet_tf.analysis.detect.coco import matches
from leakdet_tf.analysis.detect.compare import compare
from leakdet_tf.analysis.detect.figures import examples, precision_recall, sheet, shown_of
from leakdet_tf.analysis.detect.metrics import Measured, averages, best_threshold, mean, quick_map
from leakdet_tf.analysis.detect.metrics import measure as measured_of
from leakdet_tf.analysis.detect.report import lines, report
from leakdet_tf.analysis.figures import save
from leakdet_tf.analysis.stats.inflation import Weights
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import DataError
from leakdet_tf.core.files import sha256_bytes, write_json
from leakdet_tf.core.records import Boxes, Sample
from leakdet_tf.data.cache import Cache
from leakdet_tf.data.items import Item
from leakdet_tf.edge.bundle import CONTRACT
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.run.data import groups_of, samples
from leakdet_tf.jobs.run.runs import Log, Opened
from leakdet_tf.jobs.tasks.protocol import Calibrating, Comparing, Evaluation, Explaining, Report, Weighted
from leakdet_tf.training.progress import track

EXAMPLES = 12
METRIC = "map50"
EXPLAINING: Explaining | None = None
THRESHOLD = "threshold.json"
_USUAL = Contract.threshold  # what a contract has before anything was chosen


def answer(
    predictor: Predictor, settings: Experiment, items: Sequence[Item], *, kind: str = "", asked: Contract | None = None
) -> Answers:
    """A detector's boxes on items, with truth, sources and groups: doubtful ones too, unless ``asked`` is the contract
    that says which.

    Raises:
        DataError: there are no items, or one cannot be read.
    """
    if not items:
        raise DataError("there are no pictures to evaluate on", remedy="check data.root and the split's name")
    asking = Predictor.over(predictor.backend, asked or measuring(predictor.contract))
    truths, found = [], []
    for sample in track(samples(settings, items), f"answering {kind}".strip(), len(items)):
        found.append(cast(Boxes, asking.predict(sample.images)))
        truths.append(replace(sample, images={name: image[:1, :1] for name, image in sample.images.items()}))
    return answers_of(truths, found, sources=tuple(item.source for item in items), groups=groups_of(settings, items))


def validation_score(contract: Contract, cache: Cache) -> Callable[[Iterable[npt.NDArray[Any]]], dict[str, float]]:
    """What training is watched by: raw outputs (A, 64 + C) of the validation pictures → ``map`` and ``map50``."""

    def score(outputs: Iterable[npt.NDArray[Any]]) -> dict[str, float]:
        rows = zip(outputs, cache.targets, strict=True)
        return quick_map(
            joined([decoded(raw[None], contract, truth[None], first=i) for i, (raw, truth) in enumerate(rows)])
        )

    return score


def measure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Measured:
    """Find boxes on every item, and compare them with the true ones."""
    # a final file has cut off what is below its threshold: the model is held to it with no more boxes than that
    asked = predictor.contract if settings.export.outputs == "final" else None
    return _measured(answer(predictor, settings, items, asked=asked), settings, predictor.contract)


def _measured(answers: Answers, settings: Experiment, contract: Contract) -> Measured:
    return measured_of(answers, settings.evaluate, seed=settings.seed, threshold=contract.threshold)


def weighted_figure(predictor: Predictor, settings: Experiment, items: Sequence[Item]) -> Weighted:
    """mAP at an IoU of one half, by how often each picture counts."""
    found = matches(answer(predictor, settings, items), overlaps=1, sizes=False)

    def map50(weights: Weights) -> Weights:
        return mean(averages(found, weights)[0][:, 0, :, 0])

    return "mAP50", map50


def write_report(asked: Evaluation) -> Report:
    """Measure an open detector on items and write ``metrics.json``, ``boxes.npz`` and pictures into ``folder``."""
    settings, items, predictor, where = asked.settings, asked.items, asked.opened.predictor, asked.where
    answers = answer(predictor, settings, items, kind=asked.opened.kind)
    measured = _measured(answers, settings, predictor.contract)
    found = report(measured, settings.evaluate, asked.about | {"contract": predictor.contract.id})
    files = [asked.folder / name for name in ("metrics.json", BOXES, "pr.png")]
    write_json(files[0], found)
    save_boxes(files[1], answers)
    save(precision_recall(measured, where), files[2])
    if chosen := measured.worst(settings.evaluate.worst):
        files.append(asked.folder / "worst.png")
        worst, primary = samples(settings, [items[i] for i in chosen]), predictor.contract.primary
        shown = [shown_of(measured, sample, place, primary) for sample, place in zip(worst, chosen, strict=True)]
        save(sheet(shown, f"most errors of {len(items)} pictures"), files[-1])
    for line in lines(found):
        asked.log(line)
    return found, files


def draw_examples(
    shown: Sequence[Sample], predictions: Sequence[Boxes], settings: Experiment, contract: Contract, title: str
) -> Any:
    """Pictures with the boxes that are there and those that were found."""
    return examples(shown, predictions, title, contract.primary)


def _choose_threshold(
    opened: Opened, settings: Experiment, items: Sequence[Item], *, threshold: float | None = None, log: Log
) -> Opened:
    """The run with a threshold of its own, the one given or that of the best F1 on ``items``, in a new contract.

    The contract is written over ``contract.json`` and names the one with the usual threshold as its parent; that one
    and what was found are kept beside it.
    """
    predictor = opened.predictor
    bare = replace(predictor.contract, threshold=_USUAL, parent=None)
    answers = answer(Predictor.over(predictor.backend, bare), settings, items, kind="validation")
    best = best_threshold(answers)
    chosen = threshold if threshold is not None else best.value
    if chosen is None:
        log(f"warning: the threshold stays {_USUAL}, for on the validation pictures {best.note}")
        chosen = _USUAL
    contract = replace(bare, threshold=round(chosen, 6))
    if contract != bare:
        contract = replace(contract, parent=bare.id)
        bare.save(opened.folder / f"contract-{bare.id}.json")
    if best.value is not None:
        log(f"F1 is best at a score of {best.value:.3f}: {best.f1:.4f} on {len(items)} validation pictures")
    if threshold is not None:
        log(f"boxes are shown from a score of {threshold:g}, as asked for")
    contract.save(opened.folder / CONTRACT)
    write_json(
        opened.folder / THRESHOLD,
        {
            "format": 1,
            "contract": contract.id,
            "parent": contract.parent,
            "threshold": contract.threshold,
            "best": {"threshold": best.value, "f1": best.f1, "note": best.note},
            "asked": threshold,
            "pictures": len(items),
        },
    )
    return replace(opened, predictor=Predictor.over(predictor.backend, contract))


CALIBRATING: Calibrating | None = Calibrating(_choose_threshold, threshold=True)


def _load(folder: Path, found: Mapping[str, Any]) -> Answers:
    answers = load_boxes(folder / BOXES)
    digest = sha256_bytes("\n".join(answers.ids).encode())
    if found.get("classes") != list(answers.classes) or found.get("ids_sha256") != digest:
        raise DataError(f"{folder}: metrics.json and {BOXES} are not of one evaluation", remedy="run evaluate again")
    return answers


COMPARING: Comparing | None = Comparing("map50", _load, compare)
