"""The spec of YouTube Faces."""

import dataclasses
from typing import ClassVar

from vhe_tf._utils.validation import check_choice
from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.datasets.splits import NUM_LEVELS
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import check_num_levels
from vhe_tf.data.datasets.splits import photographs

__all__ = ["YouTubeFaces"]


@dataclasses.dataclass(frozen=True)
class YouTubeFaces(DatasetSpec):
    """Faces of people in videos (Section 4.2), disjoint people for testing.

    Args:
        group: String. The grouping whose groups are the classes: `"person"`
            or `"video"`. Images of one video are far more alike. People are
            disjoint in either case. Defaults to `"person"`.
        image_size: `(H, W)` to resize to. Defaults to 40x40.
        num_levels: Integer. Levels of each channel to which images are
            rounded. The noise of the lower bits is most of what a PixelCNN
            learns; without it the rest is learned far sooner. Defaults to
            256, the 8 bits of photographs.
        manual_dir: String or None. See `load_youtube_faces`.

    Example:
    >>> YouTubeFaces(group="video").get_config()["image_size"]
    [40, 40]
    """

    name: ClassVar[str] = "youtube_faces"

    group: str = "person"
    image_size: tuple[int, int] = (40, 40)
    num_levels: int = NUM_LEVELS
    manual_dir: str | None = None

    def __post_init__(self) -> None:
        check_choice(("person", "video"), group=self.group)
        check_image_size(self.image_size)
        check_num_levels(self.num_levels, "colour")

    def load(self, data_dir: str | None = None) -> DataSplits:
        """See base class."""
        # TensorFlow Datasets is slow to import.
        from vhe_tf.data.datasets.youtube_faces import loading

        train, test, is_complete = loading.load_youtube_faces(
            data_dir=data_dir,
            manual_dir=self.manual_dir,
            image_size=self.image_size,
        )
        return photographs(
            train,
            test,
            image_size=self.image_size,
            group=self.group,
            num_levels=self.num_levels,
            caveat=None
            if is_complete
            else "a subset of YouTube Faces, not comparable with Table 5",
        )
