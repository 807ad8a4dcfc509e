"""Checks of what a model of latents receives; each raises a `ValueError`."""

import json
import re
import zlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf._utils.validation import is_image_shape
from vhe_tf._utils.validation import is_positive_int
from vhe_tf.data.contrast import check_contrast
from vhe_tf.data.datasets.label_table import check_nested
from vhe_tf.data.episodes import Episodes
from vhe_tf.data.polarity import warn_if_paper_is_ink
from vhe_tf.distributions.domain import Domain
from vhe_tf.models import _graph
from vhe_tf.models import _values
from vhe_tf.models.latents import Latent

__all__ = [
    "Model",
    "check_dataset",
    "check_episodes",
    "check_fit_options",
    "check_given",
    "check_keys",
    "check_kl",
    "check_no_posteriors",
    "checked_by_latent",
    "checked_dataset",
    "checked_episode",
    "checked_event_shape",
    "checked_images",
    "checked_query",
    "checked_support",
    "checked_validation_data",
    "settings_checksum",
]

# Gaussian pixels may be somewhat beyond 0 to 1; a larger one shows an image of
# 0 to 255.
_LARGEST_PIXEL = 16.0


class Model(Protocol):
    """The facts about a model that its inputs are checked against."""

    latents: tuple[Latent, ...]
    event_shape: tuple[int, ...]
    num_levels: int
    domain: Domain


# Construction ----------------------------------------------------------------


