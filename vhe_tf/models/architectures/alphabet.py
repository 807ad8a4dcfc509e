"""The hierarchical model of alphabets and characters (Eq. 21, Section 4.3)."""

from collections.abc import Sequence

from vhe_tf import objectives
from vhe_tf.models.architectures import _sizes
from vhe_tf.models.architectures import deconvolutional
from vhe_tf.models.vhe import VHE

__all__ = ["alphabet_vhe"]


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
