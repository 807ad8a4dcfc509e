"""The sizes of an architecture, by name."""

from collections.abc import Mapping
from typing import Any

__all__ = ["checked_size"]


def checked_size(size: str, sizes: Mapping[str, Any]) -> Any:
    """Returns the size of that name, or raises a `ValueError`."""
    if size not in sizes:
        raise ValueError(
            f"`size` must be one of {sorted(sizes)}. Received: size={size!r}."
        )
    return sizes[size]
