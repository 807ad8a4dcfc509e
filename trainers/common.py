"""What the trainers share: their flags, and how they make and run a training.

Each trainer adds its data, its model, what it measures and its pictures.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from absl import app
from absl import flags
from absl import logging

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from vhe_tf import VHE
    from vhe_tf import training
    from vhe_tf.data import Episodes
    from vhe_tf.data import GroupedData
    from vhe_tf.data import sources

DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "For omniglot: a TensorFlow Datasets folder with omniglot/3.0.0; default "
    "TFDS_DATA_DIR or ~/tensorflow_datasets; for youtube_faces, the same. For "
    "folder and records: the folder.",
)
SPLIT = flags.DEFINE_enum(
    "split",
    "lake",
    ["lake", "lake_small1", "lake_small2", "random1200", "vinyals"],
    "Which characters of Omniglot to train and to test on.",
)
RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "Folder of the run, made where missing.", required=True
)
SIZE = flags.DEFINE_enum(
    "size",
    "small",
    ["small", "published", "large"],
    "small trains on two CPU cores; published has the paper's sizes; large, of "
    "pixel_cnn alone, is the small structure for a GPU.",
)
OBJECTIVE = flags.DEFINE_enum(
    "objective",
    "vhe",
    ["vhe", "neural_statistician", "resample", "rescale"],
    "The bound to train (Table 1).",
)
SUPPORT_SIZE = flags.DEFINE_string(
    "support_size", "5", "|D|, or a range such as 1-10 to draw it a batch."
)
EXCLUDE_QUERY = flags.DEFINE_bool(
    "exclude_query",
    False,
    "Draw D without x. No bound on log p(X) any more; off in the paper.",
)
SYMMETRIES = flags.DEFINE_integer(
    "symmetries",
    8,
    "1; 2, the image and its mirror image; 4 rotations; or 8 rotations and "
    "reflections: each a new class.",
)
AFFINE_COPIES = flags.DEFINE_integer(
    "affine_copies", 20, "Elements made of one image by small affine maps."
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Episodes a step.", lower_bound=1
)
ACCUMULATION = flags.DEFINE_integer(
    "accumulation",
    1,
    "Microbatches of a step, one after the other: the same run to rounding in "
    "less memory. The batch of a device is a multiple of it; free nats need 1.",
    lower_bound=1,
)
EPOCHS = flags.DEFINE_integer(
    "epochs",
    40,
    "Reporting intervals, each ending with a checkpoint.",
    lower_bound=1,
)
STEPS_PER_EPOCH = flags.DEFINE_integer(
    "steps_per_epoch",
    500,
    "Optimizer steps in a reporting interval.",
    lower_bound=1,
)
LEARNING_RATE = flags.DEFINE_float(
    "learning_rate",
    1e-3,
    "Adam's, at its peak; cosine decay to zero.",
    lower_bound=0.0,
)
WARMUP_STEPS = flags.DEFINE_integer(
    "warmup_steps",
    500,
    "Steps over which the learning rate rises.",
    lower_bound=0,
)
CLIP_NORM = flags.DEFINE_float(
    "clip_norm",
    10.0,
    "Largest norm of the whole gradient, nats.",
    lower_bound=1e-6,
)
EMA = flags.DEFINE_float(
    "ema",
    0.998,
    "Momentum of the running average of weights; after t steps (1 + t) / "
    "(10 + t) at most, so that it is reached after about 9 / (1 - ema); 0 for "
    "none.",
)
INIT = flags.DEFINE_string(
    "init",
    None,
    "A .keras file of the same architecture whose weights to begin with, not "
    "trained on classes that this run is tested on.",
)
KL_WARMUP_STEPS = flags.DEFINE_integer(
    "kl_warmup_steps",
    0,
    "Steps over which the KL of the character's latent gains its weight.",
    lower_bound=0,
)
FREE_NATS = flags.DEFINE_float(
    "free_nats",
    0.0,
    "Nats of the character's latent that cost nothing to use.",
    lower_bound=0.0,
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Keras dtype policy; the mixed ones need a GPU to be faster. In "
    "mixed_bfloat16 the bound of a batch is that of float32 to 0.5%, the norm "
    "of its gradient to 5%; in mixed_float16, whose loss is scaled, to 0.2 and "
    "1%.",
)
JIT_COMPILE = flags.DEFINE_bool(
    "jit_compile",
    False,
    "Compile the training step with XLA. With equal draws the bound is the "
    "same to 1e-5, but XLA's draws are others.",
)
DISTRIBUTION = flags.DEFINE_enum(
    "distribution",
    "none",
    ["none", "mirrored", "multi_worker"],
    "Where to train: on one device; on all GPUs of this machine; or on those "
    "of all machines of the environment variable TF_CONFIG, with the same "
    "command on each and a --run_dir that all share. The batch is split, and "
    "the run is the same to rounding. At the end, mirrored, the GPUs share the "
    "evaluation; of several machines, one does it on one device.",
)
SEED = flags.DEFINE_integer(
    "seed",
    0,
    "Decides everything random; also which classes are unseen, where the split "
    "is random.",
    lower_bound=0,
)
NUM_VALIDATION_GROUPS = flags.DEFINE_integer(
    "num_validation_groups",
    50,
    "Training groups (characters, alphabets) held out to choose the best "
    "checkpoint.",
    lower_bound=1,
)
NUM_TEST_TRIALS = flags.DEFINE_integer(
    "num_test_trials",
    50,
    "Few-shot tasks in the final evaluation.",
    lower_bound=1,
)
NUM_TEST_GROUPS = flags.DEFINE_integer(
    "num_test_groups",
    50,
    "Test characters in the final joint NLL.",
    lower_bound=1,
)
NUM_TEST_SAMPLES = flags.DEFINE_integer(
    "num_test_samples",
    20,
    "Draws of the group latent in the final evaluation.",
    lower_bound=1,
)

# Flags that a run may change on resume without becoming another run.
_NOT_CONFIG = (
    "run_dir",
    "accumulation",
    "distribution",
    "data_dir",
    "manual_dir",
    "skip_corrupt",
    "num_test_trials",
    "num_test_groups",
    "num_test_samples",
    "judge_epochs",
)


def check_arguments(argv: Sequence[str]) -> None:
    """Refuses arguments that are no flags, and quiets the libraries."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)


