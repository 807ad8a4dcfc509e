"""Classifies images by a few images per class.

    vhe-tf classify QUERY.png --support=DIR

DIR holds a folder of images per class. Prints the posterior probability of each
class under equal priors, and that of "none of these", which is even before the
image is seen. Images are drawings, scans or photographs of them, as for
`vhe-tf draw`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vhe_tf._utils.progress import status_line
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.settings import setting
from vhe_tf.experiments.user_images import Reading
from vhe_tf.experiments.user_images import class_group
from vhe_tf.experiments.user_images import read_command
from vhe_tf.experiments.user_images import read_for

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["main"]

_NONE = "none of these"


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
        files = class_files(pathlib.Path(given.support).expanduser())
        # All at once, so that an error names all files that have one.
        of_classes = [path for each in files.values() for path in each]
        images = read_for(
            model,
            [*paths, *of_classes],
            name=given.model,
            invert=given.invert,
        )
        queries, rest = images[: len(paths)], images[len(paths) :]
        # Each class with its own number of images.
        scores, novelties = [], []
        with status_line() as show:
            for index, (name, of_class) in enumerate(files.items(), 1):
                show(f"class {index} of {len(files)}: {name}")
                of_this, rest = rest[: len(of_class)], rest[len(of_class) :]
                support = tf.repeat(of_this[None, None], len(queries), axis=0)
                seed = (given.seed, 0)
                score = model.classify(
                    {group: support},
                    queries,
                    seed=seed,
                    num_samples=given.num_samples,
                )
                scores.append(score)
                novelties.append(
                    model.novelty(
                        {group: support},
                        queries,
                        seed=seed,
                        log_likelihood=score,
                    )
                )
        shares = _shares(tf.concat(scores, 1), tf.stack(novelties, 1)).numpy()
    for path, row in zip(paths, shares, strict=True):
        print(f"{path}:")
        ranked = sorted(zip(row, [*files, _NONE], strict=True), reverse=True)
        for share, name in ranked:
            print(f"  {name:30} {100 * share:5.1f}%")


def _shares(scores: "tf.Tensor", novelties: "tf.Tensor") -> "tf.Tensor":
    """Returns the probabilities of K classes and of none of them.

    Args:
        scores: `[B, K]`, see `VHE.classify`.
        novelties: `[B, K]`, see `VHE.novelty`, with each class alone.

    Returns:
        `[B, K + 1]`.
    """
    import tensorflow as tf

    best = tf.argmax(scores, axis=1)[:, tf.newaxis]
    # Each class has an equal part of the prior probability of one half.
    novelty = tf.gather(novelties, best, batch_dims=1)
    none = tf.sigmoid(novelty + tf.math.log(float(scores.shape[1])))
    return tf.concat([(1.0 - none) * tf.nn.softmax(scores), none], axis=1)
