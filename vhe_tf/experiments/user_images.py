"""The model and image files of `vhe-tf draw` and `vhe-tf classify`."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import TypeVar

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import check_path
from vhe_tf.experiments.run import record_of
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from vhe_tf.models.vhe import VHE

__all__ = ["Reading", "class_group", "read_command", "read_for"]


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
        "each image decides.",
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
    return given, paths


def read_for(
    model: "VHE",
    paths: Sequence[str | pathlib.Path],
    *,
    invert: bool | None = None,
) -> "np.ndarray":
    """Reads images as a model sees them.

    Args:
        model: `VHE`. The model.
        paths: Sequence of paths. Files of any format that Pillow knows. For
            models of one channel, photographs or scans of drawings.
        invert: Boolean or None. For drawings: whether ink is dark. None
            decides for each. Defaults to None.

    Returns:
        `[N, H, W, C]` float32 between 0 and 1. Of models of one channel ink is
        1, and binary.

    Raises:
        ValueError: If a file cannot be read, or shows no drawing.
    """
    import numpy as np

    from vhe_tf.data.datasets.drawing_file import read_drawing
    from vhe_tf.data.datasets.image_file import read_images

    height, width, channels = model.image_shape
    if channels == 1:
        return np.stack(
            [read_drawing(p, (height, width), invert=invert) for p in paths]
        )
    images = read_images(paths, image_size=(height, width), channels=channels)
    return np.stack(list(images)).astype(np.float32) / 255


def class_group(model: "VHE", name: str) -> str:
    """Returns the group latent whose groups are the classes of a model.

    Args:
        model: `VHE`. The model.
        name: String. Its file, the folder of its run, or the name of a shipped
            model.

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
    from vhe_tf.models.presets import model_path

    groups = [v.name for v in model.latents if not v.per_element]
    record = record_of(model_path(name))
    if record and record.experiment.class_group in groups:
        return record.experiment.class_group
    return groups[-1]
