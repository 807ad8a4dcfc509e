"""The named experiments: each row of the paper's tables, each shipped model."""

import dataclasses
import difflib
from collections.abc import Mapping

from vhe_tf.experiments.config import Evaluation
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.config import override

__all__ = ["EVALUATIONS", "EXPERIMENTS", "get"]

_ARCHITECTURES = ("deconvolutional", "pixel_cnn")
_OBJECTIVES = ("neural_statistician", "resample", "rescale", "vhe")

_with = dataclasses.replace


def _defaults() -> dict[str, Experiment]:
    """Returns one experiment for each architecture and kind of data."""
    omniglot = Experiment()
    alphabets = _with(
        omniglot,
        architecture="alphabet",
        support_size=(1, 5),
        # A character with copies would be one of few in its alphabet.
        affine_copies=1,
        num_validation_groups=3,
    )
    styles = override(
        omniglot,
        architecture="style",
        support_size=(1, 5),
        affine_copies=1,
        batch_size=16,
    )
    faces = Experiment(
        dataset="youtube_faces",
        # A mirrored person is another person; a face upside down is none.
        symmetries=2,
        affine_copies=1,
    )
    return {
        "omniglot": omniglot,
        "omniglot_alphabets": alphabets,
        "omniglot_styles": styles,
        "youtube_faces": faces,
        "own_images": Experiment(
            dataset="folder",
            architecture="pixel_cnn",
            init="nearest",
            support_size=(1, 5),
            # A letter that is mirrored may be another letter.
            symmetries=1,
            batch_size=16,
            warmup_steps=100,
            ema=0.99,
            epochs=8,
            steps_per_epoch=300,
        ),
        "own_photographs": Experiment(
            dataset="folder", images="colour", symmetries=2, affine_copies=1
        ),
        "quickstart": Experiment(
            dataset="glyphs",
            architecture="pixel_cnn",
            init="omniglot_pixel_cnn_small",
            support_size=(1, 5),
            symmetries=1,
            affine_copies=4,
            batch_size=16,
            epochs=3,
            steps_per_epoch=200,
            learning_rate=5e-4,
            warmup_steps=50,
            ema=0.99,
            num_validation_groups=40,
        ),
    }


def _tables() -> dict[str, Experiment]:
    """Returns the rows of the tables, each at both budgets."""
    named = {}
    classification = Experiment(
        split="random1200",
        images="grey",
        size="published",
        epochs=200,
        steps_per_epoch=1000,
    )
    alphabets = _with(
        classification, split="lake", images="binary", support_size=(1, 5)
    )
    likelihood = _with(
        classification,
        split="lake",
        images="binary",
        symmetries=1,
        affine_copies=1,
        epochs=100,
    )
    for architecture in _ARCHITECTURES:
        for objective in _OBJECTIVES:
            of = {"architecture": architecture, "objective": objective}
            name = f"{architecture}_{objective}"
            named[f"table1_{name}"] = _with(classification, **of)
            named[f"table3_{name}"] = _with(likelihood, **of)
        named[f"table2_{architecture}_vhe_alphabets"] = _with(
            alphabets, architecture=architecture
        )
    named["table2_pixel_cnn_vhe_1shot"] = _with(
        classification, architecture="pixel_cnn", support_size=(1, 1)
    )
    return named | {f"{name}_cpu": _for_cpu(e) for name, e in named.items()}


def _for_cpu(experiment: Experiment) -> Experiment:
    small = _with(
        experiment,
        size="small",
        epochs=9 if experiment.affine_copies == 1 else 10,
    )
    if small.architecture == "pixel_cnn":
        small = _with(small, batch_size=16, ema=0.999)
    return small


