"""Names of groups that look alike, and those that stand for no group."""

import logging
import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Sequence

__all__ = ["is_missing", "spelling_key", "unified_names"]

# The spellings that pandas reads as missing, that of its dates, and those of
# spreadsheets and databases.
# fmt: off
_MISSING = frozenset((
    "", "-1.#ind", "-1.#qnan", "1.#ind", "1.#qnan", "-nan", "#n/a n/a",
    "#n/a", "#na", "#value!", "#ref!", "#name?", "#null!", "#num!", "#div/0!",
    "<na>", "<null>", "(null)", "n/a", "n.a.",
))
# fmt: on
# Not in other letters: `na` is a syllable, `none` a word, Nat and Nan are
# persons, Null is zero in German.
_MISSING_AS_WRITTEN = frozenset(
    ("NA", "None", "NaT", "null", "NULL", "nan", "NaN", "NAN")
)
# Names that are groups, but seldom meant.
# fmt: off
_DOUBTFUL = frozenset((
    "none", "nil", "null", "nan", "-", "--", "?", "??", "unknown", "missing",
    "undefined",
))
# fmt: on
_INTEGER = re.compile(r"([+-]?[0-9]+)\.0*")
_DIGITS = re.compile(r"[0-9]+")
_KEPT_CONTROLS = "\t\n\r\v\f"
_SPACES = re.compile("[ \t\v\f]+")
# Other forms of the same letter; others, such as of squares, look different.
_SAME_LETTER = ("<wide>", "<narrow>", "<noBreak>")
_HYPHEN = "\u2010"
# Letters are drawn by them, but not seen: a grapheme joiner and selectors.
_UNSEEN_MARKS = {0x034F, *range(0xFE00, 0xFE10)}
_MAX_EXAMPLES = 5

_logger = logging.getLogger(__name__)


def spelling_key(name: str) -> str:
    r"""Returns what names that look alike have in common.

    Names look alike if they differ in the Unicode normal form, in characters
    without a width, in full and half width, in the kind of hyphens, in the
    kind and number of spaces, or as `1`, `1.` and `1.0` do. Upper and lower
    case differ.

    Args:
        name: String. The name of a group.

    Example:
    >>> spelling_key(" 7.0 "), spelling_key("a\u200bb"), spelling_key("A")
    ('7', 'ab', 'A')
    """
    if not name.isascii():
        name = "".join(map(_plain, name)).replace(_HYPHEN, "-")
        name = unicodedata.normalize("NFC", name)
        kinds = [(unicodedata.category(letter), letter) for letter in name]
        name = "".join(
            " " if kind == "Zs" else letter
            for kind, letter in kinds
            if kind != "Cf" and ord(letter) not in _UNSEEN_MARKS
        )
    name = _SPACES.sub(" ", _without_controls(name)).strip()
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
    return _is_missing(spelling_key(name))


def unified_names(names: Sequence[str], *, grouping: str) -> list[str]:
    """Returns one name for names that look alike, with a warning.

    Args:
        names: Strings. The names of groups, in any order.
        grouping: String. What they are names of, for the warning.

    Returns:
        For each name the shortest one that looks like it, without control
        characters, or an empty string if it is a spelling of a missing value.

    Example:
    >>> unified_names(["2", "b", "", " 2"], grouping="drawer")
    ['2', 'b', '', '2']
    """
    keys = {name: spelling_key(name) for name in set(names)}
    spellings: dict[str, set[str]] = {}
    for name, key in keys.items():
        spellings.setdefault(key, set()).add(name.strip())
    chosen = {
        key: ""
        if _is_missing(key)
        else min(map(_cleaned, found), key=lambda n: (len(n), n))
        for key, found in spellings.items()
    }
    missing = [
        name
        for key in sorted(filter(_is_missing, spellings))
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
        if len(found) > 1 and not _is_missing(key)
    ]
    if merged:
        _logger.warning(
            "%s: names that look alike are read as one group: %s. Give groups "
            "that differ names that differ.",
            grouping,
            _listed(merged),
        )
    _warn_of_doubtful(spellings, grouping)
    return [chosen[keys[name]] for name in names]


def _warn_of_doubtful(spellings: Iterable[str], grouping: str) -> None:
    """Warns of groups that may be a mistake."""
    doubtful = sorted(
        key
        for key in spellings
        if key.lower() in _DOUBTFUL and not _is_missing(key)
    )
    if doubtful:
        _logger.warning(
            "%s: read as groups: %s. Leave images out, or their label empty, "
            "if they have none.",
            grouping,
            _listed(map(ascii, doubtful)),
        )
    numbers: dict[int, list[str]] = {}
    for key in filter(_DIGITS.fullmatch, sorted(spellings)):
        numbers.setdefault(int(key), []).append(key)
    same = [found for found in numbers.values() if len(found) > 1]
    if same:
        _logger.warning(
            "%s: read as different groups: %s. Write the numbers in one way if "
            "they are the same.",
            grouping,
            _listed(" and ".join(map(ascii, found)) for found in same),
        )


def _is_missing(key: str) -> bool:
    return key.lower() in _MISSING or key in _MISSING_AS_WRITTEN


def _plain(letter: str) -> str:
    """Returns a letter of full or half width as the usual one."""
    kind, _, code = unicodedata.decomposition(letter).partition(" ")
    return chr(int(code, 16)) if kind in _SAME_LETTER else letter


def _without_controls(name: str) -> str:
    if name.isprintable():
        return name
    return "".join(
        letter
        for letter in name
        if letter in _KEPT_CONTROLS or unicodedata.category(letter) != "Cc"
    )


def _cleaned(name: str) -> str:
    return _without_controls(name).strip()


def _listed(texts: Iterable[str]) -> str:
    texts = list(texts)
    more = len(texts) - _MAX_EXAMPLES
    return ", ".join(texts[:_MAX_EXAMPLES]) + (
        f" and {more} more" if more > 0 else ""
    )
