r"""Changes the small PixelCNN VHE in one respect at a time, and measures it.

    python trainers/ablations.py --change=wider_decoder \
        --flagfile=trainers/flagfiles/ablations.flags

trains with one change (`--change=baseline`: with none), in a folder of its own
under --run_dir; a run that was stopped goes on when the same command is started
again. What it measures is in docs/ablations/, a file a run, and in the table of
docs/ablations.md, on characters held out from training: those to be tested on
take no part. `--repeat=1` is the same with other chance. With
ablations_continued.flags runs begin with the weights of a trained model, which
changes of the layers do not have.
"""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import ablation_document
import common
import omniglot
from absl import app
from absl import flags

if TYPE_CHECKING:
    from vhe_tf import VHE
    from vhe_tf import training
    from vhe_tf.data import EpisodeSampler

_GROUP = "character"
_NUM_BATCHES = 63  # of 16: every image held out, once

# What stays as it is, and is not in the tables.
_FIXED = {
    "architecture": "pixel_cnn",
    "size": "small",
    "objective": "vhe",
    "precision": "float32",
    "distribution": "none",
}


@dataclasses.dataclass(frozen=True)
class Change:
    """One respect in which a model or its training differs.

    Attributes:
        what: In words.
        size: Fields of the model's `PixelCNNSize`.
        flags: Flags of the trainer.
        layers: The function of `ablation_layers` that makes the model, of the
            one of that size.
        constant_rate: Whether the learning rate stays at its peak.
    """

    what: str
    size: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layers: str | None = None
    constant_rate: bool = False


CHANGES = {
    "baseline": Change("none"),
    "constant_rate": Change(
        "no cosine: the learning rate stays at its peak", constant_rate=True
    ),
    "dropout": Change("dropout of 0.2 in the decoder", size={"dropout": 0.2}),
    "symmetries": Change(
        "8 rotations and reflections as classes", flags={"symmetries": 8}
    ),
    "wider_decoder": Change(
        "48 filters in the decoder, not 32", size={"filters": 48}
    ),
    "deeper_decoder": Change(
        "8 blocks in the decoder, not 5", size={"num_blocks": 8}
    ),
    "published_conditioning": Change(
        "the template enters the gates by 5x5 convolutions, as published, not "
        "by two of 3x3 and then 1x1",
        size={"conditioning_filters": (), "conditioning_kernel_size": 5},
    ),
    "attention_in_decoder": Change(
        "causal self-attention, with learned positions, after the decoder's "
        "blocks",
        layers="with_attention_in_decoder",
    ),
    "downsampling_in_decoder": Change(
        "three blocks at half the size, which do not see the template, in the "
        "decoder's vertical stack",
        layers="with_downsampling_in_decoder",
    ),
    "attention_over_support": Change(
        "attention over D in q(c; D), not a mean",
        layers="with_attention_over_support",
    ),
    "larger_prior": Change(
        "4 blocks of 32 filters in p(c), not 2 of 16",
        size={"prior_filters": 32, "prior_blocks": 4},
    ),
    "pose_that_shows": Change(
        "the map from z to the template's pose begins with random weights, "
        "not zeros",
        layers="with_pose_that_shows",
    ),
}

_CHANGE = flags.DEFINE_enum(
    "change", None, list(CHANGES), "What to change.", required=True
)
_REPEAT = flags.DEFINE_integer(
    "repeat", 0, "Other initial weights and draws; the data are split alike."
)
_OUT = flags.DEFINE_string(
    "out", "docs", "Where ablations/ and ablations.md are."
)


def main(argv: Sequence[str]) -> None:
    """Trains, measures and writes the table."""
    common.check_arguments(argv)
    from vhe_tf import training

    with training.mistakes_end_quietly():
        change = CHANGES[_CHANGE.value]
        check_flags(change)
        source = omniglot.load_data()
        # Measured alike in every run, whatever its chance and its flags.
        _, validation = common.samplers(source, groups=[_GROUP])
        for name, value in change.flags.items():
            flags.FLAGS[name].value = value
        run = new_run(change)
        out = pathlib.Path(_OUT.value)
        check_alike(run.config, out / "ablations")
        train, _ = common.samplers(
            source, groups=[_GROUP], training_seed=_seed()
        )
        model = make_model(change, train.image_shape)
    name = _CHANGE.value + ("_continued" if common.INIT.value else "")
    path = out / "ablations" / f"{name}_{_REPEAT.value}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    minutes = minutes_of(path) if run.latest else None
    start = None if run.latest else time.monotonic()
    common.train_model(model, run, train, validation, list)
    if start is not None:
        minutes = round((time.monotonic() - start) / 60, 1)
    with training.failures_end_quietly():
        result = {
            "flags": run.config,
            "steps": int(model.optimizer.iterations),
            "parameters": model.count_params(),
            "minutes": minutes,
            **measure(model, run, validation),
        }
        training.write_json(path, result)
        ablation_document.write(out)
    print(f"Made {path} and {out / 'ablations.md'}")


