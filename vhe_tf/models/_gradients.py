"""Checks that training reaches what a model is made of.

Each raises a `ValueError`, when the model is constructed.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.models import _graph
from vhe_tf.models.latents import Latent

__all__ = ["check_all_used", "check_posterior_learns", "check_reparameterized"]


def check_reparameterized(latent: Latent, posterior: tfd.Distribution) -> None:
    """Rejects a posterior whose samples pass no gradient to it."""
    kind = posterior.reparameterization_type
    if kind == tfd.FULLY_REPARAMETERIZED and posterior.dtype.is_floating:
        return
    raise ValueError(
        f"The posterior of latent {latent.name!r} cannot be trained: no "
        "gradient passes through its samples. Use a reparameterized family: "
        "`tfd.RelaxedBernoulli` or `tfd.RelaxedOneHotCategorical` for a "
        "discrete latent, a Gaussian, or for a mixture "
        "`tfd.Independent(tfd.MixtureSameFamily(tfd.Categorical(...), "
        "tfd.Normal(...), reparameterize=True), 1)`. Received: "
        f"{type(posterior).__name__} of {posterior.dtype.name} samples."
    )


def check_posterior_learns(
    latent: Latent, observed: tf.Tensor, *, parents: list[tf.Tensor]
) -> None:
    """Rejects a posterior that no gradient of its samples reaches.

    Args:
        latent: `Latent`, built.
        observed: Float tensor, as in `Latent`. Another one of its shape is
            tried too, because a blank image may pass no gradient to a kernel.
        parents: Sequence of tensors. Values of its parents.
    """
    weights = [w.value for w in latent.posterior.trainable_variables]
    # Weights of several replicas have no gradients outside of a step.
    if not weights or tf.distribute.has_strategy():
        return
    for images in _with_noise(observed):
        with tf.GradientTape() as tape:
            posterior = latent.posterior(images, *parents)
            sample = _graph.sample(
                posterior,
                [1],
                seed=tf.zeros([2], tf.int32),
                allow_unregistered=True,
            )
            # Not their sum, which is constant for points of a simplex.
            direction = tf.cast(_noise(sample.shape), sample.dtype)
            value = tf.reduce_sum(sample * direction)
        gradients = tape.gradient(value, weights)
        if any(g is not None and np.any(_array(g)) for g in gradients):
            return
    raise ValueError(
        f"The posterior of latent {latent.name!r} cannot be trained: no "
        "gradient passes from its samples to its weights. `tf.stop_gradient`, "
        "`tf.round`, `tf.sign` and `tf.cast` stop gradients, and a "
        "distribution must be made of what the layers return. Received: "
        f"{type(latent.posterior).__name__}, whose {len(weights)} weights have "
        "no gradient."
    )


def _with_noise(observed: tf.Tensor) -> Iterator[tf.Tensor]:
    yield observed
    yield _noise(observed.shape)


def _noise(shape: Any) -> tf.Tensor:
    values = np.random.default_rng(0).random(shape)
    return tf.constant(values, tf.float32)


def _array(gradient: tf.Tensor | tf.IndexedSlices) -> np.ndarray:
    return tf.convert_to_tensor(gradient).numpy()


def check_all_used(
    model: Any, likelihood: keras.layers.Layer, *, samples: _graph.Samples
) -> tfd.Distribution:
    """Rejects latents on which nothing that is generated depends.

    Returns:
        The distribution of images given these samples.
    """
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(samples)
        image = tf.zeros((1, *model.event_shape))
        pixels = likelihood(**samples)
        if not pixels.event_shape.is_compatible_with(model.event_shape):
            raise ValueError(
                "The event of the likelihood is an element, of event shape "
                f"{model.event_shape}; values that are independent of each "
                "other are made one by `tfd.Independent(values, "
                f"{len(model.event_shape)})`. "
                f"Received: event shape {pixels.event_shape}, batch "
                f"shape {pixels.batch_shape}."
            )
        log_likelihood = pixels.log_prob(image)
        log_prior = {
            v.name: v.prior(*_graph.parents_of(v, samples)).log_prob(
                samples[v.name]
            )
            for v in model.latents
            if v.parents
        }
    for name, value in samples.items():
        others = [p for k, p in log_prior.items() if k != name]
        gradients = [
            tape.gradient(density, value)
            for density in (log_likelihood, *others)
        ]
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                f"Nothing depends on latent {name!r}: neither the "
                "likelihood nor the prior of a latent that names it as a "
                "parent. Use it there, or leave it out. Received: "
                f"latents={[v.name for v in model.latents]}."
            )
    return pixels
