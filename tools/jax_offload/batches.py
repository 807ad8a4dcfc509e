# mypy: disable-error-code="import-not-found"
"""Batches of episodes, made by JAX on the device that trains.

The recipe of `vhe_tf.data.Episodes` for one grouping in which every
image has a label. Unlike there, a query is sampled uniformly from all elements,
whatever the others were: a run sees about one in ten of millions.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Images(NamedTuple):
    """Images, those of a group one after the other.

    Attributes:
        pixels: `[M, H0, W0, C]`, uint8 in 0..255 or floating point in 0..1.
        start: `[M]` int32, for each image the first one of its group.
        size: `[M]` int32, for each image the number of images in its group.
        maps: `[M, copies, 6]` float32, the affine map of each copy, from
            pixels (x, y) of the image to make to those of the stored one; None
            where images are as stored.
    """

    pixels: jax.Array
    start: jax.Array
    size: jax.Array
    maps: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The recipe of episodes; see `Episodes` and `Augmentation`.

    Attributes:
        batch_size: Integer, B.
        symmetries: Integer. 1, 2, 4 or 8; each makes a group of its own.
        affine_copies: Integer. Elements made of one image.
        binarization: String. `"dynamic"`, `"threshold"` or `"none"`.
        image_size: `(H, W)` of the images in episodes.
        resamples: Boolean. Whether D is independent of x; otherwise x is in D.
    """

    batch_size: int
    symmetries: int
    affine_copies: int
    binarization: str
    image_size: tuple[int, int]
    resamples: bool


