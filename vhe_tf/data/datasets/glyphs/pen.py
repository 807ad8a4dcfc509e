"""Strokes drawn with a round pen."""

import numpy as np

__all__ = ["render"]


def render(
    paths: np.ndarray,
    used: np.ndarray,
    *,
    width: np.ndarray,
    image_size: int,
) -> np.ndarray:
    """Draws strokes with a round pen.

    Args:
        paths: `[M, S, P, 2]`, the strokes, pixels.
        used: `[M, S]`, which strokes are drawn.
        width: `[M]`, the width of the pen, pixels.
        image_size: Integer. Height and width of the images, pixels.

    Returns:
        `[M, image_size, image_size]`, uint8.
    """
    points = _even_points(paths, used)
    reach = width.max() / 2.0 + 0.5
    window = np.arange(int(np.ceil(2.0 * reach)) + 1)
    canvas = np.zeros((len(paths), image_size, image_size), np.float32)
    which = np.arange(len(paths))[:, np.newaxis, np.newaxis]
    edge = (width / 2.0 + 0.5).astype(np.float32)[:, np.newaxis, np.newaxis]
    # One point of every drawing at a time: no pixel occurs twice in a step.
    for point in points:
        corner = np.floor(point - reach).astype(int)
        corner = np.clip(corner, 0, image_size - len(window))
        pixels = corner[..., np.newaxis] + window  # [M, 2, window]
        squares = (pixels + 0.5 - point[..., np.newaxis]) ** 2
        squares = squares.astype(np.float32)
        distance = np.sqrt(squares[:, 1, :, np.newaxis] + squares[:, :1])
        where = (which, pixels[:, 1, :, np.newaxis], pixels[:, :1])
        canvas[where] = np.maximum(canvas[where], edge - distance)
    return np.round(255.0 * np.minimum(canvas, 1.0)).astype(np.uint8)


def _even_points(paths: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Returns points `[T, M, 2]` at most half a pixel apart on the strokes."""
    num_paths = len(paths)
    steps = np.linalg.norm(np.diff(paths, axis=2), axis=-1)
    # Lifting the pen, and strokes that are not there, have no length.
    drawn = np.zeros(paths.shape[:3])
    drawn[:, :, :-1] = steps * used[..., np.newaxis]
    lengths = drawn.reshape(num_paths, -1)
    ends = np.cumsum(lengths, axis=1)
    total = ends[:, -1:]
    num_points = int(np.ceil(2.0 * total.max()))
    target = (np.arange(num_points) + 0.5) / num_points * total
    # One search for all rows: each is moved to a range of its own.
    row = 2.0 * total.max() * np.arange(num_paths)[:, np.newaxis]
    index = np.searchsorted((ends + row).ravel(), (target + row).ravel())
    into = 1.0 - (ends.ravel()[index] - target.ravel()) / lengths.ravel()[index]
    flat = paths.reshape(-1, 2)
    points = flat[index] + into[:, np.newaxis] * (flat[index + 1] - flat[index])
    return points.reshape(num_paths, num_points, 2).swapaxes(0, 1)
