"""Scores of classes that decode most where the label is undecided."""

import math
from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf.models import _graph
from vhe_tf.models._graph import Samples
from vhe_tf.models._graph import Support

__all__ = [
    "check_max_error",
    "class_scores",
    "contenders",
    "infer_class_by_class",
    "infer_classes",
    "inferred_shapes",
]

# Fewer samples say too little about the error of a score.
_LEAST_FIRST = 3
_FIRST_SHARE = 5


def check_max_error(max_error: float) -> None:
    """Raises a `ValueError` if `max_error` is not from 0 to below 1."""
    if not 0.0 <= max_error < 1.0:
        raise ValueError(
            "`max_error` is a probability from 0 to below 1. Pass 0 to score "
            f"every class by all samples. Received: max_error={max_error!r}."
        )


def infer_classes(
    model: Any, support: Support, *, seed: tf.Tensor, num_samples: int
) -> Samples:
    """Samples the group latents of K classes by the same randomness.

    Args:
        model: `VHE`. The model.
        support: As in `VHE.infer`, for K classes.
        seed: int32 tensor of shape `[2]`. Random seed.
        num_samples: Integer, S.

    Returns:
        For each group latent with a support, a tensor of shape `[S, K, E...]`.
    """
    support = model._with_implied(support)
    num_ways = _graph.batch_size_of(next(iter(support.values())))
    samples, _ = _graph.sample_groups(
        model.latents,
        support,
        batch_shape=[num_samples, num_ways],
        seed=random.fold_in(seed, 0)[tf.newaxis],  # shared by all rows
        temperature=1.0,
        sample_unobserved=False,
        allow_unregistered=True,
    )
    return samples


def inferred_shapes(model: Any, support: Support) -> dict[str, tuple[int, ...]]:
    """Returns the event shapes of the latents that a support infers.

    Args:
        model: `VHE`.
        support: As in `VHE.infer`, of any leading axes.

    Returns:
        Mapping from the names of the latents of `support` and of their
        ancestors to shapes.
    """
    implied = _graph.with_implied(model.latents, support)
    return {name: model._nodes[name].event_shape for name in implied}


def infer_class_by_class(
    model: Any, support: Support, *, seed: tf.Tensor, num_samples: int
) -> Samples:
    """Returns `infer_classes`, but encodes the images of one class at a time.

    Args:
        model: `VHE`. The model.
        support: Mapping from names of group latents to tensors of shape
            `[K, N, H, W, C]`.
        seed: int32 tensor of shape `[2]`. Random seed.
        num_samples: Integer, S.

    Returns:
        For each group latent with a support, a tensor of shape `[S, K, E...]`.
    """

    def infer(images: Support) -> Samples:
        of_class = {name: value[tf.newaxis] for name, value in images.items()}
        samples = infer_classes(
            model, of_class, seed=seed, num_samples=num_samples
        )
        return {name: value[:, 0] for name, value in samples.items()}

    by_class = tf.map_fn(
        infer,
        dict(support),
        fn_output_signature={
            name: tf.TensorSpec([num_samples, *shape])
            for name, shape in inferred_shapes(model, support).items()
        },
        parallel_iterations=1,
    )  # [K, S, E...]
    return {
        name: tf.einsum("ks...->sk...", value)
        for name, value in by_class.items()
    }


