"""Priors, posteriors and likelihoods over vector latents (Section 4.1)."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.layers import base
from vhe_tf.layers import heads

__all__ = [
    "ConditionalNormal",
    "ImageLikelihood",
    "QueryPosterior",
    "SupportPosterior",
    "concatenated",
]


@keras.saving.register_keras_serializable(package="vhe_tf")
class ConditionalNormal(base.BaseLayer):
    """A diagonal Gaussian p(latent | parents) computed by a dense network.

    Args:
        latent_size: Positive integer, L.
        units: Integer. Width of the hidden layer.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        *parents: `[S..., B, P]` each, the values of the parents.

    Returns:
        A `tfd.MultivariateNormalDiag`, batch shape `[S..., B]`, event shape
        `[L]`.

    Example:
    >>> ConditionalNormal(3, units=8)(tf.zeros([2, 4])).batch_shape
    TensorShape([2])
    """

    def __init__(self, latent_size: int, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.latent_size = latent_size
        self.units = units
        self.hidden = keras.layers.Dense(
            units, activation="elu", dtype=self.dtype_policy
        )
        self.head = heads.DiagonalNormalHead(
            latent_size, dtype=self.dtype_policy
        )

    def call(self, *parents: tf.Tensor) -> tfd.Distribution:
        return self.head(self.hidden(tf.concat(parents, axis=-1)))


class _EncoderPosterior(base.BaseLayer):
    """Base class of posteriors that encode images to vectors."""

    def __init__(
        self,
        encoder: keras.layers.Layer,
        latent_size: int,
        units: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.encoder = encoder
        self.latent_size = latent_size
        self.units = units
        self.before = self._dense()
        self.after = self._dense()
        self.head = heads.DiagonalNormalHead(
            latent_size, dtype=self.dtype_policy
        )

    def _dense(self) -> keras.layers.Layer:
        return keras.layers.Dense(
            self.units, activation="elu", dtype=self.dtype_policy
        )

    def _given_parents(
        self, features: tf.Tensor, parents: Sequence[tf.Tensor]
    ) -> tfd.Distribution:
        """Combines `[B, F]` with parents of shape `[S..., B, P]` each."""
        if parents:
            leading = tf.shape(parents[0])[:-1]
            shape = tf.concat([leading, [features.shape[-1]]], axis=0)
            features = tf.concat(
                [tf.broadcast_to(features, shape), *parents], axis=-1
            )
        return self.head(self.after(features))


@keras.saving.register_keras_serializable(package="vhe_tf")
class SupportPosterior(_EncoderPosterior):
    """Posterior q(c; D, parents): encodes elements and averages over D.

    The statistic network of Edwards and Storkey (2016) has a dense layer before
    and one after the mean over the support. It accepts supports of any size and
    does not depend on their order.

    Args:
        encoder: Keras layer from images `[B, H, W, C]` to features `[B, F]`.
        latent_size: Positive integer, L.
        units: Integer. Width of the dense layers.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        support: `[B, N, H, W, C]`, D.
        *parents: `[S..., B, P]` each, the values of the parents.

    Returns:
        A `tfd.MultivariateNormalDiag`, batch shape `[S..., B]`, event shape
        `[L]`.

    Example:
    >>> posterior = SupportPosterior(keras.layers.Flatten(), 3, units=8)
    >>> posterior(tf.zeros([2, 5, 8, 8, 1])).batch_shape
    TensorShape([2])
    """

    def call(self, support: tf.Tensor, *parents: tf.Tensor) -> tfd.Distribution:
        shape = tf.shape(support)
        images = tf.reshape(support, tf.concat([[-1], shape[2:]], axis=0))
        images = tf.ensure_shape(images, [None, *support.shape[2:]])
        features = self.before(self.encoder(images))  # [B * N, F]
        features = tf.reshape(features, [shape[0], shape[1], self.units])
        return self._given_parents(tf.reduce_mean(features, axis=1), parents)


@keras.saving.register_keras_serializable(package="vhe_tf")
class QueryPosterior(_EncoderPosterior):
    """Posterior q(z; x, parents) of a per-element latent.

    Args:
        encoder: Keras layer from images `[B, H, W, C]` to features `[B, F]`.
        latent_size: Positive integer, L.
        units: Integer. Width of the dense layers.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        query: `[B, H, W, C]`, x.
        *parents: `[S..., B, P]` each, the values of the parents.

    Returns:
        A `tfd.MultivariateNormalDiag`, batch shape `[S..., B]`, event shape
        `[L]`.

    Example:
    >>> posterior = QueryPosterior(keras.layers.Flatten(), 3, units=8)
    >>> posterior(tf.zeros([2, 8, 8, 1])).batch_shape
    TensorShape([2])
    """

    def call(self, query: tf.Tensor, *parents: tf.Tensor) -> tfd.Distribution:
        return self._given_parents(self.before(self.encoder(query)), parents)


@keras.saving.register_keras_serializable(package="vhe_tf")
class ImageLikelihood(base.BaseLayer):
    """Likelihood p(x | latents): decodes concatenated latents to an image.

    Args:
        decoder: Keras layer from features `[..., F]` to parameters
            `[..., H, W, P]`.
        head: Keras layer from these parameters to a distribution over images.
        exclude: Sequence of names of latents on which x does not depend
            directly. Defaults to none.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        **latents: `[S..., B, L]` each, the values of the latents.

    Returns:
        The distribution of `head`, with batch shape `[S..., B]` and event
        shape `[H, W, C]`.

    Raises:
        ValueError: If `exclude` names an unknown latent. Raised by `call`.

    Example:
    >>> from vhe_tf.layers import ConvolutionalDecoder
    >>> decoder = ConvolutionalDecoder((8, 8, 1), filters=[8])
    >>> likelihood = ImageLikelihood(decoder, heads.BernoulliImageHead())
    >>> likelihood(character=tf.zeros([2, 3])).event_shape
    TensorShape([8, 8, 1])
    """

    def __init__(
        self,
        decoder: keras.layers.Layer,
        head: keras.layers.Layer,
        exclude: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.decoder = decoder
        self.head = head
        self.exclude = tuple(exclude)

    def call(self, **latents: tf.Tensor) -> tfd.Distribution:
        return self.head(self.decoder(concatenated(latents, self.exclude)))


def concatenated(
    latents: Mapping[str, tf.Tensor], exclude: Sequence[str]
) -> tf.Tensor:
    """Returns the latents on which x depends as one vector.

    Args:
        latents: Tensors of shape `[S..., B, L]` by name.
        exclude: Sequence of strings. Names of latents that are omitted.

    Raises:
        ValueError: If `exclude` names an unknown latent.

    Example:
    >>> z = tf.zeros([2, 3])
    >>> concatenated({"a": z, "b": z, "c": z}, exclude=["b"]).shape
    TensorShape([2, 6])
    """
    unknown = set(exclude).difference(latents)
    if unknown:
        raise ValueError(
            "`exclude` names latents on which x does not depend directly, "
            f"some of {sorted(latents)}. Received: {sorted(unknown)}."
        )
    # Sorted by name: the order of declaration does not matter.
    seen = sorted(set(latents).difference(exclude))
    return tf.concat([latents[name] for name in seen], axis=-1)
