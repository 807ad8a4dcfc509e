# mypy: disable-error-code="import-not-found"
"""Writes a run of trainers/omniglot.py for a machine that has no TensorFlow.

    python trainers/without_tensorflow/export_run.py --out=DIR \
        --flagfile=trainers/flagfiles/table1_pixel_cnn_vhe.flags

The flags are those of trainers/omniglot.py. The folder holds the training step
and the bound, lowered to what JAX runs, the initial weights, the images and
the settings; train.py beside this script trains from it. Needs JAX beside
TensorFlow: `pip install jax flatbuffers`.

Of no consequence are --distribution and --accumulation, which change a run by
rounding alone, and --jit_compile. The precision is chosen by train.py.
"""

import hashlib
import itertools
import json
import pathlib
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from absl import app
from absl import flags

HERE = pathlib.Path(__file__).parent
sys.path.insert(1, str(HERE.parent))

# In the folder above.
import common  # noqa: E402
import lowering  # noqa: E402
import omniglot  # noqa: E402
import weight_files  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

    from vhe_tf import VHE
    from vhe_tf.data import Episodes

_OUT = flags.DEFINE_string("out", None, "The folder to write.", required=True)
_PLATFORMS = flags.DEFINE_list(
    "platforms", ["cuda", "cpu"], "What to lower for, of JAX's names."
)
_PRECISIONS = flags.DEFINE_list(
    "precisions",
    ["float32", "tf32"],
    "Of the training step's products: float32; tf32, which GPUs alone heed; "
    "bf16, the layers of Keras' policy mixed_bfloat16.",
)
_SUPPORT_SIZES = flags.DEFINE_list(
    "support_sizes",
    None,
    "With a range as --support_size, those of its sizes to draw from, each of "
    "them a step to compile; all by default.",
)

_GROUP = "character"


def main(argv: Sequence[str]) -> None:
    """Loads, lowers and writes."""
    common.check_arguments(argv)
    from vhe_tf import training
    from vhe_tf.models import loading

    out = pathlib.Path(_OUT.value)
    with training.mistakes_end_quietly():
        _check_flags()
        out.mkdir(parents=True, exist_ok=True)
        model, train, validation = _load()
        sizes = _support_sizes(train)
        arrays = {
            f"{part}_{name}": values
            for part, sampler in (("train", train), ("validation", validation))
            for name, values in lowering.images_of(sampler, _GROUP).items()
        }
    _write_arrays(out / "images.npz", arrays)
    loading.save_model(model, out / "model.keras")
    weights = lowering.vector_of(model)
    settings = _settings(model, train, sizes)
    settings["check"] = _write_check(out, model, validation, sizes)
    settings["fingerprint"] = _fingerprint(weights, settings)
    weight_files.write(
        out, "initial", weights, fingerprint=settings["fingerprint"]
    )
    _lower_all(out, model, train.image_shape, sizes)
    training.write_json(out / "export.json", settings)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"Made {out} ({size / 2**20:.1f} MiB)")


def _check_flags() -> None:
    """Refuses what would be another run than trainers/omniglot.py's."""
    if common.PRECISION.value != "float32":
        raise ValueError(
            "The precision is chosen when training, of those lowered "
            "(--precisions); leave --precision off. "
            f"Received: --precision={common.PRECISION.value}."
        )
    unknown = set(_PRECISIONS.value) - {"float32", "tf32", "bf16"}
    if unknown:
        raise ValueError(
            "--precisions must be of float32, tf32 and bf16. "
            f"Received: {','.join(_PRECISIONS.value)}."
        )


def _load() -> tuple["VHE", "Episodes", "Episodes"]:
    """Returns the model at its start and the episodes, as the trainer does."""
    import keras

    keras.utils.set_random_seed(common.SEED.value)  # the initial weights
    source = omniglot.load_data()
    train, validation = common.samplers(source, groups=[_GROUP])
    return _model(train.image_shape), train, validation


def _model(image_shape: tuple[int, int, int]) -> "VHE":
    return common.image_model(
        flags.FLAGS.architecture, image_shape, group=_GROUP
    )


