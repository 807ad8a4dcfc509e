"""The pictures of an experiment, from fixed images of unseen groups."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from vhe_tf.experiments.config import Experiment

if TYPE_CHECKING:
    import numpy as np

    from vhe_tf.data.datasets import DataSplits
    from vhe_tf.models.vhe import VHE

    Draw = Callable[[VHE], dict[str, np.ndarray]]

__all__ = ["description", "painter"]

_COMMON = "conditional.png: support images and samples; reconstruction.png;"
_ALPHABETS, _SHOTS = 10, 5
_CONTENTS, _STYLES = 8, 10


def description(experiment: Experiment) -> list[str]:
    """Returns what the pictures show, in lines for a person."""
    extra = {
        "alphabet": [
            "levels.png: samples of a character from 1 image of it, and of",
            "  an alphabet from 5 of its characters;",
        ],
        "style": ["transfer.png: each character in each style;"],
    }
    return [
        *extra.get(experiment.architecture, []),
        _COMMON,
        "  unconditional.png",
    ]


def painter(experiment: Experiment, splits: "DataSplits") -> "Draw":
    """Returns a function that draws the pictures of a model.

    Args:
        experiment: `Experiment`. The experiment.
        splits: `DataSplits`. Its data. The pictures start from test images.
    """
    from vhe_tf import callbacks
    from vhe_tf import visualization

    seed = experiment.seed
    preview = callbacks.preview_batch(
        splits.test, group=experiment.class_group, seed=seed
    )
    if experiment.has_alphabets:
        extra = _levels(experiment, splits)
    elif experiment.architecture == "style":
        extra = _transfer(experiment, splits)
    # The others show means; a PixelCNN is always shown by samples.
    has_noise = not splits.ink and experiment.architecture == "deconvolutional"

    def draw(model: "VHE") -> "dict[str, np.ndarray]":
        grids = preview.grids(model)
        if len(experiment.groups) > 1:
            grids = extra(model) | grids
        if has_noise:
            grids["samples"] = visualization.sample_grid(
                model,
                preview.support,
                group=preview.group,
                seed=(seed, 50),
            )
        return grids

    return draw


def _levels(experiment: Experiment, splits: "DataSplits") -> "Draw":
    from vhe_tf import visualization
    from vhe_tf.evaluation import TaskDesign
    from vhe_tf.evaluation import few_shot_tasks
    from vhe_tf.evaluation import tasks

    alphabet, character = experiment.groups
    num_alphabets = len(splits.test.group_ids(alphabet))
    # Small alphabets leave fewer.
    most = tasks.most_shots(splits.test, alphabet, spread=character)
    [task] = few_shot_tasks(
        splits.test,
        TaskDesign(
            num_ways=min(_ALPHABETS, num_alphabets),
            num_shots=max(1, min(_SHOTS, most)),
            spread=character,
        ),
        group=alphabet,
        num_tasks=1,
        seed=experiment.seed,
    )

    def draw(model: "VHE") -> "dict[str, np.ndarray]":
        grid = visualization.conditional_grid(
            model,
            [task.queries[:, None], task.support],
            group=[character, alphabet],
            num_samples=5,
            seed=(experiment.seed, 30),
        )
        return {"levels": grid}

    return draw


def _transfer(experiment: Experiment, splits: "DataSplits") -> "Draw":
    from vhe_tf import visualization
    from vhe_tf.evaluation import TaskDesign
    from vhe_tf.evaluation import few_shot_tasks
    from vhe_tf.evaluation import transfer

    content, style = (
        next(
            few_shot_tasks(
                splits.test,
                TaskDesign(
                    num_ways=min(count, len(splits.test.group_ids(name))),
                    num_shots=1,
                ),
                group=name,
                num_tasks=1,
                seed=experiment.seed,
            )
        ).support
        for name, count in zip(
            experiment.groups, (_CONTENTS, _STYLES), strict=True
        )
    )

    def draw(model: "VHE") -> "dict[str, np.ndarray]":
        redrawn = transfer.transfer(
            model,
            content=content,
            style=style,
            groups=("character", "style"),
            seed=(experiment.seed, 40),
        )
        grid = visualization.transfer_grid(
            content[:, 0], style[:, 0], redrawn=redrawn
        )
        return {"transfer": grid}

    return draw
