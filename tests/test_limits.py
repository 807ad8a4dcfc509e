"""Limits on the size of files, functions and signatures of the package."""

import ast
import importlib
import inspect
import io
import pathlib
import textwrap
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "vhe_tf").rglob("*.py"))

MAX_FILE_LINES = 550
MAX_CODE_LINES = 60
MAX_ARGUMENTS = 8
MAX_POSITIONAL = 2

# Functions that may exceed a limit.
LONG = {"experiments/registry.py": {"_omniglot"}}
MANY_ARGUMENTS = {
    # The files of trained models hold each of its 9 arguments.
    "layers/pixel_cnn.py": {"GatedPixelCNN.__init__"},
}
MANY_POSITIONAL = {
    "data/datasets/glyphs/characters.py": {"sample_characters"},
    "data/datasets/glyphs/handwriting.py": {"draw_alphabet"},
    "data/datasets/glyphs/pen.py": {"render"},
    "data/datasets/splits.py": {"check_choice"},
}


def _id(path):
    return str(path.relative_to(ROOT / "vhe_tf"))


def _functions(path):
    """Yields the functions of a module, each with its classes' names."""

    def visit(node, classes, nested):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, (*classes, child.name), nested)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child, classes, nested
                yield from visit(child, classes, True)
            else:
                yield from visit(child, classes, nested)

    text = path.read_text(encoding="utf-8")
    yield from visit(ast.parse(text, str(path)), (), False)


def _code_lines(path):
    """Returns the numbers of the lines that hold code."""
    text = path.read_text(encoding="utf-8")
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


def _check(path, excessive, exceptions):
    """Checks that all functions above a limit are known exceptions."""
    assert excessive <= exceptions.get(_id(path), set())


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_files_are_short(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE_LINES


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_functions_are_short(path):
    code = _code_lines(path)
    excessive = {
        function.name
        for function, _, _ in _functions(path)
        if len(code & set(range(function.lineno, function.end_lineno + 1)))
        > MAX_CODE_LINES
    }
    _check(path, excessive, LONG)


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_functions_have_few_arguments(path):
    excessive = {
        ".".join((*classes, function.name))
        for function, classes, _ in _functions(path)
        if _num_arguments(function) > MAX_ARGUMENTS
    }
    _check(path, excessive, MANY_ARGUMENTS)


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_public_functions_have_few_positional_arguments(path):
    excessive = {
        ".".join((*classes, function.name))
        for function, classes, nested in _functions(path)
        if len(_positional(function)) > MAX_POSITIONAL
        and not nested
        and not any(n.startswith("_") for n in (*classes, function.name))
        and not _is_override(path, function, classes)
    }
    _check(path, excessive, MANY_POSITIONAL)


@pytest.mark.parametrize("path", MODULES, ids=_id)
def test_constructor_arguments_are_attributes(path):
    for function, classes, _ in _functions(path):
        if function.name != "__init__" or classes[-1].startswith("_"):
            continue
        cls = _owner(path, classes)
        names = _positional(function)
        names += [argument.arg for argument in function.args.kwonlyargs]
        stored = _stored_attributes(cls) | _passed_on(function)
        for name in names:
            assert name in stored or hasattr(cls, name), (cls, name)
