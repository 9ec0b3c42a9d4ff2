"""``leakdet-tf synth filter``: of rendered pictures those in which a classifier of real ones sees their own label.

What was planted to measure the filter (:func:`plant`, :func:`quality`) never reaches the folder that is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leakdet_tf.analysis.stats.significance import wilson
from leakdet_tf.config.data import Input, Source
from leakdet_tf.config.fields import SPLITS
from leakdet_tf.config.loading import load
from leakdet_tf.config.schema import Experiment
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.errors import ConfigError, ContractError, DataError, ImageError, LeakdetError
from leakdet_tf.core.tasks import classify, task_named, task_of
from leakdet_tf.data.items import Item, pair_up
from leakdet_tf.data.readers import truth_tables
from leakdet_tf.edge.predictor import Predictor
from leakdet_tf.jobs.run.filtered import Judged, Scores, chance, prepare, table_of, write
from leakdet_tf.jobs.run.runs import Log, Opened, open_model
from leakdet_tf.synth.folder.writer import LABELS, MANIFEST, read_manifest
from leakdet_tf.training.progress import track

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Where the filter is measured with planted labels, besides the threshold that was asked for."""
CONFIDENCE = 0.95

Words = Mapping[str, tuple[int, ...]]
Listed = Mapping[str, tuple[Sequence[Item], Sequence[tuple[Path, str]]]]
"""By split, what its table names: pictures, and files that are not there, with their labels."""


@dataclass(frozen=True, eq=False)
class Filtered:
    """The new folder, how many pictures it holds and how many it lacks, and the report on planted labels if asked."""

    folder: Path
    kept: int
    dropped: int
    planted: dict[str, Any] | None


def filter_pictures(
    root: str,
    *,
    experiment: str | None,
    run: str | None,
    threshold: float,
    out: str | None,
    share: float | None,
    seed: int,
    overrides: Sequence[str],
    log: Log,
) -> Filtered:
    """Write a folder of those rendered pictures whose own label the model finds likely enough; see :mod:`.sieve`.

    Args:
        root: a rendered folder with labels.
        experiment: an experiment of a classifier, which is trained now.
        run: in its place a finished run or a bundle.
        threshold: least probability of a picture's own label.
        out: the folder to make; None puts it beside ``root`` with ``_filtered`` behind its name.
        share: also measure the filter: so large a share of the pictures is given a wrong label, in memory alone.
        seed: which pictures these are, and which labels.
        overrides: ``table.key=value`` for the experiment.
        log: takes lines for the user.

    Raises:
        LeakdetError: an argument is wrong, ``root`` is no rendered folder with labels, ``out`` holds something, the
            model is no classifier of one picture, or not one picture is kept.
    """
    _check(experiment, run, threshold, share, overrides)
    place = Path(root)
    target = Path(out) if out else place.parent / f"{place.resolve().name}_filtered"
    listed, manifest = _listed(place), read_manifest(place / MANIFEST, "filter a folder that was rendered")
    prepare(target, place)
    opened, settings = _model(experiment, run, overrides, log)
    contract = opened.predictor.contract
    words = words_of(contract, settings)
    total = sum(len(items) + len(missing) for items, missing in listed.values())
    judged = list(track(judge(place, listed, opened.predictor, words), "judging", total))
    chances = np.array([chance(one) for one in judged], np.float32)
    kept = chances >= np.float32(threshold)  # a picture without a chance, NaN, is not
    report = None
    if share is not None:
        report = quality(judged, contract, threshold=threshold, share=share, seed=seed)
        for line in lines(report):
            log(line)
    for line in _counts(judged, kept):
        log(line)
    if not kept.any():
        best = f"the likeliest has {np.nanmax(chances):.2f}" if not np.isnan(chances).all() else judged[0].fault
        raise DataError(
            f"{root}: none of {len(judged)} pictures is kept at {threshold:g} ({best})",
            remedy="lower --threshold, or look at the pictures and at the model's metrics",
        )
    write(target, place, judged, chances, kept, contract, manifest=manifest, threshold=threshold, planted=report)
    number = int(kept.sum())
    return Filtered(target, number, len(judged) - number, report)


def _check(
    experiment: str | None, run: str | None, threshold: float, share: float | None, overrides: Sequence[str]
) -> None:
    if (experiment is None) == (run is None):
        raise ConfigError("synth filter: needs a model", remedy="give --experiment FILE to train one, or --run RUN")
    if run is not None and overrides:
        raise ConfigError("--set: a run is trained already", remedy="leave it out, or give --experiment")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold {threshold}: is no probability", remedy="0.4 is the usual one")
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"--plant {share}: is no share of the pictures", remedy="such as 0.2")


