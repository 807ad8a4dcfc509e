"""Settings as frozen dataclasses: checked, as JSON, and as flags.

A field made by `setting` carries what a person must know of it. From that come
the checks of `Settings`, its JSON form, and the flags of the commands. Imports
nothing heavy: `--help` answers at once.
"""

import dataclasses
import difflib
import re
import textwrap
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
    "add_flags",
    "flag_name",
    "parse",
    "read_flags",
    "setting",
]


_REQUIRED = " Required."


class _Kind(NamedTuple):
    """A type of setting: its check, and its form as a flag."""

    name: str
    accepts: Callable[[Any], bool]
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
        "words such as cpu,cuda",
        lambda v: isinstance(v, tuple) and all(isinstance(w, str) for w in v),
        lambda text: tuple(word for word in text.split(",") if word),
        ",".join,
    ),
    "string": _Kind("a string", lambda v: isinstance(v, str), str),
    "integer": _Kind("an integer", _is_integer, int),
    "float": _Kind(
        "a number",
        lambda v: _is_integer(v) or isinstance(v, float),
        float,
    ),
    "boolean": _Kind(
        "true or false",
        lambda v: isinstance(v, bool),
        bool,
        lambda v: str(v).lower(),
    ),
    "range": _Kind(
        "a number or a range such as 1-10", _is_pair, _read_range, _write_range
    ),
    "size": _Kind(
        "HEIGHTxWIDTH in pixels, such as 48x32",
        _is_pair,
        _read_size,
        lambda v: f"{v[0]}x{v[1]}",
    ),
    "integers": _Kind(
        "numbers such as 1,5",
        _are_integers,
        lambda text: tuple(int(word) for word in text.split(",") if word),
        lambda v: ",".join(map(str, v)),
    ),
}


def setting(
    default: Any,
    description: str,
    *,
    kind: str = "string",
    choices: Sequence[str] = (),
    least: float | None = None,
    flag: str | None = None,
    path: str | None = None,
) -> Any:
    """Returns a field of `Settings`.

    Args:
        default: The default. None makes the setting optional; use
            `dataclasses.MISSING` if it is required.
        description: String. The help text of its flag.
        kind: String. One of `"string"`, `"integer"`, `"float"`, `"boolean"`,
            `"range"`, `"size"`, `"integers"`, `"strings"`. Defaults to
            `"string"`.
        choices: Strings that are allowed. Defaults to any.
        least: Number. The smallest value allowed. Defaults to any.
        flag: String. The name of its flag. Defaults to that of the field.
        path: String. If its flag names a path: what must be there; see
            `paths.check_path`. Checked by `read_flags` alone, since settings
            may come from another machine.
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


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base class of frozen dataclasses whose fields are made by `setting`.

    Raises:
        ValueError: By the constructor, if a value is of another type, or is
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
            self._check(field, value)
            if field.metadata["kind"] == "float":
                object.__setattr__(self, field.name, float(value))

    def _check(self, field: dataclasses.Field[Any], value: Any) -> None:
        kind = _KINDS[field.metadata["kind"]]
        choices = field.metadata["choices"]
        least = field.metadata["least"]
        received = f"Received: {field.name}={value!r}."
        if not kind.accepts(value):
            raise ValueError(f"`{field.name}` must be {kind.name}. {received}")
        if choices and value not in choices:
            raise ValueError(
                f"`{field.name}` must be one of {', '.join(choices)}. "
                f"{received}"
            )
        numbers = value if isinstance(value, tuple) else (value,)
        if least is not None and any(number < least for number in numbers):
            raise ValueError(
                f"`{field.name}` must be at least {least}. {received}"
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
                raise ValueError(f"Unknown setting {name!r}. {hint}")
        return cls(**values)


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
) -> None:
    """Defines a flag for each field of a class of settings.

    Args:
        values: `absl.flags.FlagValues`. Where to define the flags.
        settings: Type of `Settings`. The class.
        title: String. The heading of these flags in `--help`.
        names: Names of the fields. Defaults to all.
        overrides: Boolean. Whether a flag that is not given leaves a value as
            it is, instead of being the field's default. Defaults to False.
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


