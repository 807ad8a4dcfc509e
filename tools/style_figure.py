"""Draws Figure 8: unseen characters redrawn in the style of another drawing.

    python -m tools.style_figure --data_dir=DIR --out=docs/omniglot_styles.png

Each group has a content (left) and a style (right) on top, and below the
character redrawn in the style, twice. All are of characters that the model has
not seen.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import vhe_tf
from vhe_tf import evaluation
from vhe_tf import random
from vhe_tf import visualization
from vhe_tf.data import GroupedImages
from vhe_tf.data.datasets import omniglot
from vhe_tf.data.datasets import ready
from vhe_tf.data.datasets import styles

_GAP, _GROUP_GAP = 2, 8  # pixels
_GREY = 0.2


def main(argv: Sequence[str]) -> None:
    """Draws the data, samples and saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    given = flags.FLAGS
    *_, test = omniglot.load_omniglot(
        "lake", recipe="original", data_dir=given.data_dir
    )
    grid = redraw(
        vhe_tf.load_model(given.model),
        ready(styles.styled(test), "colour"),
        rows=given.rows,
        columns=given.columns,
        seed=given.seed,
        latent_temperature=given.latent_temperature,
        best_of=given.best_of,
    )
    visualization.save_png(pathlib.Path(given.out), grid, scale=given.scale)
    print(f"Made {given.out}")


def redraw(
    model: "vhe_tf.VHE",
    test: GroupedImages,
    *,
    rows: int,
    columns: int,
    seed: int,
    **options: Any,
) -> np.ndarray:
    """Returns the figure `[height, width, C]` of a model.

    Args:
        model: `VHE`. The model of characters and styles.
        test: `GroupedImages`. Drawings of unseen characters.
        rows: Integer. Rows of groups.
        columns: Integer. Groups side by side.
        seed: Integer. Random seed of all that is random.
        **options: Passed on to `VHE.sample`.
    """
    content, style = pairs(test, rows * columns, seed=seed)
    redrawn = model.sample(
        {
            "character": tf.repeat(content, 2, axis=0),
            "style": tf.repeat(style, 2, axis=0),
        },
        seed=random.fold_in(seed, tf.range(2 * len(content))),
        **options,
    ).numpy()
    return figure(
        content[:, 0],
        style[:, 0],
        redrawn=redrawn.reshape(-1, 2, *redrawn.shape[1:]),
        columns=columns,
    )


def pairs(
    test: GroupedImages, count: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one image of each of `count` characters, and as many styles.

    Args:
        test: `GroupedImages`. Drawings of unseen characters.
        count: Integer, R.
        seed: Integer. Selects them.

    Returns:
        `[R, 1, H, W, C]` each. No character occurs on both sides.
    """
    [task] = evaluation.few_shot_tasks(
        test,
        evaluation.TaskDesign(num_ways=2 * count, num_shots=1),
        group="character",
        num_tasks=1,
        seed=seed,
    )
    return task.support[:count], task.support[count:]


def figure(
    content: np.ndarray, style: np.ndarray, *, redrawn: np.ndarray, columns: int
) -> np.ndarray:
    """Tiles groups of a content, a style, and redrawings below.

    Args:
        content: `[R, H, W, C]`, one character per group.
        style: `[R, H, W, C]`, one drawing in the wanted style per group.
        redrawn: `[R, 2, H, W, C]`, two redrawings per group.
        columns: Integer. Groups side by side, a divisor of R.

    Returns:
        `[height, width, C]`.
    """
    above = np.stack([content, style], axis=1)
    groups = [
        _beside([_beside(list(top), 1), _beside(list(below), 1)], 0)
        for top, below in zip(above, redrawn, strict=True)
    ]
    rows = [
        _beside(groups[start : start + columns], 1, gap=_GROUP_GAP)
        for start in range(0, len(groups), columns)
    ]
    return _beside(rows, 0, gap=_GROUP_GAP)


def _beside(
    images: Sequence[np.ndarray], axis: int, *, gap: int = _GAP
) -> np.ndarray:
    """Sets images `[H, W, C]` side by side along an axis."""
    shape = list(images[0].shape)
    shape[axis] = gap
    space = np.full(shape, _GREY, np.float32)
    spaced = [piece for image in images for piece in (space, image)]
    return np.concatenate(spaced[1:], axis=axis)


if __name__ == "__main__":
    flags.DEFINE_string("model", "omniglot_styles_small", "Model of styles.")
    flags.DEFINE_string("data_dir", None, "TensorFlow Datasets folder.")
    flags.DEFINE_string("out", None, "PNG to write.", required=True)
    flags.DEFINE_integer("rows", 4, "Rows of groups.")
    flags.DEFINE_integer("columns", 6, "Groups side by side.")
    flags.DEFINE_float("latent_temperature", 0.25, "As in `VHE.sample`.")
    flags.DEFINE_integer("best_of", 4, "As in `VHE.sample`.")
    flags.DEFINE_integer("scale", 3, "Screen pixels per pixel.")
    flags.DEFINE_integer("seed", 0, "Random seed of all that is random.")
    app.run(main)