def _model(experiment: str | None, run: str | None, overrides: Sequence[str], log: Log) -> tuple[Opened, Any]:
    if run is None:
        assert experiment is not None
        if task_named(load(experiment, overrides).task.kind) is not classify:
            raise ConfigError(f"{experiment}: trains no classifier", remedy='set task.kind = "classify"')
        from leakdet_tf.jobs.fit import fit

        done = fit(experiment, overrides, log=log)
        if done.interrupted or done.terminated:
            raise LeakdetError(f"{done.folder}: its training was cut short", remedy="train again, then give --run")
        run = str(done.folder)
    opened = open_model(run)
    if opened.note:
        log(opened.note)
    contract = opened.predictor.contract
    if task_of(contract) is not classify or len(contract.inputs) != 1:
        raise ConfigError(f"{run}: is no classifier of single pictures", remedy="give one")
    if opened.experiment is None:
        return opened, None
    _warn(opened.experiment.with_name("data.json"), log)
    return opened, load(opened.experiment)


def _warn(path: Path, log: Log) -> None:
    # A model that learned from rendered pictures finds them likely.
    if path.is_file():
        learned = json.loads(path.read_text(encoding="utf-8"))["train"]
        if learned["rendered"]:
            log(f"warning: {learned['rendered']} of {learned['pictures']} pictures that the model learned are rendered")


def words_of(contract: Contract, settings: Experiment | None) -> dict[str, tuple[int, ...]]:
    """What words mean to a model, as class indices: its classes' names, then what the experiment's values say."""
    found: dict[str, tuple[int, ...]] = {name: (index,) for index, name in enumerate(contract.class_names)}
    if settings is not None:
        for known in truth_tables(settings.data, contract.class_names).values():
            if isinstance(known, tuple):
                found = {**known[0], **found}
    return found


def _listed(root: Path) -> Listed:
    found: dict[str, tuple[list[Item], list[tuple[Path, str]]]] = {}
    source = Source(name="rendered", root=str(root), labels=LABELS)
    for split in [name for name in SPLITS if (root / name / LABELS).is_file()]:
        head, *rows = table_of(root / split) or [[]]
        found[split] = [], []
        if rows:
            items, odd = pair_up(root / split, source, {"image": Input(size=[1, 1])})
            cells = [dict(zip(head, row, strict=False)) for row in rows]
            labels = {root / split / one["file"].strip(): one.get("label", "") for one in cells}
            found[split] = items, [(path, labels[path]) for _, path in odd]
    if not any(items or missing for items, missing in found.values()):
        what = "lists no pictures" if found else "is no rendered folder with labels"
        raise DataError(f"{root}: {what}", remedy=f"its train, val and test folders need a {LABELS}")
    return found


def judge(root: Path, listed: Listed, predictor: Predictor, words: Words) -> Iterator[Judged]:
    """Every listed picture with the model's scores, or with what stands in their way.

    Raises:
        ContractError: the model's output is no set of probabilities.
    """
    contract = predictor.contract
    for split, (items, missing) in listed.items():
        for path, label in missing:
            key = path.relative_to(root / split).with_suffix("").as_posix()
            yield Judged(split, key, path.relative_to(root).as_posix(), label, fault="missing")
        for item in items:
            (path,) = item.images.values()
            about = (split, item.id, path.relative_to(root).as_posix(), ";".join(item.words))
            if unknown := [word for word in item.words if word not in words]:
                yield Judged(*about, fault=f"the model has no class '{unknown[0]}'")
                continue
            wanted = tuple(sorted({index for word in item.words for index in words[word]}))
            if contract.activation == "softmax" and len(wanted) != 1:
                yield Judged(*about, fault=f"has {len(wanted)} labels, the model answers one")
                continue
            try:
                inputs, geometry = contract.prepare(predictor.load(path))
            except (ImageError, ContractError) as error:
                yield Judged(*about, fault=f"unreadable: {str(error.args[0]).removeprefix(f'{path}: ')}")
                continue
            answer = classify.decode(predictor.backend.run(inputs), contract, geometry)
            yield Judged(*about, wanted, answer.scores)


