"""Adam with a running average of the weights that forgets where they began."""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

__all__ = ["AveragingAdam", "ema_weights"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class AveragingAdam(keras.optimizers.Adam):
    """Adam in few operations, with EMA weights that forget their start.

    The numbers are those of `keras.optimizers.Adam` up to rounding, and so are
    the variables of a checkpoint. TensorFlow's fused operation updates a
    weight and its moments at once, where Keras composes 40 operations. A
    training step of a model with many small weights is then traced faster.

    After step t the momentum of the average is
    min(`ema_momentum`, (1 + t) / (10 + t)), as by `num_updates` of
    `tf.train.ExponentialMovingAverage`; after the first, t = 0, the average is
    the weights. Until `ema_momentum` is reached (0.999 at step 8,990), it is an
    average over about the last ninth of the steps. With a momentum of 0.999
    from the first step, the random initial weights would still be a seventh of
    the average after 2,000 steps.

    Args:
        *args: As in `keras.optimizers.Adam`.
        **kwargs: As in `keras.optimizers.Adam`.

    Example:
    >>> import vhe_tf
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> model.compile(AveragingAdam(1e-3, use_ema=True, ema_momentum=0.999))
    """

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        # Once for all weights; `update_step` gets them as its learning rate.
        taken = tf.cast(self.iterations, tf.float32) + 1.0
        beta_1, beta_2 = tf.constant(self.beta_1), tf.constant(self.beta_2)
        rates = {
            "lr": tf.cast(learning_rate, tf.float32),
            "beta1": beta_1,
            "beta2": beta_2,
            "beta1_power": tf.pow(beta_1, taken),
            "beta2_power": tf.pow(beta_2, taken),
            "epsilon": tf.constant(self.epsilon),
        }
        super()._backend_update_step(grads, trainable_variables, rates)

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates a weight and its moments.

        Args:
            gradient: Tensor of the shape of the weight.
            variable: `keras.Variable`. The weight.
            learning_rate: Mapping from the names of arguments of
                `tf.raw_ops.ResourceApplyAdam` to scalar tensors.
        """
        fused = not self.amsgrad and variable.dtype == tf.float32
        if not fused or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate["lr"])
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            grad=tf.cast(gradient, tf.float32),
            **learning_rate,
        )

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        if not self.global_clipnorm:
            return super()._clip_gradients(grads)
        norm = tf.linalg.global_norm(grads)
        # NaN if the norm is not finite, as by Keras: the loss must show it.
        scale = self.global_clipnorm / tf.maximum(norm, self.global_clipnorm)
        scale += norm - norm
        return [None if g is None else g * scale for g in grads]

    def _update_model_variables_moving_average(
        self, trainable_variables: Any
    ) -> None:
        taken = tf.cast(self.iterations, tf.float32)
        momentum = tf.minimum(self.ema_momentum, (1 + taken) / (10 + taken))
        share = 1 - momentum * tf.cast(taken > 0, tf.float32)
        for variable, average in zip(
            trainable_variables,
            self._model_variables_moving_average,
            strict=True,
        ):
            if average is not None:
                excess = average.value - tf.convert_to_tensor(variable)
                average.value.assign_sub(
                    tf.cast(share, excess.dtype) * excess, read_value=False
                )


@contextlib.contextmanager
def ema_weights(model: keras.Model) -> Iterator[None]:
    """Temporarily swaps in the EMA weights (Polyak averaging).

    Does nothing if the optimizer keeps none (`use_ema=False`) or has not taken
    a step. Unlike `keras.callbacks.SwapEMAWeights`, it restores the weights
    bit for bit.

    Args:
        model: `keras.Model`. A compiled model.

    Example:
    >>> with ema_weights(model):
    ...     images = model.sample_prior(2, seed=0)
    >>> images.shape
    TensorShape([2, 8, 8, 1])
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
