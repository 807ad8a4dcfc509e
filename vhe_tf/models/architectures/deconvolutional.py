"""The deconvolutional model (Section 4.1).

The paper's supplement is not public in full. Sizes follow Edwards and Storkey
(2016), "Towards a Neural Statistician", on which the paper's deconvolutional
model is based.
"""

import dataclasses
from collections.abc import Sequence

import keras

from vhe_tf import objectives
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models.architectures import _sizes
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = [
    "SIZES",
    "DeconvolutionalSize",
    "deconvolutional_vhe",
    "element_latent",
    "encoder",
    "group_latent",
    "image_likelihood",
]


@dataclasses.dataclass(frozen=True)
class DeconvolutionalSize:
    """The sizes of which `deconvolutional_vhe` and `alphabet_vhe` are made.

    Attributes:
        filters: Tuple of integers. Filters of each scale of the encoders and
            the decoder.
        convolutions: Integer. Convolutions of each scale before its stride.
        units: Integer. Width of the dense layers.
        group_latent_size: Integer. Size of the latent of a group.
        element_latent_size: Integer. Size of the latent of an element.
    """

    filters: tuple[int, ...]
    convolutions: int
    units: int
    group_latent_size: int
    element_latent_size: int


SIZES = {
    "published": DeconvolutionalSize((64, 128, 256), 2, 256, 512, 16),
    "small": DeconvolutionalSize((32, 64, 96), 1, 256, 64, 8),
}


def deconvolutional_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    group: str = "character",
    num_levels: int = 2,
) -> VHE:
    """Makes the deconvolutional model with a latent per group and per element.

    The latent of a group is c, the latent of an element z. p(c) = N(0, I);
    p(z | c) and q(z; c, x) are those of Edwards and Storkey (2016). z therefore
    encodes only what c does not determine.

    Args:
        size: String. `"published"`, or `"small"`, which trains on two CPU
            cores. Defaults to `"published"`.
        image_shape: Three positive integers, `(H, W, C)`. Defaults to
            `(28, 28, 1)`.
        objective: `Objective` or its name. The objective to train. Defaults
            to `"vhe"`.
        group: String. The name of the grouping, and so of the group latent.
            Defaults to `"character"`.
        num_levels: Integer. Number of levels per channel. Pixels are Bernoulli
            for 2 levels, else Gaussian (`NormalImageHead`). Defaults to 2.

    Returns:
        A `VHE` with the latents `group` and `"element"`.

    Raises:
        ValueError: If `size` is unknown or `num_levels` is less than 2.

    Example:
    >>> import vhe_tf
    >>> model = vhe_tf.deconvolutional_vhe("small", image_shape=(8, 8, 1))
    >>> [latent.name for latent in model.latents]
    ['character', 'element']
    """
    s = _sizes.checked_size(size, SIZES)

    return VHE(
        latents=[
            group_latent(group, s),
            element_latent(s, parents=[group]),
        ],
        likelihood=image_likelihood(s, image_shape, num_levels=num_levels),
        event_shape=image_shape,
        objective=objective,
    )


def encoder(s: DeconvolutionalSize) -> convolution.ConvolutionalEncoder:
    """Returns a new encoder of images."""
    return convolution.ConvolutionalEncoder(s.filters, s.convolutions)


def group_latent(
    name: str, s: DeconvolutionalSize, *, parents: Sequence[str] = ()
) -> Latent:
    """Returns the latent of a group, given its parents."""
    return Latent.vector(
        name,
        s.group_latent_size,
        encoder=encoder(s),
        units=s.units,
        parents=parents,
    )


def element_latent(s: DeconvolutionalSize, parents: Sequence[str]) -> Latent:
    """Returns the latent z of an element, given its parents."""
    return Latent.vector(
        "element",
        s.element_latent_size,
        encoder=encoder(s),
        units=s.units,
        parents=parents,
        per_element=True,
    )


def image_likelihood(
    s: DeconvolutionalSize,
    image_shape: Sequence[int],
    *,
    exclude: Sequence[str] = (),
    num_levels: int = 2,
) -> inference.ImageLikelihood:
    """Returns p(x | latents) for images of 2 or more levels per channel."""
    head: keras.layers.Layer = heads.BernoulliImageHead()
    *size, channels = image_shape
    if num_levels != 2:
        head = heads.NormalImageHead(num_levels)
        channels *= 2
    return inference.ImageLikelihood(
        convolution.ConvolutionalDecoder(
            (*size, channels), s.filters, s.convolutions
        ),
        head,
        exclude,
    )
