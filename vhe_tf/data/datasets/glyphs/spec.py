"""The spec of glyphs."""

import dataclasses
from typing import ClassVar

from vhe_tf._utils.validation import check_choice
from vhe_tf.data.datasets.glyphs.generating import generate_glyphs
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import drawings
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["Glyphs", "glyph_parts"]

_IMAGE_SIZE = (28, 28)
# Enough of them to see sharing within an alphabet on unseen alphabets.
_NUM_TEST_ALPHABETS = 8


@dataclasses.dataclass(frozen=True)
class Glyphs(DatasetSpec):
    """Made-up alphabets; the last 8 of 30 are for testing.

    Args:
        images: String. `"binary"` for fixed binary images, `"grey"` for grey
            ones that are binarized whenever one is sampled. Defaults to
            `"binary"`.
        seed: Integer. Seed of the binarization of grey test images. Defaults
            to 0.

    Example:
    >>> Glyphs(images="grey").seed
    0
    """

    name: ClassVar[str] = "glyphs"

    images: str = "binary"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(("binary", "grey"), images=self.images)

    def load(self, data_dir: str | None = None) -> DataSplits:
        """See base class. `data_dir` is not used."""
        train, test = glyph_parts()
        return drawings(
            train,
            test,
            images=self.images,
            image_size=_IMAGE_SIZE,
            seed=self.seed,
        )


def glyph_parts() -> tuple[GroupedImages, GroupedImages]:
    """Returns the training and the test alphabets, grey images."""
    data = generate_glyphs()
    alphabets = data.group_ids("alphabet").tolist()
    return (
        data.with_groups("alphabet", alphabets[:-_NUM_TEST_ALPHABETS]),
        data.with_groups("alphabet", alphabets[-_NUM_TEST_ALPHABETS:]),
    )
