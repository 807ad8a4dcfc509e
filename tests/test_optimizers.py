"""The running average of the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import assert_equal_to_rounding
from tests.tiny_run import compiled_model
from vhe_tf.optimizers import AveragingAdam
from vhe_tf.optimizers import ema_weights


def _averages(optimizer, steps, *, in_graph):
    """Returns the weights after each step, and their average."""
    variable = keras.Variable(np.array([5.0, -3.0], np.float32))
    optimizer.build([variable])

    def step():
        optimizer.apply([tf.sign(variable.value)], [variable])

    if in_graph:
        step = tf.function(step)
    weights, averages = [], []
    for _ in range(steps):
        step()
        weights.append(variable.numpy())
        averages.append(optimizer._model_variables_moving_average[0].numpy())
    return np.array(weights), np.array(averages)


@pytest.mark.parametrize("in_graph", [False, True])
def test_the_momentum_is_reached_as_steps_are_taken(in_graph):
    optimizer = AveragingAdam(0.1, use_ema=True, ema_momentum=0.6)
    weights, averages = _averages(optimizer, 20, in_graph=in_graph)
    expected = weights[0]
    for t in range(20):
        momentum = min(0.6, (1 + t) / (10 + t)) if t else 0.0
        expected = momentum * expected + (1 - momentum) * weights[t]
        np.testing.assert_allclose(averages[t], expected, rtol=1e-5)
    assert optimizer.ema_momentum == 0.6


def test_the_first_weights_are_forgotten():
    plain = keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.999)
    weights, averages = _averages(plain, 40, in_graph=True)
    ours = AveragingAdam(0.1, use_ema=True, ema_momentum=0.999)
    same, better = _averages(ours, 40, in_graph=True)
    # The same steps, but for the rounding of weights near 0.
    np.testing.assert_allclose(same, weights, rtol=1e-4, atol=1e-4)
    far = np.abs(averages[-1] - weights[-1])
    assert np.all(np.abs(better[-1] - weights[-1]) < 0.2 * far)


def test_it_is_adam_where_there_is_no_average_and_survives_saving():
    optimizer = AveragingAdam(0.1, use_ema=True, ema_momentum=0.9)
    config = optimizer.get_config()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, AveragingAdam)
    assert again.get_config() == config
    variable = keras.Variable(np.float32(1.0))
    AveragingAdam(0.1).apply([tf.constant(1.0)], [variable])
    np.testing.assert_allclose(variable.numpy(), 0.9, rtol=1e-5)


def test_ema_weights_are_swapped_in_and_out():
    model = compiled_model()
    raw = [v.numpy() for v in model.trainable_variables]
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    for average in model.optimizer._model_variables_moving_average:
        average.assign(tf.ones_like(average))
    lent = []

    def fail_while_lent():
        with ema_weights(model):
            lent.extend(v.numpy() for v in model.trainable_variables)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_while_lent()
    for value in lent:
        np.testing.assert_array_equal(value, np.ones(value.shape))
    for variable, value in zip(model.trainable_variables, raw, strict=True):
        np.testing.assert_array_equal(variable, value)


def _trained(make, gradients, **options):
    """Returns all variables after steps by given gradients, in a graph."""
    weights = [
        keras.Variable(np.ones(g.shape, np.float32), name=f"weight_{index}")
        for index, g in enumerate(gradients)
    ]
    optimizer = make(0.1, use_ema=True, ema_momentum=0.9, **options)
    optimizer.build(weights)

    @tf.function
    def step(scale):
        optimizer.apply([g * scale for g in gradients], weights)

    for scale in (1.0, -3.0, 0.2):
        step(tf.constant(scale))
    return weights, optimizer


_GRADIENTS = [
    tf.constant([[1.0, -2.0], [0.5, 3.0]]),
    tf.constant([1e-3, -4.0, 2.0]),
    tf.constant(0.7),
]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_clipnorm": 1.0},
        {"clipnorm": 0.5},
        {"amsgrad": True},
        {"weight_decay": 0.1},
        {"loss_scale_factor": 4.0},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_the_steps_are_those_of_keras(options):
    weights, ours = _trained(AveragingAdam, _GRADIENTS, **options)
    expected, theirs = _trained(keras.optimizers.Adam, _GRADIENTS, **options)
    # A slip in a moment or a rate changes the first digits.
    for value, other in zip(weights, expected, strict=True):
        assert_equal_to_rounding(value, other)
    for value, other in zip(
        ours._momentums + ours._velocities,
        theirs._momentums + theirs._velocities,
        strict=True,
    ):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-7)
    assert [v.path.partition("/")[2] for v in ours.variables] == [
        v.path.partition("/")[2] for v in theirs.variables
    ]


def test_a_gradient_that_is_not_finite_shows_in_every_weight():
    gradients = [_GRADIENTS[0], _GRADIENTS[2] * np.inf]
    weights, _ = _trained(AveragingAdam, gradients, global_clipnorm=1.0)
    assert all(np.isnan(value.numpy()).all() for value in weights)


def _num_operations(make, num_weights):
    weights = [
        keras.Variable(np.ones(2, np.float32)) for _ in range(num_weights)
    ]
    optimizer = make(0.1, use_ema=True, global_clipnorm=1.0)
    optimizer.build(weights)
    gradients = [tf.ones([2])] * num_weights
    step = tf.function(lambda: optimizer.apply(gradients, weights))
    return len(step.get_concrete_function().graph.get_operations())


def test_a_weight_adds_a_quarter_of_the_operations_of_keras():
    def added(make):
        return (_num_operations(make, 4) - _num_operations(make, 2)) / 2

    assert added(AveragingAdam) < added(keras.optimizers.Adam) / 4
