"""Helpers that the tests share, and tiny models."""

import contextlib
import dataclasses
import inspect
import json
import os
import pathlib
import signal
import subprocess
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import VHE
from vhe_tf import Latent
from vhe_tf import alphabet_pixel_cnn_vhe
from vhe_tf import alphabet_vhe
from vhe_tf import pixel_cnn_vhe
from vhe_tf import random
from vhe_tf import style_vhe
from vhe_tf.layers import convolution
from vhe_tf.layers import heads
from vhe_tf.layers import inference
from vhe_tf.models import architectures
from vhe_tf.models.architectures import alphabet

IMAGE_SHAPE = (8, 8, 1)

# A shell has the processes that it starts in the background ignore Ctrl-C, and
# some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that take more than about a second, measured with `--durations=0`.
EXTENDED = frozenset(
    pathlib.Path(__file__).with_name("extended.txt").read_text().splitlines()
)


# Folders and files that take a minute or more.
_LONG = {
    "experiments",
    "models",
    "test_distribute.py",
    "test_exact_resume.py",
    "test_exporting.py",
    "test_more_evaluators.py",
}


def pytest_collection_modifyitems(items):
    """Marks the tests of `extended.txt`, and runs the longest files first."""
    for item in items:
        if item.nodeid in EXTENDED:
            item.add_marker(pytest.mark.extended)
    # Two processes then end at about the same time.
    items.sort(key=lambda item: not _LONG.intersection(item.path.parts))


def assert_equal_to_rounding(actual, expected):
    """Checks that two computations of the same float32 values agree.

    Sums that cancel have the rounding of their terms, so that the error of a
    value near 0 is compared with the largest value of the array.
    """
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        actual, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )


def assert_distribution_shape(d, *, batch, event):
    """Checks the shapes a float32 distribution declares and those it gives."""
    assert isinstance(d, tfd.Distribution)
    assert tuple(d.batch_shape) == tuple(batch)
    assert tuple(d.event_shape) == tuple(event)
    assert d.dtype == tf.float32
    value = d.sample(seed=(1, 2))
    assert tuple(value.shape) == (*batch, *event)
    assert tuple(d.log_prob(value).shape) == tuple(batch)


def assert_survives_round_trip(layer, *inputs, **named_inputs):
    """Checks that a layer's config is complete and revives the layer."""
    if "__init__" in vars(type(layer)):
        declared = set(inspect.signature(type(layer).__init__).parameters)
        assert declared - {"self", "kwargs"} <= set(layer.get_config())
    expected = _values(layer(*inputs, **named_inputs))
    written = json.dumps(keras.saving.serialize_keras_object(layer))
    revived = keras.saving.deserialize_keras_object(json.loads(written))
    assert type(revived) is type(layer)
    assert json.dumps(revived.get_config()) == json.dumps(layer.get_config())
    _values(revived(*inputs, **named_inputs))  # builds what it is made of
    revived.set_weights(layer.get_weights())
    for value, old in zip(
        _values(revived(*inputs, **named_inputs)), expected, strict=True
    ):
        np.testing.assert_array_equal(value, old)


def _values(output):
    """Returns tensors that tell one output of a layer from another."""
    if isinstance(output, tfd.Distribution):
        sample = output.sample(seed=(3, 4))
        return [sample, output.log_prob(sample)]
    if isinstance(output, tuple):
        return [value for part in output for value in _values(part)]
    return [output]


def tiny_episode(
    groups=("character",),
    *,
    batch_size=3,
    support_size=2,
    group_size=5,
    image_shape=IMAGE_SHAPE,
    seed=(1, 2),
):
    """Makes an episode of random binary images."""
    rng = np.random.default_rng(seed)

    def images(*leading):
        return tf.constant(
            rng.integers(0, 2, (*leading, *image_shape)), tf.float32
        )

    return {
        "query": images(batch_size),
        "support": {name: images(batch_size, support_size) for name in groups},
        "group_size": {
            name: tf.fill([batch_size], group_size) for name in groups
        },
        "seed": random.fold_in(seed, tf.range(batch_size)),
    }


def tiny_vhe(structure="flat", *, objective="vhe"):
    """Makes a VHE over 8x8 images: flat, hierarchical or factorial."""

    def group(name, *parents):
        return Latent(
            name,
            prior=(
                inference.ConditionalNormal(2, 8)
                if parents
                else heads.StandardNormal(2)
            ),
            posterior=inference.SupportPosterior(keras.layers.Flatten(), 2, 8),
            parents=parents,
        )

    def element(*parents):
        return Latent(
            "element",
            prior=inference.ConditionalNormal(3, 8),
            posterior=inference.QueryPosterior(keras.layers.Flatten(), 3, 8),
            parents=parents,
            per_element=True,
        )

    latents = {
        "flat": [group("character"), element("character")],
        "hierarchical": [
            element("alphabet", "character"),
            group("character", "alphabet"),
            group("alphabet"),
        ],
        "factorial": [group("character"), group("style")],
    }
    return VHE(
        latents=latents[structure],
        likelihood=inference.ImageLikelihood(
            convolution.ConvolutionalDecoder(IMAGE_SHAPE, (8,), 0),
            heads.BernoulliImageHead(),
        ),
        event_shape=IMAGE_SHAPE,
        objective=objective,
    )


