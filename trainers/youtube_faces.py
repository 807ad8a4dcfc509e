"""Trains, evaluates and pictures a VHE on photographs (Section 4.2).

YouTube Faces, in colour at 40x40, from the folder that holds
aligned_images_DB.tar.gz (once prepared in --data_dir, that alone will do):

    python trainers/youtube_faces.py --manual_dir=DIR --run_dir=runs/faces

Photographs of your own, a class a folder (DIR/class/*.jpg), of any size:

    python trainers/youtube_faces.py --dataset=folder --data_dir=DIR \
        --image_size=48x32 --run_dir=runs/mine

or, where they do not fit in memory, as records (vhe_tf.data.RecordedImages):

    python trainers/youtube_faces.py --dataset=records --data_dir=DIR \
        --run_dir=runs/mine

Pixels have 256 levels a channel, or --num_levels: those of the PixelCNN are a
distribution over levels, and those of the deconvolutional model Gaussian, a
density in levels.
See omniglot.py for runs that are stopped and go on.

--group=video makes classes of the videos of YouTube Faces; where each has few
frames, as in a subset, --affine_copies makes the large sets that VHE needs.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import common
from absl import app
from absl import flags

if TYPE_CHECKING:
    import keras
    import numpy as np

    from vhe_tf import VHE
    from vhe_tf import callbacks
    from vhe_tf import training
    from vhe_tf.data import sources

flags.adopt_module_key_flags(common)  # --help shows them too
_DATASET = flags.DEFINE_enum(
    "dataset",
    "youtube_faces",
    ["youtube_faces", "folder", "records"],
    "youtube_faces, or your own photographs: a folder of them, or records.",
)
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir",
    None,
    "For youtube_faces: the folder with aligned_images_DB.tar.gz; not needed "
    "once it is prepared.",
)
_GROUP = flags.DEFINE_enum(
    "group",
    "person",
    ["person", "video"],
    "What a class is: a person, or, of youtube_faces, a video. A video of a "
    "person says much of another of its frames, and little of other videos: "
    "the paper has one video of each. No person is in both training and test; "
    "those held out to choose the best epoch are classes, so that of videos "
    "others of the person may be trained on.",
)
_NUM_LEVELS = flags.DEFINE_integer(
    "num_levels",
    256,
    "Levels of a channel, to which images are rounded. With few, such as 8, a "
    "PixelCNN learns to use c far sooner; likelihoods are of coarser images.",
)
_SKIP_UNREADABLE = flags.DEFINE_bool(
    "skip_unreadable",
    False,
    "For youtube_faces: go on without the images that cannot be read.",
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt",
    False,
    "For records: read all once and go on without those that cannot be read.",
)
_IMAGE_SIZE = flags.DEFINE_string(
    "image_size",
    "40x40",
    "HEIGHTxWIDTH to resize to, such as 48x32; not for records, which stay as "
    "they are.",
)
_ARCHITECTURE = flags.DEFINE_enum(
    "architecture",
    "deconvolutional",
    ["deconvolutional", "pixel_cnn"],
    "The architecture of the paper (Section 4.2).",
)
# A mirrored person is another person; a face upside down is none.
flags.set_default(common.SYMMETRIES, 2)
flags.set_default(common.AFFINE_COPIES, 1)

_WAYS = (20, 200)


def main(argv: Sequence[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    common.check_arguments(argv)
    from vhe_tf import callbacks
    from vhe_tf import training

    with training.mistakes_end_quietly():
        run = common.new_run()
        source = load_data()
        group = source.group
        common.check_groups(run, source)
        train, validation = common.samplers(source, groups=[group])
        with common.strategy().scope():
            model = common.image_model(
                _ARCHITECTURE.value,
                train.image_shape,
                group=group,
                num_levels=_NUM_LEVELS.value,
            )
        cues = callbacks.preview_batch(
            source.test, group=group, seed=common.SEED.value
        )
    draw = painter(cues)
    common.train_model(
        model, run, train, validation, lambda: monitors(run, source, draw)
    )
    common.finish(
        run,
        source,
        draw,
        group=group,
        ways=_WAYS,
        made_pictures="conditional.png: 1 cue and images, "
        f"{cues.support.shape[1]} and images (as in\n"
        "                 Figure 6; of the deconvolutional model, samples.png\n"
        "                 is, with the noise); reconstruction.png;\n"
        "                 unconditional.png",
    )


def load_data() -> "sources.Source":
    """Loads the data set of the flags."""
    from vhe_tf.data import sources

    if _DATASET.value != "youtube_faces" and (
        _MANUAL_DIR.value or _SKIP_UNREADABLE.value
    ):
        raise ValueError(
            "--manual_dir and --skip_unreadable are for "
            "--dataset=youtube_faces; a folder is given as --data_dir. "
            f"Received: --dataset={_DATASET.value}, "
            f"--manual_dir={_MANUAL_DIR.value}, "
            f"--skip_unreadable={_SKIP_UNREADABLE.value}."
        )
    # The flag's default is for others than records.
    sized = _DATASET.value != "records" or _IMAGE_SIZE.present
    return sources.load_photo_source(
        _DATASET.value,
        data_dir=common.DATA_DIR.value,
        manual_dir=_MANUAL_DIR.value,
        image_size=common.image_size(_IMAGE_SIZE.value) if sized else None,
        group=_GROUP.value,
        num_levels=_NUM_LEVELS.value,
        skip_unreadable=_SKIP_UNREADABLE.value,
        skip_corrupt=_SKIP_CORRUPT.value,
        seed=common.SEED.value,
    )


def painter(
    cues: "callbacks.PreviewBatch",
) -> Callable[["VHE"], dict[str, "np.ndarray"]]:
    """Returns what draws the pictures of a model, from fixed unseen cues."""
    from vhe_tf import visualization

    def draw(model: "VHE") -> dict[str, "np.ndarray"]:
        grids = cues.grids(model, num_samples=5)
        if _ARCHITECTURE.value == "deconvolutional":
            # The others are of means; a PixelCNN is always shown by samples.
            grids["samples"] = visualization.sample_grid(
                model,
                cues.support,
                group=cues.group,
                seed=(common.SEED.value, 50),
            )
        return grids

    return draw


def monitors(
    run: "training.Run",
    source: "sources.Source",
    draw: Callable[["VHE"], dict[str, "np.ndarray"]],
) -> list["keras.callbacks.Callback"]:
    """Returns the callbacks that measure and picture the run."""
    from vhe_tf import callbacks

    few_tasks: dict[str, Any] = {}
    if _ARCHITECTURE.value == "pixel_cnn":
        # It takes far longer to score an image.
        few_tasks = {"num_tasks": 2, "num_samples": 2}
    return [
        callbacks.FewShotAccuracy(source.test, group=source.group, **few_tasks),
        callbacks.Scalars(run.tensorboard, run.config),
        callbacks.ImageGrids(
            run.tensorboard / "pictures", draw, ink=source.ink
        ),
    ]


if __name__ == "__main__":
    app.run(main)
