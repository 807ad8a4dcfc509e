"""Shows what a shipped model does, then trains on the embedded characters.

    vhe-tf quickstart

In the first minute the shipped model omniglot_pixel_cnn_small generates and
classifies characters that it has never seen, each from one image. Then its
training continues on the embedded characters, in runs/quickstart: the same as
`vhe-tf train quickstart`. Nothing is downloaded.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments import train
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.registry import get

__all__ = ["main"]

_NAME = "quickstart"
_PICTURE = pathlib.Path("runs", f"{_NAME}_preset.png")


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf quickstart`."""
    settings.parse(argv, flags.FlagValues(), usage=__doc__ or "", words=False)
    import_tensorflow()
    with exit_on_user_error():
        _show_preset()
    train.main([argv[0], _NAME])


def _show_preset() -> None:
    import vhe_tf
    from vhe_tf import callbacks
    from vhe_tf import evaluation
    from vhe_tf import visualization
    from vhe_tf._utils.progress import status_line
    from vhe_tf.experiments.data import load_data

    experiment = get(_NAME)
    group, preset = experiment.class_group, experiment.init or ""
    with status_line(f"sampling from {preset}"):
        unseen = load_data(experiment).test
        model = vhe_tf.load_model(preset)
        preview = callbacks.preview_batch(unseen, group=group, num_groups=6)
        grid = visualization.conditional_grid(
            model, [preview.support[:, :1]], group=group, heading=preset
        )
        visualization.save_png(_PICTURE, grid, scale=4)
    print(f"Wrote {_PICTURE}: samples by {preset}, each row from one image.")
    with status_line(f"classifying with {preset}"):
        [accuracy] = evaluation.FewShotClassification(
            unseen,
            group=group,
            ways=[20],
            shots=[1],
            num_tasks=1,
            sampling=evaluation.Sampling(3),
        )(model)
    print(
        f"It knows {round(20 * accuracy.mean)} of 20 characters again after "
        "one image of each, without any training on them.\n",
        flush=True,
    )
