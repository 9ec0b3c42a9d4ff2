"""The signals that end training: Ctrl-C by a user, SIGTERM or SIGUSR1 by a scheduler that wants its machine back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

AGAIN = 75
"""Exit status of a run that was told to end and can be resumed: EX_TEMPFAIL of sysexits.h."""
_TERMINATIONS = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
_ONE_REQUEST = 1.0  # seconds in which a process may get a signal twice: from the scheduler and from its own shell
_Handler = Callable[[int, Any], None]


class InterruptedTraining(Exception):
    """Ctrl-C was pressed once, or SIGTERM came: the step is finished and nothing more should be started."""


class Interrupt:
    """Whether Ctrl-C was pressed (``pressed``), or SIGTERM or SIGUSR1 came (``terminated``).

    A second Ctrl-C raises KeyboardInterrupt where it hits. A second of the others, a second or more after the first,
    leaves at once with :data:`AGAIN`; what comes sooner is the same request, passed on by a shell.
    """

    def __init__(self) -> None:
        self.pressed = self.terminated = False
        self._since = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs."""
        with _handled({signal.SIGINT: self._press, **dict.fromkeys(_TERMINATIONS, self._terminate)}):
            yield

    def _press(self, number: int, frame: Any) -> None:
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    def _terminate(self, number: int, frame: Any) -> None:
        if not self.terminated:
            self.terminated, self._since = True, monotonic()
        elif monotonic() - self._since >= _ONE_REQUEST:
            raise SystemExit(AGAIN)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """While the block runs, SIGTERM and SIGUSR1 leave it by SystemExit with :data:`AGAIN`."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(AGAIN)

    with _handled(dict.fromkeys(_TERMINATIONS, leave)):
        yield


@contextmanager
def _handled(handlers: dict[int, _Handler]) -> Iterator[None]:
    # Outside the main thread Python allows no handlers, and nothing changes.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
