"""Mixtures of Gaussians, fitted to vectors by expectation maximisation."""

from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util

from vhe_tf import random

__all__ = ["GaussianMixture", "MixtureParameters", "fit_mixture"]

# Pseudo-observations of the covariance of all vectors, per dimension.
_PRIOR_STRENGTH = 0.5
_TOLERANCE = 1e-4
_MAX_STEPS = 200


class MixtureParameters(NamedTuple):
    """The parameters of a mixture of K Gaussians of L dimensions.

    Attributes:
        logits: float array of shape `[K]`, logarithms of the weights.
        loc: float array of shape `[K, L]`, the means.
        scale_tril: float array of shape `[K, L, L]`, Cholesky factors of the
            covariances.
    """

    logits: np.ndarray
    loc: np.ndarray
    scale_tril: np.ndarray


class GaussianMixture(tfd.MixtureSameFamily):
    """A mixture of Gaussians with full covariances.

    Args:
        logits: `[K]`, logarithms of the weights, up to a constant.
        loc: `[K, L]`, the means.
        scale_tril: `[K, L, L]`, Cholesky factors of the covariances.
        name: As in TFP.

    Example:
    >>> mixture = GaussianMixture([0.0, 0.0], [[-1.0], [1.0]], [[[1.0]]] * 2)
    >>> float(mixture.mean()[0])
    0.0
    """

    def __init__(
        self,
        logits: tf.Tensor,
        loc: tf.Tensor,
        scale_tril: tf.Tensor,
        name: str = "GaussianMixture",
    ) -> None:
        parameters = dict(locals())
        super().__init__(
            tfd.Categorical(logits=logits),
            tfd.MultivariateNormalTriL(loc, scale_tril),
            name=name,
        )
        self._parameters = parameters
        self.logits = tf.convert_to_tensor(logits)
        self.loc = tf.convert_to_tensor(loc)
        self.scale_tril = tf.convert_to_tensor(scale_tril)

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: Any = None
    ) -> dict[str, Any]:
        return {
            name: tfp_util.ParameterProperties(event_ndims=rank)
            for name, rank in (("logits", 1), ("loc", 2), ("scale_tril", 3))
        }

    def tempered(self, temperature: tf.Tensor) -> "GaussianMixture":
        """Returns it with p(component) and each Gaussian to the 1 / t."""
        return GaussianMixture(
            self.logits / temperature,
            self.loc,
            self.scale_tril * tf.sqrt(temperature),
        )


def _noise(
    _: tfd.Distribution, shape: tf.Tensor, seeds: tf.Tensor
) -> tf.Tensor:
    """Returns one number more than there are dimensions: the component's."""
    shape = tf.concat([shape[:-1], shape[-1:] + 1], axis=0)
    return random.normal(shape, seeds)


def _transform(mixture: GaussianMixture, noise: tf.Tensor) -> tf.Tensor:
    below = tfd.Normal(0.0, 1.0).cdf(noise[..., :1])
    probabilities = mixture.mixture_distribution.probs_parameter()
    index = tf.reduce_sum(
        tf.cast(below > tf.cumsum(probabilities)[:-1], tf.int32), axis=-1
    )
    return tf.gather(mixture.loc, index) + tf.linalg.matvec(
        tf.gather(mixture.scale_tril, index), noise[..., 1:]
    )


random.register(GaussianMixture, noise=_noise, transform=_transform)


def fit_mixture(
    values: np.ndarray, num_components: int, *, seed: int = 0
) -> MixtureParameters:
    """Fits a mixture of Gaussians with full covariances to vectors.

    Expectation maximisation starts from the clusters of k-means. Each
    covariance is that of its vectors and of L / 2 pseudo-observations with the
    mean covariance within components, so that few vectors are enough.

    Args:
        values: Float array of shape `[M, L]`, the vectors.
        num_components: Integer, K. At most M / 2.
        seed: Integer. Decides where k-means starts. Defaults to 0.

    Returns:
        `MixtureParameters`, float32.

    Raises:
        ValueError: If there are fewer than two vectors per component.

    Example:
    >>> values = np.concatenate([np.zeros([50, 1]), np.ones([50, 1])])
    >>> sorted(fit_mixture(values, 2).loc[:, 0].tolist())
    [0.0, 1.0]
    """
    values = np.asarray(values, np.float64)
    if not 1 <= num_components <= len(values) // 2:
        raise ValueError(
            "A mixture needs two vectors or more per component. Received: "
            f"{len(values)} vectors, num_components={num_components!r}."
        )
    size = values.shape[1]
    floor = 1e-6 * max(values.var(axis=0).mean(), 1e-6) * np.eye(size)
    shares = np.eye(num_components)[_clusters(values, num_components, seed)]
    before = -np.inf
    for _ in range(_MAX_STEPS):
        counts = shares.sum(axis=0) + 1e-10  # [K]
        loc = shares.T @ values / counts[:, None]
        scatter = np.stack(
            [
                (shares[:, k, None] * (values - loc[k])).T @ (values - loc[k])
                for k in range(num_components)
            ]
        )
        within = scatter.sum(axis=0) / len(values)
        strength = _PRIOR_STRENGTH * size
        covariance = (scatter + strength * within) / (
            counts[:, None, None] + strength
        )
        scale_tril = np.linalg.cholesky(covariance + floor)
        logits = np.log(counts / counts.sum())
        scores = logits + np.stack(
            [
                _log_density(values - loc[k], scale_tril[k])
                for k in range(num_components)
            ],
            axis=1,
        )
        total = np.logaddexp.reduce(scores, axis=1)
        shares = np.exp(scores - total[:, None])
        if total.mean() - before < _TOLERANCE:
            break
        before = total.mean()
    return MixtureParameters(
        *(v.astype(np.float32) for v in (logits, loc, scale_tril))
    )


def _log_density(centred: np.ndarray, scale_tril: np.ndarray) -> np.ndarray:
    white = np.linalg.solve(scale_tril, centred.T)
    half_log_det = np.log(np.diagonal(scale_tril)).sum()
    constant = 0.5 * len(scale_tril) * np.log(2.0 * np.pi)
    return -0.5 * np.square(white).sum(axis=0) - half_log_det - constant


def _clusters(values: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns the cluster of each vector, by k-means from k-means++."""
    generator = np.random.default_rng(seed)
    centres = values[generator.integers(len(values))][None]
    while len(centres) < count:
        nearest = _squares(values, centres).min(axis=1)
        total = nearest.sum()
        # All vectors can be equal to a centre.
        chances = nearest / total if total > 0 else None
        centres = np.append(
            centres, values[[generator.choice(len(values), p=chances)]], axis=0
        )
    for _ in range(20):
        index = _squares(values, centres).argmin(axis=1)
        for k in np.unique(index):
            centres[k] = values[index == k].mean(axis=0)
    return _squares(values, centres).argmin(axis=1)


def _squares(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.maximum(
        np.square(values).sum(axis=1)[:, None]
        - 2.0 * values @ centres.T
        + np.square(centres).sum(axis=1),
        0.0,
    )
