import doctest
import importlib
import inspect
import pathlib
import pkgutil

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


def test_every_public_name_has_an_example():
    public = [
        getattr(module, name)
        for module in map(importlib.import_module, PUBLIC)
        for name in getattr(module, "__all__", ())
    ]
    lacking = {
        f"{each.__module__}.{each.__name__}"
        for each in public
        if inspect.isroutine(each) or inspect.isclass(each)
        if ">>> " not in (each.__doc__ or "")
    }
    assert len(public) > 100
    assert not lacking
