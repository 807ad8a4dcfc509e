"""The Variational Homoencoder in Keras and TensorFlow Probability.

Hierarchical Bayesian few-shot generative models, trained by encoding a few
elements of a group and decoding another one. Equation, table and section
numbers everywhere in this package are those of Hewitt, Nye, Gane, Jaakkola and
Tenenbaum, "The Variational Homoencoder: Learning to learn high capacity
generative models from few examples", UAI 2018.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_PUBLIC = {
    "ElboTerms": "vhe_tf.objectives",
    "Latent": "vhe_tf.models.latents",
    "Objective": "vhe_tf.objectives",
    "VHE": "vhe_tf.models.vhe",
    "alphabet_vhe": "vhe_tf.models.architectures",
    "deconvolutional_vhe": "vhe_tf.models.architectures",
    "load_model": "vhe_tf.models.loading",
    "pixel_cnn_vhe": "vhe_tf.models.architectures",
    "style_vhe": "vhe_tf.models.architectures",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    # Loaded on first use: TensorFlow takes seconds, `--help` must not.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
