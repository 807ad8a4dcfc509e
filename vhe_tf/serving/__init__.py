"""Serving of a trained VHE: export, client, development server.

`export` imports TensorFlow; `Client` over REST imports neither TensorFlow nor
Keras. Both are therefore imported on first use.
"""

import importlib
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from vhe_tf.serving.client import Client
    from vhe_tf.serving.client import ServingError
    from vhe_tf.serving.exporting import export
    from vhe_tf.serving.local import LocalServer
    from vhe_tf.serving.portable import export_portable

_PUBLIC = {
    "Client": "vhe_tf.serving.client",
    "LocalServer": "vhe_tf.serving.local",
    "ServingError": "vhe_tf.serving.client",
    "export": "vhe_tf.serving.exporting",
    "export_portable": "vhe_tf.serving.portable",
}

__all__ = [
    "Client",
    "LocalServer",
    "ServingError",
    "export",
    "export_portable",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
