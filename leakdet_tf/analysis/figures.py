"""What the figures of every task share: how one is saved, and the curves of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from leakdet_tf.core.files import whole_file

INK, MUTED = "#222222", "#888888"
_TRAIN, _VAL = "#4c72b0", "#dd8452"
_DPI = 110
_STEEP = 20


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)


def curves(
    rows: Sequence[dict[str, float]], best_epoch: int, title: str, *, key: str = "mean_iou", called: str = "mean IoU"
) -> Figure:
    """Loss and one figure (its key, and what it is called) of training and validation by epoch, the best one marked."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    for axis, name, label in ((left, "loss", "loss"), (right, key, called)):
        if name in rows[0]:  # a detector's is not counted while it trains
            axis.plot(epochs, [row[name] for row in rows], color=_TRAIN, marker=".", label="training")
        axis.plot(epochs, [row[f"val_{name}"] for row in rows], color=_VAL, marker=".", label="validation")
        if best_epoch:
            axis.axvline(best_epoch, color=MUTED, linestyle=":", linewidth=1, label=f"best epoch ({best_epoch})")
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    right.set_ylim(0, 1)
    losses = [row[name] for row in rows for name in ("loss", "val_loss") if row[name] > 0]
    if losses and max(losses) > _STEEP * min(losses):  # a first epoch before batch norms have settled hides the rest
        left.set_yscale("log")
    left.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK)
    return figure
