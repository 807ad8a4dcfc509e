"""Checks of the paths that flags name, before anything slow is imported."""

import difflib
import os
import pathlib
import zipfile
from collections.abc import Sequence

from vhe_tf._utils.class_tree import find_class_folders

__all__ = ["beside_model", "check_path", "one_model"]

_CRITICS = ("proto_net.npz", "simclr.npz")  # of `evaluation.DrawingCritics`


def check_path(flag: str, path: str, *, kind: str) -> None:
    """Checks that a path is what a flag needs.

    Args:
        flag: String. The name of the flag, with its dashes, or "MODEL".
        path: String. Its value.
        kind: String. What must exist: `"file"`, `"folder"`, `"path"` (either),
            `"class folders"` (a folder with a folder of images per class),
            `"model"` (a file, the folder of a run, or a shipped model),
            `"critics"` (a folder of `evaluation.DrawingCritics`), `"records"`,
            `"TFDS folder"` (which may be remote); `"new file"`, `"new folder"`,
            which may exist; or `"any"`.

    Raises:
        ValueError, OSError: If it is not there, is of another kind, or is new
            and cannot be written.
    """
    expected = {
        "file": "an existing file",
        "folder": "an existing folder",
        "path": "an existing file or folder",
        "class folders": "an existing folder with a folder of images per class",
        "model": "a .keras file, the folder of a run, or a shipped model "
        "(`vhe-tf list` prints their names)",
        "critics": "an existing folder with proto_net.npz and simclr.npz",
        "TFDS folder": "an existing folder of TensorFlow Datasets; make an "
        "empty one if data should be prepared in it",
        "records": "a folder that vhe_tf.data.datasets.records wrote, with its "
        "index.npz",
        "new file": "a file, not a folder",
        "new folder": "a folder, not a file",
        "any": "a path",
    }[kind]
    if not (path and _is(kind, path)):
        named, comma, _ = flag.partition(",")  # what the path is may follow
        received = f"{named}={path}"
        if not named.startswith("--") or comma:
            received = f"{path!r}."
        raise ValueError(
            f"{flag} must be {expected}.{_nearest(kind, path)} "
            f"Received: {received}"
        )
    if kind == "model":
        _check_model_file(flag, path)
    elif kind == "class folders":
        find_class_folders(pathlib.Path(path).expanduser(), warn=False)
    elif kind.startswith("new "):
        _check_writable(flag, pathlib.Path(path).expanduser(), kind=kind)


def _nearest(kind: str, path: str) -> str:
    """Returns a sentence on the shipped model that a name may mean."""
    from vhe_tf.models.presets import PRESETS

    near = difflib.get_close_matches(path, PRESETS, n=1)
    return f" Did you mean {near[0]}?" if kind == "model" and near else ""


def _check_model_file(flag: str, path: str) -> None:
    """Checks that a file is the archive that Keras writes."""
    from vhe_tf.models.presets import model_path

    file = model_path(path)
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if "config.json" not in names:
        raise ValueError(
            f"{flag} must be a .keras file that `model.save` wrote; it may be "
            f"corrupt, or of another format. Received: {str(file)!r}."
        )


def _check_writable(flag: str, path: pathlib.Path, *, kind: str) -> None:
    """Checks that a file can be made in its folder, or in a new folder."""
    place = path.absolute() if kind == "new folder" else path.absolute().parent
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        reason = "it is not a folder"
    elif not os.access(place, os.W_OK | os.X_OK):
        reason = "it may not be written to"
    else:
        return
    raise ValueError(
        f"{flag} must be where files can be written; name another place. "
        f"Received: {str(path)!r}, but {str(place)!r}: {reason}."
    )


def _is(kind: str, path: str) -> bool:
    expanded = pathlib.Path(path).expanduser()
    if kind == "model":
        from vhe_tf.models.presets import model_path

        return model_path(path).is_file()
    if kind.startswith("new "):
        wrong = expanded.is_dir() if kind == "new file" else expanded.is_file()
        return not wrong
    return {
        "file": expanded.is_file,
        "folder": expanded.is_dir,
        "class folders": expanded.is_dir,
        "critics": lambda: all(
            (expanded / name).is_file() for name in _CRITICS
        ),
        "records": (expanded / "index.npz").is_file,
        "TFDS folder": lambda: "://" in path or expanded.is_dir(),
        "path": expanded.exists,
        "any": lambda: True,
    }[kind]()


def one_model(words: Sequence[str], flagged: str | None) -> str:
    """Returns the model that a command line names.

    Args:
        words: Strings. The arguments that are not flags.
        flagged: String or None. The value of `--model`.

    Raises:
        ValueError: If there is not one, or it is not there.
    """
    models = [*words, *([flagged] if flagged else [])]
    if len(models) != 1:
        raise ValueError(
            "Name one model: a .keras file, the folder of a run, or a shipped "
            f"model. Received: {' '.join(models) or 'none'}."
        )
    check_path("MODEL", models[0], kind="model")
    return models[0]


def beside_model(name: str, file: str) -> pathlib.Path:
    """Returns where a command writes a file about a model by default.

    Args:
        name: String. A `.keras` file, the folder of a run, or a shipped model.
        file: String. The name of the file.

    Returns:
        A path beside the model. The folder of a shipped model belongs to the
        installation or to the repository: of these, in the current folder.

    Example:
    >>> beside_model("runs/mine/best.keras", "evaluation.json").as_posix()
    'runs/mine/evaluation.json'
    >>> beside_model("omniglot_pixel_cnn_small", "evaluation.json").as_posix()
    'evaluation.json'
    """
    from vhe_tf.models import presets

    if name in presets.PRESETS:
        return pathlib.Path(file)
    return presets.model_path(name).with_name(file)
