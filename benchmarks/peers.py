r"""The gated PixelCNN beside PyTorch and TensorFlow Probability.

    pip install vhe_tf[peers]
    python benchmarks/peers.py

Binary 28x28 images; networks of equal size, whose numbers of parameters stand
in the tables (within 2%; the masked stack has those that its masks hide too).
The peers: a network of the design of pytorch-generative and ours, both in
PyTorch (torch_networks.py); ours as a stack of masked convolutions in
TensorFlow; `tfp.distributions.PixelCNN`; the naive sampler. `torch.compile`
needs a C++ compiler. The build of PyTorch for CPUs is enough; Triton, which
others bring, crashes when it is imported after TensorFlow. Beside them is one
product of two matrices by TensorFlow that has as many multiplications as ours:
scoring cannot be faster than that without less arithmetic.

A training step is that of a run: forward, backward, clipped gradients, Adam,
EMA weights. All calls are timed in turn, in CPU time and in wall time. Figures
are medians over the rounds, ratios those of medians, each with the quartiles of
the ratios of the rounds. A process may use one core, then another one two, and
both libraries make as many threads.
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import keras
import measure
import numpy as np
import pixel_cnn
import tensorflow as tf
import torch
import torch_networks
from absl import app
from absl import flags
from measure import Figure
from tensorflow_probability import distributions as tfd
from torch.optim import swa_utils

from vhe_tf.distributions.pixel_cnn import BernoulliPixels
from vhe_tf.distributions.pixel_cnn import PixelCNN
from vhe_tf.experiments.config import Experiment

_THREADS = flags.DEFINE_list(
    "threads", ["1", "2"], "Numbers of threads, one process for each."
)
_HERE = flags.DEFINE_bool(
    "here", False, "Measure in this process, on the cores that it may use."
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Calls in a row in a round.")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", 28, "Height and width of the images."
)

flags.set_default(measure.ROUNDS, 9)

OURS = "ours"


class Peer(NamedTuple):
    """A network whose speed is measured.

    Attributes:
        train: Callable. Takes a training step of a fixed batch.
        score: Callable. Returns the log-likelihoods of the batch.
        num_parameters: Integer.
    """

    train: Callable[[], Any]
    score: Callable[[], Any]
    num_parameters: int


def main(argv: Sequence[str]) -> None:
    """Starts a process for each number of threads."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    if pixel_cnn.IMAGES.value != "binary":
        raise app.UsageError("Expected --images=binary, the default.")
    if _HERE.value:
        _measure()
        return
    cores = sorted(os.sched_getaffinity(0))
    counts = [int(count) for count in _THREADS.value]
    if not all(0 < count <= len(cores) for count in counts):
        raise app.UsageError(
            f"Expected numbers of threads from 1 to {len(cores)}, the cores "
            f"of this process. Received: --threads={','.join(_THREADS.value)}."
        )
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    environment.pop("OMP_NUM_THREADS", None)
    for count in counts:
        os.sched_setaffinity(0, cores[:count])
        subprocess.run(
            [sys.executable, *sys.argv, "--here"], env=environment, check=True
        )


def _measure() -> None:
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    images = pixel_cnn.images(pixel_cnn.BATCH_SIZE)
    images = images[:, : _IMAGE_SIZE.value, : _IMAGE_SIZE.value]
    peers = networks(images)
    names = {
        name: f"{name} ({peer.num_parameters:,} parameters)"
        for name, peer in peers.items()
    }
    for task, title, unit, count in (
        ("train", "Training step", "step", 1),
        ("score", "Scoring", "image", len(images)),
    ):
        calls = {names[n]: getattr(peer, task) for n, peer in peers.items()}
        if task == "score":
            calls["a matrix product of as many multiplications as ours"] = (
                _matrix_product(images, peers[OURS].num_parameters)
            )
        seconds = measure.all_seconds(calls, repeats=_REPEATS.value)
        _report(
            f"{title}, batches of {len(images)}",
            {name: value / count for name, value in seconds.items()},
            ours=names[OURS],
            unit=unit,
        )
    _report(
        "One sample",
        measure.all_seconds(_samplers()),
        ours=f"{OURS}, XLA",
        unit="image",
    )


def networks(images: tf.Tensor) -> dict[str, Peer]:
    """Returns all networks, by name.

    Args:
        images: float32 tensor of shape `[N, H, W, 1]`. The batch that each
            trains on and scores.
    """
    return {**_of_tensorflow(images), **_of_torch(images)}


