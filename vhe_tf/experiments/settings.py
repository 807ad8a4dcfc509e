"""Settings as frozen dataclasses: checked, as JSON, and as flags.

A field made by `setting` carries what a person must know of it. From that come
the checks of `Settings`, its JSON form, and the flags of the commands. Imports
nothing heavy: `--help` answers at once.
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import os
import re
import textwrap
import typing
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import Self

from absl import flags

from vhe_tf.experiments.paths import check_path

__all__ = [
    "Settings",
    "SettingsError",
    "add_flags",
    "flag_name",
    "in_flags",
    "parse",
    "read_flags",
    "setting",
]


_REQUIRED = " Required."
_QUOTED = re.compile(r"`(\w+)(?:=(\w+))?`")
_NO_BOOLEAN = re.compile(r"flag --(\w+)=(.*): ")  # by absl, of no other kind


class _Kind(NamedTuple):
    """A type of setting: its check, and its form as a flag."""

    name: str
    accepts: Callable[[Any], bool]
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_float = isinstance(value, float) and math.isfinite(value)
    return is_float or _is_integer(value)


def _are_integers(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_integer, value))


def _is_pair(value: Any) -> bool:
    return _are_integers(value) and len(value) == 2


def _read_range(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    return int(low), int(high if dash else low)


def _read_size(text: str) -> tuple[int, int]:
    match = re.fullmatch("([1-9][0-9]*)x([1-9][0-9]*)", text)
    if not match:
        raise ValueError(text)
    return int(match[1]), int(match[2])


def _write_range(value: tuple[int, int]) -> str:
    low, high = value
    return str(low) if low == high else f"{low}-{high}"


_KINDS = {
    "strings": _Kind(
        "words with commas between them",
        lambda v: isinstance(v, tuple) and all(isinstance(w, str) for w in v),
        lambda text: tuple(word for word in text.split(",") if word),
        ",".join,
    ),
    "string": _Kind("a string", lambda v: isinstance(v, str), str),
    "integer": _Kind("an integer", _is_integer, int),
    "float": _Kind("a number", _is_number, float),
    "boolean": _Kind(
        "true or false",
        lambda v: isinstance(v, bool),
        bool,
        lambda v: str(v).lower(),
    ),
    "range": _Kind(
        "an integer or a range such as 1-10",
        _is_pair,
        _read_range,
        _write_range,
    ),
    "size": _Kind(
        "HEIGHTxWIDTH in pixels, such as 48x32",
        _is_pair,
        _read_size,
        lambda v: f"{v[0]}x{v[1]}",
    ),
    "integers": _Kind(
        "integers with commas between them",
        _are_integers,
        lambda text: tuple(int(word) for word in text.split(",") if word),
        lambda v: ",".join(map(str, v)),
    ),
}


# The kinds of settings of these types.
_KIND_OF_TYPE: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "float",
    bool: "boolean",
    tuple[int, ...]: "integers",
    tuple[str, ...]: "strings",
}


def _kind_of(field: dataclasses.Field[Any]) -> _Kind:
    types = typing.get_args(field.type)
    optional = types and types[-1] is type(None)
    kind = field.metadata["kind"]
    return _KINDS[kind or _KIND_OF_TYPE[types[0] if optional else field.type]]


def setting(
    default: Any,
    description: str,
    *,
    kind: str | None = None,
    choices: Sequence[str] = (),
    least: float | None = None,
    flag: str | None = None,
    path: str | None = None,
) -> Any:
    """Returns a field of `Settings`.

    Args:
        default: Any. The default. None makes the setting optional; use
            `dataclasses.MISSING` if it is required.
        description: String. The help text of its flag.
        kind: String. `"range"` or `"size"`. Defaults to that of the type of
            the field.
        choices: Strings that are allowed. Defaults to any.
        least: Number. The smallest value allowed. Defaults to any.
        flag: String. The name of its flag. Defaults to that of the field.
        path: String. If its flag names a path: what must be there; see
            `paths.check_path`. Checked, and `~` expanded, by `read_flags`
            alone, since settings may come from another machine.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "description": description,
            "kind": kind,
            "choices": tuple(choices),
            "least": least,
            "flag": flag,
            "path": path,
        },
    )


