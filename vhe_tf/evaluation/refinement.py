"""Proposals that are refined for each group, for importance weighting.

Semi-amortized variational inference (Kim et al. 2018): the encoder's q(c; X) is
where gradient ascent on the ELBO of X begins. It moves the mean and stretches
the deviations of each dimension.

A better proposal makes the importance weights more alike, and so the estimate
of log p(X) tighter (Cremer et al. 2018). The estimate stays a lower bound in
expectation: the mean of p(X, c) / q(c) is p(X) for samples c of any q that is
chosen before they are sampled, with other seeds.
"""

from collections.abc import Callable
from collections.abc import Mapping

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from vhe_tf import random
from vhe_tf.models.vhe import VHE

__all__ = ["Change", "refine", "refined"]

Change = Mapping[str, tuple[tf.Tensor, tf.Tensor]]
"""For each latent by name, `[B, E...]` each: by how many of its deviations the
mean moves, and the log of the factor of the deviations."""

LogLikelihood = Callable[
    [dict[str, tf.Tensor], tf.Tensor, tf.Tensor], tf.Tensor
]

# In units of the deviations, where the ELBO of a good posterior has a curvature
# of about -1 in each dimension. Adam moves dimensions that have noise alone as
# far as the others, and gained less on held-out characters of Omniglot.
_STEP_SIZE = 0.2


def refined(
    posteriors: Mapping[str, tfd.Distribution], change: Change
) -> dict[str, tfd.Distribution]:
    """Returns posteriors with other means and deviations.

    Args:
        posteriors: Mapping from names of latents to their posteriors, of batch
            shape `[B]`, such as those of `VHE.encode`.
        change: Mapping from the same names to what changes, see `Change`.

    Returns:
        For each latent, the distribution of m + s shift + (c - m) exp(stretch),
        where c is a sample of the posterior, m its mean and s its deviation.

    Example:
    >>> change = {"c": (tf.constant([[0.5, 0.0]]), tf.constant([[0.0, 1.0]]))}
    >>> posterior = tfd.MultivariateNormalDiag([[1.0, 1.0]], [[4.0, 4.0]])
    >>> refined({"c": posterior}, change)["c"].log_prob([[3.0, 1.0]]).shape
    TensorShape([1])
    """
    moved = {}
    for name, posterior in posteriors.items():
        shift, stretch = change[name]
        mean = posterior.mean()
        start = mean * (1.0 - tf.exp(stretch)) + posterior.stddev() * shift
        moved[name] = tfd.TransformedDistribution(
            posterior, tfb.Shift(start)(tfb.Scale(log_scale=stretch))
        )
    return moved


def refine(
    model: VHE,
    support: Mapping[str, tf.Tensor],
    *,
    log_likelihood: LogLikelihood,
    num_steps: int,
    max_decoded: int,
    seed: tf.Tensor,
) -> Change:
    """Refines q(c; X) by gradient ascent on the ELBO of X.

    Each step has one reparameterized sample of c. Its gradient is that of
    Roeder et al. (2017), which has no noise where q(c) is the true posterior.
    The step size falls to 0. A step moves a mean by at most 0.2 deviations, and
    changes a deviation by at most the factor exp(0.2).

    Args:
        model: `VHE`. The model.
        support: Mapping from the name of a group latent to X,
            `[1, n, H, W, C]`. The posteriors of the latents above it are
            refined too. Each is that at the means of its parents.
        log_likelihood: Callable. Returns the sum of log p(x | c) over images
            `[m, H, W, C]`, `[1]`, given samples by name, `[1, 1, E...]`, and a
            seed.
        num_steps: Integer. Number of steps.
        max_decoded: Integer. The largest m. Of larger groups, each step uses
            m images that are sampled anew.
        seed: Integers of shape `[2]`.

    Returns:
        What changes, for `refined`.

    Raises:
        ValueError: If a posterior is not over all real numbers: what moves may
            leave its domain.

    Example:
    >>> def log_likelihood(samples, images, seed):
    ...     samples = {
    ...         name: tf.repeat(value, len(images), axis=1)
    ...         for name, value in samples.items()
    ...     }
    ...     given = model.log_likelihood_given(samples, images, seed=seed)
    ...     return tf.reduce_sum(given, axis=1)
    >>> change = refine(
    ...     model,
    ...     {"character": data.images[None, :7]},
    ...     log_likelihood=log_likelihood,
    ...     num_steps=2,
    ...     max_decoded=400,
    ...     seed=tf.constant([0, 1]),
    ... )
    >>> shift, stretch = change["character"]
    >>> shift.shape
    TensorShape([1, 2])
    """
    posteriors = model.encode(support)
    _check_posteriors(posteriors)
    [images] = support.values()
    num_images = tf.shape(images)[1]
    num_decoded = tf.minimum(num_images, max_decoded)
    share = tf.cast(num_decoded, tf.float32) / tf.cast(num_images, tf.float32)

    def objective(change: Change, key: tf.Tensor) -> tf.Tensor:
        proposal = refined(posteriors, change)
        samples, value = model.importance_sample(
            proposal,
            seed=random.fold_in(key, 0),
            num_samples=1,
            sample_unobserved=False,
        )
        value = tf.reduce_sum(value)
        # This cancels the gradient of log q(c) by its parameters for fixed c,
        # which has the mean 0.
        for name, sample in samples.items():
            fixed = tf.stop_gradient(sample)
            value += tf.reduce_sum(proposal[name].log_prob(fixed))
        order = tf.random.experimental.stateless_shuffle(
            tf.range(num_images), seed=random.fold_in(key, 1)
        )
        chosen = tf.gather(images[0], order[:num_decoded])
        of_images = log_likelihood(samples, chosen, random.fold_in(key, 2))
        return value + tf.reduce_sum(of_images) / share

    def step(index: tf.Tensor, change: Change) -> tuple[tf.Tensor, Change]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(change)
            value = objective(change, random.fold_in(seed, index))
        gradients = tape.gradient(value, change)
        rate = _STEP_SIZE * (1.0 - tf.cast(index, tf.float32) / num_steps)
        return index + 1, tf.nest.map_structure(
            lambda value, gradient: (
                value + rate * tf.clip_by_value(gradient, -1.0, 1.0)
            ),
            change,
            gradients,
        )

    unchanged = {
        name: (tf.zeros_like(posterior.mean()),) * 2
        for name, posterior in posteriors.items()
    }
    _, change = tf.while_loop(
        lambda index, _: index < num_steps,
        step,
        (tf.constant(0), unchanged),
        parallel_iterations=1,
    )
    return change


def _check_posteriors(posteriors: Mapping[str, tfd.Distribution]) -> None:
    for name, posterior in posteriors.items():
        bijector = posterior.experimental_default_event_space_bijector()
        if not isinstance(bijector, tfb.Identity):
            raise ValueError(
                "`refinement_steps` must be 0 for this model: a refined "
                "posterior must be over all real numbers, as a Gaussian is. "
                f"Received: {type(posterior).__name__} of latent {name!r}."
            )
