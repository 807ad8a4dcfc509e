r"""Changes the small PixelCNN VHE in one respect at a time, and measures it.

    python trainers/ablations.py --change=wider_decoder \
        --flagfile=trainers/flagfiles/ablations.flags

trains with one change (`--change=baseline`: with none), in a folder of its own
under --run_dir; a run that was stopped goes on when the same command is started
again. What it measures is in docs/ablations/, a file a run, and in the table of
docs/ablations.md, on characters held out from training: those to be tested on
take no part. `--repeat=1` is the same with other chance.
"""

import dataclasses
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
    import numpy as np

    from vhe_tf import VHE
    from vhe_tf import training
    from vhe_tf.data import EpisodeSampler
    from vhe_tf.data import GroupedData
    from vhe_tf.data import GroupedImages
    from vhe_tf.data import sources

_GROUP = "character"
_NUM_BATCHES = 100  # for the bound
_WAYS = 20
_SHOTS = (1, 5)
_NUM_TRIALS = 10
_NUM_SAMPLES = 3  # draws of c, to classify
_MAX_DECODED = 200  # at once: attention takes memory


@dataclasses.dataclass(frozen=True)
class Change:
    """One respect in which a model or its training differs.

    Attributes:
        size: Of the model: fields of `PixelCNNSize`.
        flags: Of the trainer.
        compiled: Of the pose, arguments of `VHE.compile`, each a number.
        revised: Returns another model, given the one of that size.
        constant_rate: Whether the learning rate stays at its peak.
    """

    size: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    compiled: Mapping[str, float] = dataclasses.field(default_factory=dict)
    revised: Callable[["VHE"], "VHE"] | None = None
    constant_rate: bool = False


def _attention_over_support(model: "VHE") -> "VHE":
    import ablation_layers

    return ablation_layers.with_attention_over_support(model)


def _attention_in_decoder(model: "VHE") -> "VHE":
    import ablation_layers

    return ablation_layers.with_decoder(
        model, ablation_layers.AttentiveGatedPixelCNN
    )


def _downsampling_in_decoder(model: "VHE") -> "VHE":
    import ablation_layers

    return ablation_layers.with_decoder(
        model, ablation_layers.DownsamplingGatedPixelCNN
    )


def _pose_that_shows(model: "VHE") -> "VHE":
    import ablation_layers

    return ablation_layers.with_pose_that_shows(model)


CHANGES = {
    "baseline": Change(),
    "constant_rate": Change(constant_rate=True),
    "higher_rate": Change(flags={"learning_rate": 2e-3}),
    "no_averaged_weights": Change(flags={"ema": 0.0}),
    "dropout": Change(size={"dropout": 0.2}),
    "wider_decoder": Change(size={"filters": 48}),
    "deeper_decoder": Change(size={"num_blocks": 8}),
    "published_conditioning": Change(
        size={"conditioning_filters": (), "conditioning_kernel_size": 5}
    ),
    "attention_in_decoder": Change(revised=_attention_in_decoder),
    "downsampling_in_decoder": Change(revised=_downsampling_in_decoder),
    "attention_over_support": Change(revised=_attention_over_support),
    "deeper_prior": Change(size={"prior_filters": 32, "prior_blocks": 4}),
    "pose_that_shows": Change(revised=_pose_that_shows),
    "free_pose": Change(compiled={"free_nats": 2.0}),
    "pose_warmup": Change(compiled={"kl_warmup_steps": 1500}),
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
        for name, value in change.flags.items():
            flags.FLAGS[name].value = value
        run = new_run()
        source = omniglot.load_data()
        # Held out alike in every run, whatever its chance.
        train, validation = common.samplers(
            source, groups=[_GROUP], training_seed=_seed()
        )
        model = make_model(change, train.image_shape)
    resumed = bool(run.latest)
    start = time.monotonic()
    common.train_model(model, run, train, validation, list)
    minutes = round((time.monotonic() - start) / 60, 1)
    with training.failures_end_quietly():
        result = {
            "change": _CHANGE.value,
            "repeat": _REPEAT.value,
            "flags": run.config,
            "steps": int(model.optimizer.iterations),
            "parameters": model.count_params(),
            "minutes": None if resumed else minutes,
            **measure(model, source, validation),
        }
        folder = pathlib.Path(_OUT.value)
        (folder / "ablations").mkdir(parents=True, exist_ok=True)
        name = f"{_CHANGE.value}_{_REPEAT.value}.json"
        training.write_json(folder / "ablations" / name, result)
        ablation_document.write(folder)
    print(f"Made {folder / 'ablations' / name} and {folder / 'ablations.md'}")


def _seed() -> int:
    return common.SEED.value + 1000 * _REPEAT.value


def new_run() -> "training.Run":
    """Returns the run of the change, and sets Keras up for it."""
    import keras

    from vhe_tf import stopping
    from vhe_tf import training

    stopping.stop_at_once()
    change = {"change": _CHANGE.value, "repeat": _REPEAT.value}
    folder = f"{_CHANGE.value}_{_REPEAT.value}"
    run = training.Run(
        pathlib.Path(common.RUN_DIR.value) / folder, common.config() | change
    )
    keras.utils.set_random_seed(_seed())
    return run


def make_model(change: Change, image_shape: tuple[int, int, int]) -> "VHE":
    """Builds and compiles the small PixelCNN VHE with a change."""
    import keras

    from vhe_tf.models import architectures

    model = architectures.pixel_cnn_vhe(
        dataclasses.replace(
            architectures.PIXEL_CNN_SIZES["small"], **change.size
        ),
        image_shape=image_shape,
        group=_GROUP,
    )
    if change.revised:
        model = change.revised(model)
    common.compile_model(model, character=_GROUP)
    optimizer = model.optimizer
    if change.constant_rate:
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=1,
            alpha=1.0,
            warmup_target=common.LEARNING_RATE.value,
            warmup_steps=common.WARMUP_STEPS.value,
        )
        optimizer = keras.optimizers.Adam.from_config(
            {**optimizer.get_config(), "learning_rate": rate}
        )
    pose: Any = {k: {"pose": value} for k, value in change.compiled.items()}
    model.compile(optimizer, **pose)
    return model


