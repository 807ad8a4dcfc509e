import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import pytest

import vhe_tf

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "vhe_tf").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
    and "serving" not in path.parts  # their examples need a server
]
PUBLIC = sorted(
    {
        f"vhe_tf.{name}"
        for name in vhe_tf.__all__
        if inspect.ismodule(getattr(vhe_tf, name))
    }
    | {
        module.name
        for module in pkgutil.walk_packages(vhe_tf.__path__, "vhe_tf.")
        if module.ispkg
    }
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name, names):
    module = importlib.import_module(name.removesuffix(".__init__"))
    result = doctest.testmod(
        module, extraglobs=names, optionflags=doctest.ELLIPSIS
    )
    assert result.attempted
    assert not result.failed


REFERENCE = "\n".join(
    path.read_text("utf-8") for path in (ROOT / "docs/reference").glob("*.md")
)


def _names_of(module):
    module = importlib.import_module(module)
    return [getattr(module, name) for name in getattr(module, "__all__", ())]


def _in_the_reference():
    for path in re.findall(r"^::: (\S+)", REFERENCE, re.MULTILINE):
        home, _, name = path.rpartition(".")
        shown = getattr(importlib.import_module(home), name)
        yield from _names_of(path) if inspect.ismodule(shown) else [shown]


def test_every_public_name_is_in_the_reference():
    shown = set(map(id, _in_the_reference()))
    lacking = [
        (module, each)
        for module in ("vhe_tf", *PUBLIC)
        for each in _names_of(module)
        if not inspect.ismodule(each) and id(each) not in shown
    ]
    assert not lacking


def test_every_public_name_has_an_example():
    public = [each for module in PUBLIC for each in _names_of(module)]
    public += [
        getattr(vhe_tf.VHE, name)
        for name in re.findall(r"^        - (\w+)$", REFERENCE, re.MULTILINE)
        if name != "call"  # the class docstring speaks
    ]
    lacking = {
        f"{each.__module__}.{each.__qualname__}"
        for each in public
        if inspect.isroutine(each) or inspect.isclass(each)
        if ">>> " not in (each.__doc__ or "")
    }
    assert len(public) > 100
    assert not lacking
