"""Models as they will be when they are loaded: do they compute the same?"""

import json
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf.models import _graph
from vhe_tf.models.vhe import VHE

__all__ = ["copied", "reloaded", "update"]

# Equal computations, but for what a device may round in another order.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
_PLAIN = (bool, int, float, str, type(None))
# Attributes that differ where nothing else does.
_OF_KERAS = ("built", "name")
_MAX_REASON = 200
# A layer that flips half of the time passes for none that does once in 256.
_REPETITIONS = 8


def reloaded(model: VHE) -> VHE:
    """Returns a copy of a model that computes what the model does.

    They are compared on one element of noise.

    Args:
        model: `VHE`. The model.

    Raises:
        ValueError: If the copy does not. The message names the layer.
    """
    copy = copied(model)
    wrong = _differing(model, copy)
    # A layer that has randomness of its own cannot be compared.
    if wrong and not any(_differing(model, model) for _ in range(_REPETITIONS)):
        raise ValueError(_diagnosis(model, f"{wrong} is another when loaded"))
    return copy


def copied(model: VHE) -> VHE:
    """Returns a copy of a model by way of the JSON of its settings.

    Args:
        model: `VHE`. The model.

    Raises:
        ValueError: If there is none. The message names the layer.
    """
    try:
        copy = VHE.from_config(json.loads(json.dumps(model.get_config())))
    # Whatever constructors and `get_config` may raise.
    except Exception as error:
        raise ValueError(_diagnosis(model, _reason(error))) from error
    shapes, loaded = ([w.shape for w in m.weights] for m in (model, copy))
    if shapes != loaded:
        raise ValueError(
            _diagnosis(
                model,
                f"its weights have {sum(map(np.prod, loaded)):,} numbers "
                f"instead of {sum(map(np.prod, shapes)):,} when loaded",
            )
        )
    try:
        update(copy, model)
    except Exception as error:
        raise ValueError(_diagnosis(model, _reason(error))) from error
    return copy


def update(copy: VHE, model: VHE) -> None:
    """Gives a copy of a model the weights that the model has now.

    Args:
        copy: `VHE`. What `copied` or `reloaded` returned.
        model: `VHE`. The model.
    """
    copy.set_weights(model.get_weights())
    _load_variables(copy, model)


def _load_variables(copy: VHE, model: VHE) -> None:
    """Loads variables as from a file: some layers derive numbers from them."""
    of_model, of_copy = (
        [(layer, store) for layer in layers if (store := _store(layer))]
        for layers in (
            m._flatten_layers(include_self=False) for m in (model, copy)
        )
    )
    for (_, store), (layer, _) in zip(of_model, of_copy, strict=True):
        layer.load_own_variables(store)


def _store(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return {name: np.asarray(value) for name, value in store.items()}


def _differing(model: VHE, other: VHE) -> str | None:
    """Returns the first part of two models that computes other numbers."""
    for (part, value), (_, wanted) in zip(
        _numbers(other), _numbers(model), strict=True
    ):
        if not np.allclose(value, wanted, _RELATIVE, _ABSOLUTE, equal_nan=True):
            return part
    return None


def _numbers(model: VHE) -> list[tuple[str, tf.Tensor]]:
    """Returns what each part of a model computes of one element of noise."""
    noise = np.random.default_rng(0).random((1, *model.event_shape))
    if model.domain.integer:
        noise = noise.round()
    image = tf.constant(noise, tf.float32)
    samples: _graph.Samples = {}
    numbers = []
    for latent in model.latents:
        observed = image if latent.per_element else image[:, tf.newaxis]
        parents = _graph.parents_of(latent, samples)
        posterior, prior = latent(observed, *parents)
        value = _graph.sample(
            posterior,
            [1],
            seed=tf.zeros([2], tf.int32),
            allow_unregistered=True,
        )
        samples[latent.name] = value
        of = f"of latent {latent.name!r}"
        numbers += [
            (f"the posterior {of}", value),
            (f"the posterior {of}", posterior.log_prob(value)),
            (f"the prior {of}", prior.log_prob(value)),
        ]
        if latent.fitted_prior is not None:
            log_prob = latent.fitted_prior().log_prob(value)
            numbers.append((f"the fitted prior {of}", log_prob))
    log_prob = model.likelihood(**samples).log_prob(image)
    return [*numbers, ("the likelihood", log_prob)]


def _diagnosis(model: VHE, problem: str) -> str:
    """Returns a message that names the layer which is to blame, if found."""
    layers = list(model._flatten_layers(include_self=False))
    altered = None
    for layer in reversed(layers):  # those within a layer come first
        try:
            altered = _altered(layer, _revived(layer)) or altered
        except Exception as error:
            return (
                f"The layer {type(layer).__name__} cannot be saved and loaded "
                "again. Register classes and functions of your own by "
                "`@keras.saving.register_keras_serializable()`, define "
                "`get_config` with all arguments of the constructor, and "
                "replace lambda functions by layers of your own. Received: "
                f"{_described(layer)}, which raises {_reason(error)}."
            )
    own = {
        type(layer).__name__: _described(layer)
        for layer in layers
        if type(layer).__module__.partition(".")[0] not in ("keras", "vhe_tf")
    }
    return (
        "The model cannot be saved and loaded again: "
        f"{problem}. Define the `get_config` of your layers with all arguments "
        "of their constructors, and use each layer in one place. Received: "
        f"{altered or ', '.join(own.values()) or 'no layers of your own'}."
    )


def _revived(layer: keras.layers.Layer) -> keras.layers.Layer:
    saved = json.dumps(keras.saving.serialize_keras_object(layer))
    return keras.saving.deserialize_keras_object(json.loads(saved))


def _altered(layer: Any, revived: Any) -> str | None:
    """Describes an attribute of a layer that is another when loaded."""
    new = vars(revived)
    for name, value in vars(layer).items():
        if name.startswith("_") or name in _OF_KERAS or name not in new:
            continue
        if _is_plain(value) and _text(value) != _text(new[name]):
            return (
                f"{_described(layer)}, whose `{name}` is {value!r}, and "
                f"{new[name]!r} when loaded"
            )
    return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _text(value: Any) -> str:
    return json.dumps(value, default=str)  # which tells no tuple from a list


def _described(layer: keras.layers.Layer) -> str:
    kind = type(layer)
    return f"{kind.__module__}.{kind.__qualname__} (layer {layer.name!r})"


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:_MAX_REASON]}"
