"""Draws what several models make of the same cues, side by side.

    python trainers/compare.py --out docs/comparison.png --data_dir=DIR \
        --models runs/a/best.keras,runs/b/best.keras

Five cues of unseen characters (or people), then a block of columns for each
model, in the order in which they are named. The data are those of the first
model's run; the others must have images of that shape and that grouping, and
must not have been trained on classes of its test set.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app
from absl import flags
from absl import logging

if TYPE_CHECKING:
    from vhe_tf import VHE

_MODELS = flags.DEFINE_list("models", None, "The .keras files.", required=True)
_OUT = flags.DEFINE_string("out", None, "The PNG to write.", required=True)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "For omniglot and youtube_faces: a TensorFlow Datasets folder where they "
    "are prepared. For folder and records: the folder.",
)
_SKIP_CORRUPT = flags.DEFINE_bool(
    "skip_corrupt", False, "For records: leave out those that cannot be read."
)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 5, "Samples a model.")
_SEED = flags.DEFINE_integer("seed", 0, "Decides cues and draws.")


def main(argv: Sequence[str]) -> None:
    """Loads, draws and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    import vhe_tf
    from vhe_tf import callbacks
    from vhe_tf import training
    from vhe_tf import visualization
    from vhe_tf.data import sources

    out = pathlib.Path(_OUT.value)
    with training.mistakes_end_quietly():
        models = [vhe_tf.load_model(path) for path in _MODELS.value]
        settings = training.data_settings(_MODELS.value[0])
        for path in _MODELS.value:
            training.check_unseen(path, settings)
        source = sources.load_again(
            settings,
            data_dir=_DATA_DIR.value,
            skip_corrupt=_SKIP_CORRUPT.value,
        )
        for path in _MODELS.value:
            training.tell_other_groups(
                path, settings["dataset"], source.groups_checksum()
            )
        _check_alike(models, source.group)
        cues = callbacks.preview_batch(
            source.test, group=source.group, seed=_SEED.value
        )
        grid = visualization.comparison_grid(
            models,
            cues.support,
            group=source.group,
            num_samples=_NUM_SAMPLES.value,
            seed=(_SEED.value, 0),
        )
        visualization.save_png(out, grid, ink=source.ink)
    print(f"written to {out}")


def _check_alike(models: Sequence["VHE"], group: str) -> None:
    for path, model in zip(_MODELS.value, models, strict=True):
        latents = [latent.name for latent in model.latents]
        if group not in latents or model.image_shape != models[0].image_shape:
            raise ValueError(
                f"--models must all have the latent {group!r} and images of "
                f"shape {models[0].image_shape}, as the first. Received: "
                f"{path}, of shape {model.image_shape}, with {latents}."
            )


if __name__ == "__main__":
    app.run(main)
