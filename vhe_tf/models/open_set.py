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
from vhe_tf.models import _graph
from vhe_tf.models import classification
from vhe_tf.models._graph import Samples
from vhe_tf.models._graph import Support

__all__ = ["check_one_latent", "log_odds", "novelty"]

# Logistic regression for pairs of drawings of 50 characters of Omniglot's
# background set that `omniglot_pixel_cnn_small` was not trained on, 1-shot.
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
) -> tf.Tensor:
    """Returns the log odds that one query is of none of K classes.

    Args:
        model: `VHE`.
        support: Mapping from the name of a group latent to a tensor of shape
            `[N, H, W, C]`, D of the class with the largest log p(x | D).
        query: Tensor of shape `[H, W, C]`.
        log_likelihood: Tensor of shape `[K]`, log p(x | D), nats.
        seed: int32 tensor of shape `[2]`.
        num_element_samples: Integer, T. As in `VHE.log_likelihood`.

    Returns:
        Scalar tensor, nats, see `log_odds`.
    """
    [(name, images)] = support.items()
    seed = random.fold_in(seed, 2)

    def inferred(image: tf.Tensor) -> Samples:
        return classification.infer_classes(
            model,
            {name: image[tf.newaxis, tf.newaxis]},
            seed=seed,
            num_samples=_NUM_SAMPLES,
        )

    of_query = inferred(query)

    def explained(image: tf.Tensor) -> tf.Tensor:
        """Returns log p(d | x) and log p(d | {d})."""
        both = {
            latent: tf.concat([of_query[latent], own], axis=1)
            for latent, own in inferred(image).items()
        }
        return _graph.log_mean_exp(
            model._log_likelihood_given(
                both,
                tf.repeat(image[tf.newaxis], 2, axis=0),
                seed=seed,
                num_element_samples=num_element_samples,
                allow_unregistered=True,
            )
        )

    # Also of the query: both are then log p(x | {x}). In one loop, so that the
    # decoder is traced once.
    values = tf.map_fn(
        explained,
        tf.concat([query[tf.newaxis], images], axis=0),
        fn_output_signature=tf.TensorSpec([2], tf.float32),
        parallel_iterations=1,
    )
    of_support = tf.reduce_mean(values[1:], axis=0)
    return log_odds(
        tf.reduce_max(log_likelihood) + of_support[0],
        values[0, 1] + of_support[1],
        num_ways=tf.size(log_likelihood),
    )
