"""Training and scoring of the small models, for the benchmarks."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

import vhe_tf
from vhe_tf import VHE
from vhe_tf import random
from vhe_tf.experiments import building
from vhe_tf.experiments.config import Experiment

MAKE = {
    "deconvolutional": vhe_tf.deconvolutional_vhe,
    "pixel_cnn": vhe_tf.pixel_cnn_vhe,
}
GROUP = "character"


def images(count: int, model: VHE) -> tf.Tensor:
    """Returns binary images, `[count, H, W, C]`, a tenth of them ink."""
    noise = tf.random.stateless_uniform(
        [count, *model.image_shape], seed=[0, count]
    )
    return tf.cast(noise < 0.1, tf.float32)


def optimizer() -> vhe_tf.optimizers.AveragingAdam:
    """Returns the optimizer of a run: clipped gradients, EMA weights."""
    return building.make_optimizer(Experiment())


def training_step(
    model: VHE, batch_size: int, support_size: int, *, accumulation: int = 1
) -> Callable[[], Any]:
    """Returns a training step of a fixed batch, traced."""
    model.compile(optimizer(), accumulation=accumulation)
    model.optimizer.build(model.trainable_variables)
    support = images(batch_size * support_size, model)
    episode = {
        "query": images(batch_size, model),
        "support": {
            GROUP: tf.reshape(
                support, [batch_size, support_size, *model.image_shape]
            )
        },
        "group_size": {GROUP: tf.fill([batch_size], 20)},
        "seed": random.fold_in(0, tf.range(batch_size)),
    }
    function = tf.function(lambda: model.train_step(episode))
    return function.get_concrete_function()


def scoring(model: VHE, count: int) -> Callable[[], Any]:
    """Returns the scoring of a fixed batch of images, traced."""
    queries = images(count, model)
    seed = tf.constant([0, 0])
    samples = model.infer(
        {GROUP: queries[:1, tf.newaxis]}, seed=seed, num_samples=1
    )
    samples = {
        name: tf.repeat(value, count, axis=1) for name, value in samples.items()
    }
    function = tf.function(
        lambda: model.log_likelihood_given(samples, queries, seed=seed)
    )
    return function.get_concrete_function()
