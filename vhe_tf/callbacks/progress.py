"""Progress of training in one line."""

import contextlib
import time
from typing import Any

import keras

from vhe_tf import distribute
from vhe_tf._utils.progress import duration
from vhe_tf._utils.progress import status_line

__all__ = ["ProgressLine"]


class ProgressLine(keras.callbacks.Callback):
    """Shows progress in a line that rewrites itself, and one line per epoch.

    Unlike the progress bar of Keras (`verbose=0` turns that off), it fits in a
    terminal of 80 columns whatever the number of metrics, and writes a line
    each half minute to a log. The time left is that of the whole run. The
    compilation of the first step does not count in it; the end of an epoch
    does, as soon as one has been measured. The chief writes if several workers
    train.

    Example:
    >>> history = model.fit(data, steps_per_epoch=1, verbose=0,
    ...                     callbacks=[ProgressLine()])
    epoch 1/1, ...: elbo ...
    """

    reads_lazily = True

    def __init__(self) -> None:
        super().__init__()
        self._line = contextlib.ExitStack()
        self._show: Any = None
        self._epoch = 0
        self._start = 0.0
        self._last_step: float | None = None  # when it was done
        # Steps of this process but for the first of each epoch.
        self._timed_steps = 0
        self._timed_seconds = 0.0
        self._seconds_of_end: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if self._last_step is not None:
            self._seconds_of_end = now - self._last_step
        self._epoch, self._start, self._last_step = epoch, now, None
        first = not self._timed_steps
        self._begin_stage("compiling the training step" if first else "start")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if self._last_step is not None:
            self._timed_steps += 1
            self._timed_seconds += now - self._last_step
        self._last_step = now
        steps = self.params["steps"]
        if self._show is None or not steps:
            return
        taken = batch + 1
        filled = 10 * taken // steps
        self._show(
            lambda: (
                f"{self._title()} [{'=' * filled}{'.' * (10 - filled)}] "
                f"{taken}/{steps}, {self._times(steps, taken)}"
                f"{self._value(logs or {})}"
            )
        )

    def on_test_begin(self, logs: Any = None) -> None:
        self._begin_stage("validation")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._show is not None:
            self._show(f"{self._title()}: validation, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._show is None:
            return
        self.close()
        seconds = time.monotonic() - self._start
        values = ", ".join(
            f"{name} {float(value):.4g}"
            for name, value in (logs or {}).items()
            if name in ("elbo", "val_elbo", "log_likelihood")
            or name.startswith(("kl_", "accuracy_", "joint_nll"))
        )
        print(f"{self._title()}, {duration(seconds)}: {values}", flush=True)

    def close(self) -> None:
        """Clears the progress line."""
        self._line.close()
        self._show = None

    def _begin_stage(self, name: str) -> None:
        if distribute.is_chief(self.model.distribute_strategy):
            self._line.close()
            stage = status_line(f"{self._title()}: {name}")
            self._show = self._line.enter_context(stage)

    def _times(self, steps: int, taken: int) -> str:
        """Returns the rate, and the time left for the whole run."""
        if not self._timed_seconds:
            return ""
        rate = self._timed_steps / self._timed_seconds
        epochs = self.params["epochs"] - self._epoch
        left = (epochs * steps - taken) / rate
        left += epochs * (self._seconds_of_end or 0.0)
        return f"{rate:.3g} steps/s, {duration(left)} left, "

    def _value(self, logs: Any) -> str:
        if "elbo" in logs:
            return f"elbo {float(logs['elbo']):.2f}"
        return f"loss {float(logs['loss']):.4g}"

    def _title(self) -> str:
        return f"epoch {self._epoch + 1}/{self.params['epochs']}"
