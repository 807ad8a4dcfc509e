"""The frames in YouTube Faces' archive, or in the folder that it unpacks to.

The archive is only ever read from its beginning to its end, without unpacking
it: in about 24 GB of files no more than one is held at a time.
"""

import contextlib
import functools
import gzip
import io
import logging
import os
import pathlib
import re
import tarfile
import unicodedata
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow_datasets as tfds

__all__ = [
    "ARCHIVE",
    "FOLDER",
    "HOMEPAGE",
    "Frame",
    "Video",
    "find_source",
    "list_frames",
    "read_frames",
]

HOMEPAGE = "http://www.cs.tau.ac.il/~wolf/ytfaces/"
FOLDER = "aligned_images_DB"
ARCHIVE = f"{FOLDER}.tar.gz"

_LAYOUT = f"{FOLDER}/<person>/<video>/aligned_detect_<video>.<frame>.jpg"
_FRAME = re.compile(
    rf"{FOLDER}/(?P<person>[^/]+)/(?P<video>[0-9]+)/"
    r"aligned_detect_(?P=video)\.(?P<number>[0-9]+)\.(?i:jpg)"
)
_CHUNK_SIZE = 1 << 20
_MAX_BYTES = 16 << 20  # of a frame; the largest ones have some 20 KiB

_logger = logging.getLogger(__name__)


class Video(NamedTuple):
    """One video of a person.

    Attributes:
        person: String. The person's name, as the folder is called.
        number: Integer. The video's number among those of the person.
    """

    person: str
    number: int


class Frame(NamedTuple):
    """One frame of a video.

    Attributes:
        video: `Video`. The video.
        number: Integer. The frame's number in the video.
        name: String. Its path from `aligned_images_DB` on.
    """

    video: Video
    number: int
    name: str


# Opens a file, or gives the path of one to open.
_Opener = Callable[[], io.BytesIO | pathlib.Path]


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
        f"Received: manual_dir={str(folder)!r}, {_contents(folder)}."
    )


def list_frames(source: pathlib.Path) -> dict[Video, set[int]]:
    """Lists the numbers of the frames of each video.

    Hidden files are skipped, and files that are no frames too, with one
    warning that counts them.

    Args:
        source: Path. What `find_source` returns.

    Raises:
        ValueError: If there are no frames, or if the archive is corrupt.
    """
    frames: dict[Video, set[int]] = {}
    others = []
    with _name_corrupt_archive(source):
        for name, _ in tfds.core.utils.tqdm(
            _visible_files(source),
            desc=f"Listing the frames of {source.name}...",
            unit=" files",
            leave=False,
            mininterval=1.0,
        ):
            frame = _frame(name)
            if frame is None:
                others.append(name)
            else:
                frames.setdefault(frame.video, set()).add(frame.number)
    if not frames:
        raise ValueError(
            f"{str(source)!r} must hold frames called {_LAYOUT!r}. Received: "
            f"{len(others)} other files{_examples(others)}."
        )
    if others:
        _logger.warning(
            "Ignored %d files of %r that are not called %r%s.",
            len(others),
            str(source),
            _LAYOUT,
            _examples(others),
        )
    return frames


def read_frames(
    source: pathlib.Path, wanted: Mapping[Video, Iterable[int]]
) -> Iterator[tuple[Frame, io.BytesIO | pathlib.Path]]:
    """Yields the wanted frames, each once, with its file to read.

    Args:
        source: Path. What `find_source` returns.
        wanted: Mapping from each `Video` to integers. The numbers of the frames
            to read.

    Raises:
        ValueError: If the archive is corrupt.
    """
    missing = {video: set(numbers) for video, numbers in wanted.items()}
    with _name_corrupt_archive(source):
        for name, opener in _visible_files(source):
            frame = _frame(name)
            if frame is None:
                continue
            numbers = missing.get(frame.video, set())
            if frame.number in numbers:
                numbers.remove(frame.number)
                yield frame, opener()


def _contents(folder: pathlib.Path) -> str:
    if not folder.exists():
        return "which does not exist"
    if not folder.is_dir():
        return "which is a file"
    names = sorted(path.name for path in folder.iterdir())
    return f"which holds {len(names)} files and folders{_examples(names)}"


def _examples(names: list[str]) -> str:
    return f", for example {min(names)!r}" if names else ""


@contextlib.contextmanager
def _name_corrupt_archive(source: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError, tarfile.TarError, zlib.error) as error:
        raise ValueError(
            f"{str(source)!r} cannot be read to its end; download it again "
            f"from {HOMEPAGE} if it is corrupt, or see whether you may read "
            f"it. Received: {type(error).__name__}: {error}"
        ) from error


def _frame(name: str) -> Frame | None:
    match = _FRAME.fullmatch(name)
    if match is None:
        return None
    video = Video(_readable(match["person"]), int(match["video"]))
    return Frame(video, int(match["number"]), _readable(name))


def _readable(name: str) -> str:
    """Returns a name as text, whichever bytes stand for it in the source."""
    encoded = name.encode("utf-8", "surrogateescape")
    # An accent is a character of its own in the file names of macOS.
    return unicodedata.normalize("NFC", encoded.decode("utf-8", "replace"))


def _visible_files(source: pathlib.Path) -> Iterator[tuple[str, _Opener]]:
    """Yields the path of each file, from `aligned_images_DB` on."""
    files = _folder_files if source.is_dir() else _archive_files
    for name, opener in files(source):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not any(part.startswith(".") for part in parts):
            yield "/".join(parts), opener


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


def _check_size(size: int, name: str) -> None:
    if size > _MAX_BYTES:
        raise ValueError(
            f"No frame takes more than {_MAX_BYTES:,} bytes; leave {name!r} "
            f"out, and use the archive from {HOMEPAGE} alone. Received: "
            f"{size:,} bytes."
        )


class _BoundedStream(gzip.GzipFile):
    """An archive of which nothing large is read at once, headers included."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MAX_BYTES + tarfile.BLOCKSIZE:
            _check_size(size, os.fspath(self.name))
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
    if member.issparse():
        raise ValueError(
            f"Frames must not be sparse files; leave {member.name!r} out, and "
            f"use the archive from {HOMEPAGE} alone. Received: a sparse file "
            f"of {member.size:,} bytes."
        )
    _check_size(member.size, member.name)
    file = archive.extractfile(member)
    return io.BytesIO(file.read() if file else b"")