def episodes(
    images: Images, key: jax.Array, *, recipe: Recipe, support_size: int
) -> dict[str, jax.Array]:
    """Samples a batch of episodes.

    Args:
        images: `Images`. The images.
        key: `jax.Array`. Key of all randomness.
        recipe: `Recipe`. How to make episodes.
        support_size: Integer, N.

    Returns:
        `query` `[B, H, W, C]` and `support` `[B, N, H, W, C]` float32,
        `group_size` `[B]` and `seed` `[B, 2]` int32.
    """
    for_query, for_support, for_pixels, for_model = jax.random.split(key, 4)
    multiplicity = recipe.symmetries * recipe.affine_copies
    query = jax.random.randint(
        for_query, [recipe.batch_size], 0, len(images.start) * multiplicity
    )
    support = support_elements(
        images, query, for_support, recipe=recipe, support_size=support_size
    )
    elements = jnp.concatenate([query[:, None], support], axis=1)
    drawn = render(images, elements.ravel(), for_pixels, recipe=recipe)
    drawn = drawn.reshape(*elements.shape, *drawn.shape[1:])
    bits = jax.random.bits(for_model, [recipe.batch_size, 2], jnp.uint32)
    return {
        "query": drawn[:, 0],
        "support": drawn[:, 1:],
        "group_size": images.size[query // multiplicity] * recipe.affine_copies,
        "seed": jax.lax.bitcast_convert_type(bits, jnp.int32),
    }


def decompose(elements: jax.Array, recipe: Recipe) -> tuple[jax.Array, ...]:
    """Splits elements into image, symmetry and affine copy."""
    copy = elements % recipe.affine_copies
    symmetry_index = elements // recipe.affine_copies % recipe.symmetries
    image = elements // (recipe.affine_copies * recipe.symmetries)
    return image, symmetry_index, copy


def support_elements(
    images: Images,
    query: jax.Array,
    key: jax.Array,
    *,
    recipe: Recipe,
    support_size: int,
) -> jax.Array:
    """Samples D from the group of each query, `[B, N]`.

    Where the objective does not resample, x comes first.
    """
    copies = recipe.affine_copies
    image, symmetry_index, copy = decompose(query, recipe)
    start = images.start[image]
    population = images.size[image] * copies
    if recipe.resamples:
        places = sample_without_replacement(key, population, support_size)
    else:
        own = ((image - start) * copies + copy)[:, None]
        others = sample_without_replacement(
            key, population - 1, support_size - 1
        )
        places = jnp.concatenate([own, others + (others >= own)], axis=1)
    member = start[:, None] + places // copies
    return (
        member * recipe.symmetries + symmetry_index[:, None]
    ) * copies + places % copies


def sample_without_replacement(
    key: jax.Array, population: jax.Array, num_samples: int
) -> jax.Array:
    """Samples distinct integers uniformly, from one range per row.

    Floyd's algorithm (Bentley and Floyd, 1987), then a random order.

    Args:
        key: `jax.Array`. Key of the randomness.
        population: `[B]` int32, each at least `num_samples`.
        num_samples: Integer, K.

    Returns:
        `[B, K]` int32, row b of distinct values in 0..population[b]-1.
    """
    for_values, for_order = jax.random.split(key)
    limits = population[:, None] - num_samples + jnp.arange(num_samples)
    values = jax.random.randint(for_values, limits.shape, 0, limits + 1)
    for index in range(1, num_samples):
        earlier, value = values[:, :index], values[:, index]
        taken = jnp.any(earlier == value[:, None], axis=1)
        values = values.at[:, index].set(
            jnp.where(taken, limits[:, index], value)
        )
    return jax.random.permutation(for_order, values, axis=1, independent=True)


def render(
    images: Images, elements: jax.Array, key: jax.Array, *, recipe: Recipe
) -> jax.Array:
    """Makes the images of elements, `[K, H, W, C]` float32."""
    image, symmetry_index, copy = decompose(elements, recipe)
    pixels = images.pixels[image]
    scale = 255.0 if pixels.dtype == jnp.uint8 else 1.0
    pixels = pixels.astype(jnp.float32) / scale
    if images.maps is not None:
        pixels = transform(pixels, images.maps[image, copy], recipe.image_size)
    if recipe.symmetries == 2:
        mirror = (symmetry_index == 1)[:, None, None, None]
        pixels = jnp.where(mirror, pixels[:, :, ::-1], pixels)
    elif recipe.symmetries > 2:
        pixels = symmetry(pixels, symmetry_index)
    if recipe.binarization == "none":
        return pixels
    if recipe.binarization == "dynamic":
        ink = jax.random.uniform(key, pixels.shape) < pixels
    else:
        ink = pixels >= 0.5
    return ink.astype(jnp.float32)


def transform(
    pixels: jax.Array, maps: jax.Array, image_size: tuple[int, int]
) -> jax.Array:
    """Applies one affine map per image, with zeros beyond the border.

    Bilinear at equal sizes; nearest where the image shrinks.

    Args:
        pixels: `[K, H0, W0, C]` float32, the images as stored.
        maps: `[K, 6]` float32, one affine map per image; see `Images`.
        image_size: `(H, W)`.

    Returns:
        `[K, H, W, C]` float32.
    """
    to_y, to_x = jnp.indices(image_size, jnp.float32)
    rows = [maps[:, index, None, None] for index in range(6)]
    x = rows[0] * to_x + rows[1] * to_y + rows[2]  # [K, H, W]
    y = rows[3] * to_x + rows[4] * to_y + rows[5]
    if tuple(pixels.shape[1:3]) != tuple(image_size):
        return _at(pixels, jnp.round(y), jnp.round(x))
    top, left = jnp.floor(y), jnp.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]

    def along(row: jax.Array) -> jax.Array:
        return (1 - right) * _at(pixels, row, left) + right * _at(
            pixels, row, left + 1
        )

    return (1 - down) * along(top) + down * along(top + 1)


def _at(pixels: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Returns pixels `[K, H, W, C]` at whole coordinates `[K, H, W]`."""
    height, width = pixels.shape[1:3]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = jnp.arange(len(pixels))[:, None, None]
    rows = jnp.clip(y, 0, height - 1).astype(jnp.int32)
    columns = jnp.clip(x, 0, width - 1).astype(jnp.int32)
    return jnp.where(inside[..., None], pixels[index, rows, columns], 0.0)


def symmetry(pixels: jax.Array, index: jax.Array) -> jax.Array:
    """Turns and reflects each square image by its own symmetry.

    Args:
        pixels: `[K, H, H, C]`, square images.
        index: `[K]` int in 0..7: quarter turns (index mod 4), after a
            transposition where index is 4 or more.

    Returns:
        `[K, H, H, C]`.
    """
    index = index[:, None, None, None]
    turns = index % 4
    # A quarter turn is a transposition followed by a flip of the rows.
    transposed = (turns % 2 == 1) != (index >= 4)
    pixels = jnp.where(transposed, jnp.swapaxes(pixels, 1, 2), pixels)
    pixels = jnp.where((turns == 1) | (turns == 2), pixels[:, ::-1], pixels)
    return jnp.where(turns >= 2, pixels[:, :, ::-1], pixels)