def new_run() -> "training.Run":
    """Returns the run of the flags, and sets Keras up for it.

    Raises:
        ValueError: If a flag does nothing for the data set.
    """
    import keras

    from vhe_tf import callbacks
    from vhe_tf import training

    callbacks.stop_at_once()  # but while it trains
    dataset = flags.FLAGS["dataset"].value
    if SPLIT.present and dataset != "omniglot":
        raise ValueError(
            "--split is of Omniglot; leave it off. "
            f"Received: --split={SPLIT.value} with --dataset={dataset}."
        )
    strategy()  # before TensorFlow does anything else
    run = training.Run(RUN_DIR.value, config())
    keras.utils.set_random_seed(SEED.value)  # the initial weights
    keras.config.set_dtype_policy(PRECISION.value)
    return run


@functools.cache
def strategy() -> "tf.distribute.Strategy":
    """Returns where to train; models are made within its scope."""
    from vhe_tf import distribute

    return distribute.make_strategy(DISTRIBUTION.value)


def config() -> dict[str, Any]:
    """Returns the flags that decide the outcome of a run."""
    by_module = flags.FLAGS.flags_by_module_dict()
    modules = {
        flags.FLAGS.find_module_defining_flag(name)
        for name in ("run_dir", "dataset")  # shared ones, the trainer's own
    }
    own = [flag for module in modules for flag in by_module[module]]
    return {f.name: f.value for f in own if f.name not in _NOT_CONFIG}


def check_groups(run: "training.Run", source: "sources.Source") -> None:
    """Checks that data have the classes that a run began with.

    That those of `--init` were others is told.

    Raises:
        RunError: If they have others.
    """
    from vhe_tf import training

    groups = source.groups_checksum()
    run.check_groups(groups)
    if INIT.value:
        training.tell_other_groups(INIT.value, run.config["dataset"], groups)


