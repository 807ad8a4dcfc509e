"""Adam with a running average of the weights that forgets where they began."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

__all__ = ["AveragingAdam", "ema_weights"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class AveragingAdam(keras.optimizers.Adam):
    """Adam; its `ema_momentum` is reached as steps are taken.

    After step t the momentum of the average is
    min(`ema_momentum`, (1 + t) / (10 + t)), as by `num_updates` of
    `tf.train.ExponentialMovingAverage`; after the first, t = 0, the average is
    the weights. So it is over the last ninth or so of the steps taken, until
    `ema_momentum` is reached: 0.999 at step 8,990. With that from the first
    step on, the first weights, which are random, would be a seventh of the
    average after 2,000.

    Args:
        *args: As in `keras.optimizers.Adam`.
        **kwargs: The same.
    """

    ema_momentum: Any

    def _update_model_variables_moving_average(
        self, trainable_variables: Any
    ) -> None:
        momentum = self.ema_momentum
        taken = ops.cast(self.iterations, "float32")
        self.ema_momentum = ops.minimum(momentum, (1 + taken) / (10 + taken))
        try:
            super()._update_model_variables_moving_average(trainable_variables)
        finally:
            self.ema_momentum = momentum


@contextlib.contextmanager
def ema_weights(model: keras.Model) -> Iterator[None]:
    """Temporarily swaps in the EMA weights (Polyak averaging).

    Does nothing if the optimizer keeps none (`use_ema=False`) or has not taken
    a step. Unlike `keras.callbacks.SwapEMAWeights`, it restores the weights
    bit for bit.

    Args:
        model: A compiled `keras.Model`.
    """
    # Mixed precision wraps the optimizer that keeps the averages.
    optimizer: Any = getattr(
        model.optimizer, "inner_optimizer", model.optimizer
    )
    if not optimizer.use_ema or not int(optimizer.iterations.numpy()):
        yield
        return
    raw = [variable.numpy() for variable in model.trainable_variables]
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(
        model.trainable_variables, averages, strict=True
    ):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, raw, strict=True):
            variable.assign(value)
