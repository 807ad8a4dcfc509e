"""Kullback-Leibler divergences from one sample."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = ["kl_from_sample"]


def kl_from_sample(
    posterior: tfd.Distribution, prior: tfd.Distribution, *, sample: tf.Tensor
) -> tf.Tensor:
    """Estimates `KL[posterior || prior]` without bias from one sample.

    It is meant for priors without a closed form, such as autoregressive ones.
    Otherwise `tfd.kl_divergence` has no variance.

    Args:
        posterior: Distribution q of batch shape `[...]`.
        prior: Distribution p whose batch shape broadcasts to `[...]`.
        sample: Tensor of shape `[..., E...]`, a sample from `posterior`.

    Returns:
        Tensor of shape `[...]`, `log q(sample) - log p(sample)` in nats. It
        can be negative.

    Example:
    >>> q, p = tfd.Normal(0.0, 1.0), tfd.Normal(1.0, 1.0)
    >>> float(kl_from_sample(q, p, sample=tf.constant(0.0)))
    0.5
    """
    return posterior.log_prob(sample) - prior.log_prob(sample)
