"""A Gaussian of low rank plus a diagonal, fitted to Gaussians."""

from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util

from vhe_tf import random

__all__ = ["LowRankGaussian", "LowRankParameters", "fit_low_rank"]

# Keeps the diagonal positive where all means are equal.
_MIN_VARIANCE = 1e-6


class LowRankParameters(NamedTuple):
    """The parameters of a `LowRankGaussian` of events of shape `E...`.

    Attributes:
        loc: float array of shape `[E...]`, the mean.
        factors: float array of shape `[R, E...]`, directions, each as long as
            its standard deviation.
        scale_diag: float array of shape `[E...]`, standard deviations of what
            is independent in each number.
    """

    loc: np.ndarray
    factors: np.ndarray
    scale_diag: np.ndarray


class LowRankGaussian(tfd.TransformedDistribution):
    """A Gaussian with the covariance F^T F + diag(scale^2).

    F is `[R, D]`, with the R factors as rows, and D the number of dimensions.

    Args:
        loc: `[E...]`, the mean.
        factors: `[R, E...]`, F.
        scale_diag: `[E...]`, standard deviations.
        name: As in TFP.

    Example:
    >>> gaussian = LowRankGaussian(
    ...     tf.zeros([2, 3]), tf.ones([1, 2, 3]), tf.ones([2, 3]))
    >>> gaussian.event_shape
    TensorShape([2, 3])
    """

    def __init__(
        self,
        loc: tf.Tensor,
        factors: tf.Tensor,
        scale_diag: tf.Tensor,
        name: str = "LowRankGaussian",
    ) -> None:
        parameters = dict(locals())
        self.loc = tf.convert_to_tensor(loc)
        self.factors = tf.convert_to_tensor(factors)
        self.scale_diag = tf.convert_to_tensor(scale_diag)
        shape = self.loc.shape
        flat = tf.reshape(self.factors, [self.factors.shape[0], -1])
        super().__init__(
            tfd.MultivariateNormalDiagPlusLowRankCovariance(
                tf.reshape(self.loc, [-1]),
                tf.square(tf.reshape(self.scale_diag, [-1])),
                tf.transpose(flat),
            ),
            tfb.Reshape(shape),
            name=name,
        )
        self._parameters = parameters

    @classmethod
    def _parameter_properties(
        cls, dtype: Any, num_classes: Any = None
    ) -> dict[str, Any]:
        def of(name: str) -> tfp_util.ParameterProperties:
            return tfp_util.ParameterProperties(
                event_ndims=lambda self: getattr(self, name).shape.rank
            )

        return {name: of(name) for name in ("loc", "factors", "scale_diag")}

    def tempered(self, temperature: tf.Tensor) -> "LowRankGaussian":
        """Returns it with its density to the 1 / t."""
        scale = tf.sqrt(temperature)
        return LowRankGaussian(
            self.loc, self.factors * scale, self.scale_diag * scale
        )


def _noise(
    gaussian: tfd.Distribution, shape: tf.Tensor, seeds: tf.Tensor
) -> tf.Tensor:
    """Returns noise of the diagonal, and behind it that of the factors."""
    size = gaussian.loc.shape.num_elements() + gaussian.factors.shape[0]
    leading = shape[: shape.shape[0] - gaussian.loc.shape.rank]
    return random.normal(tf.concat([leading, [size]], axis=0), seeds)


def _transform(gaussian: LowRankGaussian, noise: tf.Tensor) -> tf.Tensor:
    size = gaussian.loc.shape.num_elements()
    leading = tf.shape(noise)[:-1]
    shape = tf.concat([leading, tf.shape(gaussian.loc)], axis=0)
    own = tf.reshape(noise[..., :size], shape)
    shared = tf.tensordot(noise[..., size:], gaussian.factors, axes=1)
    return gaussian.loc + gaussian.scale_diag * own + shared


random.register(LowRankGaussian, noise=_noise, transform=_transform)


def fit_low_rank(
    loc: np.ndarray, scale: np.ndarray, *, rank: int
) -> LowRankParameters:
    """Fits a `LowRankGaussian` to the mean of diagonal Gaussians.

    It has the mean of their mixture, the first principal components of their
    means as factors, and the remaining variance of each number on its diagonal:
    that of the mixture, if the means have no further correlations.

    Args:
        loc: Float array of shape `[M, E...]`, the means.
        scale: Float array of shape `[M, E...]`, the standard deviations.
        rank: Integer, R. At most M - 1.

    Returns:
        `LowRankParameters`, float32.

    Raises:
        ValueError: If there are too few Gaussians for the rank.

    Example:
    >>> loc = np.array([[1.0, 1.0], [-1.0, -1.0]])
    >>> fitted = fit_low_rank(loc, np.ones_like(loc), rank=1)
    >>> np.abs(fitted.factors).round(3).tolist()
    [[1.0, 1.0]]
    """
    if not 1 <= rank < len(loc):
        raise ValueError(
            "The rank must be from 1 to below the number of Gaussians. "
            f"Received: rank={rank!r} for {len(loc)}."
        )
    shape = loc.shape[1:]
    means = np.asarray(loc, np.float64).reshape(len(loc), -1)
    mean = means.mean(axis=0)
    centred = means - mean
    # The M x M matrix, which has the eigenvalues of the covariance.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[-rank:], vectors[:, -rank:]
    directions = vectors.T @ centred  # [R, D], of squared lengths `values`
    factors = directions / np.sqrt(len(loc))
    variance = np.square(np.asarray(scale, np.float64)).mean(axis=0).ravel()
    variance += centred.var(axis=0) - np.square(factors).sum(axis=0)
    return LowRankParameters(
        mean.reshape(shape).astype(np.float32),
        factors.reshape(rank, *shape).astype(np.float32),
        np.sqrt(np.maximum(variance, _MIN_VARIANCE))
        .reshape(shape)
        .astype(np.float32),
    )
