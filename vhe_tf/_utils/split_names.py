"""Names for what images are for: training, validation or testing."""

import re
from collections.abc import Iterable

from vhe_tf._utils.spelling import spelling_key

__all__ = ["SIDES", "SPLIT", "side_of", "split_column"]

SPLIT = "split"
"""The grouping of images by what they are for."""

SIDES = ("train", "validation", "test")
"""Names of the parts of a split: training, validation, test."""

# In lower case; the last ones are in Omniglot's archives.
_NAMES = (
    ("train", "training", "images_background"),
    ("val", "valid", "validation", "dev", "development", "eval", "evaluation"),
    ("test", "testing", "images_evaluation"),
)
_SIDE_OF_NAME = {name: side for side in range(3) for name in _NAMES[side]}
_KIND = re.compile(r"[ _-]*(set|split|data|images)$")


def side_of(name: str) -> int | None:
    """Returns the index in `SIDES` that a name stands for, or None.

    Args:
        name: String. The name of a folder or the cell of a table.

    Example:
    >>> side_of("Training Set"), side_of("val"), side_of("test"), side_of("a")
    (0, 1, 2, None)
    """
    name = spelling_key(name).lower()
    return _SIDE_OF_NAME.get(name, _SIDE_OF_NAME.get(_KIND.sub("", name)))


def split_column(names: Iterable[str]) -> str | None:
    """Returns which of the names of groupings is that of the split, or None.

    Args:
        names: Strings. Names of groupings or columns.

    Example:
    >>> split_column(["character", "Split"])
    'Split'
    """
    return next((name for name in names if name.lower() == SPLIT), None)
