"""`fit` and `evaluate` for one device, several, or several machines.

Unlike Keras' own `fit`, this one begins and ends at any step of an epoch. A
step is Keras' on one machine; on several, where `keras.Model.fit` fails in
Keras 3.15 (https://github.com/keras-team/keras/issues/20585), the same over
`strategy.run`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf import distribute

__all__ = ["Loop"]

_ASKED = "asked to stop"


class Loop:
    """Trains and evaluates a model on all that its strategy has.

    The model's own `train_step`, `test_step`, metrics and callbacks, called
    as Keras does; every machine must call the same methods in the same order.

    Args:
        model: A compiled `keras.Model`, made within the scope of its strategy.
        asked: Says whether this machine is asked to stop.
    """

    def __init__(
        self, model: keras.Model, asked: Callable[[], bool] = lambda: False
    ) -> None:
        self._model = model
        self._asked = asked
        self._several = distribute.has_several_machines(
            model.distribute_strategy
        )
        self._all_are_asked = False
        if self._several:
            self._make_functions()
        else:
            model.make_train_function()

    def fit(
        self,
        x: tf.data.Dataset | tf.distribute.DistributedDataset,
        *,
        callbacks: Sequence[keras.callbacks.Callback],
        epochs: int,
        steps_per_epoch: int,
        first_epoch: int = 0,
        first_step: int = 0,
    ) -> bool:
        """Trains; see `keras.Model.fit`.

        Machines that are asked to stop do so together, one step after the
        first of them was asked, if they are several.

        Args:
            x: The batches of the steps from the first on.
            callbacks: As in Keras. `on_epoch_begin` may restore the metrics of
                an epoch of which some steps were taken before. On several
                machines `model.stop_training` stops nothing.
            epochs: As in Keras.
            steps_per_epoch: As in Keras.
            first_epoch: The epoch to begin in.
            first_step: How many of its steps were taken before. If all, what
                callbacks do at its end comes next.

        Returns:
            Whether it came to its end. If not, it has stopped between steps,
            or between what callbacks do at the end of an epoch.
        """
        model = self._model
        called = keras.callbacks.CallbackList(
            callbacks, model=model, epochs=epochs, steps=steps_per_epoch
        )
        episodes = self._iterator(x)
        model.stop_training = False
        called.on_train_begin()
        for epoch in range(first_epoch, epochs):
            model.reset_metrics()
            called.on_epoch_begin(epoch)
            for batch in range(first_step, steps_per_epoch):
                if self._stops():
                    return False
                called.on_train_batch_begin(batch)
                called.on_train_batch_end(batch, self._step(episodes))
            first_step = 0
            if not self._end_epoch(epoch, called.callbacks):
                return False
            if model.stop_training and not self._several:
                break
        # Assigns the averaged weights, as Keras does.
        model.optimizer.finalize_variable_values(model.trainable_variables)
        called.on_train_end()
        return True

    def evaluate(
        self,
        x: tf.data.Dataset | tf.distribute.DistributedDataset,
        *,
        steps: int,
    ) -> dict[str, float]:
        """Returns the metrics by name; see `keras.Model.evaluate`."""
        if not self._several:
            return self._model.evaluate(
                x, steps=steps, return_dict=True, verbose=0
            )
        self._model.reset_metrics()
        episodes = iter(x)
        for _step in range(steps):
            self._test(episodes)
        return self._means()

    def _end_epoch(
        self, epoch: int, callbacks: Sequence[keras.callbacks.Callback]
    ) -> bool:
        """Calls what is to be called; returns whether it came to its end."""
        logs = self._means()
        for callback in callbacks:
            if self._stops():
                return False
            callback.on_epoch_end(epoch, logs)
        return True

    def _iterator(self, x: Any) -> Iterator[Any]:
        if not isinstance(x, tf.distribute.DistributedDataset):
            strategy = self._model.distribute_strategy
            x = strategy.experimental_distribute_dataset(x)
        return iter(x)

    def _step(self, episodes: Iterator[Any]) -> dict[str, Any]:
        if not self._several:
            return self._model.train_function(episodes)
        logs = self._train(episodes, tf.constant(self._asked()))
        self._all_are_asked = float(logs.pop(_ASKED)) > 0
        return logs

    def _stops(self) -> bool:
        """Whether to stop now, the same on all machines."""
        return self._all_are_asked if self._several else self._asked()

    def _means(self) -> dict[str, float]:
        """Returns the metrics over the steps since they were reset."""
        model = self._model
        get = self._results if self._several else model.get_metrics_result
        return {name: float(value) for name, value in sorted(get().items())}

    def _make_functions(self) -> None:
        """Makes the functions that run on all replicas of all machines."""
        model = self._model

        def train(episode: Any, asked: tf.Tensor) -> dict[str, Any]:
            # Cast on the replica, or it would be on no device to reduce from.
            asked = tf.cast(asked, tf.float32)
            return {**model.train_step(episode), _ASKED: asked}

        @tf.function(reduce_retracing=True)
        def train_on_all(
            episodes: Iterator[Any], asked: tf.Tensor
        ) -> dict[str, Any]:
            return self._on_all_replicas(train, next(episodes), asked)

        @tf.function(reduce_retracing=True)
        def test_on_all(episodes: Iterator[Any]) -> dict[str, Any]:
            return self._on_all_replicas(model.test_step, next(episodes))

        @tf.function
        def results_of_all() -> dict[str, Any]:
            return self._on_all_replicas(model.get_metrics_result)

        self._train = train_on_all
        self._test = test_on_all
        self._results = results_of_all

    def _on_all_replicas(
        self, function: Callable[..., dict[str, Any]], *args: Any
    ) -> dict[str, Any]:
        """Returns the means over all replicas of what a function returns."""
        strategy = self._model.distribute_strategy
        means = strategy.run(
            lambda *a: distribute.mean(function(*a)), args=args
        )
        return {
            name: strategy.experimental_local_results(value)[0]
            for name, value in means.items()
        }
