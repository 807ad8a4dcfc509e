"""The architectures of the paper, ready to train (Section 4.1).

The paper's supplement is not public in full; sizes follow Edwards and Storkey
(2016), "Towards a Neural Statistician", on which the paper's deconvolutional
model is based.
"""

import dataclasses
from collections.abc import Sequence

from vhe_tf import objectives
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models.latents import Latent
from vhe_tf.models.vhe import VHE

__all__ = ["deconvolutional_vhe"]


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
    if size not in _DECONVOLUTIONAL_SIZES:
        raise ValueError(
            f"`size` must be one of {sorted(_DECONVOLUTIONAL_SIZES)}. "
            f"Received: size={size!r}."
        )
    s = _DECONVOLUTIONAL_SIZES[size]

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
