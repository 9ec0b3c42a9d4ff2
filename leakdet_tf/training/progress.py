"""Progress of long work: a Rich bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from time import monotonic
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
_PLAIN_EVERY_S = 10.0


class Bar(AbstractContextManager["Bar"]):
    """One task of ``total`` units, of which ``done`` were finished before.

    Off a terminal it prints a line every ten seconds, and one at the end unless ``final_line`` is off.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        unit: str = "pictures",
        final_line: bool = True,
        done: int = 0,
        console: Console | None = None,
    ) -> None:
        self._final_line = final_line
        self._console = console or Console(file=sys.stderr)
        self._label, self._total, self._unit = label, total, unit
        self._before = self._done = done
        self._note = ""
        self._start = self._said = monotonic()
        self._rich: Progress | None = None
        if self._console.is_terminal:
            self._rich = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                TimeRemainingColumn(),
                console=self._console,
                transient=False,
            )
            self._task = self._rich.add_task(label, total=total, completed=done, note="")

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self._done - self._before) / max(monotonic() - self._start, 1e-9)

    def __enter__(self) -> Bar:
        self._start = self._said = monotonic()
        if self._rich:
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich:
            self._rich.stop()
        elif kind is None and self._final_line:
            self._say()

    def update(self, done: int, note: str = "") -> None:
        """Say that ``done`` units are finished; ``note`` stands behind the rate."""
        self._done, self._note = done, note
        if self._rich:
            text = f"{self.rate:.1f} {self._unit}/s {note}".strip()
            self._rich.update(self._task, completed=done, note=text)
        elif done < self._total and monotonic() - self._said >= _PLAIN_EVERY_S:
            self._say()

    def _say(self) -> None:
        self._said = monotonic()
        left = (self._total - self._done) / max(self.rate, 1e-9)
        tail = f", {left:.0f} s left" if self._done < self._total else ""
        note = f"  {self._note}" if self._note else ""
        self._console.print(
            f"{self._label}  {self._done}/{self._total} {self._unit}  {self.rate:.1f}/s{tail}{note}",
            highlight=False,
            markup=False,  # a folder may be called [red]
            emoji=False,
            soft_wrap=True,
        )


def track(work: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Pass ``work`` through with a bar that advances by one an item."""
    with Bar(label, total) as bar:
        for done, item in enumerate(work, start=1):
            yield item
            bar.update(min(done, total))
