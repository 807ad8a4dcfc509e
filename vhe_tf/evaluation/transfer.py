"""Style transfer, scored by classifiers that do not know the model.

A factorial model redraws a content in a style (Figure 8). Pictures show that it
can. How often it succeeds is measured by two oracle classifiers trained on true
images: one of styles, whatever the character, one of characters, whatever the
style.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.grouped_images import group_members
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.oracle_classifier import OracleClassifier
from vhe_tf.evaluation.tasks import check_ready
from vhe_tf.models.vhe import VHE

__all__ = [
    "Transfer",
    "TransferDesign",
    "style_transfer_accuracy",
    "transfer",
]

# Samples, of which `best_of` make an image: this bounds the memory.
_SAMPLED_AT_ONCE = 100


class Transfer(NamedTuple):
    """The shares of redrawn images that are as they should be, 0 to 1.

    Attributes:
        style: `Measurement`. Share of images in which the style of the style
            support is found.
        content: `Measurement`. Share of images in which the content of the
            content support is found, among K.
        content_kept: `Measurement`. Share of pairs of one content in two
            styles, in which the same content is found.
        style_kept: `Measurement`. Share of pairs of two contents in one style,
            in which the same style is found.
        style_changed: `Measurement`. Share of pairs of one content in two
            styles, in which different styles are found.
        style_of_true: `Measurement`. Accuracy of the classifier of styles on
            true images.
        content_of_true: `Measurement`. Accuracy of the classifier of contents
            on true images.
        by_style: Tuple of `Measurement`s. For each style that occurs, `style`
            and `content` of the images redrawn in it. `tasks` is the name of
            the style.
    """

    style: Measurement
    content: Measurement
    content_kept: Measurement
    style_kept: Measurement
    style_changed: Measurement
    style_of_true: Measurement
    content_of_true: Measurement
    by_style: tuple[Measurement, ...] = ()


@dataclasses.dataclass(frozen=True)
class TransferDesign:
    """The shape of tasks of style transfer.

    Args:
        groups: Pair of strings. The latents, and groupings, of content and
            style. Defaults to `("character", "style")`.
        num_ways: Integer. K, contents in a task. Defaults to 20.
        num_styles: Integer. S, styles in a task. Defaults to 10.
        num_shots: Integer. N, images in each support. Defaults to 1.
        num_exemplars: Integer. True images of each content that the classifier
            of contents sees. Defaults to 5.
    """

    groups: tuple[str, str] = ("character", "style")
    num_ways: int = 20
    num_styles: int = 10
    num_shots: int = 1
    num_exemplars: int = 5

    def __post_init__(self) -> None:
        if min(self.num_ways, self.num_styles) < 2:
            raise ValueError(
                "Style transfer is between at least two contents and two "
                f"styles. Received: num_ways={self.num_ways}, "
                f"num_styles={self.num_styles}."
            )
        for name in ("num_shots", "num_exemplars"):
            validation.positive(name, getattr(self, name))


def transfer(
    model: VHE,
    *,
    content: np.ndarray,
    style: np.ndarray,
    groups: tuple[str, str] = ("character", "style"),
    options: Mapping[str, Any] | None = None,
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Redraws each content in each style.

    Args:
        model: `VHE`. A model with two group latents.
        content: `[R, N, H, W, C]`, a support for each content.
        style: `[S, N, H, W, C]`, a support for each style.
        groups: Pair of strings. The names of the latents of content and style.
        options: Mapping or None. Arguments of `VHE.sample`, such as `guidance`
            and `best_of`. Defaults to those of the model.
        seed: Pair of integers. Random seed.

    Returns:
        `[R, S, H, W, C]`, each with its own noise.
    """
    num_contents, num_styles = len(content), len(style)
    of_content, of_style = np.divmod(
        np.arange(num_contents * num_styles), num_styles
    )
    options = dict(options or {})
    at_once = max(1, _SAMPLED_AT_ONCE // options.get("best_of", 1))
    pieces = []
    for start in range(0, len(of_content), at_once):
        rows = slice(start, min(start + at_once, len(of_content)))
        support = {
            groups[0]: tf.constant(content[of_content[rows]]),
            groups[1]: tf.constant(style[of_style[rows]]),
        }
        seeds = random.fold_in(seed, tf.range(rows.start, rows.stop))
        pieces.append(model.sample(support, seed=seeds, **options).numpy())
    images = np.concatenate(pieces)
    return images.reshape(num_contents, num_styles, *model.image_shape)


def style_transfer_accuracy(
    model: VHE,
    data: GroupedImages,
    *,
    oracles: tuple[OracleClassifier, OracleClassifier],
    design: TransferDesign,
    options: Mapping[str, Any] | None = None,
    num_tasks: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Transfer:
    """Measures style transfer on unseen contents.

    A task has K contents and S styles and redraws all K S pairs, from supports
    that share neither image nor content with each other. The classifier of
    contents selects among the K, of each of which it sees other true images.

    Args:
        model: `VHE`. The model.
        data: `GroupedImages`. Images of unseen contents, ready for the model.
        oracles: Two `OracleClassifier`s. The classifiers of contents and of
            styles, trained on true images. The classes of the latter are the
            styles of `data`.
        design: `TransferDesign`. The shape of the tasks.
        options: As in `transfer`.
        num_tasks: Integer. Tasks, over which the intervals are. Defaults to 5.
        seed: Integer. Seed of the tasks and of the samples. Defaults to 0.
        progress: Callable or None. Called with a line of text after each task.

    Returns:
        The measurements.

    Raises:
        ValueError: If there are too few contents, styles or images.
    """
    check_ready(data, model, groupings=design.groups)
    rng = np.random.default_rng(seed)
    values: list[list[float]] = []
    by_style: dict[int, list[np.ndarray]] = {}
    for task in range(num_tasks):
        found, shares = _of_one_task(
            model,
            data,
            oracles=oracles,
            design=design,
            options=options,
            rng=rng,
            seed=(seed, task),
        )
        values.append(found)
        for style_id, both in shares.items():
            by_style.setdefault(style_id, []).append(both)
        if progress:
            style, content = np.mean(values, axis=0)[:2]
            progress(
                f"style transfer: task {task + 1} of {num_tasks}, "
                f"{style:.1%} in the right style, {content:.1%} of the right "
                f"{design.groups[0]} so far"
            )
    names = data.group_names.get(design.groups[1], {})
    true = num_tasks * design.num_ways
    counts = [true * design.num_styles] * 5 + [true] * 2
    overall = {
        factor: Measurement.of(
            "transfer", each, factor=factor, num_queries=count
        )
        for factor, each, count in zip(
            Transfer._fields, np.array(values).T, counts, strict=False
        )
    }
    of_styles = tuple(
        Measurement.of(
            "transfer",
            each,
            factor=factor,
            tasks=names.get(style_id, f"{design.groups[1]} {style_id}"),
            num_queries=len(each) * design.num_ways,
        )
        for style_id, pairs in sorted(by_style.items())
        for factor, each in zip(
            ("style", "content"), np.array(pairs).T, strict=True
        )
    )
    return Transfer(**overall, by_style=of_styles)


def _of_one_task(
    model: VHE,
    data: GroupedImages,
    *,
    oracles: tuple[OracleClassifier, OracleClassifier],
    design: TransferDesign,
    options: Mapping[str, Any] | None,
    rng: np.random.Generator,
    seed: tuple[int, int],
) -> tuple[list[float], dict[int, np.ndarray]]:
    """Returns the values of `Transfer` for one task, and those of styles."""
    groups, num_shots = design.groups, design.num_shots
    contents, styles = (data.labels[name] for name in groups)
    chosen = _choose(
        contents,
        design.num_ways,
        num_shots + design.num_exemplars + 1,
        rng,
        groups[0],
    )  # [K, N + exemplars + 1]
    elsewhere = np.where(np.isin(contents, contents[chosen]), -1, styles)
    style_chosen = _choose(
        elsewhere, design.num_styles, num_shots, rng, groups[1]
    )  # [S, N]
    redrawn = transfer(
        model,
        content=data.images[chosen[:, :num_shots]],
        style=data.images[style_chosen],
        groups=groups,
        options=options,
        seed=seed,
    )
    flat = redrawn.reshape(-1, *redrawn.shape[2:])
    exemplars = data.images[chosen[:, num_shots:-1]]
    true = data.images[chosen[:, -1]]
    of_content, of_style = oracles
    by_content = of_content.nearest(flat, exemplars).reshape(redrawn.shape[:2])
    by_style = of_style.classify(flat).reshape(redrawn.shape[:2])
    wanted = styles[style_chosen[:, 0]]
    rows = np.arange(design.num_ways)[:, np.newaxis]
    right = np.stack([by_style == wanted, by_content == rows]).mean(axis=1).T
    true_contents = of_content.nearest(true, exemplars)
    true_styles = of_style.classify(true)
    measures = [
        *_measures(by_content, by_style, wanted),
        float(np.mean(true_styles == styles[chosen[:, -1]])),
        float(np.mean(true_contents == np.arange(design.num_ways))),
    ]
    return measures, dict(zip(wanted.tolist(), right, strict=True))


def _measures(
    by_content: np.ndarray, by_style: np.ndarray, styles: np.ndarray
) -> list[float]:
    """Compares the classes found, `[K, S]` each, with those wanted."""
    rows = np.arange(len(by_content))[:, np.newaxis]
    return [
        float(np.mean(by_style == styles)),
        float(np.mean(by_content == rows)),
        _agreement(by_content),
        _agreement(by_style.T),
        1.0 - _agreement(by_style),
    ]


def _agreement(answers: np.ndarray) -> float:
    """Returns how often two different entries of a row are the same."""
    count = answers.shape[1]
    same = answers[:, :, np.newaxis] == answers[:, np.newaxis]
    pairs = same.sum(axis=(1, 2)) - count
    return float(np.mean(pairs / (count * (count - 1))))


def _choose(
    labels: np.ndarray,
    num_groups: int,
    num_images: int,
    rng: np.random.Generator,
    name: str,
) -> np.ndarray:
    """Chooses groups and images of each, `[num_groups, num_images]`."""
    members = group_members(labels)
    ids = [i for i, indices in members.items() if len(indices) >= num_images]
    if len(ids) < num_groups:
        raise ValueError(
            f"Style transfer needs {num_groups} groups of {name!r} with "
            f"{num_images} images each; ask for fewer. Received: {len(ids)}."
        )
    return np.stack(
        [
            rng.choice(members[i], num_images, replace=False)
            for i in rng.choice(ids, num_groups, replace=False).tolist()
        ]
    )
