"""The model and image files of `vhe-tf draw` and `vhe-tf classify`."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import TypeVar

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.data import OWN_IMAGES
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import check_path
from vhe_tf.experiments.run import Record
from vhe_tf.experiments.run import record_of
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from vhe_tf.models.vhe import VHE

__all__ = [
    "Reading",
    "class_group",
    "read_command",
    "read_for",
    "sees_drawings",
    "support_groups",
]


@dataclasses.dataclass(frozen=True)
class Reading(settings.Settings):
    """The model of a command, and how it reads images."""

    model: str = setting(
        "omniglot_pixel_cnn_small",
        "A .keras file, the folder of a run, or the name of a shipped model.",
        path="model",
    )
    invert: bool | None = setting(
        None,
        "For drawings: ink is dark, or, by --noinvert, it is light. By default "
        "as the model was trained, or else each image decides.",
    )
    seed: int = setting(0, "Random seed.", least=0)


_Command = TypeVar("_Command", bound=Reading)


def read_command(
    argv: Sequence[str], command: type[_Command], *, usage: str
) -> tuple[_Command, list[str]]:
    """Reads the command line of a command that is given images.

    Args:
        argv: Strings. The name of the program, then the arguments.
        command: Subclass of `Settings`. The settings that its flags set.
        usage: String. Printed above the flags by `--help`.

    Returns:
        The settings, and the paths of the images.

    Raises:
        SystemExit: If `--help` is given, an argument is invalid, or there is
            no such image.
    """
    values = flags.FlagValues()
    settings.add_flags(values, command, title=command.__name__)
    paths = settings.parse(argv, values, usage=usage)
    with exit_on_user_error():
        given = command(**settings.read_flags(values, command))
        if not paths:
            raise ValueError(
                "Name one or more images, such as drawing.png. Received: none."
            )
        for path in paths:
            check_path("An image", path, kind="file")
    import_tensorflow()
    return given, [os.path.expanduser(path) for path in paths]


def read_for(
    model: "VHE",
    paths: Sequence[str | pathlib.Path],
    *,
    name: str,
    invert: bool | None = None,
) -> "np.ndarray":
    """Reads images as a model sees them.

    Those of a model that was trained on a user's own drawings are read as these
    were.

    Args:
        model: `VHE`. The model.
        paths: Sequence of paths. Files of any format that Pillow knows. For
            models of drawings, photographs or scans of drawings.
        name: String. The model's file, the folder of its run, or the name of a
            shipped model.
        invert: Boolean or None. For drawings: whether ink is dark. None takes
            the setting of the model's run, or else decides for each. Defaults
            to None.

    Returns:
        `[N, H, W, C]` float32 between 0 and 1. For models of drawings paper is
        0, and ink is 1 or, in styles, 1 - c of the nearest colour c of a pen.

    Raises:
        ValueError: If files cannot be read, or show no drawing.
    """
    import numpy as np

    from vhe_tf.data.datasets.drawing_file import read_drawings
    from vhe_tf.data.datasets.drawing_file import read_levels
    from vhe_tf.data.datasets.image_file import read_images

    height, width, channels = model.image_shape
    size = (height, width)
    if not sees_drawings(model, name):
        images = read_images(paths, image_size=size, channels=channels)
        return np.stack(list(images)).astype(np.float32) / 255
    record = _record(name)
    if invert is None and record:
        invert = record.experiment.invert
    if record and record.experiment.dataset in (*OWN_IMAGES, "records"):
        levels = read_levels(paths, image_size=size, invert=invert)
        return np.stack([each >= 128 for each in levels]).astype(np.float32)
    drawings = list(read_drawings(paths, image_size=size, invert=invert))
    ink = np.stack([each.levels >= 128 for each in drawings])
    if channels == 1:
        return ink.astype(np.float32)
    pens = _pens(record)
    colours = np.stack([each.colour for each in drawings])
    distances = np.linalg.norm(colours[:, None] - pens, axis=2)
    nearest = pens[distances.argmin(axis=1)][:, None, None]
    return (ink * (1 - nearest)).astype(np.float32)


def sees_drawings(model: "VHE", name: str) -> bool:
    """Returns whether the images of a model are ink on paper, which is 0.

    Args:
        model: `VHE`. The model.
        name: String. As in `read_for`.

    Raises:
        RunError: If the `config.json` beside the model is not of a run.

    Example:
    >>> sees_drawings(model, "nowhere/best.keras")
    True
    """
    return model.image_shape[-1] == 1 or _is_styled(model, name)


def support_groups(model: "VHE", name: str) -> tuple[str, ...]:
    """Returns the groups that images to draw more of are the support of.

    Args:
        model: `VHE`. The model.
        name: String. As in `read_for`.

    Returns:
        The group of `class_group`. Drawings in styles are also of one style:
        few samples of the prior of styles are ones that a person knows.

    Raises:
        RunError: If the `config.json` beside the model is not of a run.

    Example:
    >>> support_groups(model, "nowhere/best.keras")
    ('character',)
    """
    group = class_group(model, name)
    return (group, "style") if _is_styled(model, name) else (group,)


def _is_styled(model: "VHE", name: str) -> bool:
    from vhe_tf.data.datasets.styles import INK_LEVELS

    record = _record(name)
    if record:
        return record.experiment.architecture == "style"
    return model.image_shape[-1] == 3 and model.num_levels == INK_LEVELS


def _pens(record: Record | None) -> "np.ndarray":
    """Returns the colours of the pens of a model's run, `[P, 3]` in 0..1."""
    import numpy as np

    from vhe_tf.data.datasets.styles import pen_styles

    number = record.experiment.num_styles if record else None
    if record and number:
        styles = pen_styles(number, record.experiment.seed)
    else:
        styles = pen_styles()
    return np.array([style.ink for style in styles], np.float32) / 255


def _record(name: str) -> Record | None:
    from vhe_tf.models.presets import model_path

    return record_of(model_path(name))


def class_group(model: "VHE", name: str) -> str:
    """Returns the group latent whose groups are the classes of a model.

    Args:
        model: `VHE`. The model.
        name: String. As in `read_for`.

    Returns:
        The name of the latent of the classes of the model's run. If that is
        not known, the last group latent in the graph: of nested groupings,
        the innermost.

    Raises:
        RunError: If the `config.json` beside the model is not of a run.

    Example:
    >>> class_group(model, "nowhere/best.keras")
    'character'
    """
    groups = [v.name for v in model.latents if not v.per_element]
    record = _record(name)
    if record and record.experiment.class_group in groups:
        return record.experiment.class_group
    return groups[-1]
