"""Style transfer, judged by networks that know nothing of the model.

A factorial model redraws a content in a style (Figure 8). Pictures show that it
can; how often it does is said by two judges trained on true images: one of
styles, whatever the character, one of characters, whatever the style.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation.classification import check_ready
from vhe_tf.evaluation.estimates import Estimate
from vhe_tf.evaluation.estimates import estimate
from vhe_tf.evaluation.oracle_classifier import Judge
from vhe_tf.models.vhe import VHE

__all__ = ["Transfer", "judge_transfer", "transfer"]


class Transfer(NamedTuple):
    """How often redrawn images are what they should be, between 0 and 1.

    Attributes:
        style: The judge of styles finds the style of the style support.
        content: The judge of contents finds the content support's, among K.
        style_of_true: What the judge of styles reaches on true images.
        content_of_true: What the judge of contents reaches on true images.
        content_kept: The same content in two styles: judged the same content.
        style_kept: Two contents in the same style: judged the same style.
        style_changed: The same content in two styles: judged different styles.
    """

    style: Estimate
    content: Estimate
    style_of_true: Estimate
    content_of_true: Estimate
    content_kept: Estimate
    style_kept: Estimate
    style_changed: Estimate


def transfer(
    model: VHE,
    content: np.ndarray,
    style: np.ndarray,
    *,
    groups: tuple[str, str] = ("character", "style"),
    seed: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Redraws each content in each style.

    Args:
        model: A model with two group latents.
        content: `[R, N, H, W, C]`, a support for each content.
        style: `[S, N, H, W, C]`, a support for each style.
        groups: The names of the latents of content and style.
        seed: Two ints.

    Returns:
        `[R, S, H, W, C]`, each with chance of its own.
    """
    num_contents, num_styles = len(content), len(style)
    support = {
        groups[0]: tf.constant(np.repeat(content, num_styles, axis=0)),
        groups[1]: tf.constant(np.tile(style, (num_contents, 1, 1, 1, 1))),
    }
    images = model.sample(support, seed=seed).numpy()
    return images.reshape(num_contents, num_styles, *model.image_shape)


def judge_transfer(
    model: VHE,
    data: GroupedImages,
    *,
    content_judge: Judge,
    style_judge: Judge,
    groups: tuple[str, str] = ("character", "style"),
    num_ways: int = 20,
    num_styles: int = 10,
    num_shots: int = 1,
    num_exemplars: int = 5,
    num_trials: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Transfer:
    """Measures style transfer on unseen contents.

    A trial takes K contents and S styles and redraws all K S pairs, from
    supports that share neither image nor content with each other; the judge of
    contents chooses among the K, of each of which it sees other true images.

    Args:
        model: The model.
        data: Images of unseen contents, ready for the model.
        content_judge: Trained on true images, labels the contents.
        style_judge: Trained on true images, labels the styles of `data`.
        groups: The names of the latents, and groupings, of content and style.
        num_ways: K.
        num_styles: S.
        num_shots: N, images of each support.
        num_exemplars: True images of each content that its judge sees.
        num_trials: Trials, over which the intervals are.
        seed: Decides everything random.
        progress: Called with a line of text from time to time.

    Returns:
        The measures.

    Raises:
        ValueError: If there are too few contents, styles or images, or fewer
            than two of either are asked for.
    """
    check_ready(data, model, groupings=groups)
    if min(num_ways, num_styles) < 2:
        raise ValueError(
            "Style transfer is between two contents and two styles at least. "
            f"Received: num_ways={num_ways}, num_styles={num_styles}."
        )
    contents, styles = (data.labels[name] for name in groups)
    rng = np.random.default_rng(seed)
    measures: list[list[float]] = []
    for trial in range(num_trials):
        chosen = _choose(
            contents, num_ways, num_shots + num_exemplars + 1, rng, groups[0]
        )  # [K, N + exemplars + 1]
        elsewhere = np.where(np.isin(contents, contents[chosen]), -1, styles)
        style_chosen = _choose(
            elsewhere, num_styles, num_shots, rng, groups[1]
        )  # [S, N]
        redrawn = transfer(
            model,
            data.images[chosen[:, :num_shots]],
            data.images[style_chosen],
            groups=groups,
            seed=(seed, trial),
        )
        flat = redrawn.reshape(-1, *redrawn.shape[2:])
        exemplars = data.images[chosen[:, num_shots:-1]]
        true = data.images[chosen[:, -1]]
        answers = _measures(
            content_judge.nearest(flat, exemplars).reshape(redrawn.shape[:2]),
            style_judge.classify(flat).reshape(redrawn.shape[:2]),
            styles[style_chosen[:, 0]],
        )
        true_contents = content_judge.nearest(true, exemplars)
        true_styles = style_judge.classify(true)
        answers += [
            float(np.mean(true_styles == styles[chosen[:, -1]])),
            float(np.mean(true_contents == np.arange(num_ways))),
        ]
        measures.append(answers)
        if progress:
            style, content = np.mean(measures, axis=0)[:2]
            progress(
                f"style transfer: trial {trial + 1} of {num_trials}, "
                f"{style:.1%} in the right style, {content:.1%} of the right "
                f"{groups[0]} so far"
            )
    style, content, content_kept, style_kept, changed, style_true, true = (
        estimate(values) for values in np.array(measures).T
    )
    return Transfer(
        style=style,
        content=content,
        style_of_true=style_true,
        content_of_true=true,
        content_kept=content_kept,
        style_kept=style_kept,
        style_changed=changed,
    )


def _measures(
    by_content: np.ndarray, by_style: np.ndarray, styles: np.ndarray
) -> list[float]:
    """Compares what the judges say, `[K, S]` each, with what was wanted."""
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
    ids, counts = np.unique(labels[labels >= 0], return_counts=True)
    ids = ids[counts >= num_images]
    if len(ids) < num_groups:
        raise ValueError(
            f"Judging needs {num_groups} groups of {name!r} with {num_images} "
            f"images each; ask for fewer. Received: {len(ids)}."
        )
    return np.stack(
        [
            rng.choice(np.flatnonzero(labels == i), num_images, replace=False)
            for i in rng.choice(ids, num_groups, replace=False)
        ]
    )
