"""Classifies images by a few images per class.

    vhe-tf classify QUERY.png --support=DIR

DIR holds a folder of images per class. It prints the posterior probability of
each class, all equally probable before, and that of "none of these", whose
prior probability is one half. "None of these" is answered for PixelCNNs of
binary images of 28x28 pixels alone, for which it is calibrated. Images are
drawings, scans or photographs of them, as for `vhe-tf draw`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
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
    import numpy as np

    from vhe_tf.models.vhe import VHE

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
        import numpy as np
        import tensorflow as tf

        import vhe_tf
        from vhe_tf.data.datasets.class_folders import class_files
        from vhe_tf.models import open_set

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
        supports, scores = [], []
        with status_line() as show:
            for index, (name, of_class) in enumerate(files.items(), 1):
                show(f"class {index} of {len(files)}: {name}")
                of_this, rest = rest[: len(of_class)], rest[len(of_class) :]
                supports.append(of_this[None, None])
                score = model.classify(
                    {group: tf.repeat(supports[-1], len(queries), axis=0)},
                    queries,
                    seed=(given.seed, 0),
                    num_samples=given.num_samples,
                )
                scores.append(score)
        every = tf.concat(scores, axis=1)
        shares, names = tf.nn.softmax(every).numpy(), list(files)
        answers_none = open_set.is_calibrated(model)
        if answers_none:
            with status_line("none of these"):
                none = _none(
                    model,
                    [{group: support} for support in supports],
                    queries=queries,
                    scores=every.numpy(),
                    seed=given.seed,
                )[:, None]
            shares = np.concatenate([(1 - none) * shares, none], axis=1)
            names.append(_NONE)
    for path, row in zip(paths, shares, strict=True):
        print(f"{path}:")
        for share, name in sorted(zip(row, names, strict=True), reverse=True):
            print(f"  {name:30} {100 * share:5.1f}%")
    if not answers_none:
        print(f'"{_NONE}" is not calibrated for this model.')


def _none(
    model: "VHE",
    supports: Sequence[Mapping[str, "np.ndarray"]],
    *,
    queries: "np.ndarray",
    scores: "np.ndarray",
    seed: int,
) -> "np.ndarray":
    """Returns the probability that queries are of none of K classes, `[B]`.

    Args:
        model: `VHE`. The model.
        supports: K mappings, from a latent to images `[1, 1, N, H, W, C]`.
        queries: `[B, H, W, C]`, the images to classify.
        scores: `[B, K]`, the result of `VHE.classify`.
        seed: Integer. Random seed.
    """
    import numpy as np
    import tensorflow as tf

    best = scores.argmax(axis=1)
    novelty = np.zeros(len(queries), np.float32)
    for k in np.unique(best):
        of_class = best == k
        novelty[of_class] = model.novelty(
            {
                name: np.repeat(images, of_class.sum(), axis=0)
                for name, images in supports[k].items()
            },
            queries[of_class],
            seed=(seed, 0),
            log_likelihood=scores[of_class, k, None],
        )
    # Each class has an equal part of the prior probability of one half.
    return tf.sigmoid(novelty + np.log(np.float32(len(supports)))).numpy()