def _define(
    values: flags.FlagValues,
    field: dataclasses.Field[Any],
    default: Any,
    title: str,
) -> None:
    name = flag_name(field)
    kind = field.metadata["kind"]
    description = field.metadata["description"]
    options: dict[str, Any] = {"flag_values": values, "module_name": title}
    if field.metadata["choices"]:
        flags.DEFINE_enum(
            name,
            default,
            list(field.metadata["choices"]),
            description,
            **options,
        )
    elif kind == "boolean":
        flags.DEFINE_bool(name, default, description, **options)
    elif kind in ("integer", "float"):
        define = (
            flags.DEFINE_integer if kind == "integer" else flags.DEFINE_float
        )
        define(
            name,
            default,
            description,
            lower_bound=field.metadata["least"],
            **options,
        )
    else:
        text = None if default is None else _KINDS[kind].write(default)
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
        names: Names of the fields. Defaults to all.

    Returns:
        By name. Flags that are None are omitted.

    Raises:
        ValueError: If the text of a flag cannot be read, or the path that it
            names is not there.
    """
    found = {}
    for field in dataclasses.fields(settings):
        if names is not None and field.name not in names:
            continue
        flag = flag_name(field)
        value = values[flag].value if flag in values else None
        if value is None:
            continue
        kind = _KINDS[field.metadata["kind"]]
        if isinstance(value, str):
            try:
                value = kind.read(value)
            except ValueError:
                raise ValueError(
                    f"--{flag} must be {kind.name}. Received: {value!r}."
                ) from None
            if field.metadata["path"]:
                check_path(f"--{flag}", value, kind=field.metadata["path"])
        found[field.name] = value
    return found


def parse(
    argv: Sequence[str], values: flags.FlagValues, *, usage: str
) -> list[str]:
    """Parses a command line, or prints the help that it asks for.

    Args:
        argv: Strings. The name of the program, then the arguments.
        values: `absl.flags.FlagValues`. The flags that are defined.
        usage: String. Printed above the flags by `--help`.

    Returns:
        The arguments that are no flags.

    Raises:
        SystemExit: If `--help` is given, or an argument is invalid.
    """
    if {"--help", "-h", "-help", "--helpfull"}.intersection(argv[1:]):
        print(usage.strip())
        print(_help(values))
        raise SystemExit(0)
    try:
        return list(values(list(argv)))[1:]
    except flags.Error as error:
        text = str(error).rstrip("?. ")
        missing = re.search(r"Flag (--\w+) must have a value", text)
        if missing:
            text = f"{missing[1]} is required"
        raise SystemExit(
            f"error: {text}. `{argv[0]} --help` lists the flags."
        ) from None


def _help(values: flags.FlagValues) -> str:
    lines = []
    for title, members in values.flags_by_module_dict().items():
        own = [flag for flag in members if flag.help]
        if not own or title == "absl.flags":
            continue
        own.sort(key=lambda flag: not flag.help.endswith(_REQUIRED))
        lines += ["", f"{title}:"]
        for flag in own:
            lines += ["", f"  --{flag.name}", *_wrapped(_described(flag))]
    return "\n".join(lines)


def _described(flag: flags.Flag) -> str:
    text = flag.help
    if isinstance(flag, flags.EnumFlag):
        _, _, text = text.partition(">: ")  # absl's own list of the values
        text += f" One of: {', '.join(flag.parser.enum_values)}."
    if flag.default is not None:
        text += f" Default: {flag.default_as_str.strip(chr(39))}."
    return text


def _wrapped(text: str) -> list[str]:
    margin = " " * 6
    return textwrap.wrap(
        text,
        76,
        initial_indent=margin,
        subsequent_indent=margin,
        break_on_hyphens=False,
    )
