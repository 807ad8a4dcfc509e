"""The factorial model of contents and styles (Eq. 18, Figure 8)."""

import dataclasses
from collections.abc import Sequence

from vhe_tf import objectives
from vhe_tf.layers import convolution
from vhe_tf.layers import spatial_inference
from vhe_tf.models.architectures import _sizes
from vhe_tf.models.architectures import pixel_cnn
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = ["SIZES", "StyleSize", "style_vhe"]


@dataclasses.dataclass(frozen=True)
class StyleSize:
    """The sizes of the style posterior of `style_vhe`.

    Attributes:
        filters: Tuple of integers. Filters of each scale of the encoder.
        convolutions: Integer. Convolutions of each scale before its stride.
        units: Integer. Width of the dense layers.
        style_size: Integer. Size of the latent of a style.
    """

    filters: tuple[int, ...]
    convolutions: int
    units: int
    style_size: int


SIZES = {
    "published": StyleSize((64, 128, 256), 2, 256, 6),
    "small": StyleSize((16, 32, 48), 0, 64, 6),
}


def style_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 3),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    groups: Sequence[str] = ("character", "style"),
    num_levels: int = 256,
    guidance: float | None = None,
) -> VHE:
    """Makes the factorial model of characters and styles (Eq. 18, Figure 8).

    "We extended the PixelCNN model" (Section 4.3): c is a template and z its
    pose, as in `pixel_cnn_vhe`. s is a vector of size 6 from a convolutional
    encoder, with p(s) = N(0, I). "For each image location we condition the
    PixelCNN decoder using the outer product" of s and c_ij, the template in its
    pose. Pixels are discretized mixtures of logistics.

    Args:
        size: String. `"published"`, or `"small"`, which trains on two CPU
            cores. c, z and the decoder are those of `pixel_cnn_vhe`. Defaults
            to `"published"`.
        image_shape: Three positive integers, `(H, W, C)`. Defaults to
            `(28, 28, 3)`.
        objective: `Objective` or its name. The objective to train. Defaults
            to `"vhe"`.
        groups: Pair of strings. The names of the groupings, content and style.
            Defaults to `("character", "style")`.
        num_levels: Integer. Number of levels per channel. If images have fewer
            than 256, pass their number: colours are then learned much sooner.
            Defaults to 256.
        guidance: As in `VHE`.

    Returns:
        A `VHE` with the latents `groups` and `"pose"`.

    Raises:
        ValueError: If `size` is unknown.

    Example:
    >>> import vhe_tf
    >>> model = vhe_tf.style_vhe("small", image_shape=(8, 8, 3))
    >>> [latent.name for latent in model.latents]
    ['character', 'style', 'pose']
    """
    s = _sizes.checked_size(size, SIZES)
    c = pixel_cnn.PIXEL_CNN_SIZES[size]
    content, style = groups
    return VHE(
        latents=[
            pixel_cnn.template_latent(content, c, image_shape=image_shape),
            Latent.vector(
                style,
                s.style_size,
                encoder=convolution.ConvolutionalEncoder(
                    s.filters, s.convolutions
                ),
                units=s.units,
            ),
            pixel_cnn.pose_latent(c, template=content),
        ],
        likelihood=spatial_inference.StyledLikelihood(
            pixel_cnn.decoder(c, image_shape, num_levels=num_levels),
            image_shape,
            template=content,
            pose="pose",
            style=style,
            num_levels=num_levels,
            num_components=c.num_components,
        ),
        event_shape=image_shape,
        objective=objective,
        guidance=guidance,
    )