def samplers(
    source: "sources.Source",
    *,
    groups: Sequence[str],
    training_seed: int | None = None,
) -> tuple["Episodes", "Episodes"]:
    """Returns the episodes to train and to validate on.

    Args:
        source: The data.
        groups: The groupings to give supports for, in the order of the model's
            latents; some groups of the first are for validation, where the
            data have no validation set.
        training_seed: Decides the episodes to train on; `--seed` by default.
    """
    from vhe_tf import Objective
    from vhe_tf.data import Episodes

    train, validation = source.training_parts(
        groups[0], NUM_VALIDATION_GROUPS.value, seed=SEED.value
    )

    def sampler(data: "GroupedData", seed: int) -> Episodes:
        return Episodes(
            data,
            batch_size=BATCH_SIZE.value,
            support_size=support_size(SUPPORT_SIZE.value),
            resamples=Objective(OBJECTIVE.value).resamples,
            group_latents=groups,
            augmentation=source.augmentation(
                symmetries=SYMMETRIES.value, affine_copies=AFFINE_COPIES.value
            ),
            exclude_query=EXCLUDE_QUERY.value,
            seed=seed,
        )

    if training_seed is None:
        training_seed = SEED.value
    return sampler(train, training_seed), sampler(validation, SEED.value + 1)


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


def image_size(text: str) -> tuple[int, int]:
    """Reads an image size, `40x40` or `48x32`, height first."""
    match = re.fullmatch("([1-9][0-9]*)x([1-9][0-9]*)", text)
    if not match:
        raise ValueError(
            "--image_size must be HEIGHTxWIDTH in pixels, such as 40x40 or "
            f"48x32. Received: {text!r}."
        )
    return int(match[1]), int(match[2])


def image_model(
    architecture: str,
    image_shape: tuple[int, int, int],
    *,
    group: str,
    num_levels: int = 2,
) -> "VHE":
    """Builds and compiles a model of one grouping, as the flags say.

    Args:
        architecture: `"deconvolutional"` or `"pixel_cnn"`.
        image_shape: `(H, W, C)`.
        group: The grouping.
        num_levels: Of a channel.

    Returns:
        The compiled model.
    """
    import vhe_tf

    make = {
        "deconvolutional": vhe_tf.deconvolutional_vhe,
        "pixel_cnn": vhe_tf.pixel_cnn_vhe,
    }[architecture]
    model = make(
        SIZE.value,
        image_shape=image_shape,
        objective=OBJECTIVE.value,
        group=group,
        num_levels=num_levels,
    )
    compile_model(model, character=group)
    return model


def compile_model(model: "VHE", *, character: str) -> None:
    """Compiles a model with the optimizer, and the weights, of the flags.

    Args:
        model: The model.
        character: The latent whose KL may be annealed.

    Raises:
        ValueError: If the weights of `--init` are of another architecture, or
            were trained on classes that this run is tested on, or a batch
            cannot be split as `--distribution` and `--accumulation` say.
    """
    import keras

    import vhe_tf
    from vhe_tf import optimizers
    from vhe_tf import training

    if INIT.value:
        here = config()
        trained = training.check_unseen(INIT.value, here)
        if (
            trained
            and trained["dataset"] == here["dataset"]
            and any(
                trained.get(name, here[name]) != here[name]
                for name in ("seed", "split")
            )
        ):
            print(
                "--init names a run of another --seed or --split: it may have "
                "trained on what this run chooses its best epoch by.",
                flush=True,
            )
        weights = vhe_tf.load_model(INIT.value).get_weights()
        shapes = [weight.shape for weight in weights]
        if shapes != [tuple(v.shape) for v in model.variables]:
            raise ValueError(
                "--init must be a model of the architecture and size that "
                f"this run trains. Received: {INIT.value}."
            )
        model.set_weights(weights)
    num_steps = EPOCHS.value * STEPS_PER_EPOCH.value
    warmup_steps = min(WARMUP_STEPS.value, num_steps // 2)
    model.compile(
        optimizers.AveragingAdam(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                decay_steps=num_steps - warmup_steps,
                warmup_target=LEARNING_RATE.value,
                warmup_steps=warmup_steps,
            ),
            global_clipnorm=CLIP_NORM.value,
            use_ema=EMA.value > 0,
            ema_momentum=EMA.value or None,
        ),
        kl_warmup_steps={character: KL_WARMUP_STEPS.value},
        free_nats={character: FREE_NATS.value},
        accumulation=ACCUMULATION.value,
        jit_compile=JIT_COMPILE.value,
    )


