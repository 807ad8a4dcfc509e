"""Names that the examples in docstrings use: see docs/reference/index.md."""

import os

# As in commands, whatever the processor: tests compare processes bit for bit.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_probability import distributions as tfd

from vhe_tf.data import GroupedImages

# Their examples need a server: tests/serving/test_examples.py.
collect_ignore = ["vhe_tf/serving"]


@pytest.fixture(scope="session")
def names(tmp_path_factory):
    """A model, data, and the path of a folder of drawings, by name."""
    from tests.conftest import tiny_vhe

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


@pytest.fixture(autouse=True)
def _names_of_doctests(request):
    """Gives `pytest --doctest-modules` the names."""
    if isinstance(request.node, pytest.DoctestItem):
        request.getfixturevalue("doctest_namespace").update(
            request.getfixturevalue("names")
        )
