"""Classifies images by a few images per class.

    vhe-tf classify QUERY.png --support=DIR

DIR holds a folder of images per class. Prints the posterior probability of each
class under equal priors. Images are drawings, scans or photographs of them, as
for `vhe-tf draw`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from vhe_tf._utils.progress import status_line
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.settings import setting
from vhe_tf.experiments.user_images import Reading
from vhe_tf.experiments.user_images import class_group
from vhe_tf.experiments.user_images import read_command
from vhe_tf.experiments.user_images import read_for

__all__ = ["main"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classify(Reading):
    """The arguments of `vhe-tf classify`."""

    support: str = setting(
        dataclasses.MISSING,
        "A folder with a folder of images per class.",
        path="class folders",
    )
    num_samples: int = setting(20, "Samples from q(c; D).", least=1)


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf classify`."""
    given, paths = read_command(argv, Classify, usage=__doc__ or "")
    with exit_on_user_error():
        import tensorflow as tf

        import vhe_tf
        from vhe_tf.data.datasets.class_folders import class_files

        with status_line("loading the model"):
            model = vhe_tf.load_model(given.model)
        group = class_group(model, given.model)
        queries = read_for(model, paths, invert=given.invert)
        files = class_files(pathlib.Path(given.support).expanduser())
        # Each class with its own number of images.
        scores = []
        with status_line() as show:
            for index, (name, of_class) in enumerate(files.items(), 1):
                show(f"class {index} of {len(files)}: {name}")
                images = read_for(model, of_class, invert=given.invert)
                support = tf.repeat(images[None, None], len(queries), axis=0)
                scores.append(
                    model.classify(
                        {group: support},
                        queries,
                        seed=(given.seed, 0),
                        num_samples=given.num_samples,
                    )
                )
    probabilities = tf.nn.softmax(tf.concat(scores, axis=1)).numpy()
    for path, row in zip(paths, probabilities, strict=True):
        print(f"{path}:")
        ranked = sorted(zip(row, files, strict=True), reverse=True)
        for probability, name in ranked:
            print(f"  {name:30} {100 * probability:5.1f}%")
