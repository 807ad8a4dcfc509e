"""The architectures of the paper, ready to train (Section 4.1).

The paper's supplement is not public in full; sizes follow Edwards and Storkey
(2016), "Towards a Neural Statistician", on which the paper's deconvolutional
model is based.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from vhe_tf import objectives
from vhe_tf.distributions import pixel_cnn as distributions
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.layers import pixel_cnn
from vhe_tf.layers import spatial_inference
from vhe_tf.layers import spatial_transformer
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = ["deconvolutional_vhe", "pixel_cnn_vhe"]


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
) -> VHE:
    """Makes the deconvolutional model: c a group, z an element, binary images.

    p(c) = N(0, I), p(z | c) and q(z; c, x) as in Edwards and Storkey (2016),
    so that z carries only what c leaves open.

    Args:
        size: `"published"`, or `"small"`, which trains on two CPU cores.
        image_shape: `(H, W, C)`; each channel of a pixel is one Bernoulli.
        objective: The bound to train.
        group: The name of the grouping, and so of the group latent.

    Returns:
        A `VHE` with the latents `group` and `"element"`.

    Raises:
        ValueError: If `size` is unknown.
    """
    s = _checked_size(size, _DECONVOLUTIONAL_SIZES)

    def encoder() -> convolution.ConvolutionalEncoder:
        return convolution.ConvolutionalEncoder(s.filters, s.convolutions)

    return VHE(
        latents=[
            Latent(
                group,
                prior=heads.StandardNormal(s.group_latent_size),
                posterior=inference.SupportPosterior(
                    encoder(), s.group_latent_size, s.units
                ),
            ),
            Latent(
                "element",
                prior=inference.ConditionalNormal(
                    s.element_latent_size, s.units
                ),
                posterior=inference.QueryPosterior(
                    encoder(), s.element_latent_size, s.units
                ),
                parents=[group],
                per_element=True,
            ),
        ],
        likelihood=inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(
                image_shape, s.filters, s.convolutions
            ),
            heads.BernoulliImageHead(),
        ),
        image_shape=image_shape,
        objective=objective,
    )


@dataclasses.dataclass(frozen=True)
class _PixelCNNSize:
    template_channels: int
    encoder_filters: tuple[int, ...]
    encoder_kernel_size: int
    pose_filters: tuple[int, ...]  # empty: the published localisation network
    pose_size: int
    prior_filters: int
    prior_blocks: int
    filters: int
    num_blocks: int
    kernel_size: int
    conditioning_filters: tuple[int, ...]
    conditioning_kernel_size: int
    dropout: float


_PIXEL_CNN_SIZES = {
    "published": _PixelCNNSize(
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
    ),
    "small": _PixelCNNSize(
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
    ),
}


def pixel_cnn_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    group: str = "character",
) -> VHE:
    """Makes the hierarchical PixelCNN model of Figure 3, for binary images.

    c is a template, an image of several channels, with a PixelCNN prior and a
    spatial transformer averaged over D as posterior; z, with prior N(0, I),
    says in which pose the template appears; x is a gated PixelCNN given the
    template in that pose, STN(c, z).

    Args:
        size: `"published"`, after a later configuration by the paper's
            authors; or `"small"`, which trains on two CPU cores, encodes at
            three scales, and infers z from x and c, not x alone.
        image_shape: `(H, W, C)`; each channel of a pixel is one Bernoulli.
        objective: The bound to train.
        group: The name of the grouping, and so of the group latent.

    Returns:
        A `VHE` with the latents `group` and `"pose"`.

    Raises:
        ValueError: If `size` is unknown.
    """
    s = _checked_size(size, _PIXEL_CNN_SIZES)
    height, width, _ = image_shape
    return VHE(
        latents=[
            Latent(
                group,
                prior=spatial_inference.PixelCNNPrior(
                    (height, width, s.template_channels),
                    s.prior_filters,
                    s.prior_blocks,
                ),
                posterior=spatial_inference.TemplatePosterior(
                    s.template_channels,
                    s.encoder_filters,
                    s.encoder_kernel_size,
                ),
                divergence="one_sample",
            ),
            Latent(
                "pose",
                prior=heads.StandardNormal(s.pose_size),
                posterior=spatial_inference.PosePosterior(
                    convolution.ConvolutionalEncoder(
                        s.pose_filters, convolutions=0
                    )
                    if s.pose_filters
                    else spatial_transformer.Localisation(),
                    s.pose_size,
                ),
                parents=[group] if s.pose_filters else [],
                per_element=True,
            ),
        ],
        likelihood=spatial_inference.PoseLikelihood(
            pixel_cnn.GatedPixelCNN(
                distributions.BernoulliPixels().num_parameters(image_shape[2]),
                filters=s.filters,
                num_blocks=s.num_blocks,
                kernel_size=s.kernel_size,
                conditioning_filters=s.conditioning_filters,
                conditioning_kernel_size=s.conditioning_kernel_size,
                dropout=s.dropout,
            ),
            image_shape,
            template=group,
            pose="pose",
        ),
        image_shape=image_shape,
        objective=objective,
    )


def _checked_size(size: str, sizes: Mapping[str, Any]) -> Any:
    if size not in sizes:
        raise ValueError(
            f"`size` must be one of {sorted(sizes)}. Received: size={size!r}."
        )
    return sizes[size]