def check_flags(change: Change) -> None:
    """Refuses what is not varied here.

    Raises:
        ValueError: If a flag has another value than the tables are of, or a
            change of the layers is to begin with the weights of others.
    """
    for name, value in _FIXED.items():
        if flags.FLAGS[name].value != value:
            raise ValueError(
                f"--{name} must be {value} here; see "
                "trainers/flagfiles/ablations.flags. "
                f"Received: {flags.FLAGS[name].value}."
            )
    if common.INIT.value and change.layers:
        raise ValueError(
            f"--change={_CHANGE.value} must begin with random weights, without "
            f"--init. Received: --init={common.INIT.value}."
        )


def check_alike(config: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Refuses settings unlike those of the results of the same start.

    Raises:
        ValueError: If a result in the folder, begun with the same weights, has
            other flags than the change and the repeat account for.
    """
    for path in sorted(folder.glob("*.json")):
        other = json.loads(path.read_text(encoding="utf-8"))["flags"]
        if other["init"] != config["init"]:
            continue
        for name in ablation_document.differing(config, other):
            raise ValueError(
                f"--{name} must be {other.get(name)}, as in {path}, or --out "
                f"another folder. Received: {config[name]}."
            )


def _seed() -> int:
    return common.SEED.value + 1000 * _REPEAT.value


def new_run(change: Change) -> "training.Run":
    """Returns the run of a change, and sets Keras up for it."""
    import keras

    from vhe_tf import stopping
    from vhe_tf import training

    stopping.stop_at_once()
    config: dict[str, Any] = {
        **common.config(),
        "change": _CHANGE.value,
        "repeat": _REPEAT.value,
        **{f"changed_{k}": v for k, v in dataclasses.asdict(change).items()},
    }
    folder = f"{_CHANGE.value}_{_REPEAT.value}"
    run = training.Run(
        pathlib.Path(common.RUN_DIR.value) / folder,
        json.loads(json.dumps(config)),  # lists, as it is read again
    )
    keras.utils.set_random_seed(_seed())
    return run


def make_model(change: Change, image_shape: tuple[int, int, int]) -> "VHE":
    """Builds and compiles the small PixelCNN VHE with a change."""
    import ablation_layers
    import keras

    from vhe_tf.models import architectures

    model = architectures.pixel_cnn_vhe(
        dataclasses.replace(
            architectures.PIXEL_CNN_SIZES["small"], **change.size
        ),
        image_shape=image_shape,
        group=_GROUP,
    )
    if change.layers:
        model = getattr(ablation_layers, change.layers)(model)
    common.compile_model(model, character=_GROUP)
    if change.constant_rate:
        model.optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=1,
            alpha=1.0,
            warmup_target=common.LEARNING_RATE.value,
            warmup_steps=common.WARMUP_STEPS.value,
        )
    return model


def minutes_of(path: pathlib.Path) -> float | None:
    """Returns how long a run took that was measured before, if known."""
    if not path.exists():
        return None
    return json.loads(path.read_text(encoding="utf-8"))["minutes"]


def measure(
    model: "VHE", run: "training.Run", validation: "EpisodeSampler"
) -> dict[str, Any]:
    """Measures the weights of the last step on the characters held out.

    Returns:
        `elbo`, nats an image, a number for each of the same batches of
        episodes whatever the model; `averaged_elbo`, the same of the averaged
        weights; `kl`, the mean KL of each latent over the batches.
    """
    import tensorflow as tf

    from vhe_tf import training
    from vhe_tf.progress import status_line

    bound = tf.function(model, reduce_retracing=True)

    def terms(progress: Callable[[str], None]) -> list[Any]:
        batches = []
        for episode in validation.dataset().take(_NUM_BATCHES):
            batches.append(bound(episode))
            progress(f"bound: batch {len(batches)} of {_NUM_BATCHES}")
        return batches

    def mean(values: tf.Tensor) -> float:
        return float(tf.reduce_mean(values))

    # Training ends with the averaged weights assigned; those of the last step
    # are in its checkpoint.
    training.Checkpoints(
        run,
        model,
        monitor="val_elbo",
        steps_per_epoch=common.STEPS_PER_EPOCH.value,
    ).restore()
    with status_line() as progress:
        last = terms(progress)
        with training.averaged_weights(model):
            averaged = terms(progress)
    return {
        "elbo": [mean(of_batch.elbo) for of_batch in last],
        "averaged_elbo": [mean(of_batch.elbo) for of_batch in averaged],
        "kl": {
            name: mean(tf.stack([of_batch.kl[name] for of_batch in last]))
            for name in last[0].kl
        },
    }


if __name__ == "__main__":
    app.run(main)
