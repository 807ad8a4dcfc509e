"""TensorFlow Datasets' builder of YouTube Faces."""

import contextlib
import dataclasses
import io
import logging
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from PIL import ImageFile

from vhe_tf.data.datasets.image_file import check_image_size
from vhe_tf.data.datasets.image_file import listing
from vhe_tf.data.datasets.image_file import resized
from vhe_tf.data.datasets.youtube_faces.archive import ARCHIVE
from vhe_tf.data.datasets.youtube_faces.archive import FOLDER
from vhe_tf.data.datasets.youtube_faces.archive import HOMEPAGE
from vhe_tf.data.datasets.youtube_faces.archive import Video
from vhe_tf.data.datasets.youtube_faces.archive import find_source
from vhe_tf.data.datasets.youtube_faces.archive import list_frames
from vhe_tf.data.datasets.youtube_faces.archive import read_frames
from vhe_tf.data.datasets.youtube_faces.split import split_frames

__all__ = [
    "Builder",
    "YouTubeFacesConfig",
    "num_bytes",
    "warn_if_incomplete",
]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(eq=False)
class YouTubeFacesConfig(tfds.core.BuilderConfig):
    """The size of the prepared images.

    Attributes:
        image_size: `(H, W)`, both positive.
    """

    image_size: tuple[int, int] = (40, 40)

    def __post_init__(self) -> None:
        check_image_size(self.image_size)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Prepares the central half of YouTube Faces' frames.

    What is stored is what models see: one resize leads from the original pixels
    to images of the configuration's size, and reading them takes seconds.
    Another size is another configuration, prepared again from the archive.

    An archive is read three times from end to end: for the names of the frames,
    on which the split depends, and for the images of each part.

    Args:
        skip_unreadable: Boolean. Whether to leave out frames that cannot be
            read, with a warning that names them, instead of raising an error at
            the end of the part that they are in.
        **kwargs: Passed on to `tfds.core.GeneratorBasedBuilder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012
    BUILDER_CONFIGS = [YouTubeFacesConfig(name="40x40")]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Ask for access at {HOMEPAGE} and put `{ARCHIVE}`, or the folder "
        f"`{FOLDER}` that it unpacks to, in `manual_dir`."
    )

    def __init__(self, *, skip_unreadable: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.skip_unreadable = skip_unreadable

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(*self.builder_config.image_size, 3),
                        encoding_format="png",
                    ),
                    "person": tfds.features.Text(),
                    "video": np.int64,
                    "frame": np.int64,
                }
            ),
            supervised_keys=("image", "person"),
            homepage=HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        source = find_source(os.fspath(dl_manager.manual_dir))
        split = split_frames(list_frames(source))
        warn_if_incomplete(split.rule, source)
        self.info.metadata.update(
            rule=split.rule, unreadable=[], num_bytes=num_bytes(source)
        )
        return {
            "train": self._generate_examples(source, split.train),
            "test": self._generate_examples(source, split.test),
        }

    def _generate_examples(
        self, source: pathlib.Path, wanted: Mapping[Video, Iterable[int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        unreadable = {}
        any_readable = False
        for frame, file in read_frames(source, wanted):
            try:
                image = _face(file, self.builder_config.image_size)
            # Pillow's decoders raise OSError, SyntaxError, ValueError and more.
            except Exception as error:
                unreadable[frame.name] = f"{type(error).__name__}: {error}"
                continue
            any_readable = True
            person, video = frame.video
            yield (
                f"{person}/{video}/{frame.number}",
                {
                    "image": image,
                    "person": person,
                    "video": video,
                    "frame": frame.number,
                },
            )
        self._report(source, unreadable, any_readable)

    def _report(
        self,
        source: pathlib.Path,
        unreadable: Mapping[str, str],
        any_readable: bool,
    ) -> None:
        if not unreadable:
            return
        names = sorted(unreadable)
        lines = listing({name: unreadable[name] for name in names})
        if not self.skip_unreadable or not any_readable:
            raise ValueError(
                f"All wanted frames of {str(source)!r} must be images that can "
                "be read; replace those that are not, or leave them out by "
                "`skip_unreadable=True` where others remain. Received: "
                f"{len(names)} that cannot be read:{lines}"
            )
        self.info.metadata["unreadable"] += names
        _logger.warning(
            "Left out %d frames of %r that cannot be read:%s",
            len(names),
            str(source),
            lines,
        )


def _face(
    file: io.BytesIO | pathlib.Path, image_size: tuple[int, int]
) -> np.ndarray:
    """Reads the central half in height and width as `[H, W, 3]`."""
    with _strict_pillow(), Image.open(file) as page:
        image = page.convert("RGB")
    left, top = image.width // 4, image.height // 4
    box = (left, top, image.width - left, image.height - top)
    return np.asarray(resized(image.crop(box), image_size))


@contextlib.contextmanager
def _strict_pillow() -> Iterator[None]:
    """Rejects truncated files even if Pillow is set to accept them."""
    accepts = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = accepts


def warn_if_incomplete(rule: str, place: object) -> None:
    """Says that results cannot stand beside the paper's, where that is so."""
    if rule != "paper":
        _logger.warning(
            "%r is not the complete YouTube Faces: all frames are used, and "
            "results are not comparable with the paper's (Table 5).",
            str(place),
        )


def num_bytes(source: pathlib.Path) -> int | None:
    """Returns the size of an archive, by which it is known again."""
    return source.stat().st_size if source.is_file() else None
