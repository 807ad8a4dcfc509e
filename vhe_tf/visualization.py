"""Image grids for TensorBoard and PNG."""

import os
import pathlib
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from vhe_tf._utils import atomic_io
from vhe_tf.models.vhe import VHE

__all__ = [
    "Heading",
    "ImageGrid",
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
# The size of headings. Pictures are often shown 800 pixels wide.
_FONT_SIZE = 13 / 800
_SUMMARY_SCALE = 2


class Heading(NamedTuple):
    """The text above some columns of a grid.

    Attributes:
        left: Integer. Where the columns begin, in pixels of the grid.
        width: Integer. Their width.
        text: String.

    Example:
    >>> Heading(left=0, width=50, text="support").text
    'support'
    """

    left: int
    width: int
    text: str


class ImageGrid(np.ndarray):
    """An array of shape `[height, width, C]` that has headings.

    Attributes:
        headings: Tuple of `Heading`s. They are drawn above the grid by
            `save_png` and in TensorBoard.

    Example:
    >>> grid = ImageGrid.make(np.zeros([8, 8, 1]), [Heading(0, 8, "blank")])
    >>> grid.shape, grid.headings[0].text
    ((8, 8, 1), 'blank')
    """

    headings: tuple[Heading, ...] = ()

    @classmethod
    def make(
        cls, pixels: np.ndarray, headings: Sequence[Heading] = ()
    ) -> "ImageGrid":
        """Returns a grid of pixels between 0 and 1."""
        grid = np.asarray(pixels, np.float32).view(cls)
        grid.headings = tuple(headings)
        return grid


def conditional_grid(
    model: VHE,
    supports: Sequence[np.ndarray],
    *,
    group: str | Sequence[str | tuple[str, ...]],
    num_samples: int = 8,
    seed: tuple[int, int] = (0, 0),
    heading: str = "samples",
) -> ImageGrid:
    """Shows support images beside samples of their groups (Figures 4, 5, 7).

    Args:
        model: `VHE`. The model.
        supports: Sequence of arrays `[G, N, H, W, C]`, one block of columns
            each. N may differ; it is 1 for 1-shot.
        group: String, or sequence of strings or tuples. The group latent that
            they are the support of; one for all blocks, or one or a tuple of
            several for each.
        num_samples: Integer. Number of samples per group. Defaults to 8.
        seed: Pair of integers. Random seed.
        heading: String. Above the samples. Defaults to `"samples"`.

    Returns:
        `[height, width, C]`, one row per group. Each block has the support
        images, then images of one sample of c. Latents without a support are
        sampled for each image: z, the characters of an alphabet, the styles
        of a character.

    Example:
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:2, :1]
    >>> grid = conditional_grid(
    ...     model, [support], group="character", num_samples=3)
    >>> [heading.text for heading in grid.headings]
    ['support', 'samples']
    """
    groups = [group] * len(supports) if isinstance(group, str) else group
    blocks: dict[tuple[int, str], np.ndarray] = {}
    for index, (names, support) in enumerate(
        zip(groups, supports, strict=True)
    ):
        names = (names,) if isinstance(names, str) else names
        blocks[index, _support_heading(support)] = support
        blocks[index, heading] = _sample_given(
            model,
            dict.fromkeys(names, support),
            num_samples,
            (seed[0], seed[1] + index),
        )
    return _tile(list(blocks.values()), [text for _, text in blocks])


def sample_grid(
    model: VHE,
    support: np.ndarray,
    *,
    group: str,
    num_samples: int = 5,
    seed: tuple[int, int] = (0, 0),
) -> ImageGrid:
    """Shows support images beside samples of p(x | D) (Figure 6).

    Unlike `conditional_grid`, independent pixels are sampled too, and each
    image has its own sample of c.

    Args:
        model: `VHE`. The model.
        support: Array `[G, N, H, W, C]`. The support images.
        group: String. The group latent that they are the support of.
        num_samples: Integer. Samples for each row.
        seed: Pair of integers. Random seed.

    Returns:
        `[height, width, C]`, one row per group: its support, then samples.

    Example:
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:2, :1]
    >>> sample_grid(model, support, group="character", num_samples=3).shape
    (20, 48, 1)
    """
    repeated = np.repeat(support, num_samples, axis=0)
    images = model.sample({group: tf.constant(repeated)}, seed=seed).numpy()
    shape = (len(support), num_samples, *model.image_shape)
    return _tile(
        [support, images.reshape(shape)],
        [_support_heading(support), "samples"],
    )


def comparison_grid(
    models: Sequence[VHE],
    support: np.ndarray,
    *,
    names: Sequence[str],
    group: str,
    num_samples: int = 5,
    seed: tuple[int, int] = (0, 0),
) -> ImageGrid:
    """Shows samples of several models given the same support images.

    Args:
        models: Sequence of `VHE`s. The models, of images of one shape.
        support: Array `[G, N, H, W, C]`. The support images.
        names: Strings. The headings of the models' samples.
        group: String. The group latent that they are the support of.
        num_samples: Integer. Samples of each model for each row.
        seed: Pair of integers. Random seed.

    Returns:
        `[height, width, C]`, one row per group: its support, then for each
        model a block of images of one sample of c.

    Example:
    >>> support = data.images.reshape(6, 7, 8, 8, 1)[:2, :1]
    >>> grid = comparison_grid([model, model], support, names=["this", "that"],
    ...                        group="character", num_samples=2)
    >>> [heading.text for heading in grid.headings]
    ['support', 'this', 'that']
    """
    samples = [
        _sample_given(model, {group: support}, num_samples, seed)
        for model in models
    ]
    return _tile([support, *samples], [_support_heading(support), *names])


def transfer_grid(
    content: np.ndarray, style: np.ndarray, *, redrawn: np.ndarray
) -> ImageGrid:
    """Tiles contents, styles, and each content in each style (Figure 8).

    Args:
        content: Array of shape `[R, H, W, C]`, one image per content.
        style: Array of shape `[S, H, W, C]`, one image per style.
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
    below = _tile(
        [content[:, np.newaxis], redrawn],
        ["content", "styles; below, each content in each style"],
    )
    pixels = np.concatenate([top, gap, below], axis=0)
    return ImageGrid.make(pixels, below.headings)


def reconstruction_grid(
    model: VHE,
    support: np.ndarray,
    *,
    query: np.ndarray,
    group: str,
    seed: tuple[int, int] = (0, 0),
) -> ImageGrid:
    """Tiles images beside their reconstructions.

    `VHE.reconstruct` infers `group` from the support, and all other latents
    from the query.

    Args:
        model: `VHE`. The model.
        support: Array of shape `[G, N, H, W, C]`, N images of each group.
        query: Array of shape `[G, Q, H, W, C]`, other images of the same
            groups.
        group: String. The group latent.
        seed: Pair of integers. Defaults to (0, 0).

    Returns:
        float32 array of shape `[height, width, C]` with one row per group: the
        queries, then their reconstructions.

    Example:
    >>> images = data.images.reshape(6, 7, 8, 8, 1)[:2]
    >>> grid = reconstruction_grid(
    ...     model, images[:, :2], query=images[:, 2:4], group="character")
    >>> [heading.text for heading in grid.headings]
    ['images', 'reconstructions']
    """
    num_queries = query.shape[1]
    means = model.reconstruct(
        {group: tf.constant(np.repeat(support, num_queries, axis=0))},
        tf.constant(query.reshape(-1, *model.image_shape)),
        seed=seed,
    ).numpy()
    return _tile(
        [query, means.reshape(query.shape)], ["images", "reconstructions"]
    )


def prior_grid(
    model: VHE,
    *,
    num_groups: int = 10,
    num_samples: int = 10,
    seed: tuple[int, int] = (0, 0),
) -> ImageGrid:
    """Shows samples of new groups (unconditional generation).

    Args:
        model: `VHE`. The model.
        num_groups: Integer. Rows: each shares one sample of every group latent.
        num_samples: Integer. Number of images of each group.
        seed: Pair of integers. Random seed.

    Returns:
        `[height, width, C]`.

    Example:
    >>> prior_grid(model, num_groups=2, num_samples=3).shape
    (20, 30, 1)
    """
    samples = model.infer({}, seed=seed, batch_size=num_groups)
    return _tile(
        [_sample_images(model, samples, num_samples, seed)],
        ["samples from the prior, one group per row"],
    )


def _support_heading(support: np.ndarray) -> str:
    count = support.shape[1]
    return "support" if count == 1 else f"{count} support images"


def _sample_given(
    model: VHE,
    support: Mapping[str, np.ndarray],
    num_images: int,
    seed: tuple[int, int],
) -> np.ndarray:
    """Samples images of each group, `[G, num_images, H, W, C]`."""
    samples = model.infer(
        {name: tf.constant(images) for name, images in support.items()},
        seed=seed,
        sample_unobserved=False,
    )
    return _sample_images(model, samples, num_images, seed)


def _sample_images(
    model: VHE,
    samples: Mapping[str, tf.Tensor],
    num_images: int,
    seed: tuple[int, int],
) -> np.ndarray:
    """Samples images of each group, `[G, num_images, H, W, C]`."""
    repeated = {
        name: tf.repeat(value, num_images, axis=1)
        for name, value in samples.items()
    }  # [1, G * num_images, E...]
    images = model.render(repeated, seed=(seed[0], seed[1] + 1))[0].numpy()
    return images.reshape(-1, num_images, *model.image_shape)


def save_png(
    path: str | os.PathLike[str],
    grid: np.ndarray,
    *,
    scale: int = 3,
    ink: bool = True,
) -> None:
    """Writes a grid as a PNG file, atomically.

    Args:
        path: Path or string. The file.
        grid: `[height, width, C]` in 0..1. The headings of an `ImageGrid` are
            written above it.
        scale: Integer. Screen pixels per pixel.
        ink: Boolean. Whether 1 is ink, to be shown as black on white
            (`DataSplits.ink`).

    Raises:
        NotWrittenError: If it cannot be written.

    Example:
    >>> import tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "grid.png")
    >>> save_png(path, np.zeros([8, 8, 1]))
    >>> os.path.exists(path)
    True
    """
    image = _image(grid, scale=scale, ink=ink)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_io.beside(path) as partial:
        image.save(partial, format="PNG")


def write_summaries(
    grids: Mapping[str, np.ndarray], *, step: int, ink: bool = True
) -> None:
    """Writes grids to the current TensorBoard writer.

    Args:
        grids: Mapping of strings to arrays `[height, width, C]` in 0..1. The
            grids by name. The headings of an `ImageGrid` are written above it.
        step: Integer. The training step.
        ink: Boolean. Whether 1 is ink, as in `save_png`. Defaults to True.

    Example:
    >>> import tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with tf.summary.create_file_writer(str(folder)).as_default():
    ...     write_summaries({"blank": np.zeros([8, 8, 1])}, step=1)
    >>> len(list(folder.glob("events.*")))
    1
    """
    for name, grid in grids.items():
        image = np.asarray(_image(grid, scale=_SUMMARY_SCALE, ink=ink))
        image = image.reshape(1, *image.shape[:2], -1)
        headings = [h.text for h in getattr(grid, "headings", ())]
        tf.summary.image(
            name,
            image,
            step=step,
            description=f"Columns: {', '.join(headings)}."
            if headings
            else None,
        )


def _image(grid: np.ndarray, *, scale: int, ink: bool) -> Image.Image:
    """Returns a grid as an image, enlarged, below its headings."""
    pixels = np.round(255 * np.clip(np.asarray(grid), 0, 1)).astype(np.uint8)
    if ink:
        pixels = 255 - pixels
    image = Image.fromarray(pixels[..., 0] if grid.shape[2] == 1 else pixels)
    image = image.resize(
        (image.width * scale, image.height * scale), Image.Resampling.NEAREST
    )
    headings = getattr(grid, "headings", ())
    if not headings:
        return image
    font: Any = ImageFont.load_default(max(11, _FONT_SIZE * image.width))
    texts = [_wrapped(h.text, h.width * scale, font) for h in headings]
    line = sum(font.getmetrics())
    strip = line * max(text.count("\n") + 1 for text in texts) + line // 2
    whole = Image.new(
        image.mode, (image.width, image.height + strip), color="white"
    )
    whole.paste(image, (0, strip))
    draw = ImageDraw.Draw(whole)
    for heading, text in zip(headings, texts, strict=True):
        draw.multiline_text(
            (heading.left * scale, line // 4),
            text,
            fill="black",
            font=font,
            spacing=0,
        )
    return whole


def _wrapped(text: str, width: int, font: Any) -> str:
    """Breaks a text after spaces and underscores where it would be too wide."""
    lines = [""]
    for word in re.findall(r"[^ _]+[ _]?", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def _tile(
    blocks: Sequence[np.ndarray], headings: Sequence[str] = ()
) -> ImageGrid:
    """Sets blocks of `[G, K, H, W, C]` side by side, one row per group."""
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
    widths = [column.shape[1] for column in columns]
    lefts = np.cumsum([0, *(width + _BLOCK_GAP for width in widths)]).tolist()
    return ImageGrid.make(
        np.concatenate(spaced[:-1], axis=1),
        [
            Heading(left, width, text)
            for left, width, text in zip(lefts, widths, headings, strict=False)
        ],
    )
