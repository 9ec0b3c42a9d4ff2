"""Progress: plain lines for files and pipes, a Rich bar for people."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from leakdet_tf.training import callbacks, progress
from leakdet_tf.training.callbacks import Lines
from leakdet_tf.training.progress import Bar, track


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def plain() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=40), text


def test_plain_lines_say_rate_and_time_left(clock: Clock) -> None:
    console, text = plain()
    with Bar("reading train", 100, console=console) as bar:
        clock.now += 4
        bar.update(20)
        assert text.getvalue() == ""
        clock.now += 6
        bar.update(50, "loss 0.5")
        assert bar.rate == 5
        clock.now += 5
        bar.update(80)
        clock.now += 5
        bar.update(100)
    assert text.getvalue().splitlines() == [
        "reading train  50/100 pictures  5.0/s, 10 s left  loss 0.5",
        "reading train  100/100 pictures  5.0/s",
    ]


def test_short_work_is_one_line(clock: Clock) -> None:
    console, text = plain()
    with Bar("reading val", 3, console=console, unit="files") as bar:
        for done in range(1, 4):
            clock.now += 0.5
            bar.update(done)
    assert text.getvalue() == "reading val  3/3 files  2.0/s\n"


def test_the_last_line_can_be_left_out_and_is_left_out_after_an_error(clock: Clock) -> None:
    console, text = plain()
    with Bar("epoch 1", 3, console=console, final_line=False) as bar:
        bar.update(3)
    with pytest.raises(ValueError, match="broken"), Bar("epoch 2", 3, console=console) as bar:
        bar.update(1)
        raise ValueError("broken")
    assert text.getvalue() == ""


def test_text_is_shown_as_it_is(clock: Clock) -> None:
    console, text = plain()
    with Bar("rendering [red]/:smile:/[/x]", 1, console=console) as bar:
        bar.update(1)
    assert text.getvalue().startswith("rendering [red]/:smile:/[/x]  1/1 pictures")


def test_no_time_and_no_work_are_no_errors(clock: Clock) -> None:
    console, text = plain()
    with Bar("nothing", 0, console=console):
        pass
    with Bar("at once", 5, console=console) as bar:
        bar.update(5)
    assert text.getvalue().splitlines()[0] == "nothing  0/0 pictures  0.0/s"


@pytest.mark.parametrize("fails", [False, True])
def test_a_terminal_gets_a_bar(fails: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    try:
        with Bar("reading [train]", 4, console=console) as bar:
            for done in range(1, 5):
                bar.update(done, "loss [0.5]")
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert "reading [train]" in shown
    assert "4/4" in shown
    assert re.search(r"\d pictures/s loss \[0\.5\]", shown)


def test_track_passes_everything_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "reading test", 3)) == ["a", "b", "c"]
    err = capfd.readouterr().err
    assert err.startswith("reading test  3/3 pictures")
    # One item more than was announced, such as the finished cache, is passed on and not counted.
    assert list(track([1, 2, "cache"], "reading val", 2)) == [1, 2, "cache"]
    assert "2/2" in capfd.readouterr().err


def test_track_can_be_left_half_way(capfd: pytest.CaptureFixture[str]) -> None:
    work = track(range(10), "reading", 10)
    assert next(work) == 0
    work.close()  # type: ignore[attr-defined]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("before", "time"),
    [
        (0, "  10.0 pictures/s  waiting for data 0 %  at most 20 s left"),
        (8, "  2.0 pictures/s  waiting for data 0 %  at most 100 s left"),
        (10, ""),
    ],
)
def test_an_epoch_that_goes_on_tells_the_time_of_its_own_steps(
    before: int, time: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not that of the steps that were made before the break."""
    monkeypatch.setattr(callbacks, "monotonic", lambda: clock.now)
    said: list[str] = []
    lines = Lines(3, 100, 10, said.append, monitor="val_map", called="mAP")
    lines.begin(before)
    lines.on_train_begin()
    lines.on_epoch_begin(0)
    clock.now += 10
    for step in range(before, 10):
        lines.on_train_batch_end(step, {"loss": 1.0})
    lines.on_test_begin()
    lines.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0, "val_map": 0.5, "waiting": 0.0})
    assert said == [f"epoch 1/3  loss 1.0000  val_loss 2.0000  val mAP 0.5000{time}"]
