"""Saving models, and loading them again."""

import pathlib
import zipfile
import zlib

import keras

# Register what a saved VHE is made of, and trained by.
from vhe_tf import optimizers  # noqa: F401
from vhe_tf._utils import atomic_io
from vhe_tf.models import architectures  # noqa: F401
from vhe_tf.models.presets import PRESETS
from vhe_tf.models.presets import model_path
from vhe_tf.models.vhe import VHE

__all__ = ["load_model", "save_model"]

# What Keras lets through from a file with a flipped byte, a part missing or an
# unknown class in it.
_DAMAGES = (
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def load_model(path: str | pathlib.Path) -> VHE:
    """Loads a VHE from a `.keras` file, in the safe mode of Keras.

    Args:
        path: Path of the file or of the folder of a run, whose best model is
            loaded; or the name of a shipped model, see `vhe_tf.presets`.

    Returns:
        The model, with its weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a saved VHE, or is corrupt.
    """
    path = model_path(path)
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a model saved as a .keras file, the folder of a run, "
            f"such as runs/quickstart, or a shipped model, one of {PRESETS}. "
            f"Received: {path}, which is not a file."
        )
    try:
        model = keras.saving.load_model(path)
    except _DAMAGES as error:
        raise ValueError(
            f"{path} is not a .keras file that holds a VHE, or it is corrupt "
            f"(copied incompletely?): {error}"
        ) from error
    if not isinstance(model, VHE):
        raise ValueError(
            f"Expected a VHE. Received: {path} holds a {type(model).__name__}."
        )
    return model


def save_model(model: VHE, path: str | pathlib.Path) -> None:
    """Saves a model as a `.keras` file, atomically.

    Only what inference needs: neither optimizer nor training settings.

    Args:
        model: The model.
        path: The file.

    Raises:
        NotWrittenError: If it cannot be written. No partial file remains.
    """
    bare = VHE.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    with atomic_io.beside(pathlib.Path(path)) as partial:
        bare.save(partial)
