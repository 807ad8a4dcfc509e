"""The hierarchical PixelCNN model (Figure 3)."""

import dataclasses
from collections.abc import Sequence

import keras

from vhe_tf import objectives
from vhe_tf.distributions import discretized
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import pixel_cnn
from vhe_tf.layers import spatial_inference
from vhe_tf.layers import spatial_transformer
from vhe_tf.models.architectures import _sizes
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = [
    "PIXEL_CNN_SIZES",
    "PixelCNNSize",
    "decoder",
    "pixel_cnn_vhe",
    "pose_latent",
    "template_latent",
]


@dataclasses.dataclass(frozen=True)
class PixelCNNSize:
    """The sizes of which `pixel_cnn_vhe` is made.

    To define another size, replace fields of one of `PIXEL_CNN_SIZES`:
    `dataclasses.replace(PIXEL_CNN_SIZES["small"], filters=48)`.

    Attributes:
        template_channels: Integer. Channels of the template c.
        encoder_filters: Integers. Filters of each scale of q(c; D); see
            `TemplatePosterior`.
        encoder_kernel_size: Integer. Kernel size of its convolutions.
        pose_filters: Integers. Filters of the convolutions of q(z; c, x). If
            empty, the published localisation network computes q(z; x).
        pose_size: Integer. Size of z.
        prior_filters: Integer. Filters of the gated PixelCNN of p(c).
        prior_blocks: Integer. Number of its blocks.
        filters: Integer. Filters of the gated PixelCNN of p(x | c, z), as the
            fields below; see `GatedPixelCNN`.
        num_blocks: Integer. Number of its blocks.
        kernel_size: Integer. Kernel size of its blocks.
        conditioning_filters: Integers. Filters of the 3x3 convolutions before
            its gates.
        conditioning_kernel_size: Integer. Kernel size of the convolutions into
            its gates.
        dropout: Float. Dropout rate of its blocks.
        num_components: Integer. Mixture components of a pixel of many levels.

    Example:
    >>> size = dataclasses.replace(PIXEL_CNN_SIZES["small"], filters=48)
    >>> size.filters
    48
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


_SMALL = PixelCNNSize(
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
)

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
    "small": _SMALL,
    "large": dataclasses.replace(
        _SMALL,
        encoder_filters=(32, 48, 64),
        filters=64,
        num_blocks=6,
        conditioning_filters=(32, 32),
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
    high_bits: int | None = None,
) -> VHE:
    """Makes the hierarchical PixelCNN model of Figure 3.

    c is a template, an image of several channels. It has a PixelCNN prior, and
    a spatial transformer averaged over D as posterior. z has the prior N(0, I)
    and determines the pose of the template. x is a gated PixelCNN given the
    template in that pose, STN(c, z). For images of many levels the posterior
    starts narrow (`TemplatePosterior.initial_scale`).

    Args:
        size: String or `PixelCNNSize`. `"published"` follows a later
            configuration by the paper's authors. `"small"` trains on two CPU
            cores, encodes at three scales, and infers z from x and c instead
            of x alone. `"large"`, for a GPU, is the small structure with twice
            the filters and one more block in the decoder, wider encoders and
            dropout. Defaults to `"published"`.
        image_shape: Three positive integers, `(H, W, C)`. Defaults to
            `(28, 28, 1)`.
        objective: `Objective` or its name. The objective to train. Defaults
            to `"vhe"`.
        group: String. The name of the grouping, and so of the group latent.
            Defaults to `"character"`.
        num_levels: Integer. Number of levels per channel. Channels are
            Bernoulli for 2 levels, else a discretized mixture of logistics
            with the channels of a pixel in order. Defaults to 2.
        high_bits: Integer, b, or None. If given, p(x | c, z) is the probability
            of an image of the 2^b coarser levels given c and z, times that of
            x given this image alone; see `DepthUpscaled`. Defaults to None.

    Returns:
        A `VHE` with the latents `group` and `"pose"`.

    Raises:
        ValueError: If `size` is unknown, `num_levels` is less than 2, or
            `high_bits` leaves no lower bits.

    Example:
    >>> import vhe_tf
    >>> model = vhe_tf.pixel_cnn_vhe("small", image_shape=(8, 8, 1))
    >>> [latent.name for latent in model.latents]
    ['character', 'pose']
    """
    if isinstance(size, PixelCNNSize):
        s = size
    else:
        s = _sizes.checked_size(size, PIXEL_CNN_SIZES)
    return VHE(
        latents=[
            template_latent(
                group,
                s,
                image_shape=image_shape,
                # In photographs neighbouring pixels predict so much that the
                # decoder ignores a template that starts as noise.
                initial_scale=None if num_levels == 2 else 0.05,
            ),
            pose_latent(s, template=group),
        ],
        likelihood=_likelihood(
            s,
            image_shape,
            group=group,
            num_levels=num_levels,
            high_bits=high_bits,
        ),
        event_shape=image_shape,
        objective=objective,
    )


def _likelihood(
    s: PixelCNNSize,
    image_shape: Sequence[int],
    *,
    group: str,
    num_levels: int,
    high_bits: int | None,
) -> keras.layers.Layer:
    """Returns the layer of p(x | c, z)."""
    first, rest = num_levels, 0
    if high_bits is not None:
        first = 2**high_bits
        rest, missing = divmod(num_levels, first)
        if high_bits < 1 or rest < 2 or missing:
            raise ValueError(
                "`high_bits` must be 1 or more, and `num_levels` must be "
                "`2**high_bits` times an integer of 2 or more. Received: "
                f"num_levels={num_levels!r}, high_bits={high_bits!r}."
            )
    likelihood = spatial_inference.PoseLikelihood(
        decoder(s, image_shape, num_levels=first),
        image_shape,
        template=group,
        pose="pose",
        num_levels=first,
        num_components=s.num_components,
    )
    if not rest:
        return likelihood
    return spatial_inference.DepthUpscaledLikelihood(
        likelihood,
        decoder(s, image_shape, num_levels=rest),
        num_levels=rest,
        num_components=s.num_components,
    )


def template_latent(
    name: str,
    s: PixelCNNSize,
    *,
    image_shape: Sequence[int],
    initial_scale: float | None = None,
) -> Latent:
    """Returns the latent c, a template with a PixelCNN prior."""
    return Latent.template(
        name,
        (*image_shape[:2], s.template_channels),
        filters=s.encoder_filters,
        kernel_size=s.encoder_kernel_size,
        prior_filters=s.prior_filters,
        prior_blocks=s.prior_blocks,
        initial_scale=initial_scale,
    )


def pose_latent(s: PixelCNNSize, template: str) -> Latent:
    """Returns the latent z, the pose of the template in an image."""
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


def decoder(
    s: PixelCNNSize, image_shape: Sequence[int], *, num_levels: int
) -> pixel_cnn.GatedPixelCNN:
    """Returns the network of p(x | c, z)."""
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
