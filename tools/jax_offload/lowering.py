# mypy: disable-error-code="import-not-found"
"""A model of one grouping, and its images, as JAX can use them.

Functions are lowered to files, and both sides agree on plain arrays: `weights`
is `[P]`, the trainable variables one after the other; an episode is `query`,
`support`, `group_size` and `seed` as `VHE` describes them, without the name of
the grouping; what is measured is `[K]`, in the order of `metric_names`.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf import VHE
from vhe_tf import objectives
from vhe_tf.data import MISSING
from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data.augmentation import affine_table
from vhe_tf.layers import pixel_cnn
from vhe_tf.layers import shift_convolution

_MAX_ELEMENTS = 2**31 - 1


def vector_of(model: VHE) -> np.ndarray:
    """Returns the weights of a model as one vector."""
    return np.concatenate([v.numpy().ravel() for v in _variables(model)])


def assign_vector(model: VHE, vector: np.ndarray) -> None:
    """Gives a model the weights of a vector.

    Raises:
        ValueError: If the vector is of another length.
    """
    shapes = [variable.shape for variable in _variables(model)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    if len(vector) != ends[-1]:
        raise ValueError(
            f"The model has {ends[-1]} weights. Received: {len(vector)}."
        )
    parts = np.split(vector, ends[:-1])
    for variable, part in zip(_variables(model), parts, strict=True):
        variable.assign(part.reshape(variable.shape))


def metric_names(model: VHE) -> list[str]:
    """Returns the names of what is measured."""
    return [
        metric.name
        for metric in model.metrics
        if not metric.name.startswith("group_size_")
    ]


def step_of(model: VHE) -> Callable[..., Any]:
    """Returns a function of weights, episode and the number of the step.

    It returns what is measured and the gradient of the loss, `[P]`.
    """

    def step(
        weights: tf.Tensor, episode: Mapping[str, tf.Tensor], step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            terms = _terms(model, weights, episode, training=True)
            loss = model.loss_of_terms(terms, step)
        return _measured(model, terms, loss), tape.gradient(loss, weights)

    return step


def bound_of(model: VHE) -> Callable[..., Any]:
    """Returns a function of weights and episode to what is measured."""

    def bound(
        weights: tf.Tensor, episode: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        terms = _terms(model, weights, episode, training=False)
        return _measured(model, terms, -tf.reduce_mean(terms.elbo))

    return bound


def sampler_of(model: VHE) -> Callable[..., Any]:
    """Returns a function of weights, support and seeds to images.

    It is `VHE.sample`. Within `VHE.contrasts_fixed` the contrasts of guidance
    are constants, those of the weights of the model.
    """
    group = _group(model)

    def sample(
        weights: tf.Tensor, support: tf.Tensor, seeds: tf.Tensor
    ) -> tf.Tensor:
        with _given_weights(model, weights):
            return model.sample({group: support}, seed=seeds)

    return sample


def scorer_of(model: VHE, num_samples: int) -> Callable[..., Any]:
    """Returns a function of weights, support, query and seeds to nats.

    It is `VHE.log_likelihood`, by which a query is classified: one row for each
    pair of a class and a query.
    """
    group = _group(model)

    def score(
        weights: tf.Tensor,
        support: tf.Tensor,
        query: tf.Tensor,
        seeds: tf.Tensor,
    ) -> tf.Tensor:
        with _given_weights(model, weights):
            return model.log_likelihood(
                {group: support}, query, seed=seeds, num_samples=num_samples
            )

    return score


def keras_bound(model: VHE, episode: Mapping[str, np.ndarray]) -> float:
    """Returns the mean ELBO of a batch, by the model itself."""

    @tf.function(jit_compile=True)
    def bound(episode: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_mean(model(_named(model, episode)).elbo)

    return float(bound({k: tf.constant(v) for k, v in episode.items()}))


def lowered(
    function: Callable[..., Any], arguments: Sequence[Any], *, platform: str
) -> bytes:
    """Returns a function of TensorFlow as a file that JAX runs without it.

    Args:
        function: Callable. The function, pure.
        arguments: Nested `jax.ShapeDtypeStruct`.
        platform: String, `"cpu"` or `"cuda"`.
    """
    import jax
    import jax.export
    from jax.experimental import jax2tf

    call = jax2tf.call_tf(
        tf.function(function, autograph=False), has_side_effects=False
    )
    # One platform a file: TensorFlow lowers to one at a time.
    with shift_convolution.library_gradients():
        exported = jax.export.export(jax.jit(call), platforms=[platform])(
            *arguments
        )
    # Marks what came from TensorFlow, and cannot be read without that.
    exported = dataclasses.replace(exported, unordered_effects=())
    return bytes(exported.serialize())


def images_of(sampler: Episodes, group: str) -> dict[str, np.ndarray]:
    """Returns the arrays of `batches.Images`.

    Args:
        sampler: `Episodes`. The sampler of the images.
        group: String. The grouping.

    Raises:
        ValueError: If the images are not in memory, one has no label, or
            there are too many elements, or they are made as photographs are.
    """
    data, recipe = sampler.data, sampler.augmentation
    if recipe.repeat_edges or recipe.num_levels:
        raise ValueError(
            "Only drawings can be made there, with zeros beyond the border "
            f"and no levels. Received: repeat_edges={recipe.repeat_edges}, "
            f"num_levels={recipe.num_levels}."
        )
    if not isinstance(data, GroupedImages):
        raise ValueError(
            "The images must fit in memory, there as well as here. "
            f"Received: {type(data).__name__}."
        )
    labels = data.labels[group]
    if (labels == MISSING).any():
        raise ValueError(
            f"Every image needs a {group}. Received: "
            f"{int((labels == MISSING).sum())} without."
        )
    if sampler.num_elements > _MAX_ELEMENTS:
        raise ValueError(
            f"There can be {_MAX_ELEMENTS} elements at most; use fewer "
            f"--affine_copies. Received: {sampler.num_elements}."
        )
    order = np.argsort(labels, kind="stable")
    _, start, place, size = np.unique(
        labels[order],
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    arrays = {
        "pixels": data.images[order],
        "start": start[place].astype(np.int32),
        "size": size[place].astype(np.int32),
    }
    stored_size = data.image_shape[:2]
    image_size = sampler.image_shape[:2]
    if recipe.affine_copies > 1 or stored_size != image_size:
        table = affine_table(
            len(data),
            recipe.affine_copies,
            stored_size=stored_size,
            image_size=image_size,
            seed=sampler.seed,
        )
        arrays["maps"] = table[order, :, :6]
    return arrays


def _terms(
    model: VHE,
    weights: tf.Tensor,
    episode: Mapping[str, tf.Tensor],
    *,
    training: bool,
) -> objectives.ElboTerms:
    """Returns the terms of the ELBO as a pure function of the weights."""
    terms, _ = model.stateless_call(
        _parts(model, weights), [], _named(model, episode), training=training
    )
    return terms


def _parts(model: VHE, weights: tf.Tensor) -> list[tf.Tensor]:
    """Returns the values of the variables in a vector of weights."""
    shapes = [variable.shape for variable in _variables(model)]
    parts = tf.split(weights, [int(np.prod(shape)) for shape in shapes])
    return [
        tf.reshape(part, shape)
        for part, shape in zip(parts, shapes, strict=True)
    ]


@contextlib.contextmanager
def _given_weights(model: VHE, weights: tf.Tensor) -> Iterator[None]:
    """Makes a model compute with other weights than its own."""
    values = _parts(model, weights)
    mapping = list(zip(_variables(model), values, strict=True))
    with keras.StatelessScope(state_mapping=mapping), pixel_cnn.traced_anew():
        yield


def _measured(
    model: VHE, terms: objectives.ElboTerms, loss: tf.Tensor
) -> tf.Tensor:
    values = {
        "loss": loss,
        "elbo": terms.elbo,
        "log_likelihood": terms.log_likelihood,
    }
    for name in terms.kl:
        values[f"kl_{name}"] = terms.kl[name]
        values[f"kl_{name}_scaled"] = terms.scaled_kl[name]
    return tf.stack([tf.reduce_mean(values[n]) for n in metric_names(model)])


def _named(model: VHE, episode: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an episode as the model's argument."""
    group = _group(model)
    return {
        "query": episode["query"],
        "support": {group: episode["support"]},
        "group_size": {group: episode["group_size"]},
        "seed": episode["seed"],
    }


def _group(model: VHE) -> str:
    """Returns the name of the only group latent."""
    (group,) = [v.name for v in model.latents if not v.per_element]
    return group


def _variables(model: VHE) -> list[Any]:
    return list(model.trainable_variables)
