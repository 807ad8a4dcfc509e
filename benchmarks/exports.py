"""Compares the signatures of two exports in sessions without XLA.

    python benchmarks/exports.py OLD/4 NEW/5 --signature=sample --rows=1,64

Both answer the same requests in turn, as TensorFlow Serving would. The table
has processor seconds, the smallest of the pairs, and the median of the pairs'
ratios with its range. `--model` adds the Python method compiled by XLA.
"""

import pathlib
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app
from absl import flags

import vhe_tf
from vhe_tf.serving import _saved_model

_SIGNATURE = flags.DEFINE_enum(
    "signature", "sample", ["sample", "classify"], "The signature."
)
_ROWS = flags.DEFINE_list("rows", ["1", "64"], "Numbers of rows of a request.")
_PAIRS = flags.DEFINE_integer("pairs", 5, "Number of pairs.")
_MODEL = flags.DEFINE_string("model", None, "Also sample by XLA: the model.")

_WAYS, _SHOTS = 20, 5


def session(folder: str) -> Callable[[dict[str, np.ndarray]], Any]:
    """Returns a function that answers requests from a version's folder."""
    path = pathlib.Path(folder)
    model = _saved_model.SavedModel(path.parent, int(path.name))
    signature = model.signatures[_SIGNATURE.value]
    return lambda inputs: model.run(signature, inputs)


def request(num_rows: int, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns inputs: rows of one support, sparse binary images."""
    generator = np.random.default_rng(0)
    ways = [_WAYS] if _SIGNATURE.value == "classify" else []
    support = generator.random((1, *ways, _SHOTS, *shape)) < 0.1
    inputs = {
        "support": np.repeat(support, num_rows, axis=0).astype("f4"),
        "seed": np.arange(num_rows, dtype="i8"),
    }
    if ways:
        query = generator.random((num_rows, *shape)) < 0.1
        inputs["query"] = query.astype("f4")
    return inputs


def compiled(model: Any) -> Callable[[dict[str, np.ndarray]], Any]:
    """Returns `model.sample`, compiled by XLA."""

    def sample(support: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return model.sample(support, seed=tf.bitcast(seed, tf.int32))

    function = tf.function(sample, jit_compile=True)
    return lambda inputs: function(
        tf.constant(inputs["support"]), tf.constant(inputs["seed"])
    ).numpy()


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) != 3:
        raise app.UsageError("Expected two folders of versions of exports.")
    ways = {"old": session(argv[1]), "new": session(argv[2])}
    shape: tuple[int, ...] = (28, 28, 1)
    if _MODEL.value:
        model = vhe_tf.load_model(_MODEL.value)
        ways["XLA"], shape = compiled(model), model.image_shape
    print(f"| rows | {' | '.join(ways)} | old / new |")
    for num_rows in map(int, _ROWS.value):
        inputs = request(num_rows, shape)
        for answer in ways.values():
            answer(inputs)  # traces, compiles
        seconds = np.zeros([_PAIRS.value, len(ways)])
        for pair in seconds:
            for column, answer in enumerate(ways.values()):
                start = time.process_time()
                answer(inputs)
                pair[column] = time.process_time() - start
        ratios = seconds[:, 0] / seconds[:, 1]
        print(
            f"| {num_rows} | "
            + " | ".join(f"{s:.3f}" for s in seconds.min(axis=0))
            + f" | {np.median(ratios):.2f} "
            f"({ratios.min():.2f} to {ratios.max():.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
