"""Pictures that a person looks at: grids of images, in TensorBoard and PNG."""

import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from vhe_tf._utils import atomic_io
from vhe_tf.models.vhe import VHE

__all__ = [
    "comparison_grid",
    "conditional_grid",
    "prior_grid",
    "reconstruction_grid",
    "sample_grid",
    "save_png",
    "transfer_grid",
    "write_summaries",
]

_GAP = 2  # pixels between images
_BLOCK_GAP = 8  # pixels between blocks of columns
_GAP_COLOUR = 0.8


def conditional_grid(
    model: VHE,
    supports: Sequence[np.ndarray],
    *,
    group: str | Sequence[str],
    num_samples: int = 8,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Draws cue images beside new images of the same groups (Figures 4, 5, 7).

    Args:
        model: The model.
        supports: Cue images, one block of columns each, `[G, N, H, W, C]` with
            N of its own (`[G, 1, ...]` for one-shot).
        group: The group latent that they are the support of; one for all
            blocks or one for each.
        num_samples: Samples for each cue.
        seed: Two ints.

    Returns:
        `[height, width, C]`, a row a group; for each block its cues, then
        images of one draw of c given these. Latents of which the cues say
        nothing are drawn anew for each image: z, the characters of an
        alphabet, the styles of a character.
    """
    groups = [group] * len(supports) if isinstance(group, str) else group
    blocks = []
    for index, (name, support) in enumerate(zip(groups, supports, strict=True)):
        draw_seed = (seed[0], seed[1] + index)
        samples = model.infer(
            {name: tf.constant(support)},
            seed=draw_seed,
            sample_unobserved=False,
        )
        blocks += [support, _draw(model, samples, num_samples, draw_seed)]
    return _tile(blocks)


def sample_grid(
    model: VHE,
    support: np.ndarray,
    *,
    group: str,
    num_samples: int = 5,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Draws cue images beside draws of p(x | D), noise and all (Figure 6).

    Unlike `conditional_grid`, where pixels are independent this draws each of
    them; and c anew for each image.

    Args:
        model: The model.
        support: `[G, N, H, W, C]`, the cues.
        group: The group latent that they are the support of.
        num_samples: Samples for each row.
        seed: Two ints.

    Returns:
        `[height, width, C]`, a row a group: its cues, then samples.
    """
    repeated = np.repeat(support, num_samples, axis=0)
    images = model.sample({group: tf.constant(repeated)}, seed=seed).numpy()
    shape = (len(support), num_samples, *model.image_shape)
    return _tile([support, images.reshape(shape)])


def comparison_grid(
    models: Sequence[VHE],
    support: np.ndarray,
    *,
    group: str,
    num_samples: int = 5,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Draws the same cues, and what each of several models makes of them.

    Args:
        models: The models, of images of one shape.
        support: `[G, N, H, W, C]`, the cues.
        group: The group latent that they are the support of.
        num_samples: Samples of each model for each row.
        seed: Two ints.

    Returns:
        `[height, width, C]`, a row a group: its cues, then for each model a
        block of images of one draw of c given these.
    """
    grids = [
        conditional_grid(
            model, [support], group=group, num_samples=num_samples, seed=seed
        )
        for model in models
    ]
    width = support.shape[1] * (support.shape[3] + _GAP)
    return np.concatenate(
        [grids[0][:, :width], *(grid[:, width:] for grid in grids)], axis=1
    )


def transfer_grid(
    content: np.ndarray, style: np.ndarray, *, redrawn: np.ndarray
) -> np.ndarray:
    """Tiles contents, styles, and each content in each style (Figure 8).

    Args:
        content: Array of shape `[R, H, W, C]`.
        style: Array of shape `[S, H, W, C]`.
        redrawn: Array of shape `[R, S, H, W, C]`, each content in each style;
            see `vhe_tf.evaluation.transfer`.

    Returns:
        float32 array of shape `[height, width, C]`. The contents are on the
        left and the styles on top.

    Example:
    >>> content, style = np.zeros([3, 8, 8, 1]), np.zeros([2, 8, 8, 1])
    >>> redrawn = np.zeros([3, 2, 8, 8, 1])
    >>> transfer_grid(content, style, redrawn=redrawn).shape
    (48, 38, 1)
    """
    corner = np.zeros_like(content[:1, np.newaxis])
    top = _tile([corner, style[np.newaxis]])
    gap = np.full((_BLOCK_GAP, *top.shape[1:]), 1.0 - _GAP_COLOUR, np.float32)
    below = _tile([content[:, np.newaxis], redrawn])
    return np.concatenate([top, gap, below], axis=0)


def reconstruction_grid(
    model: VHE,
    support: np.ndarray,
    *,
    query: np.ndarray,
    group: str,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Tiles images beside their reconstructions.

    `VHE.reconstruct` infers `group` from the support, and all other latents
    from the query.

    Args:
        model: `VHE`. The model.
        support: Array of shape `[G, N, H, W, C]`.
        query: Array of shape `[G, Q, H, W, C]`, other images of the same
            groups.
        group: String. The group latent.
        seed: Pair of integers. Defaults to (0, 0).

    Returns:
        float32 array of shape `[height, width, C]` with one row per group: the
        queries, then their reconstructions.
    """
    num_queries = query.shape[1]
    means = model.reconstruct(
        {group: tf.constant(np.repeat(support, num_queries, axis=0))},
        tf.constant(query.reshape(-1, *model.image_shape)),
        seed=seed,
    ).numpy()
    return _tile([query, means.reshape(query.shape)])


def prior_grid(
    model: VHE,
    *,
    num_groups: int = 10,
    num_samples: int = 10,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Draws elements of groups that do not exist (unconditional generation).

    Args:
        model: The model.
        num_groups: Rows: each shares one draw of every group latent.
        num_samples: Images of each group.
        seed: Two ints.

    Returns:
        `[height, width, C]`.
    """
    samples = model.infer({}, seed=seed, batch_size=num_groups)
    return _tile([_draw(model, samples, num_samples, seed)])


def _draw(
    model: VHE,
    samples: Mapping[str, tf.Tensor],
    num_images: int,
    seed: tuple[int, int],
) -> np.ndarray:
    """Draws images of each group, `[G, num_images, H, W, C]`."""
    repeated = {
        name: tf.repeat(value, num_images, axis=1)
        for name, value in samples.items()
    }  # [1, G * num_images, E...]
    images = model.render(repeated, seed=(seed[0], seed[1] + 1))[0].numpy()
    return images.reshape(-1, num_images, *model.image_shape)


def save_png(
    path: pathlib.Path, grid: np.ndarray, *, scale: int = 3, ink: bool = True
) -> None:
    """Writes a grid as a PNG, whole or not at all.

    Args:
        path: The file.
        grid: `[height, width, C]` in 0..1.
        scale: Screen pixels a pixel.
        ink: Whether 1 is ink, to be shown as black on white (`Source.ink`).

    Raises:
        NotWrittenError: If it cannot be written.
    """
    pixels = np.round(255 * np.clip(grid, 0, 1)).astype(np.uint8)
    if ink:
        pixels = 255 - pixels
    image = Image.fromarray(pixels[..., 0] if grid.shape[2] == 1 else pixels)
    image = image.resize(
        (image.width * scale, image.height * scale), Image.Resampling.NEAREST
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_io.beside(path) as partial:
        image.save(partial, format="PNG")


def write_summaries(
    grids: Mapping[str, np.ndarray], *, step: int, ink: bool = True
) -> None:
    """Writes grids to the current TensorBoard writer; `ink` as above."""
    for name, grid in grids.items():
        shown = 1.0 - grid if ink else grid
        tf.summary.image(name, shown[np.newaxis], step=step)


def _tile(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Sets blocks of `[G, K, H, W, C]` side by side, a row a group."""
    columns = []
    for block in blocks:
        padded = np.pad(
            block,
            [(0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)],
            constant_values=1.0 - _GAP_COLOUR,
        )
        rows, count, height, width, channels = padded.shape
        tiled = padded.transpose(0, 2, 1, 3, 4)
        columns.append(tiled.reshape(rows * height, count * width, channels))
    gap = np.full(
        (columns[0].shape[0], _BLOCK_GAP, columns[0].shape[2]),
        1.0 - _GAP_COLOUR,
    )
    spaced = [piece for column in columns for piece in (column, gap)]
    return np.concatenate(spaced[:-1], axis=1).astype(np.float32)
