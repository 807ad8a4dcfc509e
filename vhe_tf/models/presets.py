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

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


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
    path = _CHECKOUT / "saved_models" / name / "best.keras"
    if not path.is_file():
        raise FileNotFoundError(
            f"The shipped model {name} lies in saved_models/ of a checkout of "
            "this project, and is not part of the installed package. Pass the "
            f"path of its best.keras. Received: {name!r}; there is no {path}."
        )
    return path
