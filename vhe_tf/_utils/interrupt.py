"""The end of a command at Ctrl-C."""

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["exit_on_interrupt"]

# The status that a shell expects of a program that Ctrl-C ended.
_INTERRUPTED = 130


@contextlib.contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Ends the program with one line at Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as error:
        print("\nInterrupted. No file is left half written.", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from error