def _support_sizes(sampler: "Episodes") -> list[int]:
    every = list(range(sampler.min_support, sampler.max_support + 1))
    chosen = [int(text) for text in _SUPPORT_SIZES.value or every]
    if not set(chosen) <= set(every):
        raise ValueError(
            f"--support_sizes must be of --support_size, {every}. "
            f"Received: {chosen}."
        )
    return sorted(set(chosen))


def _settings(
    model: "VHE", train: "Episodes", sizes: Sequence[int]
) -> dict[str, Any]:
    recipe = train.augmentation
    return {
        "flags": common.config(),
        "recipe": {
            "batch_size": train.batch_size,
            "symmetries": recipe.symmetries,
            "affine_copies": recipe.affine_copies,
            "binarization": recipe.binarization,
            "image_size": train.image_shape[:2],
            "resamples": train.resamples,
        },
        "support_sizes": list(sizes),
        "metrics": lowering.metric_names(model),
    }


def _fingerprint(weights: "np.ndarray", settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True).encode()
    return hashlib.sha256(weights.tobytes() + text).hexdigest()[:16]


def _write_arrays(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    np.savez_compressed(path, **arrays)


def _write_check(
    out: pathlib.Path,
    model: "VHE",
    validation: "Episodes",
    sizes: Sequence[int],
) -> dict[str, Any]:
    """Writes an episode, and returns the bound that Keras has of it.

    It is the first validation episode with a support of a size that is lowered.
    """
    import tensorflow as tf

    # Each step draws one of a few sizes.
    episodes = map(validation.episode, map(tf.constant, itertools.count()))
    episode = next(
        e for e in episodes if e["support"][_GROUP].shape[1] in sizes
    )
    arrays = {
        "query": episode["query"].numpy(),
        "support": episode["support"][_GROUP].numpy(),
        "group_size": episode["group_size"][_GROUP].numpy(),
        "seed": episode["seed"].numpy(),
    }
    _write_arrays(out / "check.npz", arrays)
    return {
        "support_size": arrays["support"].shape[1],
        "elbo": lowering.keras_bound(model, arrays),
    }


def _lower_all(
    out: pathlib.Path,
    model: "VHE",
    image_shape: tuple[int, int, int],
    sizes: Sequence[int],
) -> None:
    """Writes a step and a bound for each support size and platform."""
    import tensorflow as tf

    models = dict.fromkeys(_PRECISIONS.value, model)
    if "bf16" in models:
        models["bf16"] = _model_of_half_precision(image_shape)
    allow_tf32 = tf.config.experimental.enable_tensor_float_32_execution

    def write(name: str, function: Callable[..., Any], *arguments: Any) -> None:
        platform = name.rpartition(".")[2]
        (out / name).write_bytes(
            lowering.lowered(function, arguments, platform=platform)
        )

    for size, platform in itertools.product(sizes, _PLATFORMS.value):
        print(f"Lowering for |D| = {size} and {platform} ...", flush=True)
        weights, episode, step = _argument_shapes(model, image_shape, size)
        for precision, of_precision in models.items():
            allow_tf32(precision != "float32")
            write(
                f"step_{size}.{precision}.{platform}",
                lowering.step_of(of_precision),
                weights,
                episode,
                step,
            )
        allow_tf32(False)
        write(
            f"bound_{size}.{platform}",
            lowering.bound_of(model),
            weights,
            episode,
        )


def _model_of_half_precision(image_shape: tuple[int, int, int]) -> "VHE":
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = _model(image_shape)
    keras.config.set_dtype_policy("float32")
    return model


def _argument_shapes(
    model: "VHE", image_shape: tuple[int, int, int], support_size: int
) -> tuple[Any, ...]:
    """Returns shapes of weights, episode and step."""
    import jax
    import jax.numpy as jnp

    batch = common.BATCH_SIZE.value
    of = jax.ShapeDtypeStruct
    episode = {
        "query": of((batch, *image_shape), jnp.float32),
        "support": of((batch, support_size, *image_shape), jnp.float32),
        "group_size": of((batch,), jnp.int32),
        "seed": of((batch, 2), jnp.int32),
    }
    weights = of((model.count_params(),), jnp.float32)
    return weights, episode, of((), jnp.int32)


if __name__ == "__main__":
    app.run(main)
