"""Images that occur more than once among those that are read."""

import logging
import os
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from vhe_tf.data.datasets.image_file import listing
from vhe_tf.data.datasets.image_file import open_image
from vhe_tf.data.grouped_images import MISSING
from vhe_tf.data.grouped_images import group_members

__all__ = ["Copies"]

_logger = logging.getLogger(__name__)


class Copies:
    """Finds the images that are copies of, or links to, one before them.

    Blank images are nobody's copies.

    Args:
        paths: Sequence of paths. The files of the images.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        self.paths = paths
        self._first: dict[int, int] = {}
        self._suspects: list[tuple[int, int]] = []
        self._count = 0

    def watch(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the images of the files, and keeps what distinguishes them.

        Args:
            images: `[H, W, C]` each, in the order of the files.
        """
        for image in images:
            first = self._first.setdefault(hash(image.tobytes()), self._count)
            if first != self._count and np.ptp(image):
                self._suspects.append((self._count, first))
            self._count += 1
            yield image

    def originals(self) -> np.ndarray:
        """Returns for each image the index of the first one that equals it."""
        originals = np.arange(self._count)
        for index, first in self._suspects:
            if _same_pixels(self.paths[index], self.paths[first]):
                originals[index] = first
        return originals

    def resolve(
        self,
        labels: Mapping[str, np.ndarray],
        names: Mapping[str, Mapping[int, str]],
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Returns labels with one group for groups of the same images.

        Args:
            labels: Mapping of strings to arrays. By grouping, the group ids of
                the images.
            names: Mapping of strings to mappings. By grouping, the names of the
                groups by id.

        Returns:
            The labels, and which images to keep: all but the copies in a group
            that became a part of another one. A warning names such groups, and
            another one counts copies of images within their group.

        Raises:
            ValueError: If images have two labels in a grouping, although their
                groups are not the same.
        """
        originals = self.originals()
        resolved = dict(labels)
        copies = originals != np.arange(len(originals))
        merged = np.zeros(len(originals), bool)
        partly = np.zeros(len(originals), bool)
        if copies.any():
            for grouping, ids in labels.items():
                resolved[grouping] = self._merged(
                    originals, ids, grouping, names.get(grouping, {})
                )
                merged |= copies & (resolved[grouping] != ids)
                partly |= (ids == MISSING) != (ids[originals] == MISSING)
        for which, what in (
            (copies & ~merged & ~partly, "with the same label"),
            (copies & ~merged & partly, "of which one alone has a label"),
        ):
            self._tell_of_repeats(originals, which, what=what)
        return resolved, ~merged

    def _merged(
        self,
        originals: np.ndarray,
        ids: np.ndarray,
        grouping: str,
        names: Mapping[int, str],
    ) -> np.ndarray:
        """Returns the ids of one grouping."""
        known = (ids != MISSING) & (ids[originals] != MISSING)
        clashes = np.flatnonzero(known & (ids != ids[originals])).tolist()
        same = {}
        two_labels = {}
        members = group_members(ids) if clashes else {}
        for index in clashes:
            pair = (int(ids[index]), int(ids[originals[index]]))
            if pair not in same:
                mine, others = (
                    set(originals[members[group]]) for group in pair
                )
                same[pair] = mine == others
            if not same[pair]:
                first = int(originals[index])
                two_labels[os.fspath(self.paths[index])] = (
                    f"{names.get(pair[0], pair[0])!r}, but "
                    f"{names.get(pair[1], pair[1])!r} as "
                    f"{os.fspath(self.paths[first])}"
                )
        if two_labels:
            raise ValueError(
                f"An image can have only one {grouping}; remove the copies or "
                f"links that are wrong. Received: {len(two_labels):,} "
                f"with two:{listing(two_labels)}"
            )
        merged = ids.copy()
        for group, into in sorted(same):
            merged[members[group]] = into
            _logger.warning(
                "%s: %r has the same images as %r and is read as one with it.",
                grouping.capitalize(),
                names.get(group, group),
                names.get(into, into),
            )
        return merged

    def _tell_of_repeats(
        self, originals: np.ndarray, repeats: np.ndarray, *, what: str
    ) -> None:
        indices = np.flatnonzero(repeats).tolist()
        if not indices:
            return
        _logger.warning(
            "%d images are copies of others %s, so that models can be tested "
            "on images that they are given. Remove them:%s",
            len(indices),
            what,
            listing(
                {
                    os.fspath(self.paths[index]): "as "
                    + os.fspath(self.paths[originals[index]])
                    for index in indices
                }
            ),
        )


def _same_pixels(
    path: str | os.PathLike[str], other: str | os.PathLike[str]
) -> bool:
    one, another = open_image(path), open_image(other)
    return one.size == another.size and (
        one.convert("RGB").tobytes() == another.convert("RGB").tobytes()
    )
