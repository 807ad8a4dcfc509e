"""Writes a run for a machine that has JAX and no TensorFlow.

    python -m tools.jax_offload.export_run table1_pixel_cnn_vhe --out=DIR

The experiment and the flags that override it are those of `vhe-tf train`. The
folder holds the training step and the ELBO, lowered to what JAX runs, the
initial weights, the images and the settings; train.py beside this script trains
from it. Needs JAX beside TensorFlow: `pip install jax flatbuffers`.

--jit_compile has no effect. The precision is chosen by train.py.
"""

import dataclasses
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

from absl import flags

from vhe_tf.experiments import Experiment
from vhe_tf.experiments import endings
from vhe_tf.experiments import settings
from vhe_tf.experiments import train
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from vhe_tf import VHE
    from vhe_tf.data import DataSplits
    from vhe_tf.data import Episodes

_GROUP = "character"
_PRECISIONS = {"float32", "tf32", "bf16"}


@dataclasses.dataclass(frozen=True)
class Lowering(settings.Settings):
    """The arguments of export_run.py."""

    out: str = setting(dataclasses.MISSING, "The folder to write.")
    data_dir: str | None = setting(None, "As of `vhe-tf train`.")
    platforms: tuple[str, ...] = setting(
        ("cuda", "cpu"),
        "Platforms to lower for, by JAX's names.",
        kind="strings",
    )
    precisions: tuple[str, ...] = setting(
        ("float32", "tf32"),
        "Precisions of the training step: float32; tf32, which only GPUs heed; "
        "bf16, the layers of Keras' policy mixed_bfloat16.",
        kind="strings",
    )
    support_sizes: tuple[int, ...] | None = setting(
        None,
        "If --support_size is a range, the sizes to sample from, each of them "
        "a step to compile. Default: all.",
        kind="integers",
        least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.precisions) <= _PRECISIONS:
            raise ValueError(
                "--precisions must be of float32, tf32 and bf16. "
                f"Received: {','.join(self.precisions)}."
            )


def main(argv: Sequence[str]) -> None:
    """Loads, lowers and writes."""
    values = flags.FlagValues()
    settings.add_flags(values, Lowering, title="Export")
    train.add_experiment_flags(values)
    words = settings.parse(argv, values, usage=__doc__ or "")
    with endings.exit_on_user_error():
        lowering = Lowering(**settings.read_flags(values, Lowering))
        _, experiment = train.chosen_experiment(values, words)
    export(experiment, lowering)


def export(experiment: Experiment, given: Lowering) -> None:
    """Writes the folder of an experiment.

    Raises:
        SystemExit: If it cannot be done; the message says why.
    """
    endings.import_tensorflow()
    from tools.jax_offload import lowering
    from tools.jax_offload import weight_files
    from vhe_tf._utils.json_files import write_json
    from vhe_tf.experiments import building
    from vhe_tf.experiments import data
    from vhe_tf.models import loading

    out = pathlib.Path(given.out)
    with endings.exit_on_user_error():
        _check(experiment)
        out.mkdir(parents=True, exist_ok=True)
        building.start(experiment)
        splits = data.load_data(experiment, data_dir=given.data_dir)
        model = _model(experiment, splits)
        training, validation = building.make_episodes(
            model, experiment, splits=splits
        )
        sizes = _support_sizes(training, given)
        arrays = {
            f"{part}_{name}": values
            for part, episodes in (
                ("train", training),
                ("validation", validation),
            )
            for name, values in lowering.images_of(episodes, _GROUP).items()
        }
    _write_arrays(out / "images.npz", arrays)
    loading.save_model(model, out / "model.keras")
    weights = lowering.vector_of(model)
    found = _settings(experiment, model, training, sizes=sizes)
    found["check"] = _write_check(out, model, validation, sizes)
    found["fingerprint"] = _fingerprint(weights, found)
    weight_files.write(
        out, "initial", weights, fingerprint=found["fingerprint"]
    )
    models = dict.fromkeys(given.precisions, model)
    if "bf16" in models:
        models["bf16"] = _model_of_half_precision(experiment, splits)
    _lower_all(given, model, training, sizes=sizes, models=models)
    write_json(out / "export.json", found)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"Made {out} ({size / 2**20:.1f} MiB)")


def _check(experiment: Experiment) -> None:
    """Rejects what train.py cannot train."""
    if experiment.precision != "float32":
        raise ValueError(
            "The precision is chosen when training, among --precisions; leave "
            f"--precision out. Received: --precision={experiment.precision}."
        )
    if experiment.groups != (_GROUP,):
        raise ValueError(
            "Only experiments with one latent, of characters, can be lowered. "
            f"Received: {experiment.groups}."
        )


def _model(experiment: Experiment, splits: "DataSplits") -> "VHE":
    from vhe_tf.experiments import building

    model = building.build_model(experiment, splits)
    building.compile_model(model, experiment)
    return model


def _support_sizes(episodes: "Episodes", given: Lowering) -> list[int]:
    every = list(range(episodes.min_support, episodes.max_support + 1))
    chosen = given.support_sizes or every
    if not set(chosen) <= set(every):
        raise ValueError(
            f"--support_sizes must be of --support_size, {every}. "
            f"Received: {chosen}."
        )
    return sorted(set(chosen))


def _settings(
    experiment: Experiment,
    model: "VHE",
    train: "Episodes",
    *,
    sizes: Sequence[int],
) -> dict[str, Any]:
    from tools.jax_offload import lowering

    recipe = train.augmentation
    return {
        "experiment": experiment.to_json(),
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
    """Writes an episode, and returns the ELBO that Keras computes for it.

    It is the first validation episode with a support of a size that is lowered.
    """
    import tensorflow as tf

    from tools.jax_offload import lowering

    # Each step samples one of a few sizes.
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
    given: Lowering,
    model: "VHE",
    training: "Episodes",
    *,
    sizes: Sequence[int],
    models: Mapping[str, "VHE"],
) -> None:
    """Writes a step and an ELBO for each support size and platform."""
    import tensorflow as tf

    from tools.jax_offload import lowering

    out = pathlib.Path(given.out)
    allow_tf32 = tf.config.experimental.enable_tensor_float_32_execution

    def write(name: str, function: Callable[..., Any], *arguments: Any) -> None:
        platform = name.rpartition(".")[2]
        (out / name).write_bytes(
            lowering.lowered(function, arguments, platform=platform)
        )

    for size, platform in itertools.product(sizes, given.platforms):
        print(f"Lowering for |D| = {size} and {platform} ...", flush=True)
        weights, episode, step = _argument_shapes(model, training, size)
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


def _model_of_half_precision(
    experiment: Experiment, splits: "DataSplits"
) -> "VHE":
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = _model(experiment, splits)
    keras.config.set_dtype_policy("float32")
    return model


def _argument_shapes(
    model: "VHE", training: "Episodes", support_size: int
) -> tuple[Any, ...]:
    """Returns shapes of weights, episode and step."""
    import jax
    import jax.numpy as jnp

    batch, image_shape = training.batch_size, training.image_shape
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
    main(sys.argv)
