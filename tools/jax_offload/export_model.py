"""Writes a trained model for a machine that has JAX and no TensorFlow.

    python -m tools.jax_offload.export_model omniglot_pixel_cnn_small --out=DIR

The model is a preset or a `.keras` file, with one group latent, of binary
images of 28x28 pixels. The folder holds `VHE.sample` and `VHE.log_likelihood`,
which classifies, lowered to what JAX runs for each number of rows and each
platform; the weights; and what TensorFlow computes here of drawings of the
package. run_model.py beside this script compares and times them there. Needs
JAX beside TensorFlow: `pip install jax flatbuffers`.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from absl import logging

from vhe_tf.experiments import endings

if TYPE_CHECKING:
    from vhe_tf import VHE

_PLATFORMS = ("cuda", "cpu")
_SHOTS = 5
_SEED = 0
_COMPARED = 64


def main(argv: Sequence[str]) -> None:
    """Reads the arguments, loads the model and writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="preset or .keras file")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument(
        "--platforms", nargs="+", default=_PLATFORMS, choices=_PLATFORMS
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument(
        "--num_samples", type=int, default=20, help="samples of c in a score"
    )
    given = vars(parser.parse_args(argv[1:]))
    for name in ("rows", "num_samples"):
        if np.min(given[name]) < 1:
            parser.error(f"--{name} must be positive. Received: {given[name]}.")
    # JAX warns of the contrasts of guidance, which the programs shall hold.
    logging.set_verbosity(logging.ERROR)
    endings.import_tensorflow()
    import vhe_tf

    with endings.exit_on_user_error():
        model = vhe_tf.load_model(given.pop("model"))
        _check(model)
        given["out"].mkdir(parents=True, exist_ok=True)
    export(model, **given)
    print(f"Made {given['out']}")


def export(
    model: "VHE",
    out: pathlib.Path,
    *,
    platforms: Sequence[str],
    rows: Sequence[int],
    num_samples: int,
) -> None:
    """Writes the folder of a model.

    Args:
        model: `VHE`. The model.
        out: Path. The folder, which exists.
        platforms: Strings, of `"cuda"` and `"cpu"`.
        rows: Integers. The numbers of rows of the programs.
        num_samples: Integer. Samples of c in a score.
    """
    import tensorflow as tf

    from vhe_tf._utils import atomic_io

    # As exact there as here; TensorFlow's default on a GPU is TF32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    calls = _calls(model, num_samples)
    arguments = _arguments(max(rows))
    with model.contrasts_fixed():
        for (name, call), count, platform in itertools.product(
            calls.items(), rows, platforms
        ):
            print(f"Lowering {name} of {count} for {platform}", flush=True)
            data = _lowered(
                model, call, _of_call(name, arguments, count), platform
            )
            with atomic_io.beside(out / f"{name}_{count}.{platform}") as file:
                file.write_bytes(data)
        expected = _expected(model, calls, arguments)
    with atomic_io.beside(out / "calls.npz") as file:
        _write(file, model, arguments, expected)


def _check(model: "VHE") -> None:
    groups = [v.name for v in model.latents if not v.per_element]
    binary = model.domain.integer and model.image_shape == (28, 28, 1)
    if len(groups) != 1 or not binary:
        raise ValueError(
            "Expected a model of one group latent and binary images of shape "
            f"(28, 28, 1). Received: {groups}, {model.image_shape}."
        )


def _calls(model: "VHE", num_samples: int) -> dict[str, Callable[..., Any]]:
    from tools.jax_offload import lowering

    return {
        "sample": lowering.sampler_of(model),
        "score": lowering.scorer_of(model, num_samples),
    }


def _arguments(rows: int) -> dict[str, np.ndarray]:
    """Returns supports, queries of the same classes, and seeds."""
    from vhe_tf.data import generate_glyphs

    images = generate_glyphs(num_drawers=_SHOTS + 1).images >= 128
    each = images.reshape(-1, _SHOTS + 1, *images.shape[1:])
    each = each[np.arange(rows) % len(each)].astype(np.float32)
    seeds = np.stack([np.full(rows, _SEED), np.arange(rows)], axis=1)
    return {
        "support": each[:, :_SHOTS],
        "query": each[:, _SHOTS],
        "seeds": seeds.astype(np.int32),
    }


def _of_call(
    name: str, arguments: dict[str, np.ndarray], count: int
) -> list[np.ndarray]:
    names = ["support", "seeds"]
    if name == "score":
        names.insert(1, "query")
    return [arguments[each][:count] for each in names]


def _lowered(
    model: "VHE",
    call: Callable[..., Any],
    given: list[np.ndarray],
    platform: str,
) -> bytes:
    import jax

    from tools.jax_offload import lowering

    shapes = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in given]
    weights = jax.ShapeDtypeStruct(lowering.vector_of(model).shape, np.float32)
    return lowering.lowered(call, [weights, *shapes], platform=platform)


def _expected(
    model: "VHE",
    calls: dict[str, Callable[..., Any]],
    arguments: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Returns what TensorFlow computes of the first rows."""
    import tensorflow as tf

    from tools.jax_offload import lowering

    weights = tf.constant(lowering.vector_of(model))
    expected = {}
    for name, call in calls.items():
        given = map(tf.constant, _of_call(name, arguments, _COMPARED))
        computed = tf.function(call, autograph=False)(weights, *given)
        expected[f"{name}_expected"] = computed.numpy()
    return expected


def _write(
    path: pathlib.Path,
    model: "VHE",
    arguments: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> None:
    from tools.jax_offload import lowering

    weights = lowering.vector_of(model)
    with path.open("wb") as file:
        arrays: dict[str, Any] = {**arguments, **expected}
        np.savez_compressed(file, weights=weights, **arrays)


if __name__ == "__main__":
    main(sys.argv)
