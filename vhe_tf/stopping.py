"""SIGTERM as a request, to be met at the next good moment."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

__all__ = ["stop_at_once", "stop_requests"]


def stop_at_once() -> None:
    """From now on SIGTERM ends the program, with status 0.

    For what comes before and after training, and is done again by the same
    command. Call it in the main thread.
    """

    def stop(*_: Any) -> None:
        # Not `print`, within which the signal may have come.
        with contextlib.suppress(OSError):  # nobody reads any more
            os.write(1, b"\nStopped on request; the same command goes on.\n")
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Takes SIGTERM for a request, and yields what says whether it has come.

    What was to happen on SIGTERM before happens again afterwards. Only the
    main thread can change that: in another one nothing changes, and no request
    is ever seen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came = False

    def note(*_: Any) -> None:
        # Nothing that locks: another signal may come within this very call.
        nonlocal came
        came = True

    earlier = signal.signal(signal.SIGTERM, note)
    # Or a file that is being written, on some file systems, would fail.
    signal.siginterrupt(signal.SIGTERM, False)
    try:
        yield lambda: came
    finally:
        # None: whoever set it was not Python, and cannot be given it back.
        signal.signal(
            signal.SIGTERM, signal.SIG_DFL if earlier is None else earlier
        )
