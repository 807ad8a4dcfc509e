"""Progress of training in one line."""

import contextlib
import time
from typing import Any

import keras

from vhe_tf import distribute
from vhe_tf._utils.progress import status_line

__all__ = ["ProgressLine"]


class ProgressLine(keras.callbacks.Callback):
    """Shows progress in a line that rewrites itself, and one line per epoch.

    Unlike the progress bar of Keras (`verbose=0` turns that off), it fits in a
    terminal of 80 columns whatever the number of metrics, and writes a line
    each half minute to a log. The chief writes if several workers train.

    Example:
    >>> import numpy as np
    >>> import vhe_tf
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> model.compile("adam")
    >>> images, labels = np.zeros((20, 8, 8, 1), "float32"), np.arange(20) // 5
    >>> history = model.fit(images, labels, steps_per_epoch=1, verbose=0,
    ...     callbacks=[vhe_tf.callbacks.ProgressLine()])  # doctest: +ELLIPSIS
    epoch 1/1, ... s: elbo ...
    """

    def __init__(self) -> None:
        super().__init__()
        self._line = contextlib.ExitStack()
        self._show: Any = None
        self._epoch = 0
        self._taken_before = -1
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._taken_before = -1
        self._start = time.monotonic()
        if distribute.is_chief(self.model.distribute_strategy):
            self._show = self._line.enter_context(status_line())
            self._show(f"{self._title()}: starting")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._taken_before < 0:
            self._taken_before = batch  # by the process that was resumed

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        steps = self.params["steps"]
        if self._show is None or not steps:
            return
        taken = batch + 1
        seconds = time.monotonic() - self._start
        left = (steps - taken) * seconds / (taken - self._taken_before)
        filled = 20 * taken // steps
        self._show(
            f"{self._title()} [{'=' * filled}{'.' * (20 - filled)}] "
            f"{taken}/{steps}, {left:.0f} s left, "
            f"{self._value(logs or {})}"
        )

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
        print(f"{self._title()}, {seconds:.0f} s: {values}", flush=True)

    def close(self) -> None:
        """Leaves the line to others."""
        self._line.close()
        self._show = None

    def _value(self, logs: Any) -> str:
        if "elbo" in logs:
            return f"ELBO {float(logs['elbo']):.2f}"
        return f"loss {float(logs['loss']):.4g}"

    def _title(self) -> str:
        return f"epoch {self._epoch + 1}/{self.params['epochs']}"
