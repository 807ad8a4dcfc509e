"""Saving models, and loading them again."""

import io
import pathlib
import re
import zipfile
from typing import Any

import h5py
import keras

# Register what a saved VHE is made of, and trained by.
from vhe_tf import optimizers  # noqa: F401
from vhe_tf._utils import atomic_io
from vhe_tf.models import _reloading
from vhe_tf.models import architectures  # noqa: F401
from vhe_tf.models.presets import PRESETS
from vhe_tf.models.presets import model_path
from vhe_tf.models.vhe import VHE

__all__ = ["load_model", "save_model"]

# Weights hardly compress, and no settings of a model are so large.
_MAX_RATIO = 100
_MAX_SETTINGS_BYTES = 2**26

_UNKNOWN_CLASS = re.compile(r"Could not locate (?:class|function) '([^']+)'")
_MODULE = re.compile(r"'module': '([^']+)'")

_MAX_LINES, _MAX_LINE = 3, 300


def load_model(path: str | pathlib.Path) -> VHE:
    """Loads a VHE from a `.keras` file, in the safe mode of Keras.

    Args:
        path: Path of the file or of the folder of a run, whose best model is
            loaded; or the name of a shipped model, see `vhe_tf.presets`.

    Returns:
        The model, with its weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a saved VHE, is corrupt, or needs a
            class that is not imported.

    Example:
    >>> load_model("omniglot_pixel_cnn_small").event_shape
    (28, 28, 1)
    """
    path = model_path(path)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a model saved as a .keras file, the folder of a run, "
            f"such as runs/quickstart, or a shipped model, one of {PRESETS}. "
            f"Received: {path}, which is not a file."
        )
    try:
        _check_sizes(path)
        model = keras.saving.load_model(path, safe_mode=True)
    # Keras lets through all kinds of errors from corrupt and hostile files.
    except Exception as error:
        raise ValueError(_not_loaded(path, error)) from error
    if not isinstance(model, VHE):
        raise ValueError(
            f"Expected a VHE. Received: {path} holds a {type(model).__name__}."
        )
    return model


def _check_sizes(path: pathlib.Path) -> None:
    """Looks at the sizes in the directory of a file before it is unpacked."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    total = sum(member.file_size for member in members)
    settings = sum(
        member.file_size
        for member in members
        if member.filename.endswith(".json")
    )
    if (
        total > _MAX_RATIO * path.stat().st_size
        or settings > _MAX_SETTINGS_BYTES
    ):
        raise ValueError(
            f"it unpacks to {total:,} bytes, {settings:,} of them settings"
        )
    for member in members:
        if member.filename.endswith(".h5"):
            with zipfile.ZipFile(path) as archive:
                weights = io.BytesIO(archive.read(member))
            _check_arrays(weights)


def _check_arrays(weights: io.BytesIO) -> None:
    """Rejects arrays that are larger than the file that should have them."""
    sizes: list[int] = []
    with h5py.File(weights, "r") as file:
        file.visititems(lambda _, item: sizes.append(_num_bytes(item)))
    total, stored = sum(sizes), len(weights.getbuffer())
    if total > _MAX_RATIO * stored:
        raise ValueError(
            f"its weights take {total:,} bytes, but {stored:,} are stored"
        )


def _num_bytes(item: Any) -> int:
    return int(item.nbytes) if isinstance(item, h5py.Dataset) else 0


def _not_loaded(path: pathlib.Path, error: Exception) -> str:
    text = str(error)
    unknown = _UNKNOWN_CLASS.search(text)
    if unknown:
        module = _MODULE.search(text, unknown.end())
        of = f" of the module {module[1]}" if module else ""
        return (
            f"{path} needs the class {unknown[1]}{of}: import the module that "
            "defines it before you load the model. The class must be "
            "registered by `keras.saving.register_keras_serializable`."
        )
    lines = [line[:_MAX_LINE] for line in text.splitlines() if line.strip()]
    return (
        f"{path} is not a .keras file that holds a VHE, or it is corrupt "
        f"(copied incompletely?). Received: {type(error).__name__}: "
        + "\n".join(lines[:_MAX_LINES])
    )


def save_model(model: VHE, path: str | pathlib.Path) -> None:
    """Saves a model as a `.keras` file, atomically.

    Only what inference needs: neither optimizer nor training settings.

    Args:
        model: `VHE`. The model.
        path: Path. The file.

    Raises:
        NotWrittenError: If it cannot be written. No partial file remains.
        ValueError: If the model would not compute the same when it is loaded.
            The message names the layer.

    Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "mine.keras")
    >>> save_model(model, path)
    >>> load_model(path).count_params() == model.count_params()
    True
    """
    bare = _reloading.reloaded(model)
    with atomic_io.beside(pathlib.Path(path)) as partial:
        bare.save(partial)
