"""The sample from which the support is most likely."""

from typing import TYPE_CHECKING
from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf.models import _checks
from vhe_tf.models import _graph
from vhe_tf.models._graph import Support

if TYPE_CHECKING:
    from vhe_tf.models.variable_model import LatentVariableModel

__all__ = ["best_of_samples"]

# Samples of c with which a sample is scored given its support.
_NUM_SCORE_SAMPLES = 4


def best_of_samples(
    model: "LatentVariableModel",
    support: Support,
    *,
    count: int,
    seed: Any,
    **options: Any,
) -> tf.Tensor:
    """Samples `count` elements of each group and returns the best.

    That is the one with the largest log p(support | sample). In a model of
    content and style, the images of the content count, in their own style: a
    sample hardly fails in its style.

    Args:
        model: `LatentVariableModel`. The model.
        support: As in `sample`, images alone.
        count: Integer. Number of samples of each group.
        seed: As in `sample`.
        **options: Passed on to `sample`.

    Returns:
        `[B, H, W, C]`.
    """
    _checks.check_no_posteriors("sample(best_of=...)", support)
    batch_size = _graph.batch_size_of(next(iter(support.values())))
    seeds = random.as_seed(seed)
    if seeds.shape.rank == 1:
        seeds = random.fold_in(seeds, tf.range(batch_size))
    index = tf.tile(tf.range(count), [batch_size])
    seeds = random.fold_in(tf.repeat(seeds, count, axis=0), index)
    repeated = {
        name: tf.repeat(value, count, axis=0) for name, value in support.items()
    }
    images = model.sample(repeated, seed=seeds, **options)
    # Pixels with a density can lie outside.
    shown = tf.clip_by_value(images, 0.0, 1.0)[:, tf.newaxis]
    scores = tf.zeros(tf.shape(images)[:1])
    related = _graph.related_to_first(model.latents)
    for name in [n for n in related if n in repeated] or list(repeated):
        by_shot = tf.map_fn(
            lambda query, name=name: model.log_likelihood(
                {name: shown},
                query,
                seed=random.fold_in(seeds, 3),
                num_samples=_NUM_SCORE_SAMPLES,
            ),
            tf.einsum("bn...->nb...", repeated[name]),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )
        scores += tf.reduce_sum(by_shot, axis=0)
    best = tf.argmax(tf.reshape(scores, [-1, count]), axis=1)
    by_row = tf.reshape(images, [-1, count, *model.image_shape])
    return tf.gather(by_row, best, batch_dims=1)
