"""One line of progress that rewrites itself, for long evaluations."""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator

__all__ = ["duration", "status_line"]

_SECONDS_BETWEEN = {True: 0.2, False: 30.0}  # on a terminal, in a log
# When a line was last shown.
_last_time = {True: -math.inf, False: -math.inf}


@contextlib.contextmanager
def status_line(
    stage: str = "",
) -> Iterator[Callable[[str | Callable[[], str]], None]]:
    """Yields a function that shows a line of text in place of the last one.

    It takes the text, or a function that makes it, which is called if the text
    is shown.

    On a terminal the line rewrites itself; its first text is shown at once,
    and what others write meanwhile begins at the start of the line. In a log
    one line is written every half minute, whatever the number of status lines
    that follow one another.

    Args:
        stage: String. The first text. Defaults to none.
    """
    terminal = sys.stderr.isatty()
    _last_time[True] = -math.inf

    def show(text: str | Callable[[], str]) -> None:
        now = time.monotonic()
        if now - _last_time[terminal] < _SECONDS_BETWEEN[terminal]:
            return
        _last_time[terminal] = now
        if callable(text):
            text = text()
        if terminal:
            sys.stderr.write(f"\r\033[K{text}\r")
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    try:
        if stage:
            show(stage)
        yield show
    finally:
        if terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """Returns a duration for a person.

    Example:
    >>> [duration(seconds) for seconds in (8.6, 312, 9000)]
    ['9 s', '5 min 12 s', '2 h 30 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
