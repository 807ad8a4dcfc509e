"""Classifies images by a few images per class.

    vhe-tf classify QUERY.png --support=DIR

DIR holds a folder of images per class. Prints the posterior probability of each
class under equal priors. Drawings are dark ink on a light page.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.draw import DEFAULT_MODEL
from vhe_tf.experiments.draw import read_for
from vhe_tf.experiments.endings import mistakes_end_quietly
from vhe_tf.experiments.endings import quiet
from vhe_tf.experiments.settings import setting

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Classifying(settings.Settings):
    """What to classify by."""

    support: str = setting(
        dataclasses.MISSING, "A folder with a folder of images per class."
    )
    model: str = setting(
        DEFAULT_MODEL, "A .keras file, or the name of a shipped model."
    )
    num_samples: int = setting(
        20, "Samples from q(c; D).", kind="integer", least=1
    )
    seed: int = setting(0, "Random seed.", kind="integer", least=0)


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf classify`."""
    values = flags.FlagValues()
    settings.add_flags(values, Classifying, title="Classify")
    words = settings.parse(argv, values, usage=__doc__ or "")
    quiet()
    with mistakes_end_quietly():
        given = Classifying(**settings.read_flags(values, Classifying))
        if not words:
            raise ValueError(
                "Name one or more images to classify, such as QUERY.png. "
                "Received: none."
            )
        import tensorflow as tf

        import vhe_tf
        from vhe_tf.data.datasets.folder import class_files

        model = vhe_tf.load_model(given.model)
        queries = read_for(model, words)
        files = class_files(pathlib.Path(given.support).expanduser())
        # Each class with its own number of images.
        scores = tf.concat(
            [
                model.classify(
                    tf.repeat(
                        read_for(model, [str(p) for p in paths])[None, None],
                        len(queries),
                        axis=0,
                    ),
                    queries,
                    seed=(given.seed, 0),
                    num_samples=given.num_samples,
                )
                for paths in files.values()
            ],
            axis=1,
        )
    for word, row in zip(words, tf.nn.softmax(scores).numpy(), strict=True):
        print(f"{word}:")
        ranked = sorted(zip(row, files, strict=True), reverse=True)
        for probability, name in ranked:
            print(f"  {name:30} {100 * probability:5.1f}%")
