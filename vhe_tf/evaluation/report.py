"""All that is measured of a trained model, as one JSON-ready report."""

import math
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from vhe_tf.data import omniglot
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.evaluation import classification
from vhe_tf.evaluation import likelihood
from vhe_tf.evaluation.estimates import Estimate
from vhe_tf.evaluation.estimates import estimate
from vhe_tf.models.vhe import VHE

__all__ = ["evaluate", "lake_runs", "summary_lines"]

_CONDITIONAL_SHOTS = (1, 2, 5, 10, 19)


def evaluate(
    model: VHE,
    data: GroupedImages,
    *,
    group: str,
    num_ways: int = 20,
    shots: Sequence[int] = (1, 5),
    num_trials: int = 50,
    within: str | None = None,
    num_groups: int | None = None,
    num_samples: int = 20,
    num_element_samples: int = 1,
    joint_num_samples: int | None = None,
    max_decoded: int = 2000,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures accuracy, joint and conditional NLL on unseen groups.

    Args:
        model: The model.
        data: Images of unseen groups, ready for the model.
        group: The grouping whose groups are classes and sets.
        num_ways: K, lowered where there are fewer classes to draw a task
            from.
        shots: For classification, each N.
        num_trials: Few-shot tasks, one query a class; ten times as many
            queries for the conditional NLL.
        within: If given, classify within its groups as well (`"alphabet"`).
        num_groups: Groups in the joint NLL; all if None.
        num_samples: Draws of the group latent.
        num_element_samples: Draws of the per-element latents for each.
        joint_num_samples: Draws of the group latent in the joint NLL;
            `num_samples` if None.
        max_decoded: The largest number of images to decode at once.
        seed: Decides everything random.
        progress: Called with a line of text from time to time.

    Returns:
        A report of plain numbers with the settings that they depend on; the
        half width of an interval is None for a single trial.

    Raises:
        ValueError: If `within` is no grouping of the data.
    """
    if within is not None and within not in data.labels:
        raise ValueError(
            f"`within` must be a grouping of the data, one of "
            f"{sorted(data.labels)}. Received: within={within!r}."
        )
    scorer = classification.ClassScorer(
        model,
        group=group,
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_decoded=max_decoded,
    )
    _, sizes = np.unique(data.labels[group], return_counts=True)
    accuracies = {}
    left_out = []
    for coarser in [None] if within is None else [None, within]:
        ways = min(num_ways, _most_classes(data, group, coarser))
        if ways < num_ways:
            left_out.append(
                f"{num_ways}-way tasks{f' within {coarser}' if coarser else ''}"
                f": there are {ways} classes, so {ways}-way instead"
            )
        for num_shots in shots:
            if num_shots >= sizes.min():
                left_out.append(
                    f"{num_shots}-shot tasks: the smallest class has "
                    f"{sizes.min()} images, one of them the query"
                )
                continue
            name = f"{ways}way_{num_shots}shot"
            accuracies[f"{name}_within_{coarser}" if coarser else name] = (
                _as_dict(
                    classification.few_shot_accuracy(
                        scorer,
                        data,
                        num_ways=ways,
                        num_shots=num_shots,
                        num_trials=num_trials,
                        within=coarser,
                        seed=seed,
                        progress=progress,
                    )
                )
            )
    left_out += [
        f"NLL after {num_shots} shots: the smallest class has {sizes.min()} "
        "images, one of them the query"
        for num_shots in _CONDITIONAL_SHOTS
        if num_shots >= sizes.min()
    ]
    conditional = {
        f"{num_shots}shot": _as_dict(
            likelihood.conditional_nll(
                scorer,
                data,
                num_shots=num_shots,
                num_trials=10 * num_trials,
                seed=seed,
                progress=progress,
            )
        )
        for num_shots in _CONDITIONAL_SHOTS
        if num_shots < sizes.min()
    }
    joint = likelihood.joint_nll(
        model,
        data,
        group=group,
        num_samples=joint_num_samples or num_samples,
        num_element_samples=num_element_samples,
        max_groups=num_groups,
        max_decoded=max_decoded,
        seed=seed,
        progress=progress,
    )
    return {
        "accuracy": accuracies,
        "joint_nll": {
            **_as_dict(joint.nats_per_image),
            "unit": "nats an image",
            "num_samples": joint.num_samples,
            "effective_sample_size": joint.effective_sample_size,
        },
        "conditional_nll": {"unit": "nats an image", **conditional},
        "left_out": left_out,
        "groups": data.group_ids(group).tolist(),
        "settings": {
            "num_samples": num_samples,
            "num_element_samples": num_element_samples,
            "num_trials": num_trials,
            "seed": seed,
        },
    }


def lake_runs(
    scorer: classification.ClassScorer,
    path: str | os.PathLike[str],
    *,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures the 20 one-shot runs of Lake et al. (2015), 400 queries.

    20-way 1-shot within an alphabet, support and query by different drawers.

    Args:
        scorer: The classifier, of a model of 28x28 binary images.
        path: `all_runs.zip`, or the unpacked folder.
        progress: Called with a line of text from time to time.

    Returns:
        The accuracy, a run a trial.
    """
    correct = []
    for index, run in enumerate(omniglot.lake_runs(path)):
        support = omniglot.binary_recipe(run.support).astype(np.float32) / 255
        queries = omniglot.binary_recipe(run.queries).astype(np.float32) / 255
        scores = scorer(support[:, np.newaxis], queries, seed=(0, index))
        correct.append((scores.argmax(axis=1) == run.labels).mean())
        if progress:
            progress(f"Lake's runs: {index + 1}, {np.mean(correct):.1%} so far")
    return _as_dict(estimate(np.array(correct)))


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Returns a report as a few lines for a person."""
    lines = []
    for name, value in report["accuracy"].items():
        chance = 1 / int(name.split("way")[0])
        label = name.replace("way_", "-way ").replace("shot", "-shot")
        lines.append(
            f"{label.replace('_', ' ')} accuracy on unseen classes: "
            f"{_with_interval(value, '.1%')} "
            f"(chance {chance:.1%})"
        )
    joint = report["joint_nll"]
    lines.append(
        f"joint NLL <= {_with_interval(joint, '.2f')} nats an image "
        f"(k = {joint['num_samples']}, effective sample size "
        f"{joint['effective_sample_size']:.1f})"
    )
    curve = ", ".join(
        f"{name.removesuffix('shot')}: {value['mean']:.1f}"
        for name, value in report["conditional_nll"].items()
        if name != "unit"
    )
    if curve:
        lines.append(f"NLL of a new image, by shots: {curve} nats")
    lines += [f"left out: {reason}" for reason in report["left_out"]]
    return lines


def _most_classes(data: GroupedImages, group: str, coarser: str | None) -> int:
    """Returns the largest number of classes that a task can be drawn from."""
    if coarser is None:
        return len(data.group_ids(group))
    return max(
        len(data.with_groups(coarser, [int(i)]).group_ids(group))
        for i in data.group_ids(coarser)
    )


def _as_dict(value: Estimate) -> dict[str, Any]:
    half_width = value.half_width
    return {
        "mean": value.mean,
        # JSON has no NaN.
        "half_width_95": None if math.isnan(half_width) else half_width,
        "num_trials": value.num_trials,
    }


def _with_interval(value: dict[str, Any], form: str) -> str:
    half_width = value["half_width_95"]
    if half_width is None:
        return f"{value['mean']:{form}}"
    return f"{value['mean']:{form}} ± {half_width:{form}}"
