"""JSON files that carry a checksum."""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

__all__ = ["read_json", "write_json"]


def write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object with its checksum, atomically.

    Raises:
        NotWrittenError: If it cannot be written.
    """
    from vhe_tf._utils import atomic_io  # imports TensorFlow

    marked = {**values, "checksum": _checksum(values)}
    text = json.dumps(marked, indent=2, ensure_ascii=False) + "\n"
    with atomic_io.beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object, without its checksum. It may have none.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is corrupt. The message names the file.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it is a {type(values).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is corrupt ({error}).") from error
    checksum = values.pop("checksum", None)
    if checksum not in (None, _checksum(values)):
        raise ValueError(
            f"{path} is corrupt, or was changed by hand: its checksum does not "
            'match. Restore it, or delete its "checksum" to accept it as it is.'
        )
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    stored = json.loads(json.dumps(values))  # tuples become lists
    return f"{zlib.crc32(json.dumps(stored, sort_keys=True).encode()):08x}"