class SettingsError(ValueError):
    """Settings that are invalid.

    Its message has the names of arguments; `in_flags` has those of flags.

    Args:
        problem: String. What is wrong, and the way out. Names of settings are
            in backticks.
        **received: Any. The values of the settings, by name.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> try:
    ...     Experiment(dataset="folder", shares=(50, 50))
    ... except SettingsError as error:
    ...     print(error.in_flags().partition("Received")[2])
    : --shares=50,50
    """

    def __init__(self, problem: str, **received: Any) -> None:
        values = ", ".join(f"{k}={v!r}" for k, v in received.items())
        super().__init__(f"{problem} Received: {values}.")
        self.problem = problem
        self.received = received

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(SettingsError, **self.received), (
            self.problem,
        )

    def in_flags(self) -> str:
        """Returns the message for someone who typed flags."""
        fields = _all_fields()
        values = " ".join(
            _as_flag(fields[name], value)
            for name, value in self.received.items()
        )
        return f"{in_flags(self.problem)} Received: {values}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base class of frozen dataclasses whose fields are made by `setting`.

    Raises:
        SettingsError: By the constructor, if a value is of another type, or is
            not allowed.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            if value is None and field.default is None:
                continue
            _check(field, value)
            if _kind_of(field) is _KINDS["float"]:
                object.__setattr__(self, field.name, float(value))

    def _error(self, problem: str, *names: str) -> SettingsError:
        """Returns an error with the values of settings that are not None."""
        values = {name: getattr(self, name) for name in names}
        return SettingsError(
            problem,
            **{
                k: v
                for k, v in values.items()
                if v is not None or k == names[0]
            },
        )

    def _reject_without_effect(self, because: str, *names: str) -> None:
        """Raises an error if settings are others than their defaults.

        Args:
            because: String. The setting whose value takes their effect away.
            *names: Strings. The settings.
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        with_it = "with" if getattr(self, because) else "without"
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise self._error(
                    f"`{name}` has no effect {with_it} `{because}`. Leave it "
                    "out.",
                    name,
                )

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values; None is omitted."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
            if value is not None
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Returns the settings that `to_json` wrote.

        Args:
            values: Mapping from the names of settings. Those that are missing
                have their defaults.

        Raises:
            ValueError: If a name is unknown, or a value is invalid.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"Did you mean {near[0]!r}?" if near else f"Known: {known}."
                )
                raise ValueError(f"Unknown setting. {hint} Received: {name!r}.")
        return cls(**values)


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    kind = _kind_of(field)
    choices = field.metadata["choices"]
    least = field.metadata["least"]
    values = value if isinstance(value, tuple) else (value,)
    if not kind.accepts(value):
        expected = kind.name
    elif choices and not set(values).issubset(choices):
        expected = f"one of {', '.join(choices)}"
    elif least is not None and any(v < least for v in values):
        expected = f"at least {least}"
    else:
        return
    raise SettingsError(
        f"`{field.name}` must be {expected}.", **{field.name: value}
    )


def _all_fields() -> dict[str, dataclasses.Field[Any]]:
    """Returns the fields of all settings; those with another flag precede."""
    classes = [Settings]
    fields: dict[str, dataclasses.Field[Any]] = {}
    while classes:
        of = classes.pop()
        classes += of.__subclasses__()
        for field in dataclasses.fields(of):
            if field.metadata["flag"] or field.name not in fields:
                fields[field.name] = field
    return fields


def _as_flag(field: dataclasses.Field[Any], value: Any) -> str:
    flag = flag_name(field)
    if value is None:
        return f"no --{flag}"
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no{flag}"
    kind = _kind_of(field)
    text = kind.write(value) if kind.accepts(value) else value
    return f"--{flag}={text}"


def in_flags(message: str) -> str:
    """Returns a message with flags in place of the settings that it names.

    Args:
        message: String. The names of settings are in backticks, maybe with a
            value.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> in_flags("`images` must be grey, or pass `invert=False`.")
    '--pixels must be grey, or pass --noinvert.'
    """
    fields = _all_fields()

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in fields:
            return match[0]
        if value is None:
            return f"--{flag_name(fields[name])}"
        booleans = {"True": True, "False": False}
        return _as_flag(fields[name], booleans.get(value, value))

    return _QUOTED.sub(flag, message)


def flag_name(field: dataclasses.Field[Any]) -> str:
    """Returns the name of the flag of a field."""
    return field.metadata["flag"] or field.name


def add_flags(
    values: flags.FlagValues,
    settings: type[Settings],
    *,
    title: str,
    names: Collection[str] | None = None,
    overrides: bool = False,
    shown: tuple[str, Settings] | None = None,
) -> None:
    """Defines a flag for each field of a class of settings.

    Args:
        values: `absl.flags.FlagValues`. Where to define the flags.
        settings: Type of `Settings`. The class.
        title: String. The heading of these flags in `--help`.
        names: Strings. Names of the fields. Defaults to all.
        overrides: Boolean. Whether a flag that is not given leaves a value as
            it is, instead of being the field's default. Defaults to False.
        shown: Tuple or None. Of settings that are overridden, a name and an
            instance whose values `--help` shows. Defaults to None.
    """
    for field in dataclasses.fields(settings):
        if names is not None and field.name not in names:
            continue
        required = field.default is dataclasses.MISSING
        default = None if overrides or required else field.default
        _define(values, field, default, title)
        if required and not overrides:
            flags.mark_flag_as_required(flag_name(field), flag_values=values)
            values[flag_name(field)].help += _REQUIRED
        if shown:
            name, instance = shown
            value = getattr(instance, field.name)
            if value is not None:
                text = f" Default of {name}: {_kind_of(field).write(value)}."
                values[flag_name(field)].help += text


def _define(
    values: flags.FlagValues,
    field: dataclasses.Field[Any],
    default: Any,
    title: str,
) -> None:
    name = flag_name(field)
    kind = _kind_of(field)
    choices = field.metadata["choices"]
    description = field.metadata["description"]
    options: dict[str, Any] = {"flag_values": values, "module_name": title}
    if kind is _KINDS["boolean"]:
        flags.DEFINE_bool(name, default, description, **options)
        return
    if choices:
        description += f" One of: {', '.join(choices)}."
    # absl's own parsers of numbers and choices explain errors in Python's
    # words; `read_flags` reads them.
    text = None if default is None else kind.write(default)
    if kind is _KINDS["strings"]:  # may be repeated
        flags.DEFINE_multi_string(name, text, "", **options)
        values[name].help = description  # absl has added to it
    else:
        flags.DEFINE_string(name, text, description, **options)


def read_flags(
    values: flags.FlagValues,
    settings: type[Settings],
    *,
    names: Collection[str] | None = None,
) -> dict[str, Any]:
    """Returns the values of the flags that `add_flags` defined.

    Args:
        values: `absl.flags.FlagValues`. The parsed flags.
        settings: Type of `Settings`. The class.
        names: Strings. Names of the fields. Defaults to all.

    Returns:
        By name. Flags that are None are omitted. In paths, `~` is expanded.

    Raises:
        SettingsError: If the text of a flag cannot be read, or is not allowed.
        ValueError: If the path that it names is not there.
    """
    found = {}
    for field in dataclasses.fields(settings):
        if names is not None and field.name not in names:
            continue
        flag = flag_name(field)
        value = values[flag].value if flag in values else None
        if value is None:
            continue
        kind = _kind_of(field)
        if isinstance(value, list):
            value = ",".join(value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):  # `_check` explains it.
                value = kind.read(value)
            _check(field, value)
            if field.metadata["path"]:
                check_path(f"--{flag}", value, kind=field.metadata["path"])
                value = os.path.expanduser(value)
        found[field.name] = value
    return found


def parse(
    argv: Sequence[str],
    values: flags.FlagValues,
    *,
    usage: str,
    words: bool = True,
) -> list[str]:
    """Parses a command line, or prints the help that it asks for.

    Args:
        argv: Strings. The name of the program, then the arguments.
        values: `absl.flags.FlagValues`. The flags that are defined.
        usage: String. Printed above the flags by `--help`.
        words: Boolean. Whether arguments that are not flags are allowed.
            Defaults to True.

    Returns:
        The arguments that are not flags.

    Raises:
        SystemExit: If `--help` is given, or an argument is invalid.
    """
    if {"--help", "-h", "-help", "--helpfull"}.intersection(argv[1:]):
        print(usage.strip())
        print(_help(values))
        raise SystemExit(0)
    try:
        found = list(values(list(argv)))[1:]
    except flags.Error as error:
        text = str(error).rstrip("?. ")
        wrong = _NO_BOOLEAN.match(text)
        if wrong and isinstance(values[wrong[1]], flags.BooleanFlag):
            text = (
                f"--{wrong[1]} must be true or false. "
                f"Received: --{wrong[1]}={wrong[2]}"
            )
        missing = re.search(r"Flag (--\w+) must have a value", text)
        if missing:
            text = f"{missing[1]} is required"
        raise SystemExit(
            f"error: {text}. `{argv[0]} --help` lists the flags."
        ) from None
    if found and not words:
        raise SystemExit(
            f"error: {argv[0]} takes no arguments but flags. "
            f"Received: {' '.join(found)}"
        )
    return found


def _help(values: flags.FlagValues) -> str:
    lines = []
    for title, members in values.flags_by_module_dict().items():
        own = [flag for flag in members if flag.help]
        if not own or title == "absl.flags":
            continue
        own.sort(key=lambda flag: not flag.help.endswith(_REQUIRED))
        lines += ["", f"{title}:"]
        for flag in own:
            text = flag.help
            if flag.default is not None:
                text += f" Default: {flag.default_as_str.strip(chr(39))}."
            text = textwrap.fill(text, 70, break_on_hyphens=False)
            text = textwrap.indent(text, " " * 6)
            lines += ["", f"  --{flag.name}", text]
    return "\n".join(lines)
