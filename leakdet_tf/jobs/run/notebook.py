"""Results as a notebook shows them: a table and a few pictures, as one piece of HTML that needs no file beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

WIDEST_PX = 900


def shown(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], pictures: Iterable[Path] = ()) -> str:
    """A title, a table and PNG files that are there, as HTML; text is escaped."""
    parts = [f"<p><b>{escape(title)}</b></p><table><tr>{_cells('th', head)}</tr>"]
    parts += [f"<tr>{_cells('td', row)}</tr>" for row in rows]
    parts.append("</table>")
    for path in pictures:
        if path.suffix == ".png" and path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            style = f"max-width: min(100%, {WIDEST_PX}px)"
            parts.append(f'<img src="data:image/png;base64,{data}" alt="{escape(path.name)}" style="{style}">')
    return "\n".join(parts)


def figure_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The figures of a report's ``metrics``: name, value and bounds; those of classes by ``name: class``."""
    rows = []
    for name, found in metrics.items():
        if isinstance(found, Mapping) and "value" in found:
            rows.append((name, *(_number(found.get(key)) for key in ("value", "low", "high"))))
        elif isinstance(found, Mapping):
            rows += [(f"{name}: {inner}", *rest) for inner, *rest in figure_rows(found)]
    return rows  # type: ignore[return-value]  # the star hides how many there are


def _cells(kind: str, values: Sequence[Any]) -> str:
    return "".join(f"<{kind}>{escape(str(value))}</{kind}>" for value in values)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
