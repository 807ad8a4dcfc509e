"""All that is measured of a trained model, as one JSON-ready report."""

import itertools
import math
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf import distribute
from vhe_tf.data import Augmentation
from vhe_tf.data import Episodes
from vhe_tf.data.datasets import DataSplits
from vhe_tf.data.datasets import omniglot
from vhe_tf.data.datasets import ready
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.distributions.discretized import bits_per_dimension
from vhe_tf.evaluation import classification
from vhe_tf.evaluation import likelihood
from vhe_tf.evaluation.estimates import Estimate
from vhe_tf.evaluation.estimates import estimate
from vhe_tf.evaluation.oracle_classifier import train_judge
from vhe_tf.evaluation.probes import linear_probe
from vhe_tf.evaluation.probes import posterior_means
from vhe_tf.evaluation.transfer import judge_transfer
from vhe_tf.models.vhe import VHE

__all__ = [
    "elbo",
    "evaluate",
    "lake_runs",
    "probes",
    "style_transfer",
    "summary_lines",
    "with_bits",
]

_CONDITIONAL_SHOTS = (1, 2, 5, 10, 19)
# Of classification by the other latents of a model.
_OTHER_WAYS = (10, 20)
_BOUND_SHOTS = 5
# To train a judge: copies of copies teach it little more.
_MAX_JUDGE_IMAGES = 40_000
_STYLE_JUDGE_EPOCHS = 2
_BOUND_BATCH_SIZE = 32


