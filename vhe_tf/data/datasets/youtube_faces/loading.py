"""Loads YouTube Faces, and prepares it where that was not done yet."""

import os
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.datasets.prepared import folder_around
from vhe_tf.data.datasets.prepared import name_corrupt_files
from vhe_tf.data.datasets.records.recorded_images import read_whole
from vhe_tf.data.datasets.youtube_faces import (
    youtube_faces_dataset_builder as builders,
)
from vhe_tf.data.datasets.youtube_faces.split import Video
from vhe_tf.data.grouped_images import GroupedImages

__all__ = ["YouTubeFacesSplit", "load_youtube_faces"]


class YouTubeFacesSplit(NamedTuple):
    """Training and test images of different people.

    Attributes:
        train: `GroupedImages`. The images to train on.
        test: `GroupedImages`. The images to report numbers on.
        is_complete: Boolean. Whether they were split by the paper's rule.
    """

    train: GroupedImages
    test: GroupedImages
    is_complete: bool


class _Frames(NamedTuple):
    """The frames of one part as they are stored, in any order.

    Attributes:
        images: `[M, H, W, 3]` uint8, the frames.
        videos: The video of each.
        numbers: `[M]`, the number of each in its video.
    """

    images: np.ndarray
    videos: list[Video]
    numbers: np.ndarray


def load_youtube_faces(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    image_size: tuple[int, int] = (40, 40),
) -> YouTubeFacesSplit:
    """Reads YouTube Faces by TensorFlow Datasets, people apart.

    An image is the central half of an aligned frame, in height and width,
    resized by area averages along an axis that shrinks and linearly along one
    that grows: 40x40 in the paper (Section 4.2).

    If the data set is complete, 48 frames of one video of each person are used,
    954 people for training and 641 for testing. If it is not, all frames of all
    people are used, and 954/1595 of the people are for training; results are
    then not comparable with the paper's. `split.split_frames` has the details.

    The first call at an image size prepares the images, by reading the archive
    three times; the complete one takes minutes each time.

    Args:
        data_dir: Path or None. The folder that holds `youtube_faces` as
            TensorFlow Datasets prepares it, or is to hold it. Default: the
            environment variable `TFDS_DATA_DIR`, or else TensorFlow Datasets'
            own default.
        manual_dir: Path or None. The folder with `aligned_images_DB.tar.gz` or,
            where that is not in it, the folder `aligned_images_DB` that it
            unpacks to. Needed only where images of this size are not prepared.
            Default: `downloads/manual` in `data_dir`.
        image_size: `(H, W)`, both positive.

    Returns:
        Images, uint8, sorted by person, video and frame, with the labels
        `"person"` and `"video"`. Ids count the people and videos of both parts
        in the order of their names, `"<person>"` and `"<person>/<video>"`.

    Raises:
        ValueError: If `image_size` is not valid, if the archive is corrupt or
            laid out otherwise, or if a frame cannot be read.
        FileNotFoundError: If the images are neither prepared in `data_dir` nor
            to be found in `manual_dir`.
    """
    check_image_size(image_size)
    height, width = image_size
    name = f"{height}x{width}"
    config = builders.Builder.builder_configs.get(
        name
    ) or builders.YouTubeFacesConfig(name=name, image_size=(height, width))
    prepared = f"youtube_faces/{config.name}/{builders.Builder.VERSION}"
    root = data_dir or os.environ.get("TFDS_DATA_DIR")
    root = root or tfds.core.constants.DATA_DIR
    root = folder_around(os.path.expanduser(root), prepared)
    with name_corrupt_files(os.path.join(root, prepared)):
        builder = builders.Builder(data_dir=root, config=config)
    if builder.is_prepared():
        builders.warn_if_incomplete(
            builder.info.metadata["rule"], builder.data_dir
        )
    else:
        _prepare(builder, manual_dir)
    train, test = _grouped(_read(builder, "train"), _read(builder, "test"))
    is_complete = builder.info.metadata["rule"] == "paper"
    return YouTubeFacesSplit(train, test, is_complete)


def _prepare(
    builder: builders.Builder, manual_dir: str | os.PathLike[str] | None
) -> None:
    if manual_dir is None:
        manual_dir = os.path.join(builder.data_dir_root, "downloads", "manual")
    try:
        source = builders.find_source(manual_dir)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"YouTube Faces is not prepared in {builder.data_dir!r}, nor can "
            f"it be. {error}"
        ) from error
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=source.parent, try_download_gcs=False
        )
    )


def _read(builder: builders.Builder, part: str) -> _Frames:
    dataset = builder.as_dataset(
        split=part,
        batch_size=256,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    images, numbers = [], []
    videos: list[Video] = []
    for batch in read_whole(tfds.as_numpy(dataset), builder.data_dir):
        images.append(batch["image"])
        numbers.append(batch["frame"])
        videos += [
            Video(person.decode("utf-8"), int(video))
            for person, video in zip(
                batch["person"], batch["video"], strict=True
            )
        ]
    return _Frames(np.concatenate(images), videos, np.concatenate(numbers))


def _grouped(*parts: _Frames) -> list[GroupedImages]:
    videos = sorted({video for part in parts for video in part.videos})
    people = sorted({video.person for video in videos})
    video_ids = {video: index for index, video in enumerate(videos)}
    person_ids = {person: index for index, person in enumerate(people)}
    names = {
        "person": dict(enumerate(people)),
        "video": {
            index: f"{video.person}/{video.number}"
            for video, index in video_ids.items()
        },
    }
    grouped = []
    for part in parts:
        ids = np.array([video_ids[video] for video in part.videos])
        order = np.lexsort([part.numbers, ids])
        person_of_video = np.array([person_ids[v.person] for v in videos])
        labels = {"person": person_of_video[ids[order]], "video": ids[order]}
        grouped.append(GroupedImages(part.images[order], labels, names))
    return grouped
