"""Scores of classes that decode most where the label is undecided."""

import math
from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf.data import augmentation
from vhe_tf.models import _graph
from vhe_tf.models._graph import Samples
from vhe_tf.models._graph import Support

__all__ = [
    "check_max_error",
    "check_symmetries",
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


def check_symmetries(model: Any, symmetries: int) -> None:
    """Raises a `ValueError` if a model's elements lack these symmetries."""
    if symmetries not in augmentation.SYMMETRIES:
        raise ValueError(
            "`symmetries` must be 1, 2, 4 or 8. "
            f"Received: symmetries={symmetries!r}."
        )
    if symmetries == 1:
        return
    height, width, _ = model.image_shape
    if symmetries > 2 and height != width:
        raise ValueError(
            "Quarter turns need square images; pass symmetries=2, to mirror "
            f"only, or 1. Received: images of {height}x{width} pixels with "
            f"symmetries={symmetries!r}."
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
    model: Any,
    support: Support,
    *,
    seed: tf.Tensor,
    num_samples: int,
    symmetries: int = 1,
) -> Samples:
    """Returns `infer_classes`, but encodes the images of one class at a time.

    Of G symmetries, sample s is of the symmetry s mod G of the support.

    Args:
        model: `VHE`. The model.
        support: Mapping from names of group latents to tensors of shape
            `[K, N, H, W, C]`.
        seed: int32 tensor of shape `[2]`. Random seed.
        num_samples: Integer, S.
        symmetries: Integer, G. See `check_symmetries`. Defaults to 1.

    Returns:
        For each group latent with a support, a tensor of shape `[S, K, E...]`.
    """
    in_turn = tf.range(num_samples) % symmetries

    def infer(images: Support) -> Samples:
        of_class = {
            name: augmentation.symmetries_of(value, symmetries)
            for name, value in images.items()
        }
        samples = infer_classes(
            model, of_class, seed=seed, num_samples=num_samples
        )
        return {
            name: tf.gather(value, in_turn, axis=1, batch_dims=1)
            for name, value in samples.items()
        }

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
    symmetries: int = 1,
) -> tf.Tensor:
    """Scores one query under K classes, given S samples of each.

    Of G symmetries, the score is (1/G) sum_g log E p(g x | c), c ~ q(c; g D):
    the logarithm of the geometric mean of G densities of x, not normalized.

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
        symmetries: Integer, G. Sample s scores the symmetry s mod G of the
            query; see `infer_class_by_class`. Defaults to 1.

    Returns:
        Tensor of shape `[K]`, log E p(x | c) in nats, or its mean over
        symmetries.
    """
    some = next(iter(samples.values()))
    num_samples, num_ways = some.shape[0], tf.shape(some)[1]
    num_first = _num_first(num_samples, max_error=max_error)
    is_first = (tf.range(num_samples) < num_first)[:, tf.newaxis]
    most = max(1, max_decoded // num_element_samples)
    seeds = random.fold_in(seed, 1)
    queries = augmentation.symmetries_of(query, symmetries)

    def add(
        start: tf.Tensor, scores: tf.Tensor, pairs: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Scores the next pairs of sample and class."""
        these = pairs[start : start + most]
        log_likelihood = model._log_likelihood_given(
            {name: tf.gather_nd(v, these) for name, v in samples.items()},
            tf.gather(queries, these[:, 0] % symmetries),
            seed=random.fold_in(seeds, these[:, 0]),
            num_element_samples=num_element_samples,
            allow_unregistered=True,
        )
        scores = tf.tensor_scatter_nd_update(scores, these, log_likelihood)
        return start + most, scores, pairs

    def still_in(scores: tf.Tensor) -> tf.Tensor:
        return contenders(
            scores[:num_first], max_error=max_error, symmetries=symmetries
        )

    def add_stage(
        stage: tf.Tensor, scores: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        left = still_in(scores)
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
    return tf.where(
        still_in(scores),
        _pooled(scores, symmetries),
        _pooled(scores[:num_first], symmetries),
    )


def _num_first(num_samples: int, *, max_error: float) -> int:
    """Returns how many samples score every class."""
    if max_error == 0.0:
        return num_samples
    share = math.ceil(num_samples / _FIRST_SHARE)
    return min(max(_LEAST_FIRST, share), num_samples)


def contenders(
    log_likelihood: tf.Tensor, *, max_error: float, symmetries: int = 1
) -> tf.Tensor:
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
        symmetries: Integer, G. Sample s is of the symmetry s mod G. Defaults
            to 1.

    Returns:
        Boolean tensor of shape `[K]`. True for the best class so far.
    """
    num_samples, num_ways = tf.unstack(tf.shape(log_likelihood))
    scores = _pooled(log_likelihood, symmetries)
    without_one = _pooled_without_one(log_likelihood, symmetries)
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


def _by_symmetry(log_likelihood: tf.Tensor, symmetries: int) -> list[tf.Tensor]:
    """Returns the samples of each symmetry that has any."""
    count = log_likelihood.shape[0] if symmetries > 1 else 1
    return [
        log_likelihood[index::symmetries]
        for index in range(min(symmetries, count))
    ]


def _pooled(log_likelihood: tf.Tensor, symmetries: int) -> tf.Tensor:
    """Returns the mean over symmetries of the log mean over samples, `[K]`."""
    each = _by_symmetry(log_likelihood, symmetries)
    return tf.add_n([_graph.log_mean_exp(v) for v in each]) / len(each)


def _pooled_without_one(
    log_likelihood: tf.Tensor, symmetries: int
) -> tf.Tensor:
    """Returns `_pooled` without each of the samples in turn, `[F, K]`.

    The rows are in the order of the symmetries.
    """
    each = _by_symmetry(log_likelihood, symmetries)
    total = tf.add_n([_graph.log_mean_exp(values) for values in each])
    rows = []
    for values in each:
        others = total - _graph.log_mean_exp(values)
        if symmetries > 1 and values.shape[0] == 1:
            rows.append(others[tf.newaxis] / (len(each) - 1))
            continue
        count = tf.shape(values)[0]
        own = tf.reduce_logsumexp(
            tf.where(
                tf.eye(count, dtype=tf.bool)[..., tf.newaxis],
                -math.inf,
                values,
            ),
            axis=1,
        ) - tf.math.log(tf.cast(count - 1, values.dtype))
        rows.append((others + own) / len(each))
    return tf.concat(rows, axis=0)
