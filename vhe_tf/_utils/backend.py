"""The backend of Keras, checked before Keras is imported."""

import json
import os
import pathlib
import sys

__all__ = ["check_backend"]

_NEEDED = "tensorflow"


def check_backend() -> None:
    """Raises an `ImportError` unless Keras uses TensorFlow, or will."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        found, way = keras.config.backend(), "before Keras is imported"
    else:
        folder = os.environ.get("KERAS_HOME") or "~/.keras"
        path = pathlib.Path(folder, "keras.json").expanduser()
        found, way = os.environ.get("KERAS_BACKEND"), "in the environment"
        if not found:
            found, way = _configured(path), f"in the environment, or in {path}"
    if found != _NEEDED:
        raise ImportError(
            f"vhe_tf needs the TensorFlow backend of Keras. Set KERAS_BACKEND="
            f"{_NEEDED} {way}. Received: the backend {found!r}."
        )


def _configured(path: pathlib.Path) -> str:
    try:
        return str(json.loads(path.read_text("utf-8"))["backend"])
    except (OSError, ValueError, KeyError, TypeError):
        return _NEEDED  # Keras' own default


check_backend()
