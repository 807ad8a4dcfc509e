"""Measures a trained model on characters that it has never seen.

    python trainers/evaluate.py --model runs/quickstart/best.keras

Few-shot accuracy, joint NLL and conditional NLL by shots, with 95% intervals;
written beside the model as evaluation.json. The data set is that of the run in
whose folder the model lies, unless flags say otherwise. Lake's twenty one-shot
runs are measured too where --lake_runs names them, and the KL of Table 1 where
--num_kl_batches asks for it.
"""

import json
import os
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from absl import app
from absl import flags
from absl import logging

if TYPE_CHECKING:
    from vhe_tf import VHE
    from vhe_tf.data import Episodes
    from vhe_tf.data import sources

_MODEL = flags.DEFINE_string(
    "model", None, "The .keras file, such as runs/x/best.keras.", required=True
)
_OUT = flags.DEFINE_string(
    "out", None, "Where the report goes; evaluation.json beside the model."
)
_DATASET = flags.DEFINE_enum(
    "dataset",
    None,
    ["omniglot", "glyphs", "youtube_faces", "folder", "records"],
    "Default: that of the model's run.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "For omniglot and youtube_faces: a TensorFlow Datasets folder where they "
    "are prepared. For folder and records: the folder.",
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt", False, "For records: leave out those that cannot be read."
)
_SPLIT = flags.DEFINE_string(
    "split", None, "Of omniglot; default: that of the model's run."
)
_IMAGES = flags.DEFINE_enum(
    "images", None, ["binary", "grey"], "Default: that of the model's run."
)
_NUM_WAYS = flags.DEFINE_integer(
    "num_ways", 20, "Classes in a task.", lower_bound=1
)
_SHOTS = flags.DEFINE_list(
    "shots",
    ["1", "5"],
    "Images a class in a task; fewer where a class has no more and a query.",
)
_NUM_TRIALS = flags.DEFINE_integer(
    "num_trials", 200, "Tasks, with one query a class.", lower_bound=1
)
_WITHIN = flags.DEFINE_string(
    "within",
    "alphabet",
    "Classify within the groups of this grouping as well, where the data have "
    "it.",
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples",
    20,
    "Draws from q(c; D) to classify; 20 in the paper.",
    lower_bound=1,
)
_NUM_ELEMENT_SAMPLES = flags.DEFINE_integer(
    "num_element_samples", 1, "Draws of z for each draw of c.", lower_bound=1
)
_JOINT_NUM_SAMPLES = flags.DEFINE_integer(
    "joint_num_samples",
    500,
    "Draws of c in the joint NLL; 500 in the paper.",
    lower_bound=1,
)
_NUM_GROUPS = flags.DEFINE_integer(
    "num_groups",
    None,
    "Groups in the joint NLL; all by default.",
    lower_bound=1,
)
_LAKE_RUNS = flags.DEFINE_string(
    "lake_runs", None, "all_runs.zip of Lake et al., or its unpacked folder."
)
_NUM_KL_BATCHES = flags.DEFINE_integer(
    "num_kl_batches",
    0,
    "Batches of the model's training episodes on which to measure the KL of "
    "each group latent (Table 1); 0 for none.",
    lower_bound=0,
)
_KL_SUPPORT_SIZE = flags.DEFINE_integer(
    "kl_support_size",
    None,
    "Images in D for that KL, 5 in Table 1; default: as the model's run.",
    lower_bound=1,
)
_MAX_DECODED = flags.DEFINE_integer(
    "max_decoded",
    2000,
    "Images that a device decodes at once: what bounds the memory.",
    lower_bound=1,
)
_DISTRIBUTION = flags.DEFINE_enum(
    "distribution",
    "none",
    ["none", "mirrored"],
    "Where to measure: on one device; or on all GPUs of this machine, each of "
    "which takes its share of tasks, groups and batches. The numbers are the "
    "same to rounding.",
)
# Data sets whose images are resized as they are loaded.
_OF_ANY_SIZE = ("folder", "youtube_faces")

_SEED = flags.DEFINE_integer(
    "seed", 0, "Decides everything random.", lower_bound=0
)