def plant(judged: Sequence[Judged], contract: Contract, *, share: float, seed: int) -> dict[int, int]:
    """Wrong labels for a share of the pictures that were judged: by position a class that is none of the picture's.

    Raises:
        DataError: the share is less than one picture, or some picture already has every class.
    """
    able = [i for i, one in enumerate(judged) if one.scores is not None]
    number = round(share * len(able))
    if not number:
        raise DataError(f"--plant {share:g}: is not one of {len(able)} pictures", remedy="plant more of them")
    rng = np.random.default_rng(seed)
    found = {}
    for position in sorted(rng.permutation(able)[:number].tolist()):
        others = [index for index in range(len(contract.classes)) if index not in judged[position].wanted]
        if not others:
            raise DataError(f"{judged[position].file}: has every class, so no label of it would be wrong")
        found[int(position)] = int(rng.choice(others))
    return found


def quality(
    judged: Sequence[Judged], contract: Contract, *, threshold: float, share: float, seed: int
) -> dict[str, Any]:
    """How well the filter drops pictures that were given a wrong label, as plain data for ``planted.json``.

    Precision is the share of the dropped that were planted, recall the share of the planted that were dropped; their
    bounds are Wilson's. Pictures of the generator that deserve to be dropped count against precision.
    """
    wrong = plant(judged, contract, share=share, seed=seed)
    able = [i for i, one in enumerate(judged) if one.scores is not None]
    asked = {i: (wrong[i],) if i in wrong else judged[i].wanted for i in able}
    chances = np.array([chance(judged[i], asked[i]) for i in able], np.float32)
    planted = np.array([i in wrong for i in able])
    return {
        "format": 1,
        "share": share,
        "seed": seed,
        "confidence": CONFIDENCE,
        "model": contract.id,
        "weights_sha256": contract.weights_sha256,
        "pictures": len(able),
        "planted": len(wrong),
        "at": _measured(chances, planted, threshold),
        "thresholds": [_measured(chances, planted, value) for value in THRESHOLDS],
        "labels": [
            {
                "file": judged[i].file,
                "label": judged[i].label,
                "planted": contract.class_names[wrong[i]],
                "probability": round(float(value), 6),
            }
            for i, value in zip(able, chances, strict=True)
            if i in wrong
        ],
    }


def _measured(chances: Scores, planted: npt.NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    dropped = chances < np.float32(threshold)
    hits = int((dropped & planted).sum())
    return {
        "threshold": threshold,
        "dropped": int(dropped.sum()),
        "hits": hits,
        "precision": _share(hits, int(dropped.sum())),
        "recall": _share(hits, int(planted.sum())),
    }


def _share(hits: int, number: int) -> dict[str, float | None]:
    if not number:
        return {"value": None, "low": None, "high": None}
    low, high = wilson(hits, number, CONFIDENCE)
    return {"value": hits / number, "low": low, "high": high}


def lines(report: Mapping[str, Any]) -> list[str]:
    """A report on planted labels as text: at the threshold, at every second of the others, and whether it is chance."""
    head = f"planted {report['planted']} wrong labels among {report['pictures']} pictures (seed {report['seed']}):"
    shown = [report["at"], *report["thresholds"][1::2]]
    found = [head, *(f"  below {row['threshold']:.2f}: {row['dropped']} dropped, {_said(row)}" for row in shown)]
    low = report["at"]["precision"]["low"]
    if low is None or not low > report["planted"] / report["pictures"]:
        found.append("warning: by this the filter is not shown to drop better than chance: look at the model's metrics")
    return found


def _said(row: Mapping[str, Any]) -> str:
    parts = []
    for name in ("precision", "recall"):
        found = row[name]
        known = found["value"] is not None
        parts.append(
            f"{name} {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" if known else f"no {name}"
        )
    return ", ".join(parts)


def _counts(judged: Sequence[Judged], kept: npt.NDArray[np.bool_]) -> list[str]:
    total = Counter((one.split, one.label) for one in judged)
    left = Counter((one.split, one.label) for one, inside in zip(judged, kept, strict=True) if inside)
    found = [
        f"{split}: {left[split, label]} of {number} pictures of '{label or 'none'}' kept"
        for (split, label), number in total.items()
    ]
    lost = [f"warning: {split} has no '{label or 'none'}' left" for split, label in total if not left[split, label]]
    faults = Counter(one.fault.split(":")[0] for one in judged if one.fault)
    return [*found, *(f"dropped, {fault}: {number} pictures" for fault, number in faults.items()), *lost]
