"""A segmenter's pictures: examples with their errors, and the report as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from leakdet_tf.analysis.figures import INK, MUTED
from leakdet_tf.core.confusion_matrix import ratios
from leakdet_tf.core.contract import Contract
from leakdet_tf.core.labels import Labelling
from leakdet_tf.core.records import Mask, Sample
from leakdet_tf.core.tasks.segment import paint, score, viewable


def examples(
    samples: Sequence[Sample],
    answers: Sequence[Mask],
    contract: Contract,
    title: str,
    labelling: Labelling | None = None,
) -> Figure:
    """Rows of picture, truth, prediction and errors, with the classes' legend."""
    labelling = labelling or Labelling(len(contract.classes))
    count = len(samples)
    figure = Figure(figsize=(9.2, 2.35 * count + 0.8), layout="constrained")
    axes = figure.subplots(count, 4, squeeze=False)
    for row, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        truth = sample.truth if sample.truth is not None else np.full(answer.size, 255, np.uint8)
        found = ratios(score(truth, answer, contract, labelling), labelling.members)["mean_iou"]
        panels = (viewable(sample.images[contract.primary]), paint(truth, contract), paint(answer.labels, contract))
        for axis, panel in zip(axes[row], (*panels, _errors(truth, answer, labelling)), strict=True):
            axis.imshow(panel, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        axes[row][0].set_ylabel(_short(sample.id), fontsize=7, color=MUTED)
        axes[row][3].set_xlabel(f"mean IoU {found:.3f}", fontsize=7, color=MUTED)
    for axis, head in zip(axes[0], ("picture", "truth", "prediction", "errors"), strict=True):
        axis.set_title(head, fontsize=9, color=INK)
    figure.legend(handles=_legend(contract, labelling), loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure


def page(found: dict[str, Any], contract: Contract) -> Figure:
    """A report as one picture: confusion matrix by rows of the truth, and IoU per class with intervals."""
    names, labels = found["classes"], found["labels"]
    figure = Figure(figsize=(9.2, 3.4 + 0.25 * len(labels)), layout="constrained")
    left, right = figure.subplots(1, 2)
    counts = np.array(found["confusion"], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    left.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        left.text(
            column, row, f"{share:.1%}", ha="center", va="center", color="white" if share > 0.5 else INK, fontsize=8
        )
    left.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    left.set_yticks(range(len(labels)), labels, fontsize=8)
    left.set_xlabel("prediction")
    left.set_ylabel("truth")
    left.set_title("share of each true class", fontsize=9)
    _bars(right, found, contract)
    where = f"{found['kind']} on {found['split']} of {found['data']}: {found['pictures']} pictures"
    figure.suptitle(where, fontsize=10, color=INK)
    return figure


def _bars(axis: Any, found: dict[str, Any], contract: Contract) -> None:
    labels = [*found["classes"], "mean"]
    figures = [*(found["metrics"]["iou"][name] for name in found["classes"]), found["metrics"]["mean_iou"]]
    colors = [*(item.color or MUTED for item in contract.classes), INK]
    for place, (figure, color) in enumerate(zip(figures, colors, strict=True)):
        if figure["value"] is None:
            axis.text(0.01, place, "absent", va="center", fontsize=8, color=MUTED)
            continue
        axis.barh(place, figure["value"], color=color, alpha=0.8, height=0.6)
        text = f"{figure['value']:.3f}"
        if figure["low"] is not None:
            axis.plot([figure["low"], figure["high"]], [place, place], color=INK, linewidth=1.2, marker="|")
            text += f" [{figure['low']:.3f}, {figure['high']:.3f}]"
        axis.text(0.02, place + 0.42, text, va="center", fontsize=7, color=INK)
    axis.set_yticks(range(len(labels)), labels, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_title(f"IoU, {found['intervals']['confidence']:.0%} intervals", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _errors(truth: npt.NDArray[np.uint8], answer: Mask, labelling: Labelling) -> npt.NDArray[np.uint8]:
    """White where the prediction is what the truth allows, red where not, grey where the truth is ignored."""
    allowed = np.ones((256, labelling.classes), np.bool_)
    allowed[: labelling.count] = labelling.members
    picture = np.full((*truth.shape, 3), 255, np.uint8)
    picture[~allowed[truth, answer.labels]] = (200, 30, 30)
    picture[truth == 255] = (190, 190, 190)
    return picture


def _legend(contract: Contract, labelling: Labelling) -> list[Patch]:
    patches = [Patch(facecolor=item.color or "#000000", label=item.name) for item in contract.classes]
    patches += [
        Patch(facecolor="#404040", label=name)
        for name in labelling.names(contract.class_names)[len(contract.classes) :][:1]
    ]
    patches.append(Patch(facecolor="#c81e1e", label="wrong"))
    patches.append(Patch(facecolor="white", edgecolor=MUTED, label="right"))
    return [*patches, Patch(facecolor="#bebebe", label="ignored")]


def _short(text: str) -> str:
    return text if len(text) <= 24 else "…" + text[-23:]
