"""Procedural handwriting of unknown scripts, which needs no download.

The hierarchy is that of Omniglot (Lake et al., 2015): a script has a small
inventory of stroke primitives, a character composes one to four of them at
anchor points, a drawer has a hand of their own, and each drawing adds motor
noise. Unlike in Omniglot, the drawers are the same people for all alphabets.
"""

import numpy as np

from vhe_tf._utils import validation
from vhe_tf.data.datasets.glyphs.handwriting import draw_alphabet
from vhe_tf.data.datasets.glyphs.handwriting import sample_hands
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["generate_glyphs"]


def generate_glyphs(
    *,
    num_alphabets: int = 30,
    characters_per_alphabet: int = 20,
    num_drawers: int = 20,
    image_size: int = 28,
    seed: int = 0,
) -> GroupedImages:
    """Returns drawings of the characters of made-up alphabets.

    Each drawer draws each character once. Alphabets and drawers have random
    streams of their own: fewer alphabets are a prefix of more alphabets.

    Args:
        num_alphabets: Integer. The number of alphabets.
        characters_per_alphabet: Integer. The number of characters of each
            alphabet.
        num_drawers: Integer. The number of drawers, and so of images per
            character.
        image_size: Integer. Height and width of the images, pixels, at least 8.
        seed: Non-negative integer. Equal seeds give equal images.

    Returns:
        Images `[M, image_size, image_size, 1]`, uint8, ink 255 on 0, ordered
        by character and then by drawer, with int32 labels `"alphabet"`,
        `"character"` (unique across alphabets) and `"drawer"`.

    Raises:
        ValueError: If a count is not a positive int, if `image_size` is not
            an int of at least 8, or if `seed` is not a non-negative int.

    Example:
    >>> data = generate_glyphs(
    ...     num_alphabets=1, characters_per_alphabet=2, num_drawers=3)
    >>> data.images.shape
    (6, 28, 28, 1)
    """
    validation.at_least(1, num_alphabets=num_alphabets)
    validation.at_least(1, characters_per_alphabet=characters_per_alphabet)
    validation.at_least(1, num_drawers=num_drawers)
    validation.at_least(8, image_size=image_size)
    validation.at_least(0, seed=seed)
    alphabets, drawers = np.random.SeedSequence(seed).spawn(2)
    hands = sample_hands(drawers.spawn(num_drawers))
    images = [
        draw_alphabet(
            stream, characters_per_alphabet, hands=hands, image_size=image_size
        )
        for stream in alphabets.spawn(num_alphabets)
    ]
    num_characters = num_alphabets * characters_per_alphabet
    character = np.repeat(
        np.arange(num_characters, dtype=np.int32), num_drawers
    )
    drawer = np.tile(np.arange(num_drawers, dtype=np.int32), num_characters)
    return GroupedImages(
        np.concatenate(images)[..., np.newaxis],
        {
            "alphabet": character // np.int32(characters_per_alphabet),
            "character": character,
            "drawer": drawer,
        },
        _group_names(num_alphabets, characters_per_alphabet, num_drawers),
    )


def _group_names(
    num_alphabets: int, characters_per_alphabet: int, num_drawers: int
) -> dict[str, dict[int, str]]:
    return {
        "alphabet": {a: f"alphabet {a:02d}" for a in range(num_alphabets)},
        "character": {
            a * characters_per_alphabet + k: f"alphabet {a:02d}, "
            f"character {k:02d}"
            for a in range(num_alphabets)
            for k in range(characters_per_alphabet)
        },
        "drawer": {d: f"drawer {d:02d}" for d in range(num_drawers)},
    }
