"""The evaluator of style transfer."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from vhe_tf.data.datasets import DataSplits
from vhe_tf.data.datasets import ready
from vhe_tf.evaluation.evaluators import Evaluator
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.oracle_classifier import OracleClassifier
from vhe_tf.evaluation.oracle_classifier import train_oracle_classifier
from vhe_tf.evaluation.transfer import TransferDesign
from vhe_tf.evaluation.transfer import style_transfer_accuracy
from vhe_tf.models.vhe import VHE

__all__ = ["StyleTransfer"]

# Copies of copies teach an oracle classifier little more.
_MAX_TRAINING_IMAGES = 40_000
_STYLE_EPOCHS = 2


class StyleTransfer(Evaluator):
    """The share of redrawn images of the right content and the right style.

    Oracle classifiers judge. They are trained on the true training images at
    the first call. Shares are also measured for each style on its own.

    Args:
        splits: `DataSplits`. Images in styles.
        groups: Pair of strings. The groupings of content and style. Defaults
            to `("character", "style")`.
        epochs: Integer. Passes over the images that train the classifier of
            contents; styles are learned in at most 2. Defaults to 10.
        num_tasks: Integer. As in `style_transfer_accuracy`. Defaults to 5.
        num_styles: Integer. Largest number of styles in a task. Defaults to 30.
        options: Mapping or None. Arguments of `VHE.sample`, such as `guidance`
            and `best_of`. Defaults to those of the model.
        seed: Integer. Seed of all that is random. Defaults to 0.

    Raises:
        ValueError: If training images are not stored as the model sees them.

    Example:
    >>> from vhe_tf.data.datasets.splits import drawings
    >>> splits = drawings(data, data, images="binary", image_size=(8, 8))
    >>> StyleTransfer(splits, epochs=2).groups
    ('character', 'style')
    """

    def __init__(
        self,
        splits: DataSplits,
        *,
        groups: tuple[str, str] = ("character", "style"),
        epochs: int = 10,
        num_tasks: int = 5,
        num_styles: int = 30,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if splits.train.image_shape[:2] != splits.image_size:
            raise ValueError(
                "Oracle classifiers see images as the model does. Received: "
                f"stored images of {splits.train.image_shape[:2]}, model of "
                f"{splits.image_size}."
            )
        self.splits = splits
        self.groups = groups
        self.epochs = epochs
        self.num_tasks = num_tasks
        self.num_styles = num_styles
        self.options = dict(options or {})
        self.seed = seed
        self._oracles: tuple[OracleClassifier, OracleClassifier] | None = None

    def __call__(
        self, model: VHE, progress: Callable[[str], None] | None = None
    ) -> list[Measurement]:
        """See base class."""
        if self._oracles is None:
            self._oracles = self._trained(progress)
        test = self.splits.test
        num_contents, num_styles = (
            len(test.group_ids(name)) for name in self.groups
        )
        found = style_transfer_accuracy(
            model,
            test,
            oracles=self._oracles,
            design=TransferDesign(
                self.groups,
                num_ways=min(20, num_contents // 2),
                num_styles=min(self.num_styles, num_styles),
            ),
            options=self.options,
            num_tasks=self.num_tasks,
            seed=self.seed,
            progress=progress,
        )
        return [*found[:-1], *found.by_style]

    def _trained(
        self, progress: Callable[[str], None] | None
    ) -> tuple[OracleClassifier, OracleClassifier]:
        stored = self.splits.train
        order = np.random.default_rng(self.seed).permutation(len(stored))
        train = ready(stored.where(order < _MAX_TRAINING_IMAGES), "colour")
        content, style = (
            train_oracle_classifier(
                train.images,
                train.labels[name],
                epochs=epochs,
                seed=self.seed,
                progress=progress,
            )
            for name, epochs in zip(
                self.groups,
                (self.epochs, min(_STYLE_EPOCHS, self.epochs)),
                strict=True,
            )
        )
        return content, style
