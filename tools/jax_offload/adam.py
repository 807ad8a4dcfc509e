# mypy: disable-error-code="import-not-found"
"""The optimizer of an experiment, in JAX, on one vector of weights.

Keras' Adam with its clipping of the global norm, a linear rise and a cosine
decay of the learning rate, and a running average of the weights.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-7  # as in Keras


class State(NamedTuple):
    """The state that a step changes.

    Attributes:
        weights: `[P]`, the trainable weights.
        average: `[P]`, the running average of the weights.
        momentum: `[P]`, the first moment.
        velocity: `[P]`, the second moment.
    """

    weights: jax.Array
    average: jax.Array
    momentum: jax.Array
    velocity: jax.Array


class Schedule(NamedTuple):
    """The number of steps and their sizes; settings of an `Experiment`.

    Numbers, or arrays of no axes: a compiled program takes any schedule.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float
    warmup_steps: int
    clip_norm: float
    ema: float

    @property
    def num_steps(self) -> int:
        """The number of steps of the whole run."""
        return self.epochs * self.steps_per_epoch


def learning_rate(step: jax.Array, schedule: Schedule) -> jax.Array:
    """Returns the learning rate of a step, the first of which is 0."""
    warmup = jnp.minimum(schedule.warmup_steps, schedule.num_steps // 2)
    rising = step / jnp.maximum(warmup, 1)
    done = jnp.minimum((step - warmup) / (schedule.num_steps - warmup), 1.0)
    falling = 0.5 * (1.0 + jnp.cos(math.pi * done))
    return schedule.learning_rate * jnp.where(step < warmup, rising, falling)


def updated(
    state: State, gradient: jax.Array, step: jax.Array, *, schedule: Schedule
) -> State:
    """Takes one step."""
    norm = jnp.sqrt(jnp.sum(gradient**2))
    # NaN, and no step of zero, where the norm is not finite.
    clip = jnp.minimum(schedule.clip_norm / norm, 1.0) + (norm - norm)
    gradient = clip * gradient
    momentum = state.momentum + (gradient - state.momentum) * (1 - _BETA_1)
    velocity = state.velocity + (gradient**2 - state.velocity) * (1 - _BETA_2)
    taken = jnp.asarray(step + 1, jnp.float32)
    correction = jnp.sqrt(1 - _BETA_2**taken) / (1 - _BETA_1**taken)
    rate = learning_rate(step, schedule) * correction
    weights = state.weights - momentum * rate / (jnp.sqrt(velocity) + _EPSILON)
    memory = jnp.minimum(schedule.ema, (1 + step) / (10 + step))
    memory = jnp.where(step == 0, 0.0, memory)
    average = memory * state.average + (1 - memory) * weights
    return State(weights, average, momentum, velocity)
