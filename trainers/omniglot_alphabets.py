"""Trains the hierarchical VHE: alphabets above characters (Eq. 21, Figure 7).

    python trainers/omniglot_alphabets.py --run_dir=runs/alphabets
    python trainers/omniglot_alphabets.py --data_dir=DIR --run_dir=...
    python trainers/omniglot_alphabets.py --dataset=glyphs --run_dir=...

One model draws more of a character from one cue, and new characters of an
alphabet from five of its characters (pictures/levels.png), and tells alphabets
apart by characters that it has never seen. See omniglot.py for where the data
are from, and for runs that are stopped and go on.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
_IMAGES = flags.DEFINE_enum(
    "images", "binary", ["binary", "grey"], "Image recipe, as in omniglot.py."
)
# One shot and several; a character with its copies is one of few of its
# alphabet, so that there are no copies.
flags.set_default(common.SUPPORT_SIZE, "1-5")
flags.set_default(common.AFFINE_COPIES, 1)
flags.set_default(common.NUM_VALIDATION_GROUPS, 3)

_GROUPS = ("alphabet", "character")
_NUM_CUES = 10
_WAYS = 10
_SHOTS = 5


def main(argv: Sequence[str]) -> None:
    """Loads, trains, evaluates and pictures."""
    common.check_arguments(argv)
    import vhe_tf
    from vhe_tf import training
    from vhe_tf.data import sources
    from vhe_tf.evaluation import report

    with training.mistakes_end_quietly():
        run = common.new_run()
        source = sources.load_source(
            _DATASET.value,
            data_dir=common.DATA_DIR.value,
            split=common.SPLIT.value,
            images=_IMAGES.value,
            seed=common.SEED.value,
        )
        common.check_groups(run, source)
        train, validation = common.samplers(source, groups=_GROUPS)
        with common.strategy().scope():
            model = vhe_tf.alphabet_vhe(
                common.SIZE.value,
                image_shape=train.image_shape,
                objective=common.OBJECTIVE.value,
                groups=_GROUPS,
            )
            common.compile_model(model, character=_GROUPS[1])
        draw = painter(source)
    common.train_model(
        model, run, train, validation, lambda: monitors(run, source, draw)
    )
    common.finish(
        run,
        source,
        draw,
        group=_GROUPS[1],
        measure=lambda model, _: {
            "probes": report.probes(model, source.test, group=_GROUPS[1])
        },
        made_pictures="levels.png: 1 cue and samples of the character,\n"
        "                 5 characters and new ones of the alphabet;\n"
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

    alphabet, character = _GROUPS
    seed = common.SEED.value
    cues = callbacks.preview_batch(source.test, group=character, seed=seed)
    [trial] = classification.few_shot_trials(
        source.test,
        group=alphabet,
        num_ways=min(_NUM_CUES, len(source.test.group_ids(alphabet))),
        num_shots=_SHOTS,
        num_trials=1,
        spread=character,
        seed=seed,
    )

    def draw(model: "VHE") -> dict[str, "np.ndarray"]:
        levels = visualization.conditional_grid(
            model,
            [trial.queries[:, None], trial.support],
            group=[character, alphabet],
            seed=(seed, 30),
        )
        return {"levels": levels, **cues.grids(model)}

    return draw


def monitors(
    run: "training.Run",
    source: "sources.Source",
    draw: Callable[["VHE"], dict[str, "np.ndarray"]],
) -> list["keras.callbacks.Callback"]:
    """Returns the callbacks that measure and picture the run."""
    from vhe_tf import callbacks

    alphabet, character = _GROUPS
    return [
        callbacks.FewShotAccuracy(source.test, group=character),
        callbacks.FewShotAccuracy(
            source.test,
            group=alphabet,
            spread=character,
            num_ways=_WAYS,
            shots=[_SHOTS],
        ),
        callbacks.Scalars(run.tensorboard, run.config),
        callbacks.ImageGrids(run.tensorboard / "pictures", draw),
    ]


if __name__ == "__main__":
    app.run(main)