def train_model(
    model: "VHE",
    run: "training.Run",
    train: "Episodes",
    validation: "Episodes",
    monitors: Callable[[], Sequence["keras.callbacks.Callback"]],
) -> None:
    """Trains as the flags say, from where the run was left.

    Args:
        model: The compiled model.
        run: The run.
        train: The episodes to train on.
        validation: The episodes to choose the best model by.
        monitors: Returns the callbacks that measure and picture the run, made
            where they are used: by the chief.
    """
    import vhe_tf.callbacks
    from vhe_tf import distribute
    from vhe_tf import training
    from vhe_tf.models import loading

    with training.failures_end_quietly():
        if distribute.is_chief(strategy()):
            run.begin()
        model.fit(
            train,
            validation_data=validation,
            epochs=EPOCHS.value,
            steps_per_epoch=STEPS_PER_EPOCH.value,
            verbose=0,
            callbacks=[
                *monitors(),
                vhe_tf.callbacks.BestModel(run.best),
                vhe_tf.callbacks.ProgressLine(),
                vhe_tf.callbacks.ExactResume(run.checkpoints),
                vhe_tf.callbacks.Preemption(),
            ],
        )
        if distribute.is_chief(strategy()):
            loading.save_model(model, run.last)


def finish(
    run: "training.Run",
    source: "sources.Source",
    draw: Callable[["VHE"], Mapping[str, "np.ndarray"]],
    *,
    group: str,
    made_pictures: str,
    ways: Sequence[int] = (20,),
    measure: Callable[["VHE", Callable[[str], None]], dict[str, Any]]
    | None = None,
) -> None:
    """Evaluates and pictures the best model, and says what was made.

    The chief's work: other processes are done.

    Args:
        run: The run.
        source: The data.
        draw: Returns the pictures of a model by name.
        group: The grouping whose groups are the classes.
        made_pictures: What the pictures are, for a person.
        ways: As in `report.evaluate`.
        measure: Returns more measurements, by name; called with the model and
            what shows a line of progress.
    """
    import vhe_tf
    from vhe_tf import distribute
    from vhe_tf import training
    from vhe_tf import visualization
    from vhe_tf._utils.progress import status_line
    from vhe_tf.evaluation import report

    if not distribute.is_chief(strategy()):
        return
    with training.mistakes_end_quietly():
        if distribute.has_several_machines(strategy()):
            model = vhe_tf.load_model(run.best)  # the others are done
        else:
            with strategy().scope():
                model = vhe_tf.load_model(run.best)
    with training.failures_end_quietly(), training.what_is_kept_is_told(run):
        for name, grid in draw(model).items():
            visualization.save_png(
                run.pictures / f"{name}.png", grid, ink=source.ink
            )
        with status_line() as progress:
            metrics = report.evaluate(
                model,
                source.test,
                group=group,
                ways=ways,
                num_trials=NUM_TEST_TRIALS.value,
                num_groups=NUM_TEST_GROUPS.value,
                num_samples=NUM_TEST_SAMPLES.value,
                seed=SEED.value,
                progress=progress,
            )
            if source.binarization == "none":
                metrics = report.with_bits(metrics, model.image_shape)
            if source.caveat:
                metrics["caveat"] = source.caveat
            if measure:
                metrics |= measure(model, progress)
        training.write_json(run.folder / "metrics.json", metrics)
    _say_what_was_made(run, model, report.summary_lines(metrics), made_pictures)


def _say_what_was_made(
    run: "training.Run",
    model: "VHE",
    summary: Sequence[str],
    made_pictures: str,
) -> None:
    """Prints what is in the folder of a run, and what to do next."""
    data = f" --data_dir={DATA_DIR.value}" if DATA_DIR.value else ""
    bin_dir = os.path.relpath(os.path.dirname(sys.executable))
    print(f"""
Made in {run.folder}:
  best.keras     the model ({model.count_params():,} parameters)
  metrics.json   how good it is on groups that it has never seen:""")
    for line in summary:
        print(f"                   {line}")
    evaluate = f"trainers/evaluate.py --model {run.best}"
    print(f"""\
  pictures/      {made_pictures}
  tensorboard/   the run over time
Next:
  {bin_dir}/tensorboard --logdir {run.folder}
  {bin_dir}/python {evaluate} --num_trials=20 --num_groups=20{data}
  draw and classify in ten lines of Python: README.md, "Use"
""")
