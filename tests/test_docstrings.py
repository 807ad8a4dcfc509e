import doctest
import importlib
import inspect
import pathlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_probability import distributions as tfd

import vhe_tf
from tests.conftest import tiny_vhe
from vhe_tf.data import GroupedImages

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


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names that examples use: see docs/reference/index.md."""
    keras.utils.set_random_seed(0)
    model = tiny_vhe()
    model.compile("adam")
    images = np.random.default_rng(0).integers(0, 2, (42, 8, 8, 1))
    folder = tmp_path_factory.mktemp("drawings")
    for index, image in enumerate(images[:18, :, :, 0]):
        path = folder / "abcdef"[index // 3] / f"{index % 3}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(255 * image.astype(np.uint8)).save(path)
    return {
        "model": model,
        "data": GroupedImages(
            images.astype(np.float32), {"character": np.arange(42) // 7}
        ),
        "folder": folder,
        "np": np,
        "tf": tf,
        "tfd": tfd,
    }


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
