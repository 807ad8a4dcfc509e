"""The models that the project ships."""

import os
import pathlib

__all__ = ["PRESETS", "model_path"]

PRESETS = (
    "omniglot_deconvolutional_small",
    "omniglot_pixel_cnn_large",
    "omniglot_pixel_cnn_large_random1200",
    "omniglot_pixel_cnn_published_likelihood",
    "omniglot_pixel_cnn_published_random1200",
    "omniglot_pixel_cnn_small",
    "omniglot_pixel_cnn_small_likelihood",
    "omniglot_styles_small",
)

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# In a wheel, and in a checkout.
_FOLDERS = (_PACKAGE / "presets", _PACKAGE.parent / "saved_models")


def model_path(name: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the `.keras` file of a shipped model, or the path as it is.

    Args:
        name: String, a name in `PRESETS`; or path of a file.

    Raises:
        FileNotFoundError: If the file of a shipped model is not there.

    Example:
    >>> model_path("runs/mine/best.keras").name
    'best.keras'
    """
    if os.fspath(name) not in PRESETS:
        return pathlib.Path(name).expanduser()
    paths = [folder / name / "best.keras" for folder in _FOLDERS]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"The file of the shipped model {name} is missing from this "
        "installation. Install the package again, or pass the path of a "
        f".keras file. Received: {name!r}; there is no {paths[0]}."
    )
