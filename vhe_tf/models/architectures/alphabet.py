"""The hierarchical models of alphabets and characters (Eq. 21, Section 4.3)."""

from collections.abc import Sequence

from vhe_tf import objectives
from vhe_tf.layers import convolution
from vhe_tf.layers import spatial_inference
from vhe_tf.models.architectures import _sizes
from vhe_tf.models.architectures import deconvolutional
from vhe_tf.models.architectures import pixel_cnn
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = ["alphabet_pixel_cnn_vhe", "alphabet_vhe"]

# The latent of an alphabet, and the prior p(c | a), of the PixelCNN model.
_ALPHABET_SIZE = 16
_ALPHABET_FILTERS = (16, 32, 48)
_ALPHABET_UNITS = 64
_PRIOR_FILTERS = 32
_PRIOR_BLOCKS = 4


def alphabet_vhe(
    size: str = "published",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    groups: Sequence[str] = ("alphabet", "character"),
) -> VHE:
    """Makes the hierarchical model of alphabets and characters (Eq. 21).

    "We extended the deconvolutional model with an extra latent layer a using
    the same encoder and decoder architecture as c" (Section 4.3). p(a) =
    N(0, I) and p(c | a) is learned. The posteriors are q(a; D_a) and
    q(c; D_c, a). The latent z of an element is that of `deconvolutional_vhe`.

    Args:
        size: String. `"published"` or `"small"`. In the published model x
            depends on both a and c. In the small one it depends on a only
            through c, so that it cannot memorize the characters of the
            training alphabets. Defaults to `"published"`.
        image_shape: Three positive integers, `(H, W, C)`. Defaults to
            `(28, 28, 1)`.
        objective: `Objective` or its name. The objective to train. Defaults
            to `"vhe"`.
        groups: Pair of strings. The names of the groupings, the outer one
            first. Defaults to `("alphabet", "character")`.

    Returns:
        A `VHE` with the latents `groups` and `"element"`.

    Raises:
        ValueError: If `size` is unknown.

    Example:
    >>> import vhe_tf
    >>> model = vhe_tf.alphabet_vhe("small", image_shape=(8, 8, 1))
    >>> [latent.parents for latent in model.latents]
    [(), ('alphabet',), ('character',)]
    """
    s = _sizes.checked_size(size, deconvolutional.SIZES)
    outer, inner = groups

    return VHE(
        latents=[
            deconvolutional.group_latent(outer, s),
            deconvolutional.group_latent(inner, s, parents=[outer]),
            deconvolutional.element_latent(
                s, parents=[inner] if size == "small" else groups
            ),
        ],
        likelihood=deconvolutional.image_likelihood(
            s, image_shape, exclude=[outer] if size == "small" else []
        ),
        event_shape=image_shape,
        objective=objective,
    )


def alphabet_pixel_cnn_vhe(
    size: str = "small",
    *,
    image_shape: Sequence[int] = (28, 28, 1),
    objective: objectives.Objective | str = objectives.Objective.VHE,
    groups: Sequence[str] = ("alphabet", "character"),
) -> VHE:
    """Makes the PixelCNN model with a latent of alphabets above it.

    The structure is that of Eq. 21 with crisp samples, which the paper does not
    have. a is a vector with p(a) = N(0, I). p(c | a) is a PixelCNN over
    templates, conditioned on a at every location, and the posterior is
    q(c; D, a). Templates, poses and decoder are those of `pixel_cnn_vhe`, with
    whose weights training can start.

    Args:
        size: String. `"small"`, `"large"` or `"published"`, as in
            `pixel_cnn_vhe`. Defaults to `"small"`.
        image_shape: Three positive integers, `(H, W, C)`. Defaults to
            `(28, 28, 1)`.
        objective: `Objective` or its name. The objective to train. Defaults
            to `"vhe"`.
        groups: Pair of strings. The names of the groupings, the outer one
            first. Defaults to `("alphabet", "character")`.

    Returns:
        A `VHE` with the latents `groups` and `"pose"`.

    Raises:
        ValueError: If `size` is unknown.

    Example:
    >>> import vhe_tf
    >>> model = vhe_tf.alphabet_pixel_cnn_vhe(image_shape=(8, 8, 1))
    >>> [latent.parents for latent in model.latents]
    [(), ('alphabet',), ('character',)]
    """
    s = _sizes.checked_size(size, pixel_cnn.PIXEL_CNN_SIZES)
    outer, inner = groups
    return VHE(
        latents=[
            Latent.vector(
                outer,
                _ALPHABET_SIZE,
                encoder=convolution.ConvolutionalEncoder(
                    _ALPHABET_FILTERS, convolutions=0
                ),
                units=_ALPHABET_UNITS,
            ),
            Latent.template(
                inner,
                (*image_shape[:2], s.template_channels),
                filters=s.encoder_filters,
                kernel_size=s.encoder_kernel_size,
                prior_filters=_PRIOR_FILTERS,
                prior_blocks=_PRIOR_BLOCKS,
                parents=[outer],
            ),
            pixel_cnn.pose_latent(s, template=inner),
        ],
        likelihood=spatial_inference.PoseLikelihood(
            pixel_cnn.decoder(s, image_shape, num_levels=2),
            image_shape,
            template=inner,
            pose="pose",
            num_components=s.num_components,
        ),
        event_shape=image_shape,
        objective=objective,
    )