def _matrix_product(
    images: tf.Tensor, num_parameters: int
) -> Callable[[], tf.Tensor]:
    """Returns a product that multiplies each parameter once for each pixel."""
    size = round(num_parameters**0.5)
    rows = tf.ones([int(tf.size(images)), size])
    return functools.partial(tf.matmul, rows, tf.ones([size, size]))


def _of_tensorflow(images: tf.Tensor) -> dict[str, Peer]:
    shape = tuple(images.shape[1:])
    models: dict[str, tuple[Any, tfd.Distribution]] = {}
    for name, network in (
        (OURS, pixel_cnn.gated()),
        ("masked stack in TensorFlow", pixel_cnn.PlainPixelCNN()),
    ):
        models[name] = network, PixelCNN(network, BernoulliPixels(), shape)
    tfp = pixel_cnn.tfp_distribution(shape)
    models["tfp.distributions.PixelCNN"] = tfp, tfp
    peers = {}
    for name, (network, distribution) in models.items():
        train = pixel_cnn.training_step(network, distribution)
        peers[name] = Peer(
            functools.partial(train, images),
            functools.partial(tf.function(distribution.log_prob), images),
            sum(int(tf.size(v)) for v in network.trainable_variables),
        )
    return peers


def _of_torch(images: tf.Tensor) -> dict[str, Peer]:
    batch = torch.from_numpy(images.numpy().transpose(0, 3, 1, 2).copy())
    f, blocks = pixel_cnn.FILTERS, pixel_cnn.BLOCKS

    def plain() -> torch.nn.Module:
        return torch_networks.PlainPixelCNN(f, blocks)

    models: dict[str, tuple[torch.nn.Module, Any, bool]] = {
        "design of pytorch-generative": (
            torch_networks.SeparablePixelCNN(f, blocks, head_filters=4),
            torch.contiguous_format,
            False,
        ),
        "ours in PyTorch": (plain(), torch.contiguous_format, False),
        "ours in PyTorch, channels_last": (
            plain(),
            torch.channels_last,
            False,
        ),
    }
    if shutil.which(os.environ.get("CXX", "g++")):
        models["ours in PyTorch, channels_last, torch.compile"] = (
            plain(),
            torch.channels_last,
            True,
        )
    else:
        print("There is no C++ compiler: without the rows of torch.compile.")
    return {
        name: _torch_peer(
            network.to(memory_format=layout),
            batch.to(memory_format=layout),
            compiled=compiled,
        )
        for name, (network, layout, compiled) in models.items()
    }


def _torch_peer(
    network: torch.nn.Module, images: torch.Tensor, *, compiled: bool
) -> Peer:
    run = Experiment()
    log_prob = functools.partial(torch_networks.log_prob, network)
    if compiled:
        log_prob = torch.compile(log_prob)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, run.learning_rate, fused=True)
    averages = swa_utils.AveragedModel(
        network, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(run.ema)
    )

    def train() -> torch.Tensor:
        optimizer.zero_grad()
        loss = -log_prob(images).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, run.clip_norm)
        optimizer.step()
        averages.update_parameters(network)
        return loss.detach()

    def score() -> torch.Tensor:
        with torch.no_grad():
            return log_prob(images)

    return Peer(train, score, sum(p.numel() for p in parameters))


def _samplers() -> dict[str, Callable[[], Any]]:
    network = pixel_cnn.gated()
    shape = (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 1)
    distribution = PixelCNN(network, BernoulliPixels(), shape)
    sample = functools.partial(distribution.sample, 1, seed=tf.constant([1, 2]))
    naive = tf.function(network)
    return {
        f"{OURS}, XLA": tf.function(sample, jit_compile=True),
        OURS: sample,
        "naive sampler": lambda: pixel_cnn.sample_naively(naive, [1, *shape]),
    }


def _report(
    title: str,
    seconds: Mapping[str, np.ndarray],
    *,
    ours: str,
    unit: str,
) -> None:
    figures = []
    for column, clock in enumerate(("wall", "CPU")):
        baseline = seconds[ours][:, column]
        for name, both in seconds.items():
            theirs = both[:, column]
            median = float(np.median(theirs))
            rate = measure.shown(1 / median)
            figure = Figure(
                f"{name}, {clock} time",
                1000 * median,
                f"ms per {unit} ({rate} per second)",
            )
            if name != ours:
                low, high = np.quantile(theirs / baseline, [0.25, 0.75])
                figure = figure._replace(
                    yardstick=ours.partition(" (")[0],
                    ratio=median / float(np.median(baseline)),
                    quartiles=(float(low), float(high)),
                )
            figures.append(figure)
    packages = ("tensorflow", "tensorflow-probability", "torch")
    measure.report(f"{title}. {measure.machine(packages)}", figures)


if __name__ == "__main__":
    app.run(main)
