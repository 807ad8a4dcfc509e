"""Samples new images of the class that one or more images show.

    vhe-tf draw CUE.png
    vhe-tf draw a1.png a2.png --model=runs/mine/best.keras --out=more.png

Drawings are dark ink on a light page. They are resized to the size of the
model. The picture that is written shows the images, then the samples.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import mistakes_end_quietly
from vhe_tf.experiments.endings import quiet
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    import numpy as np

    from vhe_tf.models.vhe import VHE

__all__ = ["main", "read_for"]

DEFAULT_MODEL = "omniglot_pixel_cnn_small"


@dataclasses.dataclass(frozen=True)
class Drawing(settings.Settings):
    """What to sample."""

    model: str = setting(
        DEFAULT_MODEL, "A .keras file, or the name of a shipped model."
    )
    out: str = setting("samples.png", "The PNG to write.")
    num_samples: int = setting(
        8, "Number of new images.", kind="integer", least=1
    )
    seed: int = setting(0, "Random seed.", kind="integer", least=0)


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf draw`."""
    values = flags.FlagValues()
    settings.add_flags(values, Drawing, title="Draw")
    words = settings.parse(argv, values, usage=__doc__ or "")
    quiet()
    with mistakes_end_quietly():
        given = Drawing(**settings.read_flags(values, Drawing))
        if not words:
            raise ValueError(
                "Name one or more images of a class, such as CUE.png. "
                "Received: none."
            )
        import vhe_tf
        from vhe_tf import visualization

        model = vhe_tf.load_model(given.model)
        support = read_for(model, words)
        group = next(v.name for v in model.latents if not v.per_element)
        grid = visualization.conditional_grid(
            model,
            [support[None]],
            group=group,
            num_samples=given.num_samples,
            seed=(given.seed, 0),
        )
        visualization.save_png(
            pathlib.Path(given.out), grid, ink=model.image_shape[-1] == 1
        )
    print(f"Wrote {given.out}.")


def read_for(model: "VHE", paths: Sequence[str]) -> "np.ndarray":
    """Reads images as a model sees them.

    Args:
        model: The model.
        paths: Files of any format that Pillow knows.

    Returns:
        `[N, H, W, C]` float32 between 0 and 1. Of models of one channel ink is
        1, and binary.

    Raises:
        ValueError: If a file cannot be read.
    """
    import numpy as np

    from vhe_tf.data.datasets.image_file import read_image

    height, width, channels = model.image_shape
    images = np.stack(
        [read_image(path, (height, width), channels) for path in paths]
    )
    if channels > 1:
        return images.astype(np.float32) / 255
    return (images < 128).astype(np.float32)
