"""Lists for messages: the first twenty, and how many more there are."""

from collections.abc import Sequence

__all__ = ["listed"]

_MAX_LISTED = 20


def listed(lines: Sequence[str]) -> str:
    """Returns the first twenty lines, indented, and the number of others.

    Args:
        lines: Sequence of strings.

    Example:
    >>> print(listed(["b.png", "a.png"]))
    <BLANKLINE>
      b.png
      a.png
    """
    more = len(lines) - _MAX_LISTED
    return "".join(f"\n  {line}" for line in lines[:_MAX_LISTED]) + (
        f"\n  and {more:,} more" if more > 0 else ""
    )
