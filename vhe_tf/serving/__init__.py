"""A trained VHE as a service: its export, a client, a development server.

`export` needs TensorFlow; `Client` speaks REST with neither TensorFlow nor
Keras, so both are loaded on first use.
"""

import importlib
import sys
import types
from typing import Any

_PUBLIC = {
    "Client": "vhe_tf.serving.client",
    "ServingError": "vhe_tf.serving.client",
    "export": "vhe_tf.serving.export",
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


class _Package(types.ModuleType):
    """A package whose `export` stays the function of that name.

    Importing the submodule `export` would put it in the function's place.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
