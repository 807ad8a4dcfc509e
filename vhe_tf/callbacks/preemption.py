"""Stopping on request: SIGTERM and Ctrl-C."""

import contextlib
import os
import signal
import threading
from typing import Any

import keras

from vhe_tf.errors import StoppedOnRequest

__all__ = ["Preemption", "stop_at_once"]

_STOPPING = b"\r\033[KStopping soon. Ctrl-C again stops at once.\r"


def stop_at_once() -> None:
    """Makes SIGTERM and Ctrl-C end the program with status 0 from now on.

    For what comes before and after training, and is done again by the same
    command. Call it in the main thread.

    Example:
    >>> numbers = signal.SIGTERM, signal.SIGINT
    >>> earlier = [signal.getsignal(number) for number in numbers]
    >>> stop_at_once()
    >>> try:
    ...     signal.raise_signal(signal.SIGTERM)
    ... except SystemExit as stopped:
    ...     stopped.code
    0
    >>> for number, handler in zip(numbers, earlier):
    ...     _ = signal.signal(number, handler)
    """

    def stop(*_: Any) -> None:
        # Not `print`, within which the signal may have come.
        with contextlib.suppress(OSError):  # nobody reads any more
            os.write(1, b"\nStopped on request. The same command resumes.\n")
        raise SystemExit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


class Preemption(keras.callbacks.Callback):
    """Stops training between two steps on SIGTERM or the first Ctrl-C.

    `fit` then raises `StoppedOnRequest`, a `SystemExit` of status 0. With
    `ExactResume` among the callbacks it first saves a checkpoint of the very
    step. A second Ctrl-C interrupts at once. If several workers train, all
    stop at the same step as soon as one of them is asked to. Outside of the
    main thread, which alone can handle signals, it does nothing.

    Attributes:
        requested: Boolean. Whether this process was asked to stop.

    Raises:
        StoppedOnRequest: By `fit`, if a signal came.

    Example:
    >>> stop = Preemption()
    >>> history = model.fit(data, steps_per_epoch=1, verbose=0,
    ...                     callbacks=[stop])
    >>> stop.requested
    False
    """

    reads_lazily = True

    def __init__(self) -> None:
        super().__init__()
        self.requested = False
        self._earlier: dict[signal.Signals, Any] = {}

    def open(self) -> None:
        """Handles the signals from now on; `fit` calls it."""
        if threading.current_thread() is not threading.main_thread():
            return
        self.close()
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            self._earlier[number] = signal.signal(number, self._request)
            # Or a file that is being written, on some file systems, would fail.
            signal.siginterrupt(number, False)

    def close(self) -> None:
        """Lets the signals do again what they did before."""
        for number in list(self._earlier):
            self._give_back(number)

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._earlier:
            self.open()  # in the `fit` of other models

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._stop_if_asked()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._stop_if_asked()

    def on_train_end(self, logs: Any = None) -> None:
        self.close()

    def _stop_if_asked(self) -> None:
        if getattr(self.model, "preempted", self.requested):
            if not hasattr(self.model, "preempted"):
                # `fit` of a VHE saves first, and takes further requests.
                self.close()
            raise StoppedOnRequest

    def _request(self, number: int, frame: Any) -> None:
        # Nothing that locks: another signal may come within this very call.
        self.requested = True
        if number == signal.SIGINT:
            # The next one interrupts.
            self._give_back(signal.SIGINT)
            if os.isatty(2):  # the next line of progress rewrites it
                with contextlib.suppress(OSError):
                    os.write(2, _STOPPING)

    def _give_back(self, number: signal.Signals) -> None:
        earlier = self._earlier.pop(number, None)
        # None: whoever set it was not Python, and cannot be given it back.
        signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
