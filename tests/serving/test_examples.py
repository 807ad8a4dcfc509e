import doctest
import importlib
import pathlib
import shutil

import numpy as np
import pytest

from tests.conftest import tiny_vhe
from vhe_tf.serving.local import LocalServer

ROOT = pathlib.Path(__file__).parents[2]
SLOW = {"vhe_tf.serving.exporting", "vhe_tf.serving.portable"}  # export
MODULES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in (
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "vhe_tf/serving").rglob("*.py"))
        if ">>> " in path.read_text(encoding="utf-8")
    )
]


@pytest.fixture(scope="module")
def served(saved_model, tmp_path_factory):
    """The folder of a model called `omniglot`, and the address of its server.

    Its images are 2x2.
    """
    folder = tmp_path_factory.mktemp("served") / "omniglot"
    shutil.copytree(saved_model / "10", folder / "1")
    with LocalServer(folder, port=0, log=lambda line: None) as server:
        yield folder, server.address


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_hold(name, served, inputs, request):
    folder, address = served
    names = {
        "address": address,
        "folder": folder,
        "support": inputs["support"],
        "query": inputs["query"],
        "np": np,
    }
    if name == "vhe_tf.serving._signatures":
        names["model"] = tiny_vhe()
    if name in SLOW:
        names["model"], _ = request.getfixturevalue("exports")(
            "deconvolutional"
        )
    result = doctest.testmod(
        importlib.import_module(name),
        extraglobs=names,
        optionflags=doctest.ELLIPSIS,
    )
    assert result.attempted
    assert not result.failed
