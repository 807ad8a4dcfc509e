"""The Variational Homoencoder in Keras and TensorFlow Probability.

Hierarchical Bayesian few-shot generative models, trained by encoding a few
elements of a group and decoding another one. Equation, table and section
numbers everywhere in this package are those of Hewitt, Nye, Gane, Jaakkola and
Tenenbaum, "The Variational Homoencoder: Learning to learn high capacity
generative models from few examples", UAI 2018.
"""

import importlib
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from vhe_tf import callbacks
    from vhe_tf import data
    from vhe_tf import distribute
    from vhe_tf import distributions
    from vhe_tf import errors
    from vhe_tf import evaluation
    from vhe_tf import experiments
    from vhe_tf import layers
    from vhe_tf import models
    from vhe_tf import objectives
    from vhe_tf import optimizers
    from vhe_tf import random
    from vhe_tf import serving
    from vhe_tf import visualization
    from vhe_tf.models.architectures import alphabet_pixel_cnn_vhe
    from vhe_tf.models.architectures import alphabet_vhe
    from vhe_tf.models.architectures import deconvolutional_vhe
    from vhe_tf.models.architectures import pixel_cnn_vhe
    from vhe_tf.models.architectures import style_vhe
    from vhe_tf.models.latents import Latent
    from vhe_tf.models.loading import load_model
    from vhe_tf.models.loading import save_model
    from vhe_tf.models.presets import presets
    from vhe_tf.models.prior_fitting import fit_prior
    from vhe_tf.models.vhe import VHE
    from vhe_tf.objectives import ElboTerms
    from vhe_tf.objectives import Objective

__version__ = "0.2.0"

__all__ = [
    "VHE",
    "ElboTerms",
    "Latent",
    "Objective",
    "alphabet_pixel_cnn_vhe",
    "alphabet_vhe",
    "callbacks",
    "data",
    "deconvolutional_vhe",
    "distribute",
    "distributions",
    "errors",
    "evaluation",
    "experiments",
    "fit_prior",
    "layers",
    "load_model",
    "models",
    "objectives",
    "optimizers",
    "pixel_cnn_vhe",
    "presets",
    "random",
    "save_model",
    "serving",
    "style_vhe",
    "visualization",
]

_HOMES = {
    "ElboTerms": "vhe_tf.objectives",
    "Latent": "vhe_tf.models.latents",
    "Objective": "vhe_tf.objectives",
    "VHE": "vhe_tf.models.vhe",
    "alphabet_pixel_cnn_vhe": "vhe_tf.models.architectures",
    "alphabet_vhe": "vhe_tf.models.architectures",
    "deconvolutional_vhe": "vhe_tf.models.architectures",
    "fit_prior": "vhe_tf.models.prior_fitting",
    "load_model": "vhe_tf.models.loading",
    "pixel_cnn_vhe": "vhe_tf.models.architectures",
    "presets": "vhe_tf.models.presets",
    "save_model": "vhe_tf.models.loading",
    "style_vhe": "vhe_tf.models.architectures",
}


def __getattr__(name: str) -> Any:
    # Loaded on first use: TensorFlow takes seconds, `--help` must not.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"vhe_tf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
