"""Names of groups that look alike, and those that stand for no group."""

import logging
import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Sequence

__all__ = ["is_missing", "spelling_key", "unified_names"]

# The spellings that pandas reads as missing, and that of its dates.
# fmt: off
_MISSING = frozenset((
    "", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "NaN",
    "nan", "NaT", "#N/A N/A", "#N/A", "#NA", "<NA>", "N/A", "n/a", "NA",
    "NULL", "null", "None",
))
# fmt: on
_INTEGER = re.compile(r"([+-]?[0-9]+)\.0+")
# Letters are drawn by them, but not seen: a grapheme joiner and selectors.
_UNSEEN_MARKS = {0x034F, *range(0xFE00, 0xFE10)}
_MAX_EXAMPLES = 5

_logger = logging.getLogger(__name__)


def spelling_key(name: str) -> str:
    r"""Returns what names that look alike have in common.

    Names look alike if they differ in the Unicode normal form, in characters
    without a width, in the kind of spaces, in spaces around them, or as `1`
    and `1.0` do. Upper and lower case differ.

    Args:
        name: String. The name of a group.

    Example:
    >>> spelling_key(" 7.0 "), spelling_key("a\u200bb"), spelling_key("A")
    ('7', 'ab', 'A')
    """
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
        kinds = [(unicodedata.category(letter), letter) for letter in name]
        name = "".join(
            " " if kind == "Zs" else letter
            for kind, letter in kinds
            if kind != "Cf" and ord(letter) not in _UNSEEN_MARKS
        )
    name = name.strip()
    integer = _INTEGER.fullmatch(name)
    return integer[1] if integer else name


def is_missing(name: str) -> bool:
    """Returns whether a name is one of the usual spellings of a missing value.

    Args:
        name: String. The name of a group.

    Example:
    >>> is_missing("NaN"), is_missing(""), is_missing("na")
    (True, True, False)
    """
    return spelling_key(name) in _MISSING


def unified_names(names: Sequence[str], *, grouping: str) -> list[str]:
    """Returns one name for names that look alike, with a warning.

    Args:
        names: Strings. The names of groups, in any order.
        grouping: String. What they are names of, for the warning.

    Returns:
        For each name the shortest one that looks like it, or an empty string
        if it is a spelling of a missing value.

    Example:
    >>> unified_names(["2", "b", "", " 2"], grouping="drawer")
    ['2', 'b', '', '2']
    """
    keys = {name: spelling_key(name) for name in set(names)}
    spellings: dict[str, set[str]] = {}
    for name, key in keys.items():
        spellings.setdefault(key, set()).add(name.strip())
    chosen = {
        key: "" if key in _MISSING else min(found, key=lambda n: (len(n), n))
        for key, found in spellings.items()
    }
    missing = [
        name
        for key in sorted(_MISSING.intersection(spellings))
        for name in sorted(spellings[key])
        if name
    ]
    if missing:
        _logger.warning(
            "%s: read as no label: %s. Give a group that is meant another "
            "name.",
            grouping,
            _listed(map(ascii, missing)),
        )
    merged = [
        " and ".join(ascii(name) for name in sorted(found))
        for key, found in sorted(spellings.items())
        if len(found) > 1 and key not in _MISSING
    ]
    if merged:
        _logger.warning(
            "%s: names that look alike are read as one group: %s. Give groups "
            "that differ names that differ.",
            grouping,
            _listed(merged),
        )
    return [chosen[keys[name]] for name in names]


def _listed(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = len(texts) - _MAX_EXAMPLES
    return ", ".join(texts[:_MAX_EXAMPLES]) + (
        f" and {more} more" if more > 0 else ""
    )
