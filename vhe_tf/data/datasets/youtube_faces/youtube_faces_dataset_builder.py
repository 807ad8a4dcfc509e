"""TensorFlow Datasets' builder of YouTube Faces.

The archive is only ever read from its beginning to its end, without unpacking
it: in about 24 GB of files no more than one is held at a time.
"""

import contextlib
import dataclasses
import functools
import gzip
import io
import logging
import os
import pathlib
import re
import tarfile
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vhe_tf._utils.validation import check_image_size
from vhe_tf.data.datasets.image_file import listing
from vhe_tf.data.datasets.image_file import resized
from vhe_tf.data.datasets.youtube_faces.split import Video
from vhe_tf.data.datasets.youtube_faces.split import split_frames

__all__ = [
    "Builder",
    "YouTubeFacesConfig",
    "find_source",
    "warn_if_incomplete",
]

HOMEPAGE = "http://www.cs.tau.ac.il/~wolf/ytfaces/"
FOLDER = "aligned_images_DB"
ARCHIVE = f"{FOLDER}.tar.gz"

_LAYOUT = f"{FOLDER}/<person>/<video>/aligned_detect_<video>.<frame>.jpg"
_FRAME = re.compile(
    rf"(?:\./)?{FOLDER}/(?P<person>[^/]+)/(?P<video>[0-9]+)/"
    r"aligned_detect_(?P=video)\.(?P<number>[0-9]+)\.(?i:jpg)"
)

_CHUNK_SIZE = 1 << 20
_MAX_BYTES = 16 << 20  # of a frame; the largest ones have some 20 KiB
_MAX_NAME = 200  # letters of a name in a message

_logger = logging.getLogger(__name__)

