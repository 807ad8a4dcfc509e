"""Image grids in TensorBoard."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf import visualization
from vhe_tf._utils import atomic_io
from vhe_tf._utils.progress import status_line
from vhe_tf.callbacks.scalars import EventFile
from vhe_tf.callbacks.scalars import steps_taken
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.models.vhe import VHE
from vhe_tf.optimizers import ema_weights

__all__ = ["ImageGrids", "PreviewBatch", "preview_batch"]


@dataclasses.dataclass(frozen=True)
class PreviewBatch:
    """The support images and queries that every picture of a run shows.

    Attributes:
        group: String. The group latent that `support` is inferred for.
        support: `[G, N, H, W, C]`, N images of each of G groups.
        query: `[G, Q, H, W, C]`, other images of the same groups.

    Example:
    >>> preview = preview_batch(data, group="character", num_groups=2)
    >>> sorted(preview.grids(model, num_samples=1))
    ['conditional', 'reconstruction', 'unconditional']
    """

    group: str
    support: np.ndarray
    query: np.ndarray

    def grids(
        self, model: VHE, *, num_samples: int = 5, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Returns image grids of a model by name; see `visualization`."""
        return {
            "conditional": visualization.conditional_grid(
                model,
                [self.support[:, :1], self.support],
                group=self.group,
                num_samples=num_samples,
                seed=(seed, 0),
            ),
            "reconstruction": visualization.reconstruction_grid(
                model,
                self.support,
                query=self.query,
                group=self.group,
                seed=(seed, 10),
            ),
            "unconditional": visualization.prior_grid(model, seed=(seed, 20)),
        }


def preview_batch(
    data: GroupedImages,
    *,
    group: str,
    num_groups: int = 10,
    num_shots: int = 5,
    num_queries: int = 8,
    seed: int = 0,
) -> PreviewBatch:
    """Chooses the images that the pictures of a run show.

    Args:
        data: `GroupedImages`. Images ready for the model.
        group: String. The grouping to choose groups of.
        num_groups: Integer. Number of groups. Defaults to 10.
        num_shots: Integer. Number of support images per group, lowered if no
            group has `num_shots + num_queries` images. Defaults to 5.
        num_queries: Integer. Number of other images per group. Defaults to 8.
        seed: Integer. Decides the choice. Defaults to 0.

    Returns:
        A `PreviewBatch`.

    Raises:
        ValueError: If no group has two images.

    Example:
    >>> preview = preview_batch(data, group="character", num_groups=2)
    >>> preview.support.shape, preview.query.shape
    ((2, 5, 8, 8, 1), (2, 2, 8, 8, 1))
    """
    known = data.labels[group][data.labels[group] != MISSING]
    ids, counts = np.unique(known, return_counts=True)
    if counts.max() < 2:
        raise ValueError(
            f"Pictures need a {group} with 2 images, a support image and "
            "another. Add images to a class. Received: 1 image per class."
        )
    # Groups that are large enough, or else all there can be of the largest.
    needed = min(num_shots + num_queries, int(counts.max()))
    num_shots = min(num_shots, needed - 1)
    large = ids[counts >= needed]
    generator = np.random.default_rng(seed)
    chosen = generator.choice(large, min(num_groups, len(large)), replace=False)
    images = np.stack(
        [
            data.images[
                generator.choice(
                    np.flatnonzero(data.labels[group] == group_id),
                    needed,
                    replace=False,
                )
            ]
            for group_id in chosen
        ]
    )
    return PreviewBatch(group, images[:, :num_shots], images[:, num_shots:])


class ImageGrids(keras.callbacks.Callback):
    """Writes image grids of the same support images every few epochs.

    Drawn with the EMA weights. The chief writes if several workers train.

    Args:
        folder: Path. Where the event files go; not that of `Scalars`, since
            TensorBoard follows one event file per folder.
        make_grids: Callable. Returns the grids of a model by name, such as
            `PreviewBatch.grids`.
        every: Integer. Number of epochs between grids. Defaults to 1.
        ink: Boolean. Whether 1 is ink, to be shown black on white. Defaults to
            True.

    Raises:
        NotWrittenError: By `fit`, if the disk is full.

    Example:
    >>> import tempfile
    >>> preview = preview_batch(data, group="character")
    >>> grids = ImageGrids(tempfile.mkdtemp(), preview.grids)
    >>> history = model.fit(data, steps_per_epoch=1, verbose=0,
    ...                     callbacks=[grids])
    >>> len(list(grids.folder.glob("events.*")))
    1
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        make_grids: Callable[[VHE], Mapping[str, np.ndarray]],
        *,
        every: int = 1,
        ink: bool = True,
    ) -> None:
        super().__init__()
        self.folder = pathlib.Path(folder).expanduser()
        self.make_grids = make_grids
        self.every = every
        self.ink = ink
        self._file = EventFile(self.folder, suffix=".pictures")

    def on_train_begin(self, logs: Any = None) -> None:
        if distribute.is_chief(self.model.distribute_strategy):
            atomic_io.check_room(self.folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every:
            return
        if not distribute.is_chief(self.model.distribute_strategy):
            return
        stage = status_line(f"epoch {epoch + 1}: pictures")
        with stage, ema_weights(self.model):
            grids = self.make_grids(self.model)
        # A PNG is hardly larger than its pixels, which are doubled.
        size = 8 * sum(grid.size for grid in grids.values())
        writer = self._file.writer(size)
        with writer.as_default(), tf.summary.record_if(True):
            visualization.write_summaries(
                grids, step=steps_taken(self, epoch), ink=self.ink
            )
        writer.flush()
