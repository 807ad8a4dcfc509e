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

Images that do not fit in memory, as records (vhe_tf.data.RecordedImages):

    python trainers/omniglot.py --dataset=records --data_dir=DIR --run_dir=...

A run that was stopped, however rudely, goes on when the same command is
started again, and ends with the same weights. Follow it with `tensorboard
--logdir runs`. One flagfile a row of the paper's tables is in
trainers/flagfiles; use it with --flagfile.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import common
from absl import app
from absl import flags

if TYPE_CHECKING:
    import keras

    from vhe_tf import callbacks
    from vhe_tf import training
    from vhe_tf.data import sources

flags.adopt_module_key_flags(common)  # --help shows them too
_DATASET = flags.DEFINE_enum(
    "dataset",
    "omniglot",
    ["omniglot", "glyphs", "folder", "records"],
    "omniglot, the embedded glyphs, or your own images: a folder of them, or "
    "records.",
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt",
    False,
    "For records: read all once and go on without those that cannot be read.",
)
_IMAGES = flags.DEFINE_enum(
    "images",
    "binary",
    ["binary", "grey"],
    "Image recipe: binary is that of Tables 3 and 4 (fixed binary images); "
    "grey that of Tables 1 and 2 (dynamically binarised). For all but "
    "omniglot, binary thresholds at one half.",
)
_ARCHITECTURE = flags.DEFINE_enum(
    "architecture",
    "deconvolutional",
    ["deconvolutional", "pixel_cnn"],
    "The architecture of the paper (Section 4.1).",
)

_IMAGE_SIZE = flags.DEFINE_string(
    "image_size",
    None,
    "For folder: HEIGHTxWIDTH to resize to, such as 48x32; 28x28 by default, "
    "the size of the others. Not square, it needs --symmetries=2 or 1.",
)

_GROUP = "character"


def main(argv: Sequence[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    common.check_arguments(argv)
    # Imported after the flags are read: --help and mistakes answer at once.
    from vhe_tf import training

    with training.mistakes_end_quietly():
        run = common.new_run()
        source = load_data()
        common.check_groups(run, source)
        train, validation = common.samplers(source, groups=[_GROUP])
        with common.strategy().scope():
            model = common.image_model(
                _ARCHITECTURE.value, train.image_shape, group=_GROUP
            )
        cues = make_cues(source)
    common.train_model(
        model, run, train, validation, lambda: monitors(run, source, cues)
    )
    common.finish(
        run,
        source,
        cues.grids,
        group=_GROUP,
        made_pictures="conditional.png: 1 cue and samples, 5 and samples;\n"
        "                 reconstruction.png; unconditional.png",
    )


def load_data() -> "sources.Source":
    """Loads the data set of the flags."""
    from vhe_tf.data import sources

    return sources.load_source(
        _DATASET.value,
        data_dir=common.DATA_DIR.value,
        split=common.SPLIT.value,
        images=_IMAGES.value,
        image_size=common.image_size(_IMAGE_SIZE.value)
        if _IMAGE_SIZE.value
        else None,
        skip_corrupt=_SKIP_CORRUPT.value,
        seed=common.SEED.value,
    )


def make_cues(source: "sources.Source") -> "callbacks.PreviewBatch":
    """Chooses the images of unseen characters that every picture shows."""
    from vhe_tf import callbacks

    return callbacks.preview_batch(
        source.test, group=_GROUP, seed=common.SEED.value
    )


def monitors(
    run: "training.Run",
    source: "sources.Source",
    cues: "callbacks.PreviewBatch",
) -> list["keras.callbacks.Callback"]:
    """Returns the callbacks that measure and picture the run."""
    from vhe_tf import callbacks

    few_tasks: dict[str, Any] = {}
    if _ARCHITECTURE.value == "pixel_cnn":
        # It takes far longer to score an image.
        few_tasks = {"num_tasks": 4, "num_samples": 3}
    return [
        callbacks.FewShotAccuracy(source.test, group=_GROUP, **few_tasks),
        callbacks.Likelihoods(source.test, group=_GROUP, every=5),
        callbacks.Scalars(run.tensorboard, run.config),
        # Apart: TensorBoard follows one event file a folder.
        callbacks.ImageGrids(run.tensorboard / "pictures", cues.grids),
    ]


if __name__ == "__main__":
    app.run(main)
