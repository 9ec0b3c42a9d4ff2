"""A contact sheet of pairs of pictures, for the eye to decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from leakdet_tf.core.images import Pixels
from leakdet_tf.core.tasks.segment import viewable

_INK, _MUTED = "#222222", "#888888"
_ACROSS = 3  # pairs in a row


@dataclass(frozen=True, eq=False)
class Twins:
    """Two pictures (H, W, C) with a name each, and what is said of the pair."""

    first: Pixels
    second: Pixels
    names: tuple[str, str]
    note: str


def sheet(pairs: Sequence[Twins], title: str) -> Figure:
    """Pairs side by side, three in a row, each picture with its name and each pair with its note."""
    rows = -(-len(pairs) // _ACROSS)
    figure = Figure(figsize=(3.9 * _ACROSS, 2.25 * rows + 0.5), layout="constrained")
    parts = figure.subfigures(rows, _ACROSS, squeeze=False, wspace=0.04).ravel()
    for part, pair in zip(parts, pairs, strict=False):
        for axis, image, name in zip(part.subplots(1, 2), (pair.first, pair.second), pair.names, strict=True):
            axis.imshow(viewable(image), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(_short(name), fontsize=6.5, color=_MUTED, parse_math=False)
        part.suptitle(pair.note, fontsize=7.5, color=_INK, parse_math=False)
    figure.suptitle(title, fontsize=10, color=_INK, parse_math=False)
    return figure


def _short(text: str) -> str:
    return text if len(text) <= 30 else "…" + text[-29:]