def evaluate(
    model: VHE,
    data: GroupedImages,
    *,
    group: str,
    ways: Sequence[int] = (20,),
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
    """Measures accuracy, bound, joint and conditional NLL on unseen groups.

    Of a model with several group latents, the accuracy of telling groups of
    the others apart as well (alphabets, styles), by images of different
    `group`s.

    Args:
        model: The model.
        data: Images of unseen groups, ready for the model.
        group: The grouping whose groups are classes and sets.
        ways: For classification, each K; lowered where there are fewer
            classes to draw a task from.
        shots: For classification, each N; lowered where the smallest class
            has fewer images beside a query, or a group of another latent
            images of fewer `group`s.
        num_trials: Few-shot tasks of each kind. Those of the smallest K have
            one query a class, the others as many queries as these. Ten times
            as many queries for the conditional NLL.
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
        ValueError: If `group` or `within` is no grouping of the data, or
            `group` no group latent of the model; if the images are not of the
            model's shape, or a count is not positive.
    """
    classification.check_ready(data, model, groupings=[group, within])
    scorer = classification.ClassScorer(
        model,
        group=group,
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_decoded=max_decoded,
    )
    most_shots = classification.most_shots(data, group)
    smallest = _counted(most_shots + 1, "image")
    accuracies: dict[str, Any] = {}
    left_out = []
    for coarser in [None] if within is None else [None, within]:
        most = _most_classes(data, group, coarser)
        inside = f" within {coarser}" if coarser else ""
        left_out += [
            f"{num_ways}-way tasks{inside}: there are {most} classes, so "
            f"{most}-way instead"
            for num_ways in ways
            if num_ways > most
        ]
        left_out += [
            f"{num_shots}-shot tasks{inside}: the smallest class has "
            f"{smallest}, one of them the query" + _shots_instead(most_shots)
            for num_shots in shots
            if num_shots > most_shots
        ]
        accuracies |= _accuracies(
            scorer,
            data,
            ways=sorted({min(num_ways, most) for num_ways in ways}),
            shots=classification.lowered_shots(shots, most_shots),
            num_trials=num_trials,
            within=coarser,
            seed=seed,
            progress=progress,
        )
    for other in _other_groupings(model, data, group):
        most = classification.most_shots(data, other, spread=group)
        left_out += [
            f"{num_shots}-shot tasks by {other}: the smallest {other} has "
            f"images of {_counted(most + 1, group)}, one of them the "
            "query" + _shots_instead(most)
            for num_shots in shots
            if num_shots > most
        ]
        accuracies |= _accuracies_by_other(
            model,
            data,
            other,
            group=group,
            shots=classification.lowered_shots(shots, most),
            num_trials=num_trials,
            num_samples=num_samples,
            num_element_samples=num_element_samples,
            max_decoded=max_decoded,
            seed=seed,
            progress=progress,
        )
    bound = {}
    why_no_bound = _why_no_bound(model, data)
    if why_no_bound:
        left_out.append(why_no_bound)
    else:
        value = elbo(
            model,
            data,
            num_shots=_BOUND_SHOTS,
            num_batches=4 * num_trials,
            seed=seed,
            progress=progress,
        )
        bound = {"elbo": {**_as_dict(value), "unit": "nats an image"}}
    left_out += [
        f"NLL after {_counted(num_shots, 'shot')}: the smallest class has "
        f"{smallest}, one of them the query"
        for num_shots in _CONDITIONAL_SHOTS
        if num_shots > most_shots
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
        if num_shots <= most_shots
    }
    joint = likelihood.joint_nll(
        model,
        data,
        group=group,
        num_samples=num_samples
        if joint_num_samples is None
        else joint_num_samples,
        num_element_samples=num_element_samples,
        max_groups=num_groups,
        max_decoded=max_decoded,
        seed=seed,
        progress=progress,
    )
    return {
        "accuracy": accuracies,
        **bound,
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


def with_bits(
    report: dict[str, Any], image_shape: Sequence[int]
) -> dict[str, Any]:
    """Adds bits a dimension to the likelihoods of a report.

    Args:
        report: What `evaluate` returns, of a model of pixels with levels.
        image_shape: `(H, W, C)`.

    Returns:
        The report; its bound and each of its NLLs have `bits_per_dimension`
        beside the mean in nats an image, of the same sign.
    """

    def added(value: Any) -> Any:
        if not isinstance(value, dict):
            return value  # the unit
        return {
            **value,
            "bits_per_dimension": {
                name: None
                if value[name] is None
                else bits_per_dimension(value[name], image_shape)
                for name in ("mean", "half_width_95")
            },
        }

    likelihoods: dict[str, Any] = {
        name: added(report[name])
        for name in ("elbo", "joint_nll")
        if name in report
    }
    conditional = {
        name: added(value) for name, value in report["conditional_nll"].items()
    }
    return {**report, **likelihoods, "conditional_nll": conditional}


def elbo(
    model: VHE,
    data: GroupedImages,
    *,
    num_shots: int,
    num_batches: int,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Estimate:
    """Estimates the bound on log p(X) that the model is trained by (Eq. 18).

    Args:
        model: The model.
        data: Images of unseen groups, ready for the model.
        num_shots: |D|, of every group latent.
        num_batches: Of 32 elements each.
        seed: Decides the episodes.
        progress: Called with a line of text from time to time.

    Returns:
        Nats an image, the KL of each latent shared by its group; comparable
        between models of the same images whatever their latents.
    """
    sampler = Episodes(
        data,
        batch_size=_BOUND_BATCH_SIZE,
        support_size=num_shots,
        resamples=model.objective.resamples,
        group_latents=[v.name for v in model.latents if not v.per_element],
        augmentation=Augmentation(binarization="none"),
        seed=seed,
    )
    terms = distribute.EachReplica(
        model.distribute_strategy, lambda episode: model(episode).elbo
    )
    episodes = iter(sampler.dataset().take(num_batches))
    values: list[float] = []
    while at_once := list(itertools.islice(episodes, terms.count)):
        bounds = terms([(episode,) for episode in at_once])
        values += [float(tf.reduce_mean(elbo)) for elbo in bounds]
        if progress:
            progress(
                f"bound: batch {len(values)} of {num_batches}, "
                f"{np.mean(values):.2f} nats an image so far"
            )
    return estimate(np.array(values))


def probes(
    model: VHE,
    data: GroupedImages,
    *,
    group: str,
    max_images: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures which known factors a linear map reads off each group latent.

    A latent is inferred from one image, all of whose labels are then known.
    The right latent should predict its factor, and the wrong one not.

    Args:
        model: The model.
        data: Images of unseen groups, ready for the model.
        group: The innermost grouping (`"character"`). But for itself, a factor
            is learned from some of its groups and tested on others: an
            alphabet could else be told by recognising its characters.
        max_images: The largest number of images to encode.
        seed: Decides the images and which part is tested on.

    Returns:
        By latent and factor of the data, the accuracy beside `chance`.
    """
    found: dict[str, Any] = {}
    for latent in model.latents:
        if latent.per_element:
            continue
        means, indices = posterior_means(
            model, data, latent=latent.name, seed=seed, max_images=max_images
        )
        found[latent.name] = {}
        for factor, ids in data.labels.items():
            groups = data.labels[group][indices[:, 0]]
            probe = linear_probe(
                means,
                ids[indices[:, 0]],
                groups=None if factor == group else groups,
                seed=seed,
            )
            found[latent.name][factor] = {
                **_as_dict(probe.accuracy),
                "chance": probe.chance,
            }
    return found


def style_transfer(
    model: VHE,
    source: DataSplits,
    *,
    groups: tuple[str, str],
    judge_epochs: int,
    num_trials: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures style transfer, by judges trained on the true training images.

    Args:
        model: The model.
        source: The styled data.
        groups: The groupings of content and style.
        judge_epochs: Passes over the images that train the judge of contents;
            styles are learned in two.
        num_trials: As in `judge_transfer`.
        seed: Decides everything random.
        progress: Called with a line of text from time to time.

    Returns:
        The measures of `Transfer` by name.

    Raises:
        ValueError: If training images are not stored as the model sees them;
            as `judge_transfer`.
    """
    if source.train.image_shape[:2] != source.image_size:
        raise ValueError(
            "Judges see images as the model does. Received: stored images of "
            f"{source.train.image_shape[:2]}, model of {source.image_size}."
        )
    order = np.random.default_rng(seed).permutation(len(source.train))
    train = ready(source.train.where(order < _MAX_JUDGE_IMAGES), "colour")
    judges = [
        train_judge(
            train.images,
            train.labels[name],
            epochs=min(epochs, judge_epochs),
            seed=seed,
            progress=progress,
        )
        for name, epochs in zip(
            groups, (judge_epochs, _STYLE_JUDGE_EPOCHS), strict=True
        )
    ]
    num_contents = len(source.test.group_ids(groups[0]))
    num_styles = len(source.test.group_ids(groups[1]))
    measures = judge_transfer(
        model,
        source.test,
        content_judge=judges[0],
        style_judge=judges[1],
        groups=groups,
        num_ways=min(20, num_contents // 2),
        num_styles=min(10, num_styles),
        num_trials=num_trials,
        seed=seed,
        progress=progress,
    )
    return {name: _as_dict(v) for name, v in measures._asdict().items()}


def _other_groupings(model: VHE, data: GroupedImages, group: str) -> list[str]:
    return [
        latent.name
        for latent in model.latents
        if not latent.per_element
        and latent.name != group
        and latent.name in data.labels
    ]


def _accuracies(
    scorer: classification.ClassScorer,
    data: GroupedImages,
    *,
    ways: Sequence[int],
    shots: Sequence[int],
    num_trials: int,
    within: str | None,
    seed: int,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Returns accuracies by the names of their tasks."""
    suffix = f"_within_{within}" if within else ""
    return {
        f"{num_ways}way_{num_shots}shot{suffix}": _as_dict(
            classification.few_shot_accuracy(
                scorer,
                data,
                num_ways=num_ways,
                num_shots=num_shots,
                num_trials=num_trials,
                num_queries=None if num_ways == min(ways) else min(ways),
                within=within,
                seed=seed,
                progress=progress,
            )
        )
        for num_ways in ways
        for num_shots in shots
    }


def _accuracies_by_other(
    model: VHE,
    data: GroupedImages,
    other: str,
    *,
    group: str,
    shots: Sequence[int],
    num_trials: int,
    num_samples: int,
    num_element_samples: int,
    max_decoded: int,
    seed: int,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Returns accuracies of telling the groups of another latent apart."""
    scorer = classification.ClassScorer(
        model,
        group=other,
        num_samples=num_samples,
        num_element_samples=num_element_samples,
        max_decoded=max_decoded,
    )
    num_groups = len(data.group_ids(other))
    return {
        f"{ways}way_{num_shots}shot_by_{other}": _as_dict(
            classification.few_shot_accuracy(
                scorer,
                data,
                num_ways=ways,
                num_shots=num_shots,
                num_trials=num_trials,
                spread=group,
                seed=seed,
                progress=progress,
            )
        )
        for ways in sorted({min(ways, num_groups) for ways in _OTHER_WAYS})
        for num_shots in shots
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
    trials = (
        classification.Trial(
            support=_binary(run.support)[:, np.newaxis],
            queries=_binary(run.queries),
            labels=run.labels,
        )
        for run in omniglot.lake_runs(path)
    )
    correct: list[float] = []
    for trial, scores in scorer.each(trials, seed=0):
        correct.append((scores.argmax(axis=1) == trial.labels).mean())
        if progress:
            progress(
                f"Lake's runs: {len(correct)}, {np.mean(correct):.1%} so far"
            )
    return _as_dict(estimate(np.array(correct)))


def _binary(images: np.ndarray) -> np.ndarray:
    return omniglot.binary_recipe(images).astype(np.float32) / 255


def summary_lines(report: dict[str, Any]) -> list[str]:
    """Returns a report as a few lines for a person."""
    lines = []
    for name, value in report["accuracy"].items():
        chance = 1 / int(name.split("way")[0])
        label = name.replace("way_", "-way ").replace("shot", "-shot")
        # Styles, and of some splits alphabets, have been trained on.
        unseen = "images" if "_by_" in name else "classes"
        lines.append(
            f"{label.replace('_', ' ')} accuracy on unseen {unseen}: "
            f"{_with_interval(value, '.1%')} "
            f"(chance {chance:.1%})"
        )
    if "elbo" in report:
        lines.append(f"bound: {_likelihood(report['elbo'])}")
    joint = report["joint_nll"]
    lines.append(
        f"joint NLL <= {_likelihood(joint)} (k = {joint['num_samples']}, "
        f"effective sample size {joint['effective_sample_size']:.1f})"
    )
    conditional = {
        name.removesuffix("shot"): value
        for name, value in report["conditional_nll"].items()
        if name != "unit"
    }
    if conditional:
        lines.append(
            "NLL of a new image, by shots: "
            + ", ".join(
                f"{num_shots}: {value['mean']:.1f}"
                for num_shots, value in conditional.items()
            )
            + " nats"
        )
    bits = [
        f"{num_shots}: {value['bits_per_dimension']['mean']:.3f}"
        for num_shots, value in conditional.items()
        if "bits_per_dimension" in value
    ]
    if bits:
        lines.append(f"the same in bits a dimension: {', '.join(bits)}")
    lines += [
        f"KL of {latent}, training set: {_with_interval(value, '.2f')} nats"
        for latent, value in report.get("training_kl", {}).items()
    ]
    lines += _probe_lines(report.get("probes", {}))
    lines += _transfer_lines(report.get("transfer"))
    lines += [f"left out: {reason}" for reason in report["left_out"]]
    if "caveat" in report:
        lines.append(report["caveat"])
    return lines


def _probe_lines(probes: dict[str, Any]) -> list[str]:
    return [
        f"linear probe of {latent}, from one image: "
        + ", ".join(
            f"{factor} {value['mean']:.1%} (chance {value['chance']:.1%})"
            for factor, value in factors.items()
        )
        for latent, factors in probes.items()
    ]


def _transfer_lines(transfer: dict[str, Any] | None) -> list[str]:
    if transfer is None:
        return []
    form = {k: _with_interval(v, ".1%") for k, v in transfer.items()}
    return [
        f"redrawn in another style: right style {form['style']} (judge on true "
        f"images {form['style_of_true']}), right content {form['content']} "
        f"(judge on true images {form['content_of_true']})",
        f"another style keeps the content {form['content_kept']} and changes "
        f"the style {form['style_changed']}; another content keeps the style "
        f"{form['style_kept']}",
    ]


def _shots_instead(most: int) -> str:
    return f", so {most}-shot instead" if most > 0 else ""


def _why_no_bound(model: VHE, data: GroupedImages) -> str | None:
    """Returns why `elbo` cannot be measured, or None."""
    for latent in model.latents:
        if latent.per_element:
            continue
        if latent.name not in data.labels:
            return f"the bound: the data have no grouping {latent.name!r}"
        smallest = classification.most_shots(data, latent.name) + 1
        if smallest < _BOUND_SHOTS:
            return (
                f"the bound with {_BOUND_SHOTS} shots: the smallest "
                f"{latent.name} has {_counted(smallest, 'image')}"
            )
    return None


def _most_classes(data: GroupedImages, group: str, coarser: str | None) -> int:
    """Returns the largest number of classes that a task can be drawn from."""
    if coarser is None:
        return len(data.group_ids(group))
    return max(
        len(data.with_groups(coarser, [int(i)]).group_ids(group))
        for i in data.group_ids(coarser)
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_dict(value: Estimate) -> dict[str, Any]:
    half_width = value.half_width
    return {
        "mean": value.mean,
        # JSON has no NaN.
        "half_width_95": None if math.isnan(half_width) else half_width,
        "num_trials": value.num_trials,
    }


def _likelihood(value: dict[str, Any]) -> str:
    text = f"{_with_interval(value, '.2f')} nats an image"
    if "bits_per_dimension" not in value:
        return text
    bits = _with_interval(value["bits_per_dimension"], ".3f")
    return f"{text} = {bits} bits a dimension"


def _with_interval(value: dict[str, Any], form: str) -> str:
    half_width = value["half_width_95"]
    if half_width is None:
        return f"{value['mean']:{form}}"
    return f"{value['mean']:{form}} ± {half_width:{form}}"
