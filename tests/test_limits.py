"""Limits on the size of files, functions and signatures of the package."""

import ast
import functools
import importlib
import inspect
import io
import pathlib
import subprocess
import textwrap
import tokenize
import types

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "vhe_tf").rglob("*.py"))

MAX_FILE_LINES = 550
MAX_CODE_LINES = 60
MAX_ARGUMENTS = 8
MAX_POSITIONAL = 2
MAX_TRACKED_BYTES = 40_000_000

# Functions that may exceed a limit.
MANY_ARGUMENTS = {
    # The files of trained models hold each of its 9 arguments.
    "layers/pixel_cnn.py": {"GatedPixelCNN.__init__"},
}


def _id(path):
    return str(path.relative_to(ROOT / "vhe_tf"))


@functools.cache
def _text(path):
    return path.read_text(encoding="utf-8")


@functools.cache
def _functions(path):
    """Lists the functions of a module, each with its classes' names."""

    def visit(node, classes, nested):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, (*classes, child.name), nested)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, classes, nested
                yield from visit(child, classes, True)
            else:
                yield from visit(child, classes, nested)

    return list(visit(ast.parse(_text(path), str(path)), (), False))


def _code_lines(path):
    """Returns the numbers of the lines that hold code."""
    text = _text(path)
    ignored = {
        tokenize.COMMENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.NEWLINE,
        tokenize.NL,
    }
    lines = {
        number
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in ignored
        for number in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if not isinstance(
            node,
            ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
        ):
            continue
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def _positional(function):
    arguments = function.args
    names = [a.arg for a in arguments.posonlyargs + arguments.args]
    return [name for name in names if name not in ("self", "cls")]


def _num_arguments(function):
    """Counts the arguments; `**kwargs` are those of a base class."""
    arguments = function.args
    return (
        len(_positional(function))
        + len(arguments.kwonlyargs)
        + bool(arguments.vararg)
    )


def _owner(path, classes):
    """Imports a class."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    owner = importlib.import_module(
        ".".join(part for part in parts if part != "__init__")
    )
    for name in classes:
        owner = getattr(owner, name)
    return owner


def _is_override(path, function, classes):
    """Tells whether a base class outside the package defines a method."""
    return bool(classes) and any(
        function.name in vars(base)
        for base in _owner(path, classes).__mro__[1:]
        if not base.__module__.startswith("vhe_tf")
    )


def _stored_attributes(cls):
    """Returns the attributes that the methods of a class assign to."""
    return {
        node.attr
        for base in cls.__mro__
        if base.__module__.startswith("vhe_tf")
        for node in ast.walk(
            ast.parse(textwrap.dedent(inspect.getsource(base)))
        )
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def _passed_on(constructor):
    """Returns the arguments that a base class stores."""
    return {
        keyword.arg
        for node in ast.walk(constructor)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "super().__init__"
        for keyword in node.keywords
    }


def _above(is_above, exceptions=types.MappingProxyType({})):
    """Returns the functions above a limit that are not known exceptions."""
    return [
        (_id(path), ".".join((*classes, function.name)))
        for path in MODULES
        for function, classes, nested in _functions(path)
        if is_above(path, function, classes, nested)
        and ".".join((*classes, function.name))
        not in exceptions.get(_id(path), ())
    ]


def test_files_are_short():
    lengths = {_id(path): _text(path).count("\n") for path in MODULES}
    assert not {n: k for n, k in lengths.items() if k > MAX_FILE_LINES}


def test_functions_are_short():
    code = {path: _code_lines(path) for path in MODULES}

    def is_long(path, function, classes, nested):
        lines = range(function.lineno, function.end_lineno + 1)
        return len(code[path] & set(lines)) > MAX_CODE_LINES

    assert not _above(is_long)


def test_functions_have_few_arguments():
    def has_many(path, function, classes, nested):
        return _num_arguments(function) > MAX_ARGUMENTS

    assert not _above(has_many, MANY_ARGUMENTS)


def test_public_functions_have_few_positional_arguments():
    def has_many(path, function, classes, nested):
        return (
            len(_positional(function)) > MAX_POSITIONAL
            and not nested
            and not any(n.startswith("_") for n in (*classes, function.name))
            and not _is_override(path, function, classes)
        )

    assert not _above(has_many)


def test_constructor_arguments_are_attributes():
    lacking = []
    for path in MODULES:
        for function, classes, _ in _functions(path):
            if function.name != "__init__" or classes[-1].startswith("_"):
                continue
            cls = _owner(path, classes)
            names = _positional(function)
            names += [argument.arg for argument in function.args.kwonlyargs]
            stored = _stored_attributes(cls) | _passed_on(function)
            lacking += [
                (cls, name)
                for name in names
                if name not in stored and not hasattr(cls, name)
            ]
    assert not lacking


def test_the_tests_listed_as_extended_exist():
    listed = _text(ROOT / "tests/extended.txt").splitlines()
    missing = []
    for path, name in {
        tuple(line.split("[")[0].split("::")) for line in listed
    }:
        names = {function.name for function, _, _ in _functions(ROOT / path)}
        missing += [] if name in names else [f"{path}::{name}"]
    assert not missing


def test_a_clone_is_small():
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone of the repository")
    try:
        listed = subprocess.run(
            ["git", "-C", ROOT, "ls-files", "-z"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs git to list the files: {error}")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    sizes = [path.lstat().st_size for path in paths if path.exists()]
    assert 0 < sum(sizes) <= MAX_TRACKED_BYTES
