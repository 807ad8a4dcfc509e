"""The model, episodes and callbacks with which an experiment trains."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.data import check_unseen
from vhe_tf.experiments.data import sees_test_classes
from vhe_tf.experiments.paths import check_path
from vhe_tf.experiments.run import Run
from vhe_tf.experiments.run import record_of
from vhe_tf.experiments.settings import SettingsError

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from vhe_tf.data.datasets import DataSplits
    from vhe_tf.data.episodes import Episodes
    from vhe_tf.experiments.pictures import Draw
    from vhe_tf.models.presets import Preset
    from vhe_tf.models.vhe import VHE

__all__ = [
    "build_model",
    "check_init",
    "compile_model",
    "make_episodes",
    "make_optimizer",
    "monitors",
    "nearest_preset",
    "start",
]

# What TensorBoard's HParams can show. It sorts them by name and selects the
# first five, `affine_copies` to `init`. A reader selects the others.
_HYPERPARAMETERS = (
    "architecture",
    "size",
    "objective",
    "learning_rate",
    "batch_size",
    "epochs",
    "support_size",
    "symmetries",
    "affine_copies",
    "init",
    "seed",
)
_OMNIGLOT_SHAPE = (28, 28, 1)
# The architectures that have another one as their part.
_PARTS = {"alphabet": "deconvolutional", "alphabet_pixel_cnn": "pixel_cnn"}
# Chosen on held-out characters, see docs/drawings.md.
_STYLE_GUIDANCE = 1.0


def start(experiment: Experiment, *, distribution: str = "none") -> Any:
    """Sets Keras up for an experiment; call it before TensorFlow does anything.

    Args:
        experiment: `Experiment`. The experiment.
        distribution: String. See `distribute.make_strategy`. Defaults to
            `"none"`.

    Returns:
        The `tf.distribute.Strategy`. Make the model in its scope.
    """
    import keras

    from vhe_tf import distribute

    strategy: tf.distribute.Strategy = distribute.make_strategy(distribution)
    keras.utils.set_random_seed(experiment.seed)  # the initial weights
    keras.config.set_dtype_policy(experiment.precision)
    return strategy


def check_init(experiment: Experiment) -> None:
    """Checks the weights to start from, before TensorFlow is imported.

    Args:
        experiment: `Experiment`. The experiment.

    Raises:
        SettingsError: If they are of a run of another architecture or size.
        ValueError, OSError: If there is no such model.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> check_init(Experiment(init="omniglot_deconvolutional_small"))
    """
    from vhe_tf.models.presets import model_path

    if experiment.init in (None, "nearest"):
        return
    check_path("--init", experiment.init, kind="model")
    record = record_of(model_path(experiment.init))
    if record is None:
        return
    there, here = record.experiment, experiment
    fitting = (here.architecture, _PARTS.get(here.architecture))
    if there.architecture not in fitting or there.size != here.size:
        raise SettingsError(
            "`init` must be a model of the `architecture` and `size` that this "
            f"run trains, and its run was {there.size} {there.architecture}. "
            "Choose these, or other initial weights.",
            init=here.init,
            architecture=here.architecture,
            size=here.size,
        )


def build_model(experiment: Experiment, splits: "DataSplits") -> "VHE":
    """Builds the model of an experiment, with the weights of `init` if given.

    Args:
        experiment: `Experiment`. The experiment.
        splits: `DataSplits`. Its data.

    Raises:
        ValueError: If the weights of `init` are of another architecture, or
            were trained on classes that this experiment is tested on.
    """
    import vhe_tf
    from vhe_tf.data.datasets import styles

    image_shape = (*splits.image_size, splits.test.image_shape[-1])
    settings: dict[str, Any] = {
        "image_shape": image_shape,
        "objective": experiment.objective,
    }
    if experiment.has_alphabets:
        make_alphabets = {
            "alphabet": vhe_tf.alphabet_vhe,
            "alphabet_pixel_cnn": vhe_tf.alphabet_pixel_cnn_vhe,
        }[experiment.architecture]
        model = make_alphabets(
            experiment.size, groups=experiment.groups, **settings
        )
    elif experiment.architecture == "style":
        content, style = experiment.groups
        model = vhe_tf.style_vhe(
            experiment.size,
            groups=(content, style),
            num_levels=styles.INK_LEVELS,
            guidance=_STYLE_GUIDANCE,
            **settings,
        )
    else:
        make = {
            "deconvolutional": vhe_tf.deconvolutional_vhe,
            "pixel_cnn": vhe_tf.pixel_cnn_vhe,
        }[experiment.architecture]
        if experiment.high_bits:
            settings["high_bits"] = experiment.high_bits
        model = make(
            experiment.size,
            group=experiment.class_group,
            num_levels=experiment.num_levels or 2,
            **settings,
        )
    if experiment.init:
        _initialize(model, experiment)
    return model


def _initialize(model: "VHE", experiment: Experiment) -> None:
    import vhe_tf
    from vhe_tf.models.presets import model_path

    init = experiment.init
    if init == "nearest":
        init = nearest_preset(experiment, model.image_shape)
        if init is None:
            print(_why_random(experiment, model.image_shape), flush=True)
            return
    path = model_path(init or "")
    trained = check_unseen(path, experiment)
    if (
        trained
        and trained.dataset == experiment.dataset
        and (trained.seed, trained.split) != (experiment.seed, experiment.split)
    ):
        print(
            "--init names a run with another --seed or --split: it may have "
            "been trained on the validation groups of this run.",
            flush=True,
        )
    num_copied = _copy_weights(vhe_tf.load_model(path), model)
    if not num_copied:
        raise SettingsError(
            "`init` must be a model of the architecture and size that this run "
            "trains.",
            init=init,
        )
    num_random = len(model.variables) - num_copied
    print(
        f"Initial weights: {init}"
        + (
            f" ({num_random} of {len(model.variables)} random)"
            * bool(num_random)
        )
        + ". --init=none starts from random ones.",
        flush=True,
    )


def _copy_weights(source: "VHE", model: "VHE") -> int:
    """Copies what two models have in common, and returns how many weights.

    That is nothing, unless all weights of the source but those of priors have a
    place in the model: priors of other parents are other networks.
    """
    parts = {latent.name: latent for latent in source.latents}
    targets = {latent.name: latent for latent in model.latents}
    pairs = [(source.likelihood, model.likelihood, True)]
    for name, latent in parts.items():
        if name not in targets:
            return 0
        other = targets[name]
        pairs.append((latent.posterior, other.posterior, True))
        pairs.append((latent.prior, other.prior, False))
    copied = []
    for layer, other, needed in pairs:
        both = list(zip(layer.variables, other.variables, strict=False))
        fits = len(both) == len(layer.variables) and all(
            a.shape == b.shape for a, b in both
        )
        if fits:
            copied += both
        elif needed:
            return 0
    for a, b in copied:
        b.assign(a)
    return len(copied)


def nearest_preset(
    experiment: Experiment, image_shape: Sequence[int]
) -> str | None:
    """Returns the shipped model to start the training of an experiment from.

    It has the architecture, the size and the shape of images of the
    experiment, is a part of this installation, and has not been trained on
    the test classes. Among several, one whose images are of the same recipe is
    preferred.

    Args:
        experiment: `Experiment`. The experiment.
        image_shape: `(H, W, C)` of its images.

    Returns:
        Its name, or None if there is none.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> drawings = Experiment(dataset="glyphs", architecture="pixel_cnn")
    >>> nearest_preset(drawings, (28, 28, 1))
    'omniglot_pixel_cnn_small'
    >>> nearest_preset(drawings, (32, 32, 1))
    """
    return next(
        (p.name for p in _fitting(experiment, image_shape) if p.installed), None
    )


def _fitting(
    experiment: Experiment, image_shape: Sequence[int]
) -> "list[Preset]":
    """Returns the presets to start from, the nearest first."""
    from vhe_tf.models import presets

    found = []
    for preset in presets.presets().values():
        record = record_of(preset.card)
        if record is None:
            continue
        trained = record.experiment
        shape = _OMNIGLOT_SHAPE
        if trained.image_size:
            shape = (*trained.image_size, 3)
        if (
            all(
                getattr(trained, name) == getattr(experiment, name)
                for name in ("architecture", "size", "high_bits", "num_levels")
            )
            and tuple(image_shape) == shape
            and not sees_test_classes(trained, experiment)
        ):
            found.append((trained.images != experiment.images, preset))
    return [p for _, p in sorted(found, key=lambda f: (f[0], f[1].name))]


def _why_random(experiment: Experiment, image_shape: Sequence[int]) -> str:
    """Returns why no preset of this installation gives initial weights."""
    elsewhere = _fitting(experiment, image_shape)
    if elsewhere:
        name = elsewhere[0].name
        return (
            f"Initial weights: random. Those of {name} would fit, but they are "
            "not in the installed package. To start from them, pass --init "
            "with the path of the file in the source of the project: "
            f"saved_models/{name}/best.keras."
        )
    return (
        "Initial weights: random. There is no shipped model with "
        f"--architecture={experiment.architecture}, --size={experiment.size}, "
        f"images of {'x'.join(map(str, image_shape))} and the same levels "
        "(--num_levels, --high_bits) that has not seen the test classes."
    )


def compile_model(
    model: "VHE", experiment: Experiment, *, accumulation: int = 1
) -> None:
    """Compiles a model as an experiment says.

    Args:
        model: `VHE`. The model.
        experiment: `Experiment`. The experiment.
        accumulation: Integer. Number of gradient-accumulation steps per device
            batch. Defaults to 1.
    """
    model.compile(
        make_optimizer(experiment),
        kl_warmup_steps={experiment.class_group: experiment.kl_warmup_steps},
        accumulation=accumulation,
        jit_compile=experiment.jit_compile,
    )


def make_optimizer(experiment: Experiment) -> "keras.optimizers.Optimizer":
    """Returns the optimizer of an experiment, with schedule, clipping, EMA."""
    import keras

    from vhe_tf import optimizers

    num_steps = experiment.epochs * experiment.steps_per_epoch
    warmup_steps = min(experiment.warmup_steps, num_steps // 2)
    return optimizers.AveragingAdam(
        keras.optimizers.schedules.CosineDecay(
            0.0,
            decay_steps=num_steps - warmup_steps,
            warmup_target=experiment.learning_rate,
            warmup_steps=warmup_steps,
        ),
        global_clipnorm=experiment.clip_norm,
        use_ema=experiment.ema > 0,
        ema_momentum=experiment.ema or None,
    )


def make_episodes(
    model: "VHE",
    experiment: Experiment,
    *,
    splits: "DataSplits",
    seed: int | None = None,
) -> tuple["Episodes", "Episodes"]:
    """Returns the episodes to train and to validate a model on.

    Args:
        model: `VHE`. The model.
        experiment: `Experiment`. The experiment.
        splits: `DataSplits`. Its data.
        seed: Integer. Random seed of the training episodes. Defaults to that
            of the experiment.
    """
    from vhe_tf.data import Episodes

    parts = splits.training_parts(
        experiment.groups[0],
        experiment.num_validation_groups,
        seed=experiment.seed,
    )
    seeds = (
        experiment.seed if seed is None else seed,
        experiment.seed + 1,
    )
    training, validation = (
        Episodes.for_model(
            model,
            data,
            batch_size=experiment.batch_size,
            support_size=experiment.support_size,
            augmentation=splits.augmentation(
                symmetries=experiment.symmetries,
                affine_copies=experiment.affine_copies,
            ),
            seed=of_part,
            validation=validation,
        )
        for data, of_part, validation in zip(
            parts, seeds, (False, True), strict=True
        )
    )
    return training, validation


def monitors(
    experiment: Experiment, run: Run, *, splits: "DataSplits", draw: "Draw"
) -> list["keras.callbacks.Callback"]:
    """Returns the callbacks that measure and picture a run while it trains.

    Args:
        experiment: `Experiment`. The experiment.
        run: `Run`. Its run.
        splits: `DataSplits`. Its data.
        draw: Callable. Returns the pictures of a model by name, such as
            `pictures.painter`.
    """
    from vhe_tf import callbacks

    return [
        *_measuring(experiment, splits),
        callbacks.Scalars(
            run.tensorboard,
            _hyperparameters(experiment),
            name=run.folder.resolve().name,
        ),
        # Apart: TensorBoard follows one event file per folder.
        callbacks.ImageGrids(
            pathlib.Path(run.tensorboard, "pictures"), draw, ink=splits.ink
        ),
    ]


def _hyperparameters(experiment: Experiment) -> dict[str, Any]:
    """Returns the settings that matter most; `config.json` has all."""
    settings = experiment.to_json()
    return {k: settings[k] for k in _HYPERPARAMETERS if k in settings}


def _measuring(
    experiment: Experiment, splits: "DataSplits"
) -> list["keras.callbacks.Callback"]:
    from vhe_tf import callbacks

    group = experiment.class_group
    few: dict[str, Any] = {}
    if experiment.architecture in ("pixel_cnn", "alphabet_pixel_cnn"):
        # It takes far longer to score an image.
        few = {"num_tasks": 4, "num_samples": 3}
        if splits.num_levels:
            few = {"num_tasks": 2, "num_samples": 2}
    elif experiment.architecture == "style":
        few = {"shots": [1], "num_tasks": 4, "num_samples": 3}
    found: list[Any] = [
        callbacks.FewShotAccuracy(splits.test, group=group, **few)
    ]
    if experiment.has_alphabets:
        alphabet, character = experiment.groups
        found.append(
            callbacks.FewShotAccuracy(
                splits.test,
                group=alphabet,
                spread=character,
                num_ways=10,
                **(few | {"shots": [5]}),
            )
        )
    elif splits.binarization != "none":
        found.append(callbacks.Likelihoods(splits.test, group=group, every=5))
    return found
