"""Vectors of weights in files that are small enough to travel.

Read and written with NumPy alone, beside TensorFlow and beside JAX.
"""

import contextlib
import math
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

_MAX_BYTES = 15 * 2**20


@contextlib.contextmanager
def beside(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty file that replaces `path` on success.

    Its name cannot be predicted, so that nobody can place a link there, as in
    `vhe_tf._utils.atomic_io`, which needs TensorFlow.

    Args:
        path: Path. The file.
    """
    token = uuid.uuid4().hex
    partial = path.with_name(f".{path.stem}.{token}.partial{path.suffix}")
    try:
        partial.touch(exist_ok=False)
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write(
    folder: pathlib.Path, name: str, vector: np.ndarray, **scalars: Any
) -> None:
    """Writes a vector, each file whole or not at all.

    Args:
        folder: Path. The folder to write to.
        name: String. The beginning of the names of its files.
        vector: `[P]` float32.
        **scalars: Any. Numbers and strings to keep with it.
    """
    vector = np.asarray(vector, np.float32)
    num_parts = max(1, math.ceil(vector.nbytes / _MAX_BYTES))
    names = [f"{name}-{index:02d}.npz" for index in range(num_parts)]
    # Renamed as close together as possible: `read` detects a kill between.
    with contextlib.ExitStack() as stack:
        for part, values in zip(
            names, np.array_split(vector, num_parts), strict=True
        ):
            partial = stack.enter_context(beside(folder / part))
            with partial.open("wb") as file:
                np.savez(file, values=values, num_parts=num_parts, **scalars)


def read(folder: pathlib.Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads what `write` wrote.

    Args:
        folder: Path. The folder to read from.
        name: String. The beginning of the names of its files.

    Returns:
        The vector, and the scalars by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the files are not those of one `write`.
    """
    parts, scalars = [], []
    for path in sorted(folder.glob(f"{name}-??.npz")):
        with np.load(path) as file:
            parts.append(file["values"])
            scalars.append(
                {key: file[key].item() for key in file if key != "values"}
            )
    if not parts:
        raise FileNotFoundError(f"{folder} has no {name}-00.npz.")
    if len(parts) != scalars[0]["num_parts"] or any(
        other != scalars[0] for other in scalars
    ):
        raise ValueError(
            f"The files {name}-*.npz of {folder} do not belong together: one "
            "is missing, or of another step. Resume from an earlier folder."
        )
    del scalars[0]["num_parts"]
    return np.concatenate(parts), scalars[0]
