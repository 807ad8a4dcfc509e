"""Serving of a trained VHE: export, client, development server.

`export` imports TensorFlow; `Client` over REST imports neither TensorFlow nor
Keras. Both are therefore imported on first use.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Client": "vhe_tf.serving.client",
    "ServingError": "vhe_tf.serving.client",
    "export": "vhe_tf.serving.exporting",
}

__all__ = ["Client", "ServingError", "export"]

# Declared for type checkers; `__getattr__` finds the objects.
Client: Any
ServingError: Any
export: Any


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