def _omniglot(defaults: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """Returns the shipped models, and others for two cores."""
    small = _with(
        defaults["omniglot"],
        architecture="pixel_cnn",
        support_size=(1, 5),
        batch_size=16,
        ema=0.999,
        epochs=20,
        steps_per_epoch=2000,
    )
    large = _with(
        small, size="large", batch_size=64, epochs=38, steps_per_epoch=1000
    )
    random1200 = _with(
        small, split="random1200", images="grey", steps_per_epoch=1000
    )
    return {
        "omniglot_deconvolutional_small": _with(
            defaults["omniglot"],
            support_size=(1, 10),
            epochs=22,
            steps_per_epoch=1000,
        ),
        "omniglot_pixel_cnn_small": small,
        "omniglot_pixel_cnn_small_random1200": _with(random1200, epochs=30),
        "omniglot_pixel_cnn_large": large,
        "omniglot_pixel_cnn_large_random1200": _with(
            large, split="random1200", images="grey", epochs=48
        ),
        "omniglot_pixel_cnn_published_random1200": _with(
            random1200, size="published", batch_size=64, epochs=45
        ),
        **_omniglot_likelihoods(small),
    }


def _omniglot_likelihoods(small: Experiment) -> dict[str, Experiment]:
    """Returns models without augmentation, and those of the mechanism."""
    likelihood = _with(
        small,
        support_size=(5, 5),
        symmetries=1,
        affine_copies=1,
        epochs=9,
        steps_per_epoch=1000,
    )
    mechanism = _with(
        small,
        support_size=(5, 5),
        ema=0.998,
        epochs=3,
        steps_per_epoch=1000,
    )
    return {
        "omniglot_pixel_cnn_small_likelihood_from_scratch": likelihood,
        # Starts from the weights of the classifier, whose pose is in use.
        "omniglot_pixel_cnn_small_likelihood": _with(
            likelihood,
            init="saved_models/omniglot_pixel_cnn_small/best.keras",
            learning_rate=7e-4,
            epochs=16,
        ),
        "omniglot_pixel_cnn_published_likelihood": _with(
            likelihood, size="published", batch_size=64, epochs=16
        ),
        **{
            f"mechanism_pixel_cnn_{objective}": _with(
                mechanism, objective=objective
            )
            for objective in _OBJECTIVES
        },
    }


def _structures(defaults: Mapping[str, Experiment]) -> dict[str, Experiment]:
    """Returns the models with two group latents."""
    styles = _with(
        defaults["omniglot_styles"], epochs=12, steps_per_epoch=1000, ema=0.999
    )
    alphabets = _with(
        defaults["omniglot_alphabets"], steps_per_epoch=1000, epochs=5
    )
    return {
        "omniglot_styles_small_first": _with(styles, kl_warmup_steps=2000),
        # The character is learned long after the style.
        "omniglot_styles_small_second": _with(
            styles,
            init="runs/omniglot_styles_small_first/best.keras",
            epochs=18,
        ),
        # It is to draw upright characters.
        "omniglot_styles_small": _with(
            styles,
            init="runs/omniglot_styles_small_second/best.keras",
            symmetries=1,
            warmup_steps=200,
            epochs=20,
        ),
        "omniglot_alphabets_small": alphabets,
        # Starts from the weights of the model without alphabets.
        "omniglot_alphabets_pixel_cnn_small": _with(
            alphabets,
            architecture="alphabet_pixel_cnn",
            init="omniglot_pixel_cnn_small",
            batch_size=16,
            ema=0.999,
            learning_rate=5e-4,
            epochs=6,
        ),
        "omniglot_alphabets_published": _with(
            alphabets, size="published", epochs=100
        ),
    }


def _faces(base: Experiment) -> dict[str, Experiment]:
    """Returns the rows of Table 5, each at both budgets.

    The public subset has three frames per video, which affine copies make 48 at
    the small budget. The published one is for the complete archive.
    """
    base = _with(
        base,
        group="video",
        clip_norm=1000.0,
        warmup_steps=300,
        num_validation_groups=20,
    )
    deconvolutional = _with(
        base, batch_size=16, learning_rate=5e-4, ema=0.999, steps_per_epoch=500
    )
    # The higher bits first and a KL that is warmed up slowly: it learns to use
    # c, with all levels at once it hardly does.
    pixel_cnn = _with(
        base,
        architecture="pixel_cnn",
        high_bits=3,
        batch_size=8,
        learning_rate=4e-3,
        kl_warmup_steps=800,
        steps_per_epoch=400,
    )
    named = {}
    for of, epochs in ((deconvolutional, 6), (pixel_cnn, 15)):
        for objective in ("neural_statistician", "vhe"):
            name = f"youtube_faces_{of.architecture}_{objective}_videos"
            with_it = _with(of, objective=objective)
            if of.high_bits and objective == "neural_statistician":
                # Its KL, which is not divided by |X|, diverges at 4e-3.
                with_it = _with(with_it, learning_rate=1e-3)
            named[f"{name}_small"] = _with(
                with_it, support_size=(1, 5), affine_copies=16, epochs=epochs
            )
            named[f"{name}_published"] = _with(
                with_it, size="published", epochs=100
            )
    # The shipped model.
    shipped = named["youtube_faces_pixel_cnn_vhe_videos_small"]
    return named | {"youtube_faces_pixel_cnn_small": shipped}


_DEFAULTS = _defaults()

EXPERIMENTS: dict[str, Experiment] = {
    **_DEFAULTS,
    **_omniglot(_DEFAULTS),
    **_structures(_DEFAULTS),
    **_tables(),
    **_faces(_DEFAULTS["youtube_faces"]),
}

# How a run is measured at its end, if not by the defaults of `Evaluation`.
EVALUATIONS: dict[str, Evaluation] = {
    "quickstart": Evaluation(10, 5, 5),
    "own_images": Evaluation(20, 10),
    "omniglot_deconvolutional_small": Evaluation(100, 100),
    "omniglot_alphabets_pixel_cnn_small": Evaluation(15, 10),
    **dict.fromkeys(
        (
            "omniglot_pixel_cnn_large",
            "omniglot_pixel_cnn_large_random1200",
            "omniglot_pixel_cnn_published_random1200",
            "omniglot_pixel_cnn_small",
            "omniglot_pixel_cnn_small_random1200",
        ),
        Evaluation(20, 10),
    ),
    **dict.fromkeys(
        (
            "omniglot_pixel_cnn_published_likelihood",
            "omniglot_pixel_cnn_small_likelihood",
            "omniglot_pixel_cnn_small_likelihood_from_scratch",
        ),
        Evaluation(5, 10),
    ),
    **{
        name: Evaluation(5, 5)
        for name in EXPERIMENTS
        if name.startswith("mechanism_")
    },
    **{
        name: Evaluation(10, 20, 5)
        if experiment.architecture == "deconvolutional"
        else Evaluation(3, 10, 5)
        for name, experiment in EXPERIMENTS.items()
        if name.startswith("youtube_faces_")
    },
}


def get(name: str) -> Experiment:
    """Returns an experiment by name.

    Raises:
        ValueError: If there is none of that name.

    Example:
    >>> get("omniglot_pixel_cnn_small").steps_per_epoch
    2000
    """
    if name not in EXPERIMENTS:
        near = difflib.get_close_matches(name, EXPERIMENTS, n=3)
        raise ValueError(
            "There is no experiment of that name. "
            + (
                f"Did you mean {' or '.join(near)}? "
                if near
                else "`vhe-tf list` prints them. "
            )
            + f"Received: {name!r}."
        )
    return EXPERIMENTS[name]