def class_scores(
    model: Any,
    samples: Samples,
    *,
    query: tf.Tensor,
    seed: tf.Tensor,
    num_element_samples: int,
    max_error: float,
    max_decoded: int,
) -> tf.Tensor:
    """Scores one query under K classes, given S samples of each.

    The first fifth of the samples, at least 3, scores every class, the rest
    only the `contenders`. All classes use the same randomness.

    Args:
        model: `VHE`. The model.
        samples: Mapping from names of group latents to tensors of shape
            `[S, K, E...]`. S is static.
        query: Tensor of shape `[H, W, C]`, the image to classify.
        seed: int32 tensor of shape `[2]`. Random seed.
        num_element_samples: Integer, T. As in `VHE.log_likelihood`.
        max_error: Float. See `contenders`; 0 scores every class by S samples.
        max_decoded: Integer. Largest number of images to decode at once, or T
            if that is larger.

    Returns:
        Tensor of shape `[K]`, log E p(x | c) in nats.
    """
    some = next(iter(samples.values()))
    num_samples, num_ways = some.shape[0], tf.shape(some)[1]
    num_first = num_samples
    if max_error > 0.0:
        num_first = max(_LEAST_FIRST, math.ceil(num_samples / _FIRST_SHARE))
        num_first = min(num_first, num_samples)
    is_first = (tf.range(num_samples) < num_first)[:, tf.newaxis]
    most = max(1, max_decoded // num_element_samples)
    seeds = random.fold_in(seed, 1)

    def add(
        start: tf.Tensor, scores: tf.Tensor, pairs: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Scores the next pairs of sample and class."""
        these = pairs[start : start + most]
        log_likelihood = model._log_likelihood_given(
            {name: tf.gather_nd(v, these) for name, v in samples.items()},
            tf.repeat(query[tf.newaxis], tf.shape(these)[0], axis=0),
            seed=random.fold_in(seeds, these[:, 0]),
            num_element_samples=num_element_samples,
            allow_unregistered=True,
        )
        scores = tf.tensor_scatter_nd_update(scores, these, log_likelihood)
        return start + most, scores, pairs

    def add_stage(
        stage: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        left = contenders(scores[:num_first], max_error=max_error)
        wanted = tf.where(stage == 0, is_first, ~is_first & left)
        pairs = tf.where(tf.broadcast_to(wanted, tf.shape(scores)))
        _, scores, _ = tf.while_loop(
            lambda start, _, pairs: start < tf.shape(pairs)[0],
            add,
            (0, scores, tf.cast(pairs, tf.int32)),
            parallel_iterations=1,
        )
        return stage + 1, scores

    # One loop for both stages, so that the decoder is traced once.
    _, scores = tf.while_loop(
        lambda stage, _: stage < (1 if num_first == num_samples else 2),
        add_stage,
        (0, tf.fill([num_samples, num_ways], -math.inf)),
        parallel_iterations=1,
    )
    left = contenders(scores[:num_first], max_error=max_error)
    counts = tf.where(left, float(num_samples), float(num_first))
    return tf.reduce_logsumexp(scores, axis=0) - tf.math.log(counts)


def contenders(log_likelihood: tf.Tensor, *, max_error: float) -> tf.Tensor:
    """Returns which classes can still have the highest score.

    The lead of the best class over each other class has a variance, which the
    jackknife over samples estimates (Efron and Stein, 1981). It is pooled over
    the K - 1 leads, as in an analysis of variance; a lead whose own estimate is
    larger keeps that. Class k is out if the probability that a Student's t
    variable with (F - 1)(K - 1) degrees of freedom exceeds lead / standard
    error is at most `max_error / (K - 1)`. As far as leads are normal and of
    equal variances, the best of all classes is then out with a probability of
    at most `max_error`.

    Args:
        log_likelihood: Float tensor of shape `[F, K]`, nats. log p(x | c) for
            the first samples.
        max_error: Float. Probability of losing the best class.

    Returns:
        Boolean tensor of shape `[K]`. True for the best class so far.
    """
    num_samples, num_ways = tf.unstack(tf.shape(log_likelihood))
    scores = tf.reduce_logsumexp(log_likelihood, axis=0)
    without_one = tf.reduce_logsumexp(
        tf.where(
            tf.eye(num_samples, dtype=tf.bool)[..., tf.newaxis],
            -math.inf,
            log_likelihood,
        ),
        axis=1,
    )  # [F, K]
    best = tf.argmax(scores, output_type=tf.int32)
    lead = scores[best] - scores
    leads = without_one[:, best, tf.newaxis] - without_one
    variance = tf.math.reduce_variance(leads, axis=0)
    variance *= tf.cast(num_samples - 1, lead.dtype)
    num_others = tf.cast(tf.maximum(num_ways - 1, 1), lead.dtype)
    pooled = tf.reduce_sum(variance) / num_others
    freedom = tf.cast(num_samples - 1, lead.dtype) * num_others
    statistic = tf.square(lead) / tf.maximum(variance, pooled)
    tail = 0.5 * tf.math.betainc(
        tf.fill([num_ways], freedom / 2.0),
        tf.fill([num_ways], 0.5),
        freedom / (freedom + statistic),
    )
    # The best class stays, and whatever is not a number.
    return ~(tail <= max_error / num_others) | (tf.range(num_ways) == best)
