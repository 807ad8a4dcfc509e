"""Atomic file writes and disk-full errors."""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import tempfile
import uuid
from collections.abc import Iterator

import tensorflow as tf

__all__ = [
    "NotWrittenError",
    "beside",
    "check_room",
    "is_partial",
    "locked",
    "partial_path",
    "plainly_named",
    "settle",
    "translate_disk_full",
    "translate_write_errors",
]

# Names that `partial_path` gives.
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}\.partial(\.[^.]*)?", re.DOTALL)

# Messages for ENOSPC (disk full) and EDQUOT (quota exceeded).
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))

# Errors of file systems without fsync of folders or of read-only files.
_CANNOT_SETTLE = (
    errno.EACCES,
    errno.EBADF,
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
)

# TensorFlow's names for failures to write. Those of lost machines are others.
_FAILURES = (
    OSError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnknownError,
)


class NotWrittenError(OSError):
    """A file could not be written."""


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path that replaces `path` atomically on success.

    On failure the temporary file is removed and any existing file is left
    unchanged.

    Args:
        path: Path. The file.

    Raises:
        NotWrittenError: If the file cannot be written.
    """
    partial = partial_path(path)
    # Do not follow a link that another user may have created.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with translate_write_errors(path):
        os.close(os.open(partial, flags, 0o666))
        try:
            yield partial
            settle(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def partial_path(path: pathlib.Path) -> pathlib.Path:
    """Returns a hidden, unpredictable name in the folder of a path."""
    token = uuid.uuid4().hex
    return path.with_name(f".{path.stem}.{token}.partial{path.suffix}")


def is_partial(path: pathlib.Path) -> bool:
    """Returns whether `partial_path` made this name; links are excluded."""
    return bool(_PARTIAL.fullmatch(path.name)) and not path.is_symlink()


def settle(path: pathlib.Path) -> None:
    """Flushes a file, or the list of files of a folder, to the disk.

    Call it before a file is renamed: after a power failure the name could
    otherwise exist without the content. A file system that cannot flush is
    ignored.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SETTLE:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Locks a folder or file while the context or the process lasts.

    A missing file is created and is not removed. On storage that several
    machines share, only files can be locked.

    Raises:
        BlockingIOError: If another process holds the lock.
        OSError: If the file system has no locks.
    """
    made = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else made)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def plainly_named(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a path to a folder without characters of glob patterns.

    TensorFlow treats the paths that it restores as patterns, and so finds
    nothing in a folder `a[1]`.
    """
    if not re.search(r"[\[\]\\*?]", str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = pathlib.Path(place, "folder")
        link.symlink_to(folder.absolute())
        yield link


def check_room(folder: pathlib.Path, size: int = 1) -> None:
    """Checks that a folder has room, and makes it if it does not exist.

    TensorBoard's event files need this: their writer loses the first record
    that does not fit without an error, and no record after a torn one can be
    read.

    Args:
        folder: Path. The folder.
        size: Integer. The number of bytes to come. Defaults to 1.

    Raises:
        NotWrittenError: If there is no room, or the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        _, reason = _place_and_reason(error)
        raise NotWrittenError(
            f"Failed to write to {folder}: {reason}."
        ) from error


@contextlib.contextmanager
def translate_write_errors(path: pathlib.Path) -> Iterator[None]:
    """Raises a `NotWrittenError` with the reason if writing fails.

    Args:
        path: Path. The file or folder that is written. The caller removes
            a partial file.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except _FAILURES as error:
        _, reason = _place_and_reason(error)
        raise NotWrittenError(
            f"Failed to write {path}: {reason}. No partial file remains."
        ) from error


@contextlib.contextmanager
def translate_disk_full() -> Iterator[None]:
    """Raises a NotWrittenError for any error of a full disk in the context.

    Use it for files that other libraries write, such as TensorBoard's.
    """
    try:
        yield
    except NotWrittenError:
        raise
    except (OSError, tf.errors.ResourceExhaustedError) as error:
        if not any(words in str(error) for words in _FULL):
            raise
        place, reason = _place_and_reason(error)
        raise NotWrittenError(
            f"Failed to write {place or 'a file'}: {reason}."
        ) from error


def _place_and_reason(
    error: OSError | tf.errors.OpError,
) -> tuple[str | None, str]:
    if isinstance(error, OSError):
        place, reason = error.filename, error.strerror or str(error)
    else:
        # "{{where in the graph}} FILE; REASON [Op:NAME]", and more lines.
        line = (error.message.splitlines() or [type(error).__name__])[0]
        line = re.sub(r"^{{.*?}} | \[Op:\w+\]$", "", line)
        place, _, reason = line.rpartition("; ")
    if reason in _FULL:
        reason = f"the disk is full ({reason})"
    return place, reason
