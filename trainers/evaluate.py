"""Measures a trained model on characters that it has never seen.

    python trainers/evaluate.py --model runs/quickstart/best.keras

Few-shot accuracy, joint NLL and conditional NLL by shots, with 95% intervals;
written beside the model as evaluation.json. The data set is that of the run in
whose folder the model lies, unless flags say otherwise. Lake's twenty one-shot
runs are measured too where --lake_runs names them.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import app
from absl import flags
from absl import logging

_MODEL = flags.DEFINE_string(
    "model", None, "The .keras file, such as runs/x/best.keras.", required=True
)
_OUT = flags.DEFINE_string(
    "out", None, "Where the report goes; evaluation.json beside the model."
)
_DATASET = flags.DEFINE_enum(
    "dataset",
    None,
    ["omniglot", "glyphs", "youtube_faces", "folder"],
    "Default: that of the model's run.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "For omniglot and youtube_faces: a TensorFlow Datasets folder where they "
    "are prepared. For folder: the folder.",
)
_SPLIT = flags.DEFINE_string("split", None, "Default: that of the model's run.")
_IMAGES = flags.DEFINE_enum(
    "images", None, ["binary", "grey"], "Default: that of the model's run."
)
_NUM_WAYS = flags.DEFINE_integer("num_ways", 20, "Classes in a task.")
_SHOTS = flags.DEFINE_list("shots", ["1", "5"], "Images a class in a task.")
_NUM_TRIALS = flags.DEFINE_integer(
    "num_trials", 200, "Tasks, with one query a class."
)
_WITHIN = flags.DEFINE_string(
    "within",
    "alphabet",
    "Classify within the groups of this grouping as well, where the data have "
    "it.",
)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 20, "Draws from q(c; D) to classify; 20 in the paper."
)
_NUM_ELEMENT_SAMPLES = flags.DEFINE_integer(
    "num_element_samples", 1, "Draws of z for each draw of c."
)
_JOINT_NUM_SAMPLES = flags.DEFINE_integer(
    "joint_num_samples", 500, "Draws of c in the joint NLL; 500 in the paper."
)
_NUM_GROUPS = flags.DEFINE_integer(
    "num_groups", None, "Groups in the joint NLL; all by default."
)
_LAKE_RUNS = flags.DEFINE_string(
    "lake_runs", None, "all_runs.zip of Lake et al., or its unpacked folder."
)
_MAX_DECODED = flags.DEFINE_integer(
    "max_decoded", 2000, "Images decoded at once: what bounds the memory."
)
_SEED = flags.DEFINE_integer("seed", 0, "Decides everything random.")


def main(argv: Sequence[str]) -> None:
    """Loads, measures, writes and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    import vhe_tf
    from vhe_tf import training
    from vhe_tf.data import sources
    from vhe_tf.evaluation import classification
    from vhe_tf.evaluation import report
    from vhe_tf.progress import status_line

    path = pathlib.Path(_MODEL.value)
    with training.mistakes_end_quietly():
        model = vhe_tf.load_model(path)
        source = sources.load_again(
            data_settings(path), data_dir=_DATA_DIR.value
        )
    with status_line() as progress:
        metrics = report.evaluate(
            model,
            source.test,
            group=source.group,
            ways=[_NUM_WAYS.value],
            shots=[int(shots) for shots in _SHOTS.value],
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
    metrics["model"] = str(path)
    out = pathlib.Path(_OUT.value or path.with_name("evaluation.json"))
    training.write_json(out, metrics)
    for line in report.summary_lines(metrics):
        print(line)
    print(f"written to {out}")


def data_settings(model: pathlib.Path) -> dict[str, Any]:
    """Returns which data to use: the flags, else what the run trained on.

    The seed is the run's always: it decides which classes are unseen.
    """
    from vhe_tf import training

    flagged = {
        "dataset": _DATASET.value,
        "split": _SPLIT.value,
        "images": _IMAGES.value,
    }
    chosen = {name: value for name, value in flagged.items() if value}
    settings = training.data_settings(model)
    for name in sorted(set(chosen).difference(settings)):
        raise ValueError(
            f"--{name} chooses among black and white drawings; leave it off "
            f"for a model of coloured ones. Received: --{name}={chosen[name]}."
        )
    return {**settings, **chosen}


if __name__ == "__main__":
    app.run(main)
