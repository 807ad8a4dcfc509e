"""Helpers that walk the graph of latents and sample along it."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import random
from vhe_tf.distributions import tempering
from vhe_tf.models.latents import Latent

__all__ = [
    "Episode",
    "Samples",
    "Support",
    "batch_shape_of",
    "batch_size_of",
    "group_names",
    "log_mean_exp",
    "log_ratio",
    "parents_of",
    "posterior_of",
    "related_to_first",
    "sample",
    "sample_groups",
    "sample_rest",
    "where_rows",
    "with_implied",
]

Episode = Mapping[str, Any]
"""`query`, `support`, `group_size` and `seed`; see `vhe_tf.VHE`."""

Support = Mapping[str, Any]
"""For some or all group latents, the support set from which to infer the
latent, or the posterior that `encode` returned for it."""

Samples = dict[str, tf.Tensor]
"""The values of latents by name, of shape `[S..., B, E...]` each."""


def group_names(latents: Sequence[Latent]) -> list[str]:
    """Returns the names of the group latents, in the order of the graph."""
    return [latent.name for latent in latents if not latent.per_element]


def related_to_first(latents: Sequence[Latent]) -> list[str]:
    """Returns the first group latent and its relatives among group latents.

    Parents and children are relatives, and so are theirs.
    """
    groups = [latent for latent in latents if not latent.per_element]
    families = [{latent.name, *latent.parents} for latent in groups]
    related = {groups[0].name}
    for _ in groups:
        related.update(*(f for f in families if f & related))
    return [latent.name for latent in groups if latent.name in related]


def parents_of(latent: Latent, samples: Samples) -> list[tf.Tensor]:
    """Returns the values of the parents, in the order of `latent.parents`."""
    return [samples[parent] for parent in latent.parents]


def posterior_of(
    latent: Latent, observed: Any, *, samples: Samples
) -> tfd.Distribution:
    """Returns the posterior, which `observed` may be already."""
    if isinstance(observed, tfd.Distribution):
        return observed
    return latent.posterior(observed, *parents_of(latent, samples))


def batch_size_of(observed: Any) -> tf.Tensor:
    """Returns B of a batch of images or of a posterior."""
    if isinstance(observed, tfd.Distribution):
        return observed.batch_shape_tensor()[-1]
    return tf.shape(observed)[0]


def batch_shape_of(
    samples: Samples, event_ranks: Mapping[str, int]
) -> tf.Tensor:
    """Returns `[S..., B]`, the leading axes of group latents."""
    name = next(name for name in event_ranks if name in samples)
    shape = tf.shape(samples[name])
    return shape[: tf.size(shape) - event_ranks[name]]


def sample(
    distribution: tfd.Distribution,
    batch_shape: Any = None,
    *,
    seed: int | tf.Tensor,
    allow_unregistered: bool = False,
) -> tf.Tensor:
    """Samples along those axes of `batch_shape` that the distribution lacks.

    Without a `batch_shape`, the distribution has all of them. See
    `vhe_tf.random.sample` for the other arguments.
    """
    sample_shape: Any = []
    if batch_shape is not None:
        batch_shape = tf.stack(batch_shape)
        missing = batch_shape.shape[0] - distribution.batch_shape.rank
        sample_shape = batch_shape[:missing]
    return random.sample(
        distribution,
        sample_shape,
        seed=seed,
        allow_unregistered=allow_unregistered,
    )


def sample_groups(
    latents: Sequence[Latent],
    support: Support,
    *,
    batch_shape: Sequence[Any],
    seed: int | tf.Tensor,
    temperature: float | tf.Tensor,
    sample_unobserved: bool,
    fitted: bool = True,
    allow_unregistered: bool = False,
) -> tuple[Samples, dict[str, tfd.Distribution]]:
    """Samples the group latents, each given its parents.

    Those without a support are sampled from their fitted priors if they have
    one and `fitted` is True, else from their priors.

    Returns:
        The samples, and the posteriors of those that have a support.
    """
    samples: Samples = {}
    posteriors: dict[str, tfd.Distribution] = {}
    for index, latent in enumerate(latents):
        name = latent.name
        if latent.per_element or not (name in support or sample_unobserved):
            continue
        if name in support:
            distribution = posterior_of(latent, support[name], samples=samples)
            posteriors[name] = distribution
        else:
            prior = latent.generator if fitted else latent.prior
            distribution = tempering.tempered(
                prior(*parents_of(latent, samples)), temperature
            )
        samples[name] = sample(
            distribution,
            batch_shape,
            seed=random.fold_in(seed, index),
            allow_unregistered=allow_unregistered,
        )
    return samples, posteriors


def sample_rest(
    latents: Sequence[Latent],
    samples: Samples,
    *,
    batch_shape: tf.Tensor,
    query: tf.Tensor | None,
    seed: int | tf.Tensor,
    temperature: float | tf.Tensor = 1.0,
    allow_unregistered: bool = False,
) -> tuple[Samples, tf.Tensor]:
    """Samples the latents that `samples` leaves out.

    The temperature is that of priors, where there is no query.

    Returns:
        All latents, and `[S..., B]`, log p(z | parents) - log q(z; x, parents)
        summed over those that were left out (zeros without a query, where they
        are sampled from their priors).
    """
    samples = dict(samples)
    log_weight = tf.zeros(batch_shape)
    for index, latent in enumerate(latents):
        if latent.name in samples:
            continue
        prior = latent.prior(*parents_of(latent, samples))
        proposal = tempering.tempered(prior, temperature)
        if query is not None:
            # Nothing but x itself is known of its group.
            observed = query if latent.per_element else query[:, tf.newaxis]
            proposal = posterior_of(latent, observed, samples=samples)
        value = sample(
            proposal,
            batch_shape,
            seed=random.fold_in(seed, index),
            allow_unregistered=allow_unregistered,
        )
        samples[latent.name] = value
        if query is not None:
            log_weight += prior.log_prob(value) - proposal.log_prob(value)
    return samples, log_weight


def log_ratio(
    latent: Latent, posterior: tfd.Distribution, *, samples: Samples
) -> tf.Tensor:
    """Returns log p(latent | parents) - log q(latent), `[S..., B]`, nats."""
    value = samples[latent.name]
    prior = latent.prior(*parents_of(latent, samples))
    return prior.log_prob(value) - posterior.log_prob(value)


def with_implied(latents: Sequence[Latent], support: Support) -> Support:
    """Adds supports of the latents above those that have one.

    The elements of a group are elements of the groups that contain it.
    """
    completed = dict(support)
    for latent in reversed(latents):
        if latent.per_element or latent.name in completed:
            continue
        below = [
            completed[v.name]
            for v in latents
            if latent.name in v.parents
            and v.name in completed
            and not isinstance(completed[v.name], tfd.Distribution)
        ]
        if below:
            completed[latent.name] = tf.concat(below, axis=1)
    return completed


def where_rows(
    mask: tf.Tensor, value: tf.Tensor, *, other: tf.Tensor
) -> tf.Tensor:
    """Chooses row by row: `mask` is `[B]`, the values are `[B, E...]`."""
    shape = [-1] + [1] * (value.shape.rank - 1)
    return tf.where(tf.reshape(mask, shape), value, other)


def log_mean_exp(log_values: tf.Tensor) -> tf.Tensor:
    """Returns log(mean(exp(log_values))) over the first axis."""
    count = tf.cast(tf.shape(log_values)[0], log_values.dtype)
    return tf.reduce_logsumexp(log_values, axis=0) - tf.math.log(count)
