"""Latency and throughput of a served model, beside the Python methods.

    python benchmarks/serving.py --model saved_models/NAME/best.keras

20-way 5-shot classification of one image, and 1 and 64 images sampled: by the
model's own methods compiled (`tf.function`), by the signatures of its export,
and by the local server through the client. Timed in turn in one run.
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import measure
import numpy as np
import tensorflow as tf
from absl import app
from absl import flags
from measure import Figure

import vhe_tf
from vhe_tf.serving import Client
from vhe_tf.serving.exporting import export
from vhe_tf.serving.local import LocalServer

_MODEL = flags.DEFINE_string("model", None, "A .keras file.", required=True)

_WAYS, _SHOTS = 20, 5


def main(argv: Sequence[str]) -> None:
    """Measures and prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    model = vhe_tf.load_model(pathlib.Path(_MODEL.value))
    with tempfile.TemporaryDirectory() as folder:
        path = export(model, pathlib.Path(folder) / "model", warmup=False)
        served = tf.saved_model.load(str(path)).signatures
        with (
            LocalServer(path.parent, port=0, log=lambda line: None) as server,
            Client(server.address, model="model", timeout=300.0) as client,
        ):
            measure_all(model, served, client)


def measure_all(model: Any, served: Any, client: Client) -> None:
    """Reports rows per second, by task and by way of asking."""
    shape = model.image_shape
    generator = np.random.default_rng(0)
    support = (generator.random((1, _WAYS, _SHOTS, *shape)) < 0.1).astype("f4")
    query = support[:, 0, 0]
    names = [latent.name for latent in model.latents if not latent.per_element]
    # The group latent that `classify` returns, if there are several.
    latent = names[-1] if len(names) > 1 else None
    sampler = served["sample" if latent is None else f"sample_{latent}"]
    tasks: dict[str, tuple[int, dict[str, Callable[[], Any]]]] = {}
    methods = {
        name: tf.function(getattr(model, name), reduce_retracing=True)
        for name in ("classify", "sample")
    }
    seed = np.arange(1, dtype=np.int64)
    tasks["classify"] = (
        1,
        {
            "method": functools.partial(
                methods["classify"],
                {names[-1]: tf.constant(support)},
                tf.constant(query),
                seed=_by_row(seed),
            ),
            "signature": functools.partial(
                served["classify"],
                support=tf.constant(support),
                query=tf.constant(query),
                seed=tf.constant(seed),
            ),
            "local server": functools.partial(
                client.classify, support, query, seed=seed
            ),
        },
    )
    for count in (1, 64):
        seed = np.arange(count, dtype=np.int64)
        supports = np.repeat(support[:, 0], count, axis=0)
        tasks[f"sample {count}"] = (
            count,
            {
                "method": functools.partial(
                    methods["sample"],
                    {names[-1]: tf.constant(supports)},
                    seed=_by_row(seed),
                ),
                "signature": functools.partial(
                    sampler,
                    support=tf.constant(supports),
                    seed=tf.constant(seed),
                ),
                "local server": functools.partial(
                    client.sample, supports, latent=latent, seed=seed
                ),
            },
        )
    figures = []
    for task, (count, calls) in tasks.items():
        seconds = measure.best_seconds(calls)
        for way, value in seconds.items():
            beside = (
                ("", None)
                if way == "method"
                else ("the compiled method", seconds["method"] / value)
            )
            figures.append(
                Figure(f"{task}, {way}", count / value, "per second", *beside)
            )
    measure.report("A served model", figures)


def _by_row(seed: np.ndarray) -> tf.Tensor:
    return tf.bitcast(tf.constant(seed), tf.int32)


if __name__ == "__main__":
    app.run(main)
