"""Open-set recognition: the log odds that a query is of no given class.

p(x, D) / (p(x) p(D)) says how much more probable an image x and a support D
are if they share a class, and

    log p(x, D) - log p(x) - log p(D) = log p(x | D) - log p(x)
                                    = log p(D | x) - log p(D)

A model knows the conditional likelihoods well. Its log p(x), which integrates
c out, is far too low for what it has not been trained on. What x is worth given
itself, log p(x | {x}), takes that place: it grows with the complexity of x in
the same way. The log odds that x and D share a class are linear in

    log p(x | D) + log p(D | x)    and    log p(x | {x}) + log p(D | {D}),

where log p(D | x) is the mean of log p(d | x) over the images d of D, and
log p(D | {D}) that of log p(d | {d}).
"""

from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf.layers.spatial_inference import PoseLikelihood
from vhe_tf.models import _graph
from vhe_tf.models import classification
from vhe_tf.models._graph import Samples
from vhe_tf.models._graph import Support

__all__ = ["check_one_latent", "is_calibrated", "log_odds", "novelty"]

# Logistic regression for pairs of drawings of 50 characters of Omniglot's
# background set that `omniglot_pixel_cnn_small` was not trained on, 1-shot.
# Nats scale with the pixels: for other images they say nothing.
_EVENT_SHAPE = (28, 28, 1)
_SLOPE = 0.2957
_OWN_WEIGHT = 1.404
_OFFSET = 2.34

# Samples of q(c; {x}) and of each q(c; {d}). More do not help.
_NUM_SAMPLES = 4


def check_one_latent(support: Support) -> None:
    """Raises a `ValueError` for supports of several group latents."""
    if len(support) != 1:
        raise ValueError(
            "`novelty` is about the groups of one latent. "
            f"Received: supports of {sorted(support)}."
        )


def is_calibrated(model: Any) -> bool:
    """Returns whether a `novelty` above 0 means "none of these" for a model.

    Args:
        model: `VHE`.

    Returns:
        True for PixelCNNs of binary images of shape `[28, 28, 1]` with one
        group latent, by `vhe_tf.pixel_cnn_vhe`.

    Example:
    >>> is_calibrated(model)  # of images of 8x8 pixels
    False
    """
    return (
        isinstance(model.likelihood, PoseLikelihood)
        and len(_graph.group_names(model.latents)) == 1
        and model.domain.binary
        and tuple(model.event_shape) == _EVENT_SHAPE
    )


def log_odds(crossed: Any, own: Any, *, num_ways: Any) -> Any:
    """Returns the log odds that a query is of none of K classes.

    Args:
        crossed: Float tensor, nats. log p(x | D) + log p(D | x) for the best
            class.
        own: Float tensor, nats. log p(x | {x}) + log p(D | {D}).
        num_ways: Integer, K. The prior probability of a class is 1 / 2K.

    Example:
    >>> float(log_odds(-120.0, -100.0, num_ways=1)) < 0.0
    True
    >>> float(log_odds(-160.0, -100.0, num_ways=1)) > 0.0
    True
    """
    num_ways = tf.cast(num_ways, tf.float32)
    same = _SLOPE * (crossed - _OWN_WEIGHT * own) + _OFFSET
    return tf.math.log(num_ways) - same


def novelty(
    model: Any,
    support: Support,
    *,
    query: tf.Tensor,
    log_likelihood: tf.Tensor,
    seed: tf.Tensor,
    num_element_samples: int,
    max_decoded: int,
) -> tf.Tensor:
    """Returns the log odds that one query is of none of K classes.

    Args:
        model: `VHE`. The model.
        support: Mapping from the name of a group latent to a tensor of shape
            `[N, H, W, C]`, D of the class with the largest log p(x | D).
        query: Tensor of shape `[H, W, C]`, x.
        log_likelihood: Tensor of shape `[K]`, log p(x | D), nats.
        seed: int32 tensor of shape `[2]`. Random seed.
        num_element_samples: Integer, T. As in `VHE.log_likelihood`.
        max_decoded: Integer. Largest number of images to decode at once, or
            2 S T of one image if that is larger.

    Returns:
        Scalar tensor, nats, see `log_odds`.
    """
    [(name, images)] = support.items()
    seed = random.fold_in(seed, 2)

    def inferred(images: tf.Tensor) -> Samples:
        """Returns samples of q(c; {d}) of each image, `[S, N, E...]`."""
        return classification.infer_classes(
            model,
            {name: images[:, tf.newaxis]},
            seed=seed,
            num_samples=_NUM_SAMPLES,
        )

    of_query = inferred(query[tf.newaxis])

    def explained(images: tf.Tensor) -> tf.Tensor:
        """Returns log p(d | x) and log p(d | {d}) of images, `[2, N]`."""
        of_each = inferred(images)
        both = {
            latent: tf.concat(
                [tf.broadcast_to(of_query[latent], tf.shape(own)), own], axis=1
            )
            for latent, own in of_each.items()
        }
        scores = model._log_likelihood_given(
            both,
            tf.concat([images, images], axis=0),
            seed=seed[tf.newaxis],  # shared by all rows
            num_element_samples=num_element_samples,
            allow_unregistered=True,
        )
        return tf.reshape(_graph.log_mean_exp(scores), [2, -1])

    # The query comes first; of it, log p(x | {x}) alone counts. One loop, so
    # that the decoder is traced once.
    weights = tf.fill([2, tf.shape(images)[0]], 1.0)
    weights /= tf.cast(tf.shape(images)[0], tf.float32)
    weights = tf.concat([[[0.0], [1.0]], weights], axis=1)
    images = tf.concat([query[tf.newaxis], images], axis=0)
    most = max(1, max_decoded // (2 * _NUM_SAMPLES * num_element_samples))

    def add(start: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        these = explained(images[start : start + most])
        these *= weights[:, start : start + most]
        return start + most, sums + tf.reduce_sum(these, axis=1)

    _, sums = tf.while_loop(
        lambda start, _: start < tf.shape(images)[0],
        add,
        (0, tf.zeros([2])),
        parallel_iterations=1,
    )
    return log_odds(
        tf.reduce_max(log_likelihood) + sums[0],
        sums[1],
        num_ways=tf.size(log_likelihood),
    )
