"""The model with the best validation ELBO."""

import os
import pathlib
from typing import Any

import keras
import numpy as np

from vhe_tf import distribute
from vhe_tf._utils import atomic_io
from vhe_tf.errors import NonFiniteLossError
from vhe_tf.models import _reloading
from vhe_tf.optimizers import ema_weights

__all__ = ["BestModel"]


class BestModel(keras.callbacks.Callback):
    """Saves the model whenever a metric of the epoch is the highest so far.

    Unlike `keras.callbacks.ModelCheckpoint`, it saves the EMA weights if the
    optimizer keeps them, writes the file atomically, and remembers the best
    value when `ExactResume` resumes the run.

    Args:
        path: Path. The `.keras` file. It holds what inference needs: neither
            optimizer nor training settings.
        monitor: String. Name of a metric in the logs of an epoch, higher being
            better. Defaults to `"val_elbo"`.

    Attributes:
        best: Float. The highest value so far.

    Raises:
        NonFiniteLossError: By `fit`, if the metric is NaN.
        NotWrittenError: By `fit`, if the file cannot be written.
        ValueError: By `fit`, if the logs lack the metric; before the first
            step, if the model would not compute the same when it is saved and
            loaded again: a layer of your own needs `get_config`, and its class
            `@keras.saving.register_keras_serializable()`.

    Example:
    >>> import tempfile
    >>> best = BestModel(pathlib.Path(tempfile.mkdtemp(), "best.keras"))
    >>> history = model.fit(data, validation_data=data, validation_steps=1,
    ...                     steps_per_epoch=1, verbose=0, callbacks=[best])
    >>> best.path.exists()
    True
    """

    def __init__(
        self, path: str | os.PathLike[str], *, monitor: str = "val_elbo"
    ) -> None:
        super().__init__()
        self.path = pathlib.Path(path).expanduser()
        self.monitor = monitor
        self.best = -np.inf
        self._copy: Any = None

    def get_state(self) -> float | None:
        """Returns what a resumed run needs to know."""
        return float(self.best) if np.isfinite(self.best) else None

    def set_state(self, state: float | None) -> None:
        """Restores what `get_state` returned."""
        self.best = -np.inf if state is None else float(state)

    def on_train_begin(self, logs: Any = None) -> None:
        if distribute.is_chief(self.model.distribute_strategy):
            self._copy = _reloading.reloaded(self.model)
            atomic_io.check_room(self.path.parent)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"BestModel monitors {self.monitor!r}, which the logs of this "
                "epoch lack. Pass `validation_data` to `fit`, or another "
                f"`monitor`. Received: {sorted(logs or {})}."
            )
        value = float(logs[self.monitor])
        if np.isnan(value):  # no value would ever be better
            raise NonFiniteLossError(
                f"{self.monitor} is NaN after epoch {epoch + 1}. Lower the "
                "learning rate or the clipping norm, and use another folder."
            )
        if value <= self.best:
            return
        with ema_weights(self.model):
            _reloading.update(self._copy, self.model)
        with atomic_io.beside(self.path) as partial:
            self._copy.save(partial)
        self.best = value

    def on_train_end(self, logs: Any = None) -> None:
        self._copy = None
