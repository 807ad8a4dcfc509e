"""`fit` and `evaluate` over `strategy.run`, for several machines.

Keras 3.15 has both, but there they fail with more than one worker
(https://github.com/keras-team/keras/issues/20585).
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf import replicas

__all__ = ["WorkerLoop"]


class WorkerLoop:
    """Trains and evaluates a model on all workers at once.

    The model's own `train_step`, `test_step`, metrics and callbacks, called
    as Keras does; every worker must call the same methods in the same order.

    Args:
        model: A compiled `keras.Model`, made within the scope of its strategy.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._train = self._on_all_replicas(model.train_step)
        self._test = self._on_all_replicas(model.test_step)

    def fit(
        self,
        x: tf.distribute.DistributedDataset,
        *,
        callbacks: Sequence[keras.callbacks.Callback],
        initial_epoch: int,
        epochs: int,
        steps_per_epoch: int,
    ) -> None:
        """Trains; see `keras.Model.fit`."""
        model = self._model
        called = keras.callbacks.CallbackList(
            callbacks, model=model, epochs=epochs, steps=steps_per_epoch
        )
        episodes = iter(x)
        called.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            model.reset_metrics()
            called.on_epoch_begin(epoch)
            logs: dict[str, Any] = {}
            for batch in range(steps_per_epoch):
                called.on_train_batch_begin(batch)
                logs = self._train(episodes)
                called.on_train_batch_end(batch, logs)
            called.on_epoch_end(epoch, _as_floats(logs))
        # Assigns the averaged weights, as `fit` does.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        called.on_train_end()

    def evaluate(
        self, x: tf.distribute.DistributedDataset, *, steps: int
    ) -> dict[str, float]:
        """Returns the metrics by name; see `keras.Model.evaluate`."""
        self._model.reset_metrics()
        episodes = iter(x)
        logs: dict[str, Any] = {}
        for _step in range(steps):
            logs = self._test(episodes)
        return _as_floats(logs)

    def _on_all_replicas(
        self, step: Callable[[Any], dict[str, Any]]
    ) -> Callable[[Iterator[Any]], dict[str, Any]]:
        strategy = self._model.distribute_strategy

        def on_replica(episode: Any) -> dict[str, Any]:
            return replicas.mean(step(episode))

        @tf.function(reduce_retracing=True)
        def on_all(episodes: Iterator[Any]) -> dict[str, Any]:
            logs = strategy.run(on_replica, args=(next(episodes),))
            return {
                name: strategy.experimental_local_results(value)[0]
                for name, value in logs.items()
            }

        return on_all


def _as_floats(logs: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}
