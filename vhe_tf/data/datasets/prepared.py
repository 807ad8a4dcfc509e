"""Folders in which TensorFlow Datasets prepares data."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

__all__ = ["folder_around", "name_corrupt_files"]

# The files that describe the data, and what each of them must hold.
_KEYS = {"dataset_info.json": "version", "features.json": "pythonClassName"}


@contextlib.contextmanager
def name_corrupt_files(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Raises a `ValueError` that names a corrupt file, if there is one.

    Args:
        folder: Path. The innermost folder of the prepared data.
    """
    try:
        yield
    except Exception as error:
        for name, key in _KEYS.items():
            path = pathlib.Path(folder, name)
            reason = _fault_of(path, key)
            if path.parent.is_dir() and reason:
                raise ValueError(
                    f"{str(path)!r} is corrupt. Delete the folder that it is "
                    "in, and the data are prepared again; or put back a copy. "
                    f"Received: {reason}."
                ) from error
        raise


def _fault_of(path: pathlib.Path, key: str) -> str | None:
    """Returns what is wrong with a JSON file, or None."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"
    if not isinstance(content, dict) or key not in content:
        return f"no {key!r}"
    return None


def folder_around(data_dir: str, prepared: str) -> str:
    """Returns the folder that holds prepared data, if one within was given.

    Args:
        data_dir: String. The folder that was given.
        prepared: String. The path of the data from the right folder on, such
            as `"omniglot/3.0.0"`.
    """
    path = pathlib.Path(data_dir)
    parts = pathlib.PurePath(prepared).parts
    for depth in range(len(parts), 0, -1):
        inner = path.joinpath(*parts[depth:])
        if path.parts[-depth:] == parts[:depth] and inner.is_dir():
            return str(path.parents[depth - 1])
    return data_dir
