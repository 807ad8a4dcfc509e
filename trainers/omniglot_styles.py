"""Trains the factorial VHE: styles beside characters (Eq. 18, Figure 8).

    python trainers/omniglot_styles.py --run_dir=runs/styles
    python trainers/omniglot_styles.py --data_dir=DIR --run_dir=...
    python trainers/omniglot_styles.py --dataset=glyphs --run_dir=...

Each drawing is redrawn with one of 30 pens: an ink and a nib. One model then
draws an unseen character with the pen of another drawing
(pictures/transfer.png); two judges, trained on true drawings, say how often
the character and the pen are right. See omniglot.py for where the data are
from, and for runs that are stopped and go on.
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
    from vhe_tf import training
    from vhe_tf.data import sources

flags.adopt_module_key_flags(common)  # --help shows them too
_DATASET = flags.DEFINE_enum(
    "dataset",
    "omniglot",
    ["omniglot", "glyphs"],
    "omniglot, or the embedded glyphs.",
)
_NUM_STYLES = flags.DEFINE_integer(
    "num_styles", 30, "Pens; 30 in the paper.", lower_bound=2
)
_COPIES = flags.DEFINE_integer(
    "copies",
    8,
    "In how many different styles each drawing is redrawn, all but the first "
    "as small affine maps of it.",
    lower_bound=1,
)
_JUDGE_EPOCHS = flags.DEFINE_integer(
    "judge_epochs",
    10,
    "Passes over the true drawings that train the judge of characters.",
    lower_bound=1,
)
flags.set_default(common.SUPPORT_SIZE, "1-5")
# Drawings are warped before they get their ink, which warping would blur.
flags.set_default(common.AFFINE_COPIES, 1)
flags.set_default(common.BATCH_SIZE, 16)

_GROUPS = ("character", "style")
_NUM_CONTENTS, _NUM_STYLE_CUES = 8, 10


def main(argv: Sequence[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    common.check_arguments(argv)
    import vhe_tf
    from vhe_tf import training
    from vhe_tf.data import sources
    from vhe_tf.data.datasets import styles
    from vhe_tf.evaluation import report

    with training.mistakes_end_quietly():
        if common.AFFINE_COPIES.value != 1:
            raise ValueError(
                "Affine copies would blur the inks; --copies makes more "
                "elements of a drawing. Received: --affine_copies="
                f"{common.AFFINE_COPIES.value}."
            )
        run = common.new_run()
        print("Drawing in styles (a minute) ...", flush=True)
        source = sources.load_styled_source(
            _DATASET.value,
            data_dir=common.DATA_DIR.value,
            split=common.SPLIT.value,
            num_styles=_NUM_STYLES.value,
            copies=_COPIES.value,
            seed=common.SEED.value,
        )
        common.check_groups(run, source)
        train, validation = common.samplers(source, groups=_GROUPS)
        with common.strategy().scope():
            model = vhe_tf.style_vhe(
                common.SIZE.value,
                image_shape=train.image_shape,
                objective=common.OBJECTIVE.value,
                groups=_GROUPS,
                num_levels=styles.INK_LEVELS,
            )
            common.compile_model(model, character=_GROUPS[0])
        draw = painter(source)

    def measure(
        model: "VHE", progress: Callable[[str], None]
    ) -> dict[str, Any]:
        return {
            "probes": report.probes(model, source.test, group=_GROUPS[0]),
            "transfer": report.style_transfer(
                model,
                source,
                groups=_GROUPS,
                judge_epochs=_JUDGE_EPOCHS.value,
                seed=common.SEED.value,
                progress=progress,
            ),
        }

    common.train_model(
        model, run, train, validation, lambda: monitors(run, source, draw)
    )
    common.finish(
        run,
        source,
        draw,
        group=_GROUPS[0],
        measure=measure,
        made_pictures="transfer.png: each character with each pen;\n"
        "                 conditional.png; reconstruction.png;\n"
        "                 unconditional.png",
    )


def painter(
    source: "sources.Source",
) -> Callable[["VHE"], dict[str, "np.ndarray"]]:
    """Returns what draws the pictures of a model, from fixed unseen cues."""
    from vhe_tf import callbacks
    from vhe_tf import visualization
    from vhe_tf.evaluation import classification
    from vhe_tf.evaluation import transfer

    seed = common.SEED.value
    cues = callbacks.preview_batch(source.test, group=_GROUPS[0], seed=seed)
    content, style = (
        next(
            classification.few_shot_trials(
                source.test,
                group=name,
                num_ways=min(count, len(source.test.group_ids(name))),
                num_shots=1,
                num_trials=1,
                seed=seed,
            )
        ).support
        for name, count in zip(
            _GROUPS, (_NUM_CONTENTS, _NUM_STYLE_CUES), strict=True
        )
    )

    def draw(model: "VHE") -> dict[str, "np.ndarray"]:
        redrawn = transfer.transfer(
            model, content, style, groups=_GROUPS, seed=(seed, 40)
        )
        grid = visualization.transfer_grid(content[:, 0], style[:, 0], redrawn)
        return {"transfer": grid, **cues.grids(model, num_samples=5)}

    return draw


def monitors(
    run: "training.Run",
    source: "sources.Source",
    draw: Callable[["VHE"], dict[str, "np.ndarray"]],
) -> list["keras.callbacks.Callback"]:
    """Returns the callbacks that measure and picture the run."""
    from vhe_tf import callbacks

    return [
        callbacks.FewShotAccuracy(
            source.test,
            group=_GROUPS[0],
            shots=[1],
            num_tasks=4,
            num_samples=3,
        ),
        callbacks.Scalars(run.tensorboard, run.config),
        callbacks.ImageGrids(run.tensorboard / "pictures", draw),
    ]


if __name__ == "__main__":
    app.run(main)