def checked_event_shape(event_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(event_shape)
    if not all(map(is_positive_int, shape)):
        raise ValueError(
            "`event_shape` is the shape of an element, positive integers: "
            "(H, W, C) of an image. "
            f"Received: event_shape={event_shape!r}."
        )
    return shape


def check_kl(latent: Latent, kl: tf.Tensor) -> None:
    """Rejects a KL that is not one number for each batch element."""
    if kl.shape != (1,):
        raise ValueError(
            "The KL of a latent is one number for each batch element; "
            "a distribution of several dimensions has them in its "
            "event shape (`tfd.MultivariateNormalDiag`, "
            "`tfd.Independent`). Received: "
            f"{kl.shape} for a batch of 1 by latent {latent.name!r}."
        )


# Inference -------------------------------------------------------------------


def checked_images(model: Model, name: str, *, images: Any) -> tf.Tensor:
    """Returns float32 images; scales uint8 images from 0..255 to 0..1.

    Elements of other shapes keep their values, of any type of numbers. Pixels
    of a model of binary pixels become 0 or 1, from 128 on. Values are
    checked where there are any: not in graphs.
    """
    images = tf.convert_to_tensor(images)
    are_images = is_image_shape(model.event_shape)
    if not are_images:
        images = tf.cast(images, tf.float32)
    eager = tf.executing_eagerly() and tf.size(images) > 0
    binary = model.domain.binary
    has_contrast = eager and are_images and model.domain.is_bounded
    if images.dtype == tf.uint8:
        if has_contrast:
            check_contrast(images.numpy(), name, binary=binary, constant=True)
        images = tf.cast(images, tf.float32) / 255.0
        if binary:
            images = tf.cast(images >= 0.5, tf.float32)
            if eager:
                warn_if_paper_is_ink(images.numpy(), name)
        if eager:
            model.domain.check(name, images.numpy(), event_rank=3)
        return images
    if not images.dtype.is_floating:
        raise ValueError(
            "Images are floating point from 0 to 1 or uint8 from 0 to 255, "
            "with ink 1 or 255. "
            f"Received: {name!r} of dtype {images.dtype.name}."
        )
    images = tf.cast(images, tf.float32)
    if eager:
        rank = len(model.event_shape)
        model.domain.check(name, images.numpy(), event_rank=rank)
        if has_contrast:
            check_contrast(images.numpy(), name, binary=binary, constant=True)
        if are_images and binary:
            warn_if_paper_is_ink(images.numpy(), name)
        largest = float(tf.reduce_max(images))
        unbounded = are_images and not model.domain.is_bounded
        if unbounded and largest > _LARGEST_PIXEL:
            raise ValueError(
                "Images of floating point are from 0 to 1. Divide pixels from "
                "0 to 255 by 255. "
                f"Received: {name!r} with a pixel of {largest:g}."
            )
    return images


def checked_support(
    model: Model,
    support: _graph.Support | tf.Tensor,
    *,
    query: tf.Tensor | None = None,
    axes: tuple[str, ...] = ("B",),
) -> _graph.Support:
    """Returns supports by name; checks them, and their and query's shapes.

    Images are `[axes..., N, H, W, C]`.
    """
    if not isinstance(support, Mapping):
        names = _graph.group_names(model.latents)
        if len(names) > 1:
            raise ValueError(
                "A model with several group latents takes its support as "
                f"a mapping from some or all of {names}. Received a tensor."
            )
        support = {names[0]: support}
    if not support:
        raise ValueError(
            "At least one group latent needs a support. To sample new groups, "
            "use `sample_prior`. Received: an empty support."
        )
    _check_support_names(model, support)
    checked = {
        name: value
        if isinstance(value, tfd.Distribution)
        else checked_images(model, name, images=value)
        for name, value in support.items()
    }
    shapes = [
        (value, (*axes, f"N of {name}", *model.event_shape))
        for name, value in checked.items()
        if not isinstance(value, tfd.Distribution)
    ]
    for value, expected in shapes:
        if value.shape.rank is not None and value.shape.rank < len(expected):
            letters = ", ".join((*axes, "N", *map(str, model.event_shape)))
            raise ValueError(
                f"A support has the axes [{letters}], with N elements of each "
                "group. Add those that are missing by `images[None]`. "
                f"Received: a support of shape {value.shape}."
            )
    if query is not None:
        # An extra batch axis of size 1 would broadcast without an error.
        shapes.append((query, ("B", *model.event_shape)))
        for value in checked.values():
            if isinstance(value, tfd.Distribution):
                tf.debugging.assert_equal(
                    value.batch_shape_tensor(),
                    tf.shape(query)[:1],
                    "`support` and `query` must have the same B.",
                )
    tf.debugging.assert_shapes(
        shapes, message="The support or the query has a wrong shape."
    )
    return checked


def _check_support_names(model: Model, support: _graph.Support) -> None:
    known = _graph.group_names(model.latents)
    for name in support:
        if name not in known:
            raise ValueError(
                "`support` names a group latent that this model does not "
                f"have. Group latents: {known}. Received: {name!r}."
            )


def check_no_posteriors(method: str, support: _graph.Support) -> None:
    for name, value in support.items():
        if isinstance(value, tfd.Distribution):
            raise ValueError(
                f"`{method}` takes images, not results of `encode`. To score "
                "a class by its posterior, use `log_likelihood`. Received: "
                f"support[{name!r}] of type {type(value).__name__}."
            )


def checked_query(
    model: Model, query: Any, *, batch_size: tf.Tensor
) -> tf.Tensor:
    """Returns the query of samples, with the same B."""
    query = checked_images(model, "query", images=query)
    tf.debugging.assert_shapes(
        [(query, ("B", *model.event_shape))],
        message="The query has a wrong shape.",
    )
    tf.debugging.assert_equal(
        batch_size,
        tf.shape(query)[0],
        "`samples` and `query` must have the same B.",
    )
    return query


def check_given(
    model: Model, argument: str, *, given: Mapping[str, Any]
) -> None:
    """Rejects values of latents without values of their parents."""
    known = [latent.name for latent in model.latents]
    groups = _graph.group_names(model.latents)
    if not set(given) <= set(known) or not set(given) & set(groups):
        raise ValueError(
            f"`{argument}` has some or all latents of this model, {known}, "
            f"at least one of {groups}. Received: {sorted(given)}."
        )
    for latent in model.latents:
        missing = [p for p in latent.parents if p not in given]
        if latent.name in given and missing:
            # Given this latent, its parents do not follow their prior.
            raise ValueError(
                f"Latent {latent.name!r} depends on {missing}: pass these "
                "too, the whole result of `infer` or `encode`. "
                f"Received: `{argument}` of {sorted(given)}."
            )


# Training --------------------------------------------------------------------


def checked_episode(
    model: Model, episode: _graph.Episode, *, rescales: bool
) -> _graph.Episode:
    """Returns an episode of float32 images; checks its keys and shapes."""
    if not isinstance(episode, Mapping):
        raise ValueError(
            "A model is called on episodes, mappings with `query`, `support` "
            "and `seed`. Pass images and labels as arrays, "
            "`fit(images, labels)`; `Episodes` or `GroupedImages` make a data "
            f"set of episodes. Received: {type(episode).__name__}."
        )
    group_latents = _graph.group_names(model.latents)
    check_keys(episode, group_latents, with_sizes=rescales)
    query = checked_images(model, "query", images=episode["query"])
    support = {
        name: checked_images(model, name, images=episode["support"][name])
        for name in group_latents
    }
    seed = tf.cast(episode["seed"], tf.int32)
    if seed.shape.rank != 2:
        raise ValueError(
            "The `seed` of an episode has one seed per row, [B, 2], such as "
            "`vhe_tf.random.fold_in(0, tf.range(B))`. "
            f"Received: a seed of shape {seed.shape}."
        )
    # An extra batch axis of size 1 would broadcast into a wrong ELBO.
    shapes = [(query, ("B", *model.event_shape)), (seed, ("B", 2))]
    for name, images in support.items():
        shapes.append((images, ("B", f"N of {name}", *model.event_shape)))
        if rescales:
            shapes.append((episode["group_size"][name], ("B",)))
    tf.debugging.assert_shapes(shapes)
    return {**episode, "query": query, "support": support, "seed": seed}


def check_keys(
    episode: _graph.Episode, group_latents: Sequence[str], *, with_sizes: bool
) -> None:
    by_latent = ["support", "group_size"] if with_sizes else ["support"]
    missing = [
        key for key in ("query", "seed", *by_latent) if key not in episode
    ] or [
        f"{key}[{name!r}]"
        for key in by_latent
        for name in group_latents
        if name not in episode[key]
    ]
    if missing:
        needed = " and ".join(f"`{key}`" for key in by_latent)
        raise ValueError(
            f"An episode has `query`, `seed`, and {needed} of each of "
            f"{group_latents}. Received: an episode without "
            f"{', '.join(missing)}."
        )


def checked_by_latent(
    model: Model, argument: str, *, values: Mapping[str, Any] | None
) -> dict[str, Any]:
    known = [latent.name for latent in model.latents]
    for name, value in (values or {}).items():
        if name not in known or value < 0:
            raise ValueError(
                f"`{argument}` maps latents of the model, {known}, to "
                "non-negative numbers. "
                f"Received: {argument}[{name!r}]={value!r}."
            )
    return dict(values or {})


def check_episodes(
    model: Any, episodes: Episodes, *, validation: bool = False
) -> None:
    """Rejects episodes that a model cannot be trained on.

    Args:
        model: `VHE`. A compiled model.
        episodes: `Episodes`. The episodes.
        validation: Boolean. Whether they are to validate. Defaults to False.

    Raises:
        ValueError: If they do not match the objective, the latents or the image
            shape of the model, or a batch cannot be split evenly among
            replicas and microbatches.
    """
    objective = model.objective
    resamples = objective.resamples
    if validation:
        resamples = objective.validates_resampled
    if episodes.resamples != resamples:
        raise ValueError(
            f"The objective {str(objective)!r} needs episodes with "
            f"resamples={resamples}{' in validation' * validation}; "
            "`Episodes.for_model(model, data, "
            f"validation={validation})` makes them. Received: episodes with "
            f"resamples={episodes.resamples}."
        )
    if episodes.event_shape != model.event_shape:
        raise ValueError(
            f"The model has event_shape={model.event_shape}; grey images of "
            "shape (H, W) take a last axis of size 1 (`images[..., None]`). "
            f"Received: episodes of elements {episodes.event_shape}."
        )
    for latent in model.latents:
        if not latent.per_element:
            _check_grouping(latent, episodes)
    _values.check_prepared(model, episodes)
    _check_layout(model, episodes.batch_size)


def check_dataset(
    model: Any, dataset: tf.data.Dataset, *, validation: bool = False
) -> None:
    """Rejects a data set that is made of episodes of another model."""
    episodes = getattr(dataset, "episodes", None)
    if isinstance(episodes, Episodes):
        check_episodes(model, episodes, validation=validation)
        return
    for part in dataset._inputs():  # it may be shortened, mapped or joined
        check_dataset(model, part, validation=validation)


def check_fit_options(options: Mapping[str, Any]) -> None:
    """Rejects options of Keras' `fit` that episodes cannot have."""
    for name in ("class_weight", "sample_weight", "validation_split"):
        value = options.get(name)
        if value is not None and not np.array_equal(value, 0):
            raise ValueError(
                f"`{name}` has no meaning for episodes: training samples "
                "groups of images, and validation needs groups of its own, "
                "`validation_data`. Leave it out. Received: "
                f"{name}={value!r}."
            )


def checked_validation_data(data: Any) -> tuple[Any, Any]:
    """Returns validation data and its labels, None if it has none."""
    parts = data if isinstance(data, tuple | list) else (data, None)
    if len(parts) != 2:
        raise ValueError(
            "`validation_data` is a pair (images, labels), or as `x`: episodes "
            f"have no sample weights. Received: {len(parts)} values."
        )
    x, y = parts
    return x, y


def settings_checksum(model: Any, episodes: Episodes) -> int:
    """Returns what identifies a run among other settings and labels."""
    settings = {
        "model": model.get_config(),
        "training": model.get_compile_config(),
        "episodes": episodes.settings(),
    }
    text = json.dumps(settings, sort_keys=True, default=str)
    # Keras numbers the layers that a process makes: those of a chief are more.
    text = re.sub(r'("name": "\w*?)_\d+"', r'\1"', text)
    checksum = zlib.crc32(text.encode("utf-8"))
    for name, labels in sorted(episodes.data.labels.items()):
        checksum = zlib.crc32(name.encode("utf-8"), checksum)
        checksum = zlib.crc32(labels.tobytes(), checksum)
    return checksum


def checked_dataset(
    model: Any, data: tf.data.Dataset, *, validation: bool = False
) -> tf.data.Dataset:
    """Returns episodes that are checked: those of others, as they come."""
    check_dataset(model, data, validation=validation)
    if isinstance(getattr(data, "episodes", None), Episodes):
        return data
    return _values.with_checked_values(model, data)


def _check_grouping(latent: Latent, episodes: Episodes) -> None:
    if latent.name not in episodes.group_latents:
        raise ValueError(
            f"Latent {latent.name!r} needs a grouping of that name: a label "
            "for each image that says which group it belongs to. Received: "
            f"episodes with the groupings {sorted(episodes.group_latents)}."
        )
    for parent in latent.parents:
        check_nested(episodes.data, latent.name, parent=parent)


def _check_layout(model: Any, batch_size: int) -> None:
    count = model.distribute_strategy.num_replicas_in_sync
    if batch_size % count:
        raise ValueError(
            "Each replica takes the same number of episodes: the batch size "
            f"must be a multiple of the {count} replicas. "
            f"Received: batch_size={batch_size}."
        )
    rows = batch_size // count
    if rows % model.accumulation:
        raise ValueError(
            "The episodes of a replica are split evenly into `accumulation` "
            f"microbatches: {rows} must be a multiple of it. Received: "
            f"accumulation={model.accumulation} with batch_size={batch_size} "
            f"on {count} replicas."
        )
