"""Priors that are fitted to the posteriors of training groups after training.

The KL of a group latent is shared by all elements of a group, so that training
fits p(c) loosely: q(c; D) of real groups fills a small part of it. A second
prior, from which new groups are sampled, is therefore fitted to the aggregate
posterior. The ELBO and every likelihood keep the first one.
"""

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.distributions.gaussian_mixture import fit_mixture
from vhe_tf.layers.gaussian_mixture import GaussianMixturePrior
from vhe_tf.layers.spatial_inference import PixelCNNPrior
from vhe_tf.models import _checks
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = ["fit_prior"]

_LEARNING_RATE = 2e-3
_CLIP_NORM = 1.0


def fit_prior(
    model: VHE,
    data: Episodes | GroupedData,
    *,
    num_steps: int = 500,
    num_components: int = 16,
    filters: int = 32,
    num_blocks: int = 8,
    seed: int = 0,
) -> VHE:
    """Fits priors to the posteriors of training groups, for sampling.

    For each group latent without parents, a distribution is fitted to samples
    of q(c; D) of the training groups. For a vector it is a mixture of Gaussians
    with full covariances; for a template, a PixelCNN that sees farther than the
    prior. `VHE.sample_prior`, and every other method that samples
    latents without a support, then uses it. The ELBO, likelihoods and guidance
    keep the prior of the training, so that none of their values change.

    Args:
        model: `VHE`, trained. It does not change.
        data: `Episodes` of the training groups, or `GroupedImages`.
        num_steps: Integer. Number of batches of episodes. Defaults to 500.
        num_components: Integer. Largest number of components of a mixture. It
            has at most one per 10 samples. Defaults to 16.
        filters: Integer. Filters of the PixelCNN of a template. Defaults to 32.
        num_blocks: Integer. Number of its blocks. Defaults to 8.
        seed: Integer. Seed of the samples of q(c; D). Defaults to 0.

    Returns:
        A new `VHE`, not compiled, with the same weights and the fitted priors.
        It is saved, loaded and exported as any other. Fit the priors again
        after further training.

    Raises:
        ValueError: If no latent can have a fitted prior, the episodes do not
            match the model, or an argument is not positive.

    Example:
    >>> import vhe_tf
    >>> from vhe_tf.data import GroupedImages
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> images = np.random.default_rng(0).random((40, 8, 8, 1))
    >>> data = GroupedImages(images, {"character": np.arange(40) // 5})
    >>> model = vhe_tf.fit_prior(model, data, num_steps=2)
    >>> model.sample_prior(3, seed=0).shape
    TensorShape([3, 8, 8, 1])
    """
    validation.positive("num_steps", num_steps)
    validation.positive("num_components", num_components)
    if not isinstance(data, Episodes):
        data = Episodes.for_model(model, data)
    _checks.check_episodes(model, data)
    fitted: dict[str, keras.layers.Layer] = {}
    for index, latent in enumerate(model.latents):
        if latent.parents or latent.per_element:
            continue
        samples = _Posteriors(latent, data, seed=random.fold_in(seed, index))
        if isinstance(latent.prior, PixelCNNPrior):
            prior = PixelCNNPrior(latent.prior.image_shape, filters, num_blocks)
            _train(prior, samples, num_steps=num_steps)
            fitted[latent.name] = prior
        elif latent.prior().event_shape.rank == 1:
            values = np.concatenate(
                [samples(step).numpy() for step in range(num_steps)]
            )
            fitted[latent.name] = _mixture(values, num_components)
    if not fitted:
        raise ValueError(
            "A prior is fitted for group latents without parents that are "
            "vectors or templates with a `PixelCNNPrior`. Received: latents "
            f"{[latent.name for latent in model.latents]}."
        )
    return _with_fitted(model, fitted)


class _Posteriors:
    """Samples of q(c; D) of a latent, one batch of episodes after another."""

    def __init__(
        self, latent: Latent, episodes: Episodes, *, seed: tf.Tensor
    ) -> None:
        self._latent = latent
        self._seed = seed
        self._episodes = iter(episodes.dataset())
        self._sample = tf.function(
            self._sampled, reduce_retracing=True, autograph=False
        )

    def __call__(self, step: int) -> tf.Tensor:
        """Returns `[B, E...]`, without the rows that have no label."""
        episode = next(self._episodes)
        name = self._latent.name
        values = self._sample(
            episode["support"][name],
            random.fold_in(self._seed, tf.constant(step)),
        )
        if name in episode.get("has_label", {}):
            values = values[episode["has_label"][name]]
        return values

    def _sampled(self, support: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return self._latent.posterior(support).sample(seed=seed)


def _mixture(values: np.ndarray, num_components: int) -> GaussianMixturePrior:
    num_components = max(1, min(num_components, len(values) // 10))
    prior = GaussianMixturePrior(values.shape[1], num_components)
    prior.set_weights(fit_mixture(values, num_components))
    return prior


def _train(
    prior: PixelCNNPrior, samples: _Posteriors, *, num_steps: int
) -> None:
    """Maximises log p(c) of the samples."""
    prior().log_prob(samples(0))  # builds it
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, num_steps),
        global_clipnorm=_CLIP_NORM,
    )
    optimizer.build(prior.trainable_variables)

    @tf.function(reduce_retracing=True, autograph=False)
    def train(values: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            log_prob = tf.reduce_mean(prior().log_prob(values))
            loss = -log_prob / tf.cast(tf.size(values[0]), tf.float32)
        variables = prior.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for step in range(1, num_steps + 1):
        train(samples(step))


def _with_fitted(model: VHE, fitted: dict[str, keras.layers.Layer]) -> VHE:
    """Returns a copy of a model in which latents have fitted priors."""
    config = model.get_config()
    serialize = keras.saving.serialize_keras_object
    for latent in config["latents"]:
        settings = latent["config"]
        if settings["name"] in fitted:
            settings["fitted_prior"] = serialize(fitted[settings["name"]])
    copy = VHE.from_config(config)
    copy.likelihood.set_weights(model.likelihood.get_weights())
    for new, old in zip(copy.latents, model.latents, strict=True):
        new.prior.set_weights(old.prior.get_weights())
        new.posterior.set_weights(old.posterior.get_weights())
        if new.name in fitted:
            new.fitted_prior.set_weights(fitted[new.name].get_weights())
    return copy