def measure(
    model: "VHE", source: "sources.Source", validation: "EpisodeSampler"
) -> dict[str, Any]:
    """Measures the averaged weights on the characters held out.

    Returns:
        `elbo`, nats an image, a number for each of the same batches of
        episodes whatever the model; `kl`, the mean KL of each latent over
        these; `accuracy` by shots, a number for each of the same tasks.
    """
    import tensorflow as tf

    from vhe_tf import training
    from vhe_tf.evaluation import classification
    from vhe_tf.progress import status_line

    bound = tf.function(model, reduce_retracing=True)
    elbo, kls = [], []
    data = ready(validation.data, source)
    accuracy: dict[str, list[float]] = {}
    with training.averaged_weights(model), status_line() as progress:
        batches = validation.dataset().take(_NUM_BATCHES)
        for index, episode in enumerate(batches):
            terms = bound(episode)
            elbo.append(float(tf.reduce_mean(terms.elbo)))
            kls.append(
                {k: float(tf.reduce_mean(v)) for k, v in terms.kl.items()}
            )
            progress(f"bound: batch {index + 1} of {_NUM_BATCHES}")
        scorer = classification.ClassScorer(
            model,
            group=_GROUP,
            num_samples=_NUM_SAMPLES,
            max_decoded=_MAX_DECODED,
        )
        for shots in _SHOTS:
            trials = classification.few_shot_trials(
                data,
                group=_GROUP,
                num_ways=min(_WAYS, len(data.group_ids(_GROUP))),
                num_shots=shots,
                num_trials=_NUM_TRIALS,
                seed=0,
            )
            accuracy[str(shots)] = []
            for trial, scores in scorer.each(trials, seed=0):
                right = scores.argmax(axis=1) == trial.labels
                accuracy[str(shots)].append(float(right.mean()))
                progress(f"{shots}-shot: task {len(accuracy[str(shots)])}")
    mean = {k: sum(kl[k] for kl in kls) / len(kls) for k in kls[0]}
    return {"elbo": elbo, "kl": mean, "accuracy": accuracy}


def ready(data: "GroupedData", source: "sources.Source") -> "GroupedImages":
    """Returns stored images as a model sees them, none augmented."""
    from vhe_tf.data import sources

    data = data.load()
    height, width = source.image_size
    rows = _kept(data.images.shape[1], height)
    columns = _kept(data.images.shape[2], width)
    return sources.ready(
        dataclasses.replace(data, images=data.images[:, rows][:, :, columns]),
        "binary",
    )


def _kept(stored: int, wanted: int) -> "np.ndarray":
    """Returns which rows are left, as `Augmentation.image_size` says."""
    import numpy as np

    return np.arange(wanted) * stored // wanted


if __name__ == "__main__":
    app.run(main)
