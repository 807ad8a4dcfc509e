import ast
import functools
import importlib
import pathlib
import re
import subprocess
import sys

import pytest
from mypy import api

import vhe_tf

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "vhe_tf").rglob("*.py"))
# `vhe_tf/__init__.py` imports for type checkers alone; other modules on use.
SUBMODULES = [path for path in MODULES if path != ROOT / "vhe_tf/__init__.py"]
PROGRAMS = [
    path
    for folder in ("trainers", "tools", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]

# What each part of the package may import, itself aside.
MAY_IMPORT = {
    "_utils": set(),
    "random": set(),
    "errors": set(),
    "data": {"_utils", "random"},
    "distributions": {"_utils", "random"},
    "distribute": set(),
    "objectives": set(),
    "optimizers": set(),
    "layers": {"_utils", "distributions", "random"},
    "models": {
        "_utils",
        "data",
        "distribute",
        "distributions",
        "errors",
        "layers",
        "objectives",
        "optimizers",
        "random",
    },
    "visualization": {"_utils", "models"},
    "evaluation": {
        "_utils",
        "data",
        "distribute",
        "distributions",
        "models",
        "random",
    },
    "callbacks": {
        "_utils",
        "data",
        "distribute",
        "errors",
        "evaluation",
        "models",
        "optimizers",
        "visualization",
    },
    "serving": {
        "_utils",
        "data",
        "distributions",
        "evaluation",
        "layers",
        "models",
        "random",
    },
    "experiments": {
        "_utils",
        "callbacks",
        "data",
        "distribute",
        "errors",
        "evaluation",
        "models",
        "optimizers",
        "serving",
        "visualization",
    },
}

# Parts whose modules share no helper that they do not declare.
CORE = {"distributions", "layers", "models", "objectives", "random"}


def _id(path):
    return str(path.relative_to(ROOT))


@functools.cache
def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), _id(path))


def _imported_names(tree):
    """Yields the dotted name of everything that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _part(dotted_name):
    """Returns which part of the package a dotted name belongs to."""
    return dotted_name.split(".")[1]


def test_imports_run_one_way():
    wrong = {}
    for path in SUBMODULES:
        part = _part(".".join(path.relative_to(ROOT).with_suffix("").parts))
        parts = {
            _part(imported)
            for imported in _imported_names(_tree(path))
            if imported.startswith("vhe_tf.")
        }
        if not parts <= MAY_IMPORT[part] | {part}:
            wrong[_id(path)] = parts - MAY_IMPORT[part] - {part}
    assert not wrong


def _names_of_keras_2(tree):
    """Yields what a module imports or uses of Keras 2."""
    for name in _imported_names(tree):
        if name.split(".")[0] == "tf_keras" or name.startswith(
            ("tensorflow.keras", "tensorflow_probability.layers")
        ):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = f"{node.value.id}.{node.attr}"
            if used in ("tf.keras", "tfp.layers"):
                yield used


def test_nothing_imports_keras_2():
    names = {
        _id(path): list(_names_of_keras_2(_tree(path)))
        for path in MODULES + PROGRAMS
    }
    assert not {path: found for path, found in names.items() if found}


def test_the_package_holds_no_assertions():
    assert not [
        (_id(path), node.lineno)
        for path in MODULES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Assert)
    ]


def _defined_names(tree):
    """Yields the public names that a module makes rather than imports."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [t.id for t in node.targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.AnnAssign):
            names = [node.target.id]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def _reexported_names(tree):
    for node in ast.walk(tree):  # also those for type checkers alone
        # A part of `_utils` is imported for what it checks.
        if isinstance(node, ast.ImportFrom) and node.module != "vhe_tf._utils":
            yield from (alias.asname or alias.name for alias in node.names)


def test_public_names_are_those_of_all():
    for path in SUBMODULES:
        tree = _tree(path)
        parts = path.relative_to(ROOT).with_suffix("").parts
        names = set(_defined_names(tree))
        if parts[-1] == "__init__":
            names |= set(_reexported_names(tree))
        module = ".".join(part for part in parts if part != "__init__")
        imported = importlib.import_module(module)
        declared = getattr(imported, "__all__", [])
        assert set(declared) <= names & set(dir(imported)), module
        for name in declared:
            assert getattr(imported, name) is not None, (module, name)
        if _part(module + ".") in CORE:
            assert set(declared) == names, module


def test_public_names_of_the_package_resolve():
    assert set(dir(vhe_tf)) == {*vhe_tf.__all__, "__version__"}
    for name in vhe_tf.__all__:
        found = getattr(vhe_tf, name).__name__
        assert found in (name, f"vhe_tf.{name}")


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("setup.py", r'^    version="(.*)",$'),
        ("CITATION.cff", r"^version: (.*)$"),
        ("CHANGELOG.md", r"^## (\S+)"),  # the newest first
    ],
)
def test_files_agree_on_the_version(file, pattern):
    text = (ROOT / file).read_text(encoding="utf-8")
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None
    assert match[1] == vhe_tf.__version__


def test_type_checkers_know_the_public_names(tmp_path):
    """Not `Any`, which a lazy `__getattr__` alone would give."""
    script = tmp_path / "user.py"
    lines = [f"reveal_type(vhe_tf.{name})" for name in vhe_tf.__all__]
    lines += [
        f"reveal_type(vhe_tf.serving.{n})" for n in vhe_tf.serving.__all__
    ]
    script.write_text("import vhe_tf\n" + "\n".join(lines))
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir"]
    found, errors, _ = api.run([*options, str(tmp_path), str(script)])
    types = re.findall(r'Revealed type is "(.*)"', found)
    assert len(types) == len(lines), found + errors
    for line, kind in zip(lines, types, strict=True):
        assert kind != "Any", line
    of_vhe = dict(zip(lines, types, strict=True))["reveal_type(vhe_tf.VHE)"]
    assert of_vhe.endswith("-> vhe_tf.models.vhe.VHE")


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'PixelVAE'"):
        _ = vhe_tf.PixelVAE


def test_importing_the_package_imports_nothing_else():
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; before = set(sys.modules); import vhe_tf; "
            "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
            "sys.exit(bool(new - sys.stdlib_module_names - {'vhe_tf'}))",
        ],
        check=True,
        cwd=ROOT,
        timeout=60,
    )
