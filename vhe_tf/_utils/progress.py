"""One line of progress that rewrites itself, for long evaluations."""

import contextlib
import math
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator

__all__ = ["status_line"]

_SECONDS_BETWEEN = {True: 0.2, False: 30.0}  # on a terminal, in a log


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a line of text in place of the last one.

    On a terminal the line rewrites itself; in a log one line is written every
    half minute.
    """
    terminal = sys.stderr.isatty()
    last_time = -math.inf

    def show(text: str) -> None:
        nonlocal last_time
        now = time.monotonic()
        if now - last_time < _SECONDS_BETWEEN[terminal]:
            return
        last_time = now
        if terminal:
            sys.stderr.write(f"\r\033[K{text}")
        else:
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    try:
        yield show
    finally:
        if terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
