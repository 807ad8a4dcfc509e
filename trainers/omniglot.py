"""Trains, evaluates and pictures a VHE on handwritten characters.

Omniglot, through TensorFlow Datasets (with internet):

    python trainers/omniglot.py --run_dir=runs/omniglot

Omniglot without internet, from a folder with a prepared omniglot/3.0.0 (or
set TFDS_DATA_DIR):

    python trainers/omniglot.py --data_dir=DIR --run_dir=runs/omniglot

The embedded data set of procedural handwriting, or grouped images of your own
(DIR/class/*.png):

    python trainers/omniglot.py --dataset=glyphs --run_dir=runs/glyphs
    python trainers/omniglot.py --dataset=folder --data_dir=DIR --run_dir=...

A run that was stopped, however rudely, goes on when the same command is
started again, and ends with the same weights. Follow it with `tensorboard
--logdir runs`. One flagfile a row of the paper's tables is in
trainers/flagfiles; use it with --flagfile.
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from absl import app
from absl import flags
from absl import logging

if TYPE_CHECKING:
    import keras

    from vhe_tf import VHE
    from vhe_tf import monitoring
    from vhe_tf import training
    from vhe_tf.data import EpisodeSampler
    from vhe_tf.data import GroupedImages
    from vhe_tf.data import sources

_DATASET = flags.DEFINE_enum(
    "dataset",
    "omniglot",
    ["omniglot", "glyphs", "folder"],
    "omniglot, the embedded glyphs, or a folder of your own images.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "For omniglot: a TensorFlow Datasets folder with omniglot/3.0.0; default "
    "TFDS_DATA_DIR or ~/tensorflow_datasets. For folder: the folder.",
)
_SPLIT = flags.DEFINE_enum(
    "split",
    "lake",
    ["lake", "lake_small1", "lake_small2", "random1200", "vinyals"],
    "Which characters of Omniglot to train and to test on.",
)
_IMAGES = flags.DEFINE_enum(
    "images",
    "binary",
    ["binary", "grey"],
    "Image recipe: binary is that of Tables 3 and 4 (fixed binary images); "
    "grey that of Tables 1 and 2 (dynamically binarised). For glyphs and "
    "folders, binary thresholds at one half.",
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder of the run, made where missing.", required=True
)
_ARCHITECTURE = flags.DEFINE_enum(
    "architecture",
    "deconvolutional",
    ["deconvolutional", "pixel_cnn"],
    "The architecture of the paper (Section 4.1).",
)
_SIZE = flags.DEFINE_enum(
    "size",
    "small",
    ["small", "published"],
    "small trains on two CPU cores; published has the paper's sizes.",
)
_OBJECTIVE = flags.DEFINE_enum(
    "objective",
    "vhe",
    ["vhe", "neural_statistician", "resample", "rescale"],
    "The bound to train (Table 1).",
)
_SUPPORT_SIZE = flags.DEFINE_string(
    "support_size", "5", "|D|, or a range such as 1-10 to draw it a batch."
)
_EXCLUDE_QUERY = flags.DEFINE_bool(
    "exclude_query",
    False,
    "Draw D without x. No bound on log p(X) any more; off in the paper.",
)
_SYMMETRIES = flags.DEFINE_integer(
    "symmetries", 8, "1, 4 or 8 rotations and reflections, each a new class."
)
_AFFINE_COPIES = flags.DEFINE_integer(
    "affine_copies", 20, "Elements made of one image by small affine maps."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Episodes a step.")
_EPOCHS = flags.DEFINE_integer(
    "epochs", 40, "Reporting intervals, each ending with a checkpoint."
)
_STEPS_PER_EPOCH = flags.DEFINE_integer(
    "steps_per_epoch", 500, "Optimizer steps in a reporting interval."
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 1e-3, "Adam's, at its peak; cosine decay to zero."
)
_WARMUP_STEPS = flags.DEFINE_integer(
    "warmup_steps", 500, "Steps over which the learning rate rises."
)
_CLIP_NORM = flags.DEFINE_float(
    "clip_norm", 10.0, "Largest norm of the whole gradient, nats."
)
_EMA = flags.DEFINE_float(
    "ema", 0.998, "Momentum of the running average of weights; 0 for none."
)
_KL_WARMUP_STEPS = flags.DEFINE_integer(
    "kl_warmup_steps",
    0,
    "Steps over which the KL of the group latent gains its weight.",
)
_FREE_NATS = flags.DEFINE_float(
    "free_nats", 0.0, "Nats of the group latent that cost nothing to use."
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Keras dtype policy; the mixed ones need a GPU to be faster.",
)
_JIT_COMPILE = flags.DEFINE_bool(
    "jit_compile", False, "Compile the training step with XLA."
)
_SEED = flags.DEFINE_integer("seed", 0, "Decides everything random.")
_NUM_VALIDATION_GROUPS = flags.DEFINE_integer(
    "num_validation_groups",
    50,
    "Training characters held out to choose the best checkpoint.",
)
_NUM_TEST_TRIALS = flags.DEFINE_integer(
    "num_test_trials", 50, "Few-shot tasks in the final evaluation."
)
_NUM_TEST_GROUPS = flags.DEFINE_integer(
    "num_test_groups", 50, "Test characters in the final joint NLL."
)
_NUM_TEST_SAMPLES = flags.DEFINE_integer(
    "num_test_samples", 20, "Draws of the group latent in the final evaluation."
)

# Flags that a run may change on resume without becoming another run.
_NOT_CONFIG = (
    "run_dir",
    "data_dir",
    "num_test_trials",
    "num_test_groups",
    "num_test_samples",
)

_GROUP = "character"


def main(argv: Sequence[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    # Imported after the flags are read: --help and mistakes answer at once.
    import keras

    from vhe_tf import training

    with training.mistakes_end_quietly():
        run = training.Run(_RUN_DIR.value, config())
        keras.utils.set_random_seed(_SEED.value)  # the initial weights
        keras.config.set_dtype_policy(_PRECISION.value)
        source = load_data()
        train, validation = samplers(source)
        model = build_model(train.image_shape)
        cues = make_cues(source)
    try:
        training.fit(
            model,
            run,
            train,
            validation,
            callbacks=monitors(run, source, cues),
            epochs=_EPOCHS.value,
            steps_per_epoch=_STEPS_PER_EPOCH.value,
        )
    except training.NonFiniteLossError as error:
        raise SystemExit(f"error: {error}") from error
    finish(run, source, cues)


def config() -> dict[str, Any]:
    """Returns the flags that decide the outcome of a run."""
    own = flags.FLAGS.flags_by_module_dict()[
        flags.FLAGS.find_module_defining_flag("run_dir")
    ]
    return {f.name: f.value for f in own if f.name not in _NOT_CONFIG}


def load_data() -> "sources.Source":
    """Loads the data set of the flags."""
    from vhe_tf.data import sources

    return sources.load_source(
        _DATASET.value,
        data_dir=_DATA_DIR.value,
        split=_SPLIT.value,
        images=_IMAGES.value,
        seed=_SEED.value,
    )


def samplers(
    source: "sources.Source",
) -> tuple["EpisodeSampler", "EpisodeSampler"]:
    """Returns the episodes to train and to validate on."""
    from vhe_tf import Objective
    from vhe_tf.data import Augmentation
    from vhe_tf.data import EpisodeSampler
    from vhe_tf.data import sources

    train, validation = source.train, source.validation
    if validation is None:
        num_groups = min(
            _NUM_VALIDATION_GROUPS.value,
            max(1, len(train.group_ids(_GROUP)) // 4),
        )
        train, validation = sources.hold_out_groups(
            train, _GROUP, num_groups, seed=_SEED.value
        )

    def sampler(data: "GroupedImages", seed: int) -> EpisodeSampler:
        return EpisodeSampler(
            data,
            batch_size=_BATCH_SIZE.value,
            support_size=support_size(_SUPPORT_SIZE.value),
            resamples=Objective(_OBJECTIVE.value).resamples,
            group_latents=[_GROUP],
            augmentation=Augmentation(
                symmetries=_SYMMETRIES.value,
                affine_copies=_AFFINE_COPIES.value,
                binarization=source.binarization,
                image_size=source.image_size,
            ),
            exclude_query=_EXCLUDE_QUERY.value,
            seed=seed,
        )

    return sampler(train, _SEED.value), sampler(validation, _SEED.value + 1)


def support_size(text: str) -> int | tuple[int, int]:
    """Reads a support size, `5` or `1-10`."""
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError:
        raise ValueError(
            "--support_size must be a number or a range such as 1-10. "
            f"Received: {text!r}."
        ) from None


def build_model(image_shape: tuple[int, int, int]) -> "VHE":
    """Builds and compiles the model of the flags."""
    import keras

    import vhe_tf

    architecture = {
        "deconvolutional": vhe_tf.deconvolutional_vhe,
        "pixel_cnn": vhe_tf.pixel_cnn_vhe,
    }[_ARCHITECTURE.value]
    model = architecture(
        _SIZE.value,
        image_shape=image_shape,
        objective=_OBJECTIVE.value,
        group=_GROUP,
    )
    num_steps = _EPOCHS.value * _STEPS_PER_EPOCH.value
    warmup_steps = min(_WARMUP_STEPS.value, num_steps // 2)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                decay_steps=num_steps - warmup_steps,
                warmup_target=_LEARNING_RATE.value,
                warmup_steps=warmup_steps,
            ),
            global_clipnorm=_CLIP_NORM.value,
            use_ema=_EMA.value > 0,
            ema_momentum=_EMA.value or None,
        ),
        kl_warmup_steps={_GROUP: _KL_WARMUP_STEPS.value},
        free_nats={_GROUP: _FREE_NATS.value},
        jit_compile=_JIT_COMPILE.value,
    )
    return model


def make_cues(source: "sources.Source") -> "monitoring.Cues":
    """Chooses the images of unseen characters that every picture shows."""
    from vhe_tf import monitoring

    return monitoring.fixed_cues(source.test, group=_GROUP, seed=_SEED.value)


def monitors(
    run: "training.Run", source: "sources.Source", cues: "monitoring.Cues"
) -> list["keras.callbacks.Callback"]:
    """Returns the callbacks that measure and picture the run."""
    import numpy as np

    from vhe_tf import monitoring

    _, sizes = np.unique(source.test.labels[_GROUP], return_counts=True)
    shots = [num_shots for num_shots in (1, 5) if num_shots < sizes.min()]
    few_tasks = {}
    if _ARCHITECTURE.value == "pixel_cnn":
        # It takes far longer to score an image.
        few_tasks = {"num_trials": 4, "num_samples": 3}
    return [
        monitoring.FewShotAccuracy(
            source.test,
            group=_GROUP,
            num_ways=min(20, len(sizes)),
            shots=shots,
            **few_tasks,
        ),
        monitoring.Likelihoods(source.test, group=_GROUP, shots=shots, every=5),
        monitoring.Scalars(run.tensorboard, run.config),
        # Apart: TensorBoard follows one event file a folder.
        monitoring.ImageGrids(run.tensorboard / "pictures", cues),
    ]


def finish(
    run: "training.Run", source: "sources.Source", cues: "monitoring.Cues"
) -> None:
    """Evaluates and pictures the best model, and says what was made."""
    import vhe_tf
    from vhe_tf import pictures
    from vhe_tf import training
    from vhe_tf.evaluation import report
    from vhe_tf.progress import status_line

    model = vhe_tf.load_model(run.best)
    for name, grid in cues.grids(model).items():
        pictures.save_png(run.pictures / f"{name}.png", grid)
    with status_line() as progress:
        metrics = report.evaluate(
            model,
            source.test,
            group=_GROUP,
            num_trials=_NUM_TEST_TRIALS.value,
            num_groups=_NUM_TEST_GROUPS.value,
            num_samples=_NUM_TEST_SAMPLES.value,
            seed=_SEED.value,
            progress=progress,
        )
    training.write_json(run.folder / "metrics.json", metrics)
    data = f" --data_dir={_DATA_DIR.value}" if _DATA_DIR.value else ""
    bin_dir = os.path.relpath(os.path.dirname(sys.executable))
    print(f"""
Made in {run.folder}:
  best.keras     the model ({model.count_params():,} parameters)
  metrics.json   how good it is on characters it has never seen:""")
    for line in report.summary_lines(metrics):
        print(f"                   {line}")
    print(f"""\
  pictures/      conditional.png: 1 cue and samples, 5 cues and samples;
                 reconstruction.png; unconditional.png
  tensorboard/   the run over time
Next:
  {bin_dir}/tensorboard --logdir {run.folder}
  {bin_dir}/python trainers/evaluate.py --model {run.best} --num_groups=20{data}
  draw and classify in ten lines of Python: README.md, "Use"
""")


if __name__ == "__main__":
    app.run(main)
