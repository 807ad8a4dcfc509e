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
    from vhe_tf import callbacks as callbacks
    from vhe_tf import data as data
    from vhe_tf import distribute as distribute
    from vhe_tf import distributions as distributions
    from vhe_tf import errors as errors
    from vhe_tf import evaluation as evaluation
    from vhe_tf import experiments as experiments
    from vhe_tf import layers as layers
    from vhe_tf import models as models
    from vhe_tf import objectives as objectives
    from vhe_tf import optimizers as optimizers
    from vhe_tf import random as random
    from vhe_tf import serving as serving
    from vhe_tf import visualization as visualization
    from vhe_tf.models.architectures import alphabet_vhe as alphabet_vhe
    from vhe_tf.models.architectures import (
        deconvolutional_vhe as deconvolutional_vhe,
    )
    from vhe_tf.models.architectures import pixel_cnn_vhe as pixel_cnn_vhe
    from vhe_tf.models.architectures import style_vhe as style_vhe
    from vhe_tf.models.latents import Latent as Latent
    from vhe_tf.models.loading import load_model as load_model
    from vhe_tf.models.vhe import VHE as VHE
    from vhe_tf.objectives import ElboTerms as ElboTerms
    from vhe_tf.objectives import Objective as Objective

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
_MODULES = (
    "callbacks",
    "data",
    "distribute",
    "distributions",
    "errors",
    "evaluation",
    "experiments",
    "layers",
    "models",
    "objectives",
    "optimizers",
    "random",
    "serving",
    "visualization",
)

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    # Loaded on first use: TensorFlow takes seconds, `--help` must not.
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_MODULES, "__version__"]
