import io
import math
import sys

import pytest

from vhe_tf._utils import progress


class Stream(io.StringIO):
    """An error stream that is, or is not, a terminal."""

    def __init__(self, *, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


class Clock:
    """A clock that is set by hand, as if the machine had just started."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setitem(progress._last_time, False, -math.inf)
    return clock


def stream(monkeypatch, *, terminal):
    made = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", made)
    return made


CLEAR = "\r\033[K"


def test_on_a_terminal_the_line_rewrites_itself_and_goes(monkeypatch, clock):
    stderr = stream(monkeypatch, terminal=True)
    with progress.status_line() as show:
        show("one of two")
        clock.now += 1.0
        show("two of two")
        # The cursor goes back: what others write does not begin behind it.
        assert stderr.getvalue() == f"{CLEAR}one of two\r{CLEAR}two of two\r"
    assert stderr.getvalue().endswith(f"two of two\r{CLEAR}")
    assert "\n" not in stderr.getvalue()


def test_on_a_terminal_the_line_is_not_rewritten_all_the_time(
    monkeypatch, clock
):
    stderr = stream(monkeypatch, terminal=True)
    with progress.status_line() as show:
        for index in range(1000):
            clock.now = index / 1000
            show(f"task {index}")
    # One each fifth of a second, and the end.
    assert stderr.getvalue().count(CLEAR) == 5 + 1


def test_a_log_gets_one_whole_line_each_half_minute(monkeypatch, clock):
    stderr = stream(monkeypatch, terminal=False)
    with progress.status_line() as show:
        for second in range(100):
            clock.now = float(second)
            show(f"second {second}")
    assert stderr.getvalue().splitlines() == [
        "second 0",
        "second 30",
        "second 60",
        "second 90",
    ]
    assert "\033" not in stderr.getvalue()


def test_lines_that_follow_one_another_share_the_half_minute_of_a_log(
    monkeypatch, clock
):
    stderr = stream(monkeypatch, terminal=False)
    for second in range(0, 70, 7):
        clock.now = float(second)
        with progress.status_line() as show:
            show(f"second {second}")
    assert stderr.getvalue().splitlines() == [
        "second 0",
        "second 35",
    ]


def test_on_a_terminal_the_first_text_of_a_line_is_shown(monkeypatch, clock):
    stderr = stream(monkeypatch, terminal=True)
    for stage in ("training", "validation"):
        with progress.status_line(stage):
            assert stderr.getvalue().endswith(f"{stage}\r")


@pytest.mark.parametrize("terminal", [True, False])
def test_errors_pass_and_leave_no_line_behind(monkeypatch, clock, terminal):
    stderr = stream(monkeypatch, terminal=terminal)

    def fail():
        with progress.status_line() as show:
            show("half way")
            raise ValueError("no such class")

    with pytest.raises(ValueError, match="no such class"):
        fail()
    assert stderr.getvalue() == (
        f"{CLEAR}half way\r{CLEAR}" if terminal else "half way\n"
    )


def test_nothing_to_show_writes_nothing_in_a_log(monkeypatch, clock):
    stderr = stream(monkeypatch, terminal=False)
    with progress.status_line():
        pass
    assert stderr.getvalue() == ""


def test_a_text_is_made_only_if_it_is_shown(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_last_time", {True: -math.inf, False: 0.0})
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1.0)
    made = []

    def text():
        made.append(1)
        return "a step"

    with progress.status_line() as show:
        show(text)
        assert not made  # within half a minute of the line before
        monkeypatch.setattr(progress.time, "monotonic", lambda: 100.0)
        show(text)
    assert made == [1]
    assert "a step" in capsys.readouterr().err