def main(argv: Sequence[str]) -> None:
    """Loads, measures, writes and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    import vhe_tf
    from vhe_tf import distribute
    from vhe_tf import training
    from vhe_tf._utils.progress import status_line
    from vhe_tf.data import sources
    from vhe_tf.data.datasets import omniglot
    from vhe_tf.evaluation import classification
    from vhe_tf.evaluation import report

    path = pathlib.Path(_MODEL.value)
    out = pathlib.Path(_OUT.value or path.with_name("evaluation.json"))
    # Whatever may be wrong comes first: measuring takes minutes to hours.
    with training.mistakes_end_quietly():
        shots = shots_of(_SHOTS.value)
        if _KL_SUPPORT_SIZE.value and not _NUM_KL_BATCHES.value:
            raise ValueError(
                "--kl_support_size is of --num_kl_batches, which must be "
                "positive then. Received: --num_kl_batches=0."
            )
        if _NUM_KL_BATCHES.value and not path.with_name("config.json").exists():
            raise FileNotFoundError(
                "--num_kl_batches measures on the training episodes of the "
                f"model's run; {path} has no config.json of a run beside it. "
                "Leave it off, or put the file there."
            )
        # Before TensorFlow does anything else.
        with distribute.make_strategy(_DISTRIBUTION.value).scope():
            model = vhe_tf.load_model(path)
        settings = data_settings(path)
        source = sources.load_again(
            settings,
            data_dir=_DATA_DIR.value,
            skip_corrupt=_SKIP_CORRUPT.value,
        )
        training.tell_other_groups(
            path, settings["dataset"], source.groups_checksum()
        )
        classification.check_shape(model, source.test.image_shape)
        if _LAKE_RUNS.value:
            omniglot.lake_runs(_LAKE_RUNS.value)
        if _NUM_KL_BATCHES.value:
            sampler = training_sampler(
                model,
                path,
                source,
                support_size=_KL_SUPPORT_SIZE.value,
                seed=_SEED.value,
            )
        out.parent.mkdir(parents=True, exist_ok=True)
    with training.failures_end_quietly(), status_line() as progress:
        metrics = report.evaluate(
            model,
            source.test,
            group=source.group,
            ways=[_NUM_WAYS.value],
            shots=shots,
            num_trials=_NUM_TRIALS.value,
            within=_WITHIN.value
            if _WITHIN.value in source.test.labels
            else None,
            num_groups=_NUM_GROUPS.value,
            num_samples=_NUM_SAMPLES.value,
            num_element_samples=_NUM_ELEMENT_SAMPLES.value,
            joint_num_samples=_JOINT_NUM_SAMPLES.value,
            max_decoded=_MAX_DECODED.value,
            seed=_SEED.value,
            progress=progress,
        )
        if source.binarization == "none":
            metrics = report.with_bits(metrics, model.image_shape)
        if _LAKE_RUNS.value:
            metrics["accuracy"]["20way_1shot_lake_runs"] = report.lake_runs(
                classification.ClassScorer(
                    model,
                    group=source.group,
                    num_samples=_NUM_SAMPLES.value,
                    num_element_samples=_NUM_ELEMENT_SAMPLES.value,
                    max_decoded=_MAX_DECODED.value,
                ),
                _LAKE_RUNS.value,
                progress=progress,
            )
        if _NUM_KL_BATCHES.value:
            metrics["training_kl"] = training_kl(
                model,
                sampler,
                num_batches=_NUM_KL_BATCHES.value,
                progress=progress,
            )
        if source.caveat:
            metrics["caveat"] = source.caveat
        metrics["model"] = str(path)
        training.write_json(out, metrics)
    for line in report.summary_lines(metrics):
        print(line)
    print(f"written to {out}")


def shots_of(values: Sequence[str]) -> list[int]:
    """Reads numbers of shots.

    Raises:
        ValueError: If one is no positive number.
    """
    if not all(value.isdecimal() and int(value) for value in values):
        raise ValueError(
            "--shots must be positive numbers, such as 1,5, or none at all. "
            f"Received: --shots={','.join(values)}."
        )
    return [int(value) for value in values]


def data_settings(model: pathlib.Path) -> dict[str, Any]:
    """Returns which data to use: the flags, else what the run trained on.

    The seed is the run's always: it decides which classes are unseen.

    Raises:
        ValueError: If the flags are for other images, or the run trained on
            classes that are tested on.
    """
    from vhe_tf import training

    flagged = {
        "dataset": _DATASET.value,
        "split": _SPLIT.value,
        "images": _IMAGES.value,
    }
    chosen = {name: value for name, value in flagged.items() if value}
    settings = training.data_settings(model)
    dataset = chosen.get("dataset", settings["dataset"])
    if _SPLIT.value and dataset != "omniglot":
        raise ValueError(
            "--split is of Omniglot; leave it off. "
            f"Received: --split={_SPLIT.value} with dataset={dataset!r}."
        )
    if dataset != settings["dataset"] and dataset not in _OF_ANY_SIZE:
        settings.pop("image_size", None)  # the data's own, not to be chosen
    for name in sorted(set(chosen).difference(settings)):
        raise ValueError(
            f"--{name} chooses among black and white drawings; leave it off "
            f"for a model of coloured ones. Received: --{name}={chosen[name]}."
        )
    settings |= chosen
    if training.check_unseen(model, settings) and _LAKE_RUNS.value:
        # Of characters of the evaluation set.
        lake = {"dataset": "omniglot", "split": "lake", "seed": 0}
        training.check_unseen(model, lake)
    return settings


def training_sampler(
    model: "VHE",
    path: pathlib.Path,
    source: "sources.Source",
    *,
    support_size: int | None = None,
    seed: int = 0,
) -> "Episodes":
    """Returns episodes of the groups that a model's run trained on.

    With the settings of the run.

    Args:
        model: The model.
        path: Its file, beside the `config.json` of its run.
        source: The data of its run.
        support_size: Images in D; by default as many as in the run, over all
            its range also where a run under JAX drew some of these alone.
        seed: Decides the episodes.

    Raises:
        FileNotFoundError: If there is no `config.json`.
        ValueError: If groups are too small for that support.
    """
    from vhe_tf.data import Episodes

    run = json.loads(path.with_name("config.json").read_text("utf-8"))
    latents = [v.name for v in model.latents if not v.per_element]
    train, _ = source.training_parts(
        latents[0], run["num_validation_groups"], seed=run["seed"]
    )
    low, dash, high = str(support_size or run["support_size"]).partition("-")
    return Episodes(
        train,
        batch_size=run["batch_size"],
        support_size=(int(low), int(high)) if dash else int(low),
        resamples=model.objective.resamples,
        group_latents=latents,
        augmentation=source.augmentation(
            symmetries=run["symmetries"], affine_copies=run["affine_copies"]
        ),
        exclude_query=run["exclude_query"],
        seed=seed,
    )


def training_kl(
    model: "VHE",
    sampler: "Episodes",
    *,
    num_batches: int,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Estimates the KL of each group latent on the training set (Table 1).

    Args:
        model: The model.
        sampler: As `training_sampler` makes it.
        num_batches: How many batches; a batch is a trial of the interval.
        progress: Called with a line of text from time to time.

    Returns:
        By latent, `KL[q(c; D) || p(c)]` before any sharing, nats, with the
        fewest and the most images in D.
    """
    import numpy as np
    import tensorflow as tf

    from vhe_tf.evaluation.estimates import estimate

    latents = [v.name for v in model.latents if not v.per_element]
    kl = tf.function(lambda episode: model(episode).kl, reduce_retracing=True)
    values: dict[str, list[float]] = {name: [] for name in latents}
    for index, episode in enumerate(sampler.dataset().take(num_batches)):
        terms = kl(episode)
        for name in latents:
            values[name].append(float(tf.reduce_mean(terms[name])))
        if progress:
            progress(f"training KL: batch {index + 1} of {num_batches}")
    estimates = {name: estimate(np.array(values[name])) for name in latents}
    return {
        name: {
            "mean": value.mean,
            "half_width_95": value.half_width if num_batches > 1 else None,
            "num_trials": value.num_trials,
            "support_sizes": [sampler.min_support, sampler.max_support],
            "unit": "nats",
        }
        for name, value in estimates.items()
    }


if __name__ == "__main__":
    app.run(main)
