"""The callbacks of `EpisodeTrainer.fit`."""

import collections
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf.errors import StoppedOnRequest

__all__ = ["EpisodeCallbacks"]


class EpisodeCallbacks(keras.callbacks.CallbackList):
    """Calls the callbacks of `EpisodeTrainer.fit`.

    It hides the steps that were taken before a run was resumed. A callback with
    `reads_lazily = True` gets the values of a step where they were computed,
    and reads those that it needs; others get what Keras gives them.

    Args:
        callbacks: Sequence of callbacks.
        first_batch: Integer. Number of steps of the first epoch to hide.
        **options: Passed on to `keras.callbacks.CallbackList`.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        first_batch: int,
        **options: Any,
    ) -> None:
        self.first_batch = first_batch
        super().__init__(callbacks=callbacks, **options)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch >= self.first_batch:
            super().on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch < self.first_batch:
            return
        if not any(map(_reads_lazily, self.callbacks)):
            super().on_train_batch_end(batch, logs)
            return
        values = _Values(logs or {})
        for callback in self.callbacks:
            lazily = _reads_lazily(callback) or _ignores_steps(callback)
            callback.on_train_batch_end(
                batch, logs=values if lazily else dict(sorted(values.items()))
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.first_batch = 0
        if self._async_train:
            self._flush_futures()
        logs = {name: float(value) for name, value in (logs or {}).items()}
        for callback in self.callbacks:
            if self.model.preempted:
                raise StoppedOnRequest
            callback.on_epoch_end(epoch, logs)


def _reads_lazily(callback: Any) -> bool:
    return getattr(callback, "reads_lazily", False)


def _ignores_steps(callback: Any) -> bool:
    kind, base = type(callback), keras.callbacks.Callback
    return (
        kind.on_train_batch_end is base.on_train_batch_end
        and kind.on_batch_end is base.on_batch_end
    )


class _Values(collections.UserDict[str, Any]):
    """The values of a step. One that is read becomes a float.

    To read a value of a GPU is to wait for the step. Keras reads all of them
    after each step.
    """

    def __getitem__(self, name: str) -> Any:
        value = self.data[name]
        if tf.is_tensor(value) and not value.shape.rank:
            self.data[name] = value = float(value)
        return value
