"""Samples new images of the class that one or more images show.

    vhe-tf draw drawing.jpg
    vhe-tf draw a1.png a2.png --model=runs/mine/best.keras --out=more.png

An image is a drawing, a scan or a photograph of one: its ink is found, brought
to the middle and scaled to the size of the model. A model that was trained on
your own images sees it as it saw these. The picture that is written shows the
images as the model sees them, then the samples.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from vhe_tf._utils.progress import status_line
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.settings import SettingsError
from vhe_tf.experiments.settings import setting
from vhe_tf.experiments.user_images import Reading
from vhe_tf.experiments.user_images import read_command
from vhe_tf.experiments.user_images import read_for
from vhe_tf.experiments.user_images import sees_drawings
from vhe_tf.experiments.user_images import support_groups

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Draw(Reading):
    """The arguments of `vhe-tf draw`."""

    out: str = setting("samples.png", "The PNG to write.", path="new file")
    num_samples: int = setting(8, "Number of new images.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if pathlib.Path(self.out).suffix.lower() != ".png":
            raise SettingsError(
                "`out` must end in .png, the format that is written.",
                out=self.out,
            )


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf draw`."""
    given, paths = read_command(argv, Draw, usage=__doc__ or "")
    with exit_on_user_error():
        import vhe_tf
        from vhe_tf import visualization

        with status_line("loading the model"):
            model = vhe_tf.load_model(given.model)
        support = read_for(model, paths, name=given.model, invert=given.invert)
        groups = support_groups(model, given.model)
        with status_line("sampling"):
            grid = visualization.conditional_grid(
                model,
                [support[None]],
                group=[groups],
                num_samples=given.num_samples,
                seed=(given.seed, 0),
            )
        visualization.save_png(
            pathlib.Path(given.out),
            grid,
            ink=sees_drawings(model, given.model),
        )
    seen = "image" if len(paths) == 1 else f"{len(paths)} images"
    print(
        f"Wrote {given.out}: on the left the {seen} as the model sees "
        f"{'it' if len(paths) == 1 else 'them'}, then {given.num_samples} "
        f"sample{'s' * (given.num_samples != 1)} of the same "
        f"{' and '.join(groups)}."
    )
