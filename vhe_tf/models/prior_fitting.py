"""Priors that are fitted to the posteriors of training groups after training.

The KL of a group latent is shared by all elements of a group, so that training
fits p(c) loosely: q(c; D) of real groups fills a small part of it. A second
prior, from which new groups are sampled, is therefore fitted to the aggregate
posterior. The ELBO and every likelihood keep the first one.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.grouped_images import GroupedData
from vhe_tf.distributions.gaussian_mixture import fit_mixture
from vhe_tf.distributions.low_rank_gaussian import fit_low_rank
from vhe_tf.layers.gaussian_mixture import GaussianMixturePrior
from vhe_tf.layers.low_rank_gaussian import LowRankGaussianPrior
from vhe_tf.layers.spatial_inference import PixelCNNPrior
from vhe_tf.models import _checks
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = ["fit_prior"]

# Templates to fit to: the time grows with the third power.
_MAX_TEMPLATES = 2048


def fit_prior(
    model: VHE,
    data: Episodes | GroupedData,
    *,
    num_steps: int = 500,
    num_components: int = 16,
    rank: int = 16,
    seed: int = 0,
) -> VHE:
    """Fits priors to the posteriors of training groups, for sampling.

    For each group latent without parents, a distribution is fitted to q(c; D)
    of the training groups. For a vector it is a mixture of Gaussians with full
    covariances; for a template, one Gaussian, the principal components of the
    means of q(c; D) and a diagonal. `VHE.sample_prior`, and every other method
    that samples latents without a support, then uses it. The ELBO, likelihoods
    and guidance keep the prior of the training, so that none of their values
    change.

    Args:
        model: `VHE`, trained. It does not change.
        data: `Episodes` of the training groups, or `GroupedImages`.
        num_steps: Integer. Number of batches of episodes. Of templates, at
            most the first 2,048 are used. Defaults to 500.
        num_components: Integer. Largest number of components of a mixture. It
            has at most one per 10 samples. Defaults to 16.
        rank: Integer. Largest number of principal components of a template.
            It has at most one per 10 templates. Defaults to 16.
        seed: Integer. Seed of the samples of q(c; D). Defaults to 0.

    Returns:
        A new `VHE`, not compiled, with the same weights and the fitted priors.
        It is saved, loaded and exported as any other. Fit the priors again
        after further training.

    Raises:
        ValueError: If no latent can have a fitted prior, the episodes do not
            match the model, there are fewer than two templates, or an argument
            is not positive.

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
    validation.positive("rank", rank)
    if not isinstance(data, Episodes):
        data = Episodes.for_model(model, data)
    _checks.check_episodes(model, data)
    fitted: dict[str, keras.layers.Layer] = {}
    for index, latent in enumerate(model.latents):
        if latent.parents or latent.per_element:
            continue
        posteriors = _Posteriors(latent, data, seed=random.fold_in(seed, index))
        if isinstance(latent.prior, PixelCNNPrior):
            fitted[latent.name] = _low_rank(posteriors, num_steps, rank)
        elif latent.prior().event_shape.rank == 1:
            values = np.concatenate(
                [posteriors.sample(step).numpy() for step in range(num_steps)]
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
    """q(c; D) of a latent, one batch of episodes after another."""

    def __init__(
        self, latent: Latent, episodes: Episodes, *, seed: tf.Tensor
    ) -> None:
        self._latent = latent
        self._seed = seed
        self._episodes = iter(episodes.dataset())
        self._sampled, self._moments = (
            tf.function(function, reduce_retracing=True, autograph=False)
            for function in (
                lambda support, seed: latent.posterior(support).sample(
                    seed=seed
                ),
                lambda support: tf.stack(
                    [
                        latent.posterior(support).mean(),
                        latent.posterior(support).stddev(),
                    ],
                    axis=1,
                ),
            )
        )

    def sample(self, step: int) -> tf.Tensor:
        """Returns samples `[B, E...]`, without the rows that have no label."""
        episode = next(self._episodes)
        seed = random.fold_in(self._seed, tf.constant(step))
        support = episode["support"][self._latent.name]
        return self._labelled(episode, self._sampled(support, seed))

    def moments(self) -> tf.Tensor:
        """Returns means and standard deviations, `[B, 2, E...]`, likewise."""
        episode = next(self._episodes)
        support = episode["support"][self._latent.name]
        return self._labelled(episode, self._moments(support))

    def _labelled(self, episode: Any, values: tf.Tensor) -> tf.Tensor:
        name = self._latent.name
        if name in episode.get("has_label", {}):
            values = values[episode["has_label"][name]]
        return values


def _low_rank(
    posteriors: _Posteriors, num_steps: int, rank: int
) -> LowRankGaussianPrior:
    moments: list[np.ndarray] = []
    while sum(map(len, moments)) < _MAX_TEMPLATES and len(moments) < num_steps:
        moments.append(posteriors.moments().numpy())
    each = np.concatenate(moments)[:_MAX_TEMPLATES]
    if len(each) < 2:
        raise ValueError(
            "A prior of templates is fitted to two or more. Received: "
            f"{len(each)} images with a label in {num_steps} batches."
        )
    rank = max(1, min(rank, len(each) // 10))
    prior = LowRankGaussianPrior(each.shape[2:], rank)
    prior.set_weights(fit_low_rank(each[:, 0], each[:, 1], rank=rank))
    return prior


def _mixture(values: np.ndarray, num_components: int) -> GaussianMixturePrior:
    num_components = max(1, min(num_components, len(values) // 10))
    prior = GaussianMixturePrior(values.shape[1], num_components)
    prior.set_weights(fit_mixture(values, num_components))
    return prior


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
