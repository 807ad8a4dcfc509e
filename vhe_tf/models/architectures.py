"""The architectures of the paper, ready to train (Section 4.1).

The paper's supplement is not public in full; sizes follow Edwards and Storkey
(2016), "Towards a Neural Statistician", on which the paper's deconvolutional
model is based.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras

from vhe_tf import objectives
from vhe_tf.distributions import discretized
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.layers import pixel_cnn
from vhe_tf.layers import spatial_inference
from vhe_tf.layers import spatial_transformer
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = [
    "PIXEL_CNN_SIZES",
    "PixelCNNSize",
    "alphabet_vhe",
    "deconvolutional_vhe",
    "pixel_cnn_vhe",
    "style_vhe",
]


@dataclasses.dataclass(frozen=True)
class _DeconvolutionalSize:
    filters: tuple[int, ...]
    convolutions: int
    units: int
    group_latent_size: int
    element_latent_size: int


_DECONVOLUTIONAL_SIZES = {
    "published": _DeconvolutionalSize((64, 128, 256), 2, 256, 512, 16),
    "small": _DeconvolutionalSize((32, 64, 96), 1, 256, 64, 8),
}


def deconvolutional_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    group: str = "character",
    num_levels: int = 2,
) -> VHE:
    """Makes the deconvolutional model: c a group, z an element.

    p(c) = N(0, I), p(z | c) and q(z; c, x) as in Edwards and Storkey (2016),
    so that z carries only what c leaves open.

    Args:
        size: `"published"`, or `"small"`, which trains on two CPU cores.
        image_shape: `(H, W, C)`.
        objective: The bound to train.
        group: The name of the grouping, and so of the group latent.
        num_levels: Of a channel: 2 for binary images, each channel of a pixel
            a Bernoulli; 256 for 8 bits, each a Gaussian (`NormalImageHead`).

    Returns:
        A `VHE` with the latents `group` and `"element"`.

    Raises:
        ValueError: If `size` is unknown or `num_levels` less than 2.
    """
    s = _checked_size(size, _DECONVOLUTIONAL_SIZES)

    return VHE(
        latents=[
            Latent(
                group,
                prior=heads.StandardNormal(s.group_latent_size),
                posterior=inference.SupportPosterior(
                    _encoder(s), s.group_latent_size, s.units
                ),
            ),
            _element(s, parents=[group]),
        ],
        likelihood=_deconvolutional_likelihood(
            s, image_shape, num_levels=num_levels
        ),
        image_shape=image_shape,
        objective=objective,
    )


def alphabet_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    groups: tuple[str, str] = ("alphabet", "character"),
) -> VHE:
    """Makes the hierarchical model: a an alphabet, c a character (Eq. 21).

    "We extended the deconvolutional model with an extra latent layer a using
    the same encoder and decoder architecture as c" (Section 4.3). p(a) =
    N(0, I), p(c | a) is learned; q(a; D_a), q(c; D_c, a), and z of an element
    as in `deconvolutional_vhe`.

    Args:
        size: As in `deconvolutional_vhe`. In the published model x depends on
            both a and c; in the small one on a through c alone, so that it
            cannot learn the characters of the training alphabets by heart.
        image_shape: As there.
        objective: The bound to train.
        groups: The names of the groupings, the one that holds the other first.

    Returns:
        A `VHE` with the latents `groups` and `"element"`.

    Raises:
        ValueError: If `size` is unknown.
    """
    s = _checked_size(size, _DECONVOLUTIONAL_SIZES)
    outer, inner = groups

    def posterior() -> inference.SupportPosterior:
        return inference.SupportPosterior(
            _encoder(s), s.group_latent_size, s.units
        )

    return VHE(
        latents=[
            Latent(
                outer,
                prior=heads.StandardNormal(s.group_latent_size),
                posterior=posterior(),
            ),
            Latent(
                inner,
                prior=inference.ConditionalNormal(s.group_latent_size, s.units),
                posterior=posterior(),
                parents=[outer],
            ),
            _element(s, parents=[inner] if size == "small" else groups),
        ],
        likelihood=_deconvolutional_likelihood(
            s, image_shape, exclude=[outer] if size == "small" else []
        ),
        image_shape=image_shape,
        objective=objective,
    )


def _encoder(s: _DeconvolutionalSize) -> convolution.ConvolutionalEncoder:
    return convolution.ConvolutionalEncoder(s.filters, s.convolutions)


def _element(s: _DeconvolutionalSize, parents: Sequence[str]) -> Latent:
    return Latent(
        "element",
        prior=inference.ConditionalNormal(s.element_latent_size, s.units),
        posterior=inference.QueryPosterior(
            _encoder(s), s.element_latent_size, s.units
        ),
        parents=parents,
        per_element=True,
    )


def _deconvolutional_likelihood(
    s: _DeconvolutionalSize,
    image_shape: Sequence[int],
    *,
    exclude: Sequence[str] = (),
    num_levels: int = 2,
) -> inference.ImageLikelihood:
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


@dataclasses.dataclass(frozen=True)
class PixelCNNSize:
    """The numbers that `pixel_cnn_vhe` is made of.

    A size of your own is one of `PIXEL_CNN_SIZES` with some of them replaced:
    `dataclasses.replace(PIXEL_CNN_SIZES["small"], filters=48)`.

    Attributes:
        template_channels: Of the template c.
        encoder_filters: Of each scale of q(c; D); see `TemplatePosterior`.
        encoder_kernel_size: Of its convolutions.
        pose_filters: Of the convolutions of q(z; c, x); where there are none,
            q(z; x) by the published localisation network.
        pose_size: Of z.
        prior_filters: Of the gated PixelCNN of p(c).
        prior_blocks: Of the same.
        filters: Of the gated PixelCNN of p(x | c, z); see `GatedPixelCNN` for
            this and those below.
        num_blocks: Of the same.
        kernel_size: Of its blocks.
        conditioning_filters: Of the 3x3 convolutions before its gates.
        conditioning_kernel_size: Of the convolutions into its gates.
        dropout: Of its blocks.
        num_components: Of the mixture of a pixel of many levels.
    """

    template_channels: int
    encoder_filters: tuple[int, ...]
    encoder_kernel_size: int
    pose_filters: tuple[int, ...]
    pose_size: int
    prior_filters: int
    prior_blocks: int
    filters: int
    num_blocks: int
    kernel_size: int
    conditioning_filters: tuple[int, ...]
    conditioning_kernel_size: int
    dropout: float
    num_components: int


PIXEL_CNN_SIZES = {
    "published": PixelCNNSize(
        template_channels=10,
        encoder_filters=(10,),
        encoder_kernel_size=5,
        pose_filters=(),
        pose_size=90,
        prior_filters=20,
        prior_blocks=2,
        filters=40,
        num_blocks=4,
        kernel_size=5,
        conditioning_filters=(),
        conditioning_kernel_size=5,
        dropout=0.5,
        num_components=10,
    ),
    "small": PixelCNNSize(
        template_channels=8,
        encoder_filters=(16, 32, 48),
        encoder_kernel_size=3,
        pose_filters=(16, 32, 32),
        pose_size=8,
        prior_filters=16,
        prior_blocks=2,
        filters=32,
        num_blocks=5,
        kernel_size=3,
        conditioning_filters=(24, 24),
        conditioning_kernel_size=1,
        dropout=0.0,
        num_components=3,
    ),
    "large": PixelCNNSize(
        template_channels=8,
        encoder_filters=(32, 48, 64),
        encoder_kernel_size=3,
        pose_filters=(16, 32, 32),
        pose_size=8,
        prior_filters=16,
        prior_blocks=2,
        filters=64,
        num_blocks=6,
        kernel_size=3,
        conditioning_filters=(32, 32),
        conditioning_kernel_size=1,
        dropout=0.2,
        num_components=10,
    ),
}


def pixel_cnn_vhe(
    size: str | PixelCNNSize = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    group: str = "character",
    num_levels: int = 2,
) -> VHE:
    """Makes the hierarchical PixelCNN model of Figure 3.

    c is a template, an image of several channels, with a PixelCNN prior and a
    spatial transformer averaged over D as posterior; z, with prior N(0, I),
    says in which pose the template appears; x is a gated PixelCNN given the
    template in that pose, STN(c, z). Of images of many levels the posterior
    begins narrow (`TemplatePosterior.initial_scale`).

    Args:
        size: `"published"`, after a later configuration by the paper's
            authors; `"small"`, which trains on two CPU cores, encodes at
            three scales, and infers z from x and c, not x alone; `"large"`,
            the small structure with twice the filters and one block more in
            the decoder, wider encoders and dropout, for a GPU; or a size of
            your own.
        image_shape: `(H, W, C)`.
        objective: The bound to train.
        group: The name of the grouping, and so of the group latent.
        num_levels: Of a channel: 2 for binary images, each channel of a pixel
            a Bernoulli; 256 for 8 bits, each pixel a discretized mixture of
            logistics, its channels in order.

    Returns:
        A `VHE` with the latents `group` and `"pose"`.

    Raises:
        ValueError: If `size` is unknown or `num_levels` less than 2.
    """
    if isinstance(size, PixelCNNSize):
        s = size
    else:
        s = _checked_size(size, PIXEL_CNN_SIZES)
    return VHE(
        latents=[
            _template(
                group,
                s,
                image_shape,
                # Of photographs the next pixels tell so much that a decoder
                # shuts out a template that begins as noise.
                initial_scale=None if num_levels == 2 else 0.05,
            ),
            _pose(s, template=group),
        ],
        likelihood=spatial_inference.PoseLikelihood(
            _decoder(s, image_shape, num_levels),
            image_shape,
            template=group,
            pose="pose",
            num_levels=num_levels,
            num_components=s.num_components,
        ),
        image_shape=image_shape,
        objective=objective,
    )


@dataclasses.dataclass(frozen=True)
class _StyleSize:
    filters: tuple[int, ...]
    convolutions: int
    units: int
    style_size: int


_STYLE_SIZES = {
    "published": _StyleSize((64, 128, 256), 2, 256, 6),
    "small": _StyleSize((16, 32, 48), 0, 64, 6),
}


def style_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 3),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    groups: tuple[str, str] = ("character", "style"),
    num_levels: int = 256,
) -> VHE:
    """Makes the factorial model: c a character, s a style (Eq. 18, Figure 8).

    "We extended the PixelCNN model" (Section 4.3): c is a template and z its
    pose as in `pixel_cnn_vhe`, s a vector of 6 from a convolutional encoder,
    with p(s) = N(0, I). "For each image location we condition the PixelCNN
    decoder using the outer product" of s and c_ij, the template in its pose;
    pixels are discretized mixtures of logistics.

    Args:
        size: `"published"`, or `"small"`, which trains on two CPU cores; c, z
            and the decoder as in `pixel_cnn_vhe`.
        image_shape: `(H, W, C)`.
        objective: The bound to train.
        groups: The names of the groupings, content and style.
        num_levels: The levels of a channel: 256 for 8 bits. Where images have
            fewer, say so: colours are then learned far sooner.

    Returns:
        A `VHE` with the latents `groups` and `"pose"`.

    Raises:
        ValueError: If `size` is unknown.
    """
    s = _checked_size(size, _STYLE_SIZES)
    c = PIXEL_CNN_SIZES[size]
    content, style = groups
    return VHE(
        latents=[
            _template(content, c, image_shape),
            Latent(
                style,
                prior=heads.StandardNormal(s.style_size),
                posterior=inference.SupportPosterior(
                    convolution.ConvolutionalEncoder(s.filters, s.convolutions),
                    s.style_size,
                    s.units,
                ),
            ),
            _pose(c, template=content),
        ],
        likelihood=spatial_inference.StyledLikelihood(
            _decoder(c, image_shape, num_levels),
            image_shape,
            template=content,
            pose="pose",
            style=style,
            num_levels=num_levels,
            num_components=c.num_components,
        ),
        image_shape=image_shape,
        objective=objective,
    )


def _template(
    name: str,
    s: PixelCNNSize,
    image_shape: Sequence[int],
    *,
    initial_scale: float | None = None,
) -> Latent:
    height, width, _ = image_shape
    return Latent(
        name,
        prior=spatial_inference.PixelCNNPrior(
            (height, width, s.template_channels),
            s.prior_filters,
            s.prior_blocks,
        ),
        posterior=spatial_inference.TemplatePosterior(
            s.template_channels,
            s.encoder_filters,
            s.encoder_kernel_size,
            initial_scale=initial_scale,
        ),
        divergence="one_sample",
    )


def _pose(s: PixelCNNSize, template: str) -> Latent:
    return Latent(
        "pose",
        prior=heads.StandardNormal(s.pose_size),
        posterior=spatial_inference.PosePosterior(
            convolution.ConvolutionalEncoder(s.pose_filters, convolutions=0)
            if s.pose_filters
            else spatial_transformer.Localisation(),
            s.pose_size,
        ),
        parents=[template] if s.pose_filters else [],
        per_element=True,
    )


def _decoder(
    s: PixelCNNSize, image_shape: Sequence[int], num_levels: int
) -> pixel_cnn.GatedPixelCNN:
    pixels = discretized.pixels_of(num_levels, s.num_components)
    initial = pixels.initial_parameters(image_shape[2])
    return pixel_cnn.GatedPixelCNN(
        len(initial),
        filters=s.filters,
        num_blocks=s.num_blocks,
        kernel_size=s.kernel_size,
        conditioning_filters=s.conditioning_filters,
        conditioning_kernel_size=s.conditioning_kernel_size,
        dropout=s.dropout,
        bias_initializer=keras.initializers.Constant(initial),
    )


def _checked_size(size: str, sizes: Mapping[str, Any]) -> Any:
    if size not in sizes:
        raise ValueError(
            f"`size` must be one of {sorted(sizes)}. Received: size={size!r}."
        )
    return sizes[size]
