"""Kullback-Leibler divergences: in closed form, or from one sample."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = ["kl_from_sample"]


def kl_from_sample(
    posterior: tfd.Distribution, prior: tfd.Distribution, sample: tf.Tensor
) -> tf.Tensor:
    """Estimates `KL[posterior || prior]` without bias from one sample.

    For priors without a closed form, such as an autoregressive one. Where
    there is one, `tfd.kl_divergence` has no variance.

    Args:
        posterior: Distribution q of batch shape `[...]`.
        prior: Distribution p whose batch shape broadcasts to `[...]`.
        sample: `[..., E...]`, a draw from `posterior`.

    Returns:
        `[...]`, `log q(sample) - log p(sample)`, nats; can be negative.
    """
    return posterior.log_prob(sample) - prior.log_prob(sample)
