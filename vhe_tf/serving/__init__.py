"""A trained VHE as a service: its export, a client, a development server.

`export` needs TensorFlow; `Client` speaks REST with neither TensorFlow nor
Keras, so both are loaded on first use.
"""

import importlib
from typing import Any

_PUBLIC = {
    "Client": "vhe_tf.serving.client",
    "ServingError": "vhe_tf.serving.client",
    "export": "vhe_tf.serving.exporting",
}

__all__ = ["Client", "ServingError", "export"]

# Declared for those who read or check the code; found by `__getattr__`.
Client: Any
ServingError: Any
export: Any


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
