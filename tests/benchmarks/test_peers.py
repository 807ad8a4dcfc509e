import importlib
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

from vhe_tf.layers import GatedPixelCNN

torch = pytest.importorskip("torch", reason="vhe_tf[peers]")

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def networks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("torch_networks")


def _plain(networks, **sizes):
    return networks.PlainPixelCNN(4, 2, **sizes)


def _separable(networks, **sizes):
    return networks.SeparablePixelCNN(4, 2, head_filters=3, **sizes)


@pytest.mark.parametrize("make", [_plain, _separable])
def test_logits_depend_exactly_on_the_pixels_before(networks, make):
    torch.manual_seed(0)
    network, size = make(networks).double(), 6
    # The image once for each logit, which is differentiated there.
    image = torch.rand(1, 1, size, size, dtype=torch.float64)
    images = image.repeat(size**2, 1, 1, 1).requires_grad_()
    network(images).reshape(size**2, size**2).diagonal().sum().backward()
    jacobian = images.grad.reshape(size**2, size**2)
    pixels = np.arange(size**2)
    up = pixels[:, None] // size - pixels // size
    right = pixels % size - pixels[:, None] % size
    before = (up > 0) | ((up == 0) & (right < 0))
    depends = jacobian.numpy() != 0.0
    assert not np.any(depends & ~before)
    near = before & (up <= 2) & (np.abs(right) <= 2)
    assert np.all(depends[near])


def test_the_same_network_in_pytorch_is_ours(networks):
    ours = GatedPixelCNN(1, filters=4, num_blocks=2)
    ours.build((None, None, None, 1))
    rng = np.random.default_rng(0)
    theirs = _plain(networks)
    for weight, parameter in zip(
        ours.weights, theirs.parameters(), strict=True
    ):
        value = rng.normal(size=weight.shape).astype(np.float32)
        weight.assign(value)
        if value.ndim == 4:  # [kh, kw, C, F] to [F, C, kh, kw]
            value = value.transpose(3, 2, 0, 1)
        parameter.data = torch.tensor(value)
    images = rng.normal(size=(2, 7, 6, 1)).astype(np.float32)
    with torch.no_grad():
        answer = theirs(torch.tensor(images.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(
        answer.numpy().transpose(0, 2, 3, 1),
        ours(tf.constant(images)),
        rtol=1e-3,
        atol=1e-3,
    )


def test_peers_are_of_the_size_of_ours(networks):
    peers = importlib.import_module("peers")
    with flagsaver.as_parsed(images="binary"):
        measured = peers.networks(tf.zeros([1, 28, 28, 1]))
    sizes = {name: peer.num_parameters for name, peer in measured.items()}
    ours = sizes.pop(peers.OURS)
    # The masked stack holds the parameters that its masks hide.
    del sizes["masked stack in TensorFlow"]
    assert len(sizes) >= 4
    for name, size in sizes.items():
        assert abs(size - ours) <= 0.02 * ours, name