# Opens a file, or gives the path of one to open.
_Opener = Callable[[], io.BytesIO | pathlib.Path]


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
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012
    BUILDER_CONFIGS = [YouTubeFacesConfig(name="40x40")]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Ask for access at {HOMEPAGE} and put `{ARCHIVE}`, or the folder "
        f"`{FOLDER}` that it unpacks to, in `manual_dir`."
    )

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
        split = split_frames(_list_frames(source))
        warn_if_incomplete(split.rule, source)
        self.info.metadata.update(rule=split.rule)
        return {
            "train": self._generate_examples(source, split.train),
            "test": self._generate_examples(source, split.test),
        }

    def _generate_examples(
        self, source: pathlib.Path, wanted: Mapping[Video, Iterable[int]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        missing = {video: set(numbers) for video, numbers in wanted.items()}
        unreadable = {}
        for name, opener in _files(source):
            video, number = _frame(name) or (None, -1)
            if video is None or number not in missing.get(video, ()):
                continue
            missing[video].remove(number)  # a file may be packed twice
            file = opener()
            try:
                image = _face(file, self.builder_config.image_size)
            # Pillow's decoders raise OSError, SyntaxError, ValueError and more.
            except Exception as error:
                unreadable[name] = f"{type(error).__name__}: {error}"
                continue
            yield (
                f"{video.person}/{video.number}/{number}",
                {
                    "image": image,
                    "person": video.person,
                    "video": video.number,
                    "frame": number,
                },
            )
        if unreadable:
            raise ValueError(
                f"All wanted frames of {str(source)!r} must be images that can "
                "be read; replace those that are not. Received: "
                f"{len(unreadable)} that cannot be read:{listing(unreadable)}"
            )


def find_source(manual_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the archive or, where there is none, the unpacked folder.

    The archive comes first because it shows whether it is complete, which a
    folder that was unpacked half-way does not.

    Args:
        manual_dir: Path. The folder that holds one of them.

    Raises:
        FileNotFoundError: If it holds neither.
    """
    folder = pathlib.Path(manual_dir).expanduser()
    if (folder / ARCHIVE).is_file():
        return folder / ARCHIVE
    if (folder / FOLDER).is_dir():
        return folder / FOLDER
    raise FileNotFoundError(
        f"YouTube Faces needs {ARCHIVE!r}, or the folder {FOLDER!r} that it "
        f"unpacks to, in `manual_dir`. Ask for it at {HOMEPAGE}, put it there "
        "and give the folder around it. "
        f"Received: manual_dir={str(folder)!r}."
    )


def _list_frames(source: pathlib.Path) -> dict[Video, set[int]]:
    """Returns the numbers of the frames of each video."""
    frames: dict[Video, set[int]] = {}
    others = []
    for name, _ in tfds.core.utils.tqdm(
        _files(source),
        desc=f"Listing the frames of {source.name}...",
        unit=" files",
        leave=False,
        mininterval=1.0,
    ):
        if found := _frame(name):
            frames.setdefault(found[0], set()).add(found[1])
        else:
            others.append(_short(name))
    examples = f", for example {min(others)!r}" if others else ""
    if not frames:
        raise ValueError(
            f"{str(source)!r} must hold frames called {_LAYOUT!r}. Received: "
            f"{len(others)} other files{examples}."
        )
    if others:
        _logger.warning(
            "Ignored %d files of %r that are not called %r%s.",
            len(others),
            str(source),
            _LAYOUT,
            examples,
        )
    return frames


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}..."


def _frame(name: str) -> tuple[Video, int] | None:
    """Returns the video and the number of a frame, by the name of its file."""
    match = _FRAME.fullmatch(name)
    if match is None:
        return None
    return Video(match["person"], int(match["video"])), int(match["number"])


def _files(source: pathlib.Path) -> Iterator[tuple[str, _Opener]]:
    """Yields the path of each file, from `aligned_images_DB` on.

    Raises:
        ValueError: If the archive is corrupt, or a folder cannot be read.
    """
    files = _folder_files if source.is_dir() else _archive_files
    try:
        yield from files(source)
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ValueError(
            f"{str(source)!r} cannot be read to its end; download it again "
            f"from {HOMEPAGE} if it is corrupt, or see whether you may read "
            f"it. Received: {type(error).__name__}: {error}"
        ) from error


def _folder_files(source: pathlib.Path) -> Iterator[tuple[str, _Opener]]:
    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(
        source, onerror=fail, followlinks=True
    ):
        folders.sort()
        for name in sorted(names):
            path = pathlib.Path(folder, name)
            relative = path.relative_to(source.parent).as_posix()
            yield relative, functools.partial(_file, path)


def _file(path: pathlib.Path) -> pathlib.Path:
    with contextlib.suppress(OSError):  # reported when it is read
        _check_size(path.stat().st_size, str(path))
    return path


def _check_size(size: int, name: str, kind: str = "a file") -> None:
    if size > _MAX_BYTES or kind != "a file":
        raise ValueError(
            f"Frames must be plain files of at most {_MAX_BYTES:,} bytes; "
            f"leave {_short(name)!r} out, and use the archive from "
            f"{HOMEPAGE} alone. Received: {kind} of {size:,} bytes."
        )


class _BoundedStream(gzip.GzipFile):
    """An archive of which nothing large is read at once, headers included."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MAX_BYTES + tarfile.BLOCKSIZE:
            raise ValueError(
                f"{os.fspath(self.name)!r} must have names of files and "
                f"headers of at most {_MAX_BYTES:,} bytes; download it again "
                f"from {HOMEPAGE}. Received: a header of {size:,} bytes."
            )
        return super().read(size)


def _archive_files(source: pathlib.Path) -> Iterator[tuple[str, _Opener]]:
    with (
        _BoundedStream(source) as stream,
        tarfile.open(fileobj=stream, mode="r:", encoding="utf-8") as archive,
    ):
        while (member := archive.next()) is not None:
            # All of them would take a gigabyte.
            archive.members = []  # type: ignore[attr-defined]
            if member.isfile():
                yield member.name, functools.partial(_content, archive, member)
        # Only at its end is it known whether the gzip stream is complete.
        while stream.read(_CHUNK_SIZE):
            pass


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> io.BytesIO:
    kind = "a sparse file" if member.issparse() else "a file"
    _check_size(member.size, member.name, kind)
    file = archive.extractfile(member)
    return io.BytesIO(file.read() if file else b"")


def _face(
    file: io.BytesIO | pathlib.Path, image_size: tuple[int, int]
) -> np.ndarray:
    """Reads the central half in height and width as `[H, W, 3]`."""
    with Image.open(file) as page:
        image = page.convert("RGB")
    left, top = image.width // 4, image.height // 4
    box = (left, top, image.width - left, image.height - top)
    return np.asarray(resized(image.crop(box), image_size))


def warn_if_incomplete(rule: str, place: object) -> None:
    """Warns of results that are not comparable with the paper's."""
    if rule != "paper":
        _logger.warning(
            "%r is not the complete YouTube Faces: all frames are used, and "
            "results are not comparable with the paper's (Table 5).",
            str(place),
        )