def tiny_pixel_cnn_sizes():
    """Returns a context in which `pixel_cnn_vhe` makes models of few features.

    They have dropout in either size.
    """
    sizes = architectures.PIXEL_CNN_SIZES
    fewer = {
        "template_channels": 3,
        "prior_filters": 4,
        "prior_blocks": 1,
        "filters": 4,
        "num_blocks": 1,
        "kernel_size": 3,
        "dropout": 0.5,
        "num_components": 2,
    }
    fewer_of_small = {
        "encoder_filters": (4, 4),
        "pose_filters": (8,),
        "pose_size": 2,
        "conditioning_filters": (4,),
    }
    return mock.patch.dict(
        sizes,
        {
            "published": dataclasses.replace(sizes["published"], **fewer),
            "small": dataclasses.replace(
                sizes["small"], **fewer, **fewer_of_small
            ),
        },
    )


def tiny_deconvolutional_sizes():
    """Returns a context in which `alphabet_vhe` makes small models."""
    return _fewer(
        architectures.deconvolutional.SIZES,
        filters=(8, 8),
        units=8,
        group_latent_size=3,
        element_latent_size=2,
    )


@contextlib.contextmanager
def tiny_style_sizes():
    """Makes a context in which `style_vhe` makes small models."""
    styles = _fewer(architectures.style.SIZES, filters=(8, 8), units=8)
    with tiny_pixel_cnn_sizes(), styles:
        yield


@contextlib.contextmanager
def tiny_sizes():
    """Makes a context in which every architecture makes small models."""
    with (
        tiny_deconvolutional_sizes(),
        tiny_style_sizes(),
        # Linear probes of wider templates take minutes.
        _fewer(architectures.PIXEL_CNN_SIZES, template_channels=1),
    ):
        yield


def _fewer(sizes, **fewer):
    """Replaces fields of every size of a table, in a context."""
    return mock.patch.dict(
        sizes,
        {name: dataclasses.replace(s, **fewer) for name, s in sizes.items()},
    )


def tiny_alphabet_vhe(size="small", *, seed=0, **kwargs):
    """Makes an `alphabet_vhe` of few features."""
    keras.utils.set_random_seed(seed)
    with tiny_deconvolutional_sizes():
        return alphabet_vhe(size, **{"image_shape": IMAGE_SHAPE, **kwargs})


def tiny_alphabet_pixel_cnn_vhe(size="small", *, seed=0, **kwargs):
    """Makes an `alphabet_pixel_cnn_vhe` of few features, off its start."""
    keras.utils.set_random_seed(seed)
    fewer = mock.patch.multiple(
        alphabet,
        _ALPHABET_SIZE=3,
        _ALPHABET_FILTERS=(8,),
        _ALPHABET_UNITS=5,
        _PRIOR_FILTERS=4,
        _PRIOR_BLOCKS=1,
    )
    with tiny_pixel_cnn_sizes(), fewer:
        model = alphabet_pixel_cnn_vhe(
            size, **{"image_shape": IMAGE_SHAPE, **kwargs}
        )
    perturb(model, seed=seed)
    return model


def tiny_style_vhe(size="small", *, seed=0, **kwargs):
    """Makes a `style_vhe` of few features, off its start."""
    keras.utils.set_random_seed(seed)
    with tiny_style_sizes():
        model = style_vhe(size, **{"image_shape": (8, 8, 3), **kwargs})
    perturb(model, seed=seed)
    return model


def tiny_pixel_cnn_vhe(size="small", *, seed=0, **kwargs):
    """Makes a `pixel_cnn_vhe` of few features, off its start.

    At its start nothing depends on a pose: no gradient would reach that.
    """
    keras.utils.set_random_seed(seed)
    with tiny_pixel_cnn_sizes():
        model = pixel_cnn_vhe(size, **{"image_shape": IMAGE_SHAPE, **kwargs})
    perturb(model, seed=seed)
    return model


def perturb(model, *, scale=0.1, seed=0):
    """Adds noise to every weight."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            weight + rng.normal(0.0, scale, weight.shape)
            for weight in model.get_weights()
        ]
    )


class SmallDisk:
    """A file system of its own that can be filled.

    Attributes:
        folder: Where it is.
    """

    def __init__(self, folder):
        self.folder = folder
        self._filler = folder / ".filler"

    def fill(self, *, leave=0):
        """Takes all the room, but for as many pages of 4096 bytes."""
        file = os.open(self._filler, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        with contextlib.suppress(OSError):
            while True:
                os.write(file, bytes(4096))
        os.ftruncate(file, os.fstat(file).st_size - 4096 * leave)
        os.close(file)

    def empty(self):
        """Gives back the room that was taken."""
        self._filler.unlink()

    def resize(self, size):
        """Makes it as large as `size` says, such as `8m`."""
        options = f"remount,size={size}"
        subprocess.run(["mount", "-o", options, self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of 4 MiB in memory, where that is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", None) or error
        pytest.skip(f"needs the right to mount a small disk (root): {why}")
    yield SmallDisk(folder)
    # Event files may still be open.
    subprocess.run(["umount", "--lazy", folder], check=True)
