"""Evaluates whether new groups fit the group above them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.grouped_images import group_members
from vhe_tf.evaluation import tasks
from vhe_tf.evaluation.evaluators import Evaluator
from vhe_tf.evaluation.evaluators import Progress
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.oracle_classifier import train_oracle_classifier
from vhe_tf.models.vhe import VHE

__all__ = ["NewGroups"]


class NewGroups(Evaluator):
    """The share of new characters in which their alphabet is found.

    A random half of the characters of each alphabet trains an oracle
    classifier of the alphabets. The model sees images of the other half, each
    time N of different characters of one alphabet, and samples a new character
    of it: c of p(c | a), a of q(a; D). The classifier names an alphabet for
    each sample, and, for comparison, for each true image of that half.

    Args:
        data: `GroupedImages`. Images of unseen groups, ready for the model.
        groups: Pair of strings. The groupings, the outer one first. Defaults
            to `("alphabet", "character")`.
        num_shots: Integer, N. Lowered to half of the smallest alphabet.
            Defaults to 5. An alphabet of one character is left out.
        num_samples: Integer. New characters of each alphabet. Defaults to 20.
        epochs: Integer. Passes over the images that train the classifier.
            Defaults to 10.
        options: Mapping or None. Arguments of `VHE.sample`, such as
            `guidance`. Defaults to those of the model.
        seed: Integer. Seed of all that is random. Defaults to 0.

    Returns:
        Measurements of the factors `samples` and `true`, one value for each
        alphabet.

    Raises:
        ValueError: If a count is not positive.

    Example:
    >>> from vhe_tf.data import GroupedImages
    >>> labels = {"alphabet": np.arange(12) // 6, "character": np.arange(12)}
    >>> NewGroups(GroupedImages(np.zeros((12, 8, 8, 1)), labels)).num_shots
    3
    """

    def __init__(
        self,
        data: GroupedImages,
        *,
        groups: tuple[str, str] = ("alphabet", "character"),
        num_shots: int = 5,
        num_samples: int = 20,
        epochs: int = 10,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, count in (
            ("num_shots", num_shots),
            ("num_samples", num_samples),
            ("epochs", epochs),
        ):
            validation.positive(name, count)
        self.data = data
        self.groups = groups
        self.num_samples = num_samples
        self.epochs = epochs
        self.options = dict(options or {})
        self.seed = seed
        self._judged, self._shown = self._halves()
        sizes = map(len, self._shown.values())
        self.num_shots = min([num_shots, *sizes])

    def __call__(
        self, model: VHE, progress: Progress = None
    ) -> list[Measurement]:
        """See base class."""
        if self.left_out(model):
            return []
        tasks.check_ready(self.data, model, groupings=self.groups)
        labels = self.data.labels[self.groups[0]]
        oracle = train_oracle_classifier(
            self.data.images[self._judged],
            labels[self._judged],
            epochs=self.epochs,
            seed=self.seed,
            progress=progress,
        )
        answers: dict[str, list[float]] = {"samples": [], "true": []}
        num_true = 0
        for index, (outer, members) in enumerate(self._shown.items()):
            each = list(members.values())
            true = np.concatenate(each)
            for name, images in (
                ("samples", self._samples(model, index, each)),
                ("true", self.data.images[true]),
            ):
                found = oracle.classify(images)
                answers[name].append(float(np.mean(found == outer)))
            num_true += len(true)
            if progress:
                progress(
                    f"new {self.groups[1]}s: {self.groups[0]} {index + 1} of "
                    f"{len(self._shown)}, {np.mean(answers['samples']):.1%} "
                    "recognized so far"
                )
        counts = {"samples": self.num_samples * len(self._shown)}
        return [
            Measurement.of(
                "new_groups",
                values,
                factor=name,
                ways=len(self._shown),
                shots=self.num_shots,
                chance=1 / len(self._shown),
                num_queries=counts.get(name, num_true),
            )
            for name, values in answers.items()
        ]

    def left_out(self, model: VHE) -> list[str]:
        """See base class."""
        if len(self._shown) >= 2:
            return []
        outer, inner = self.groups
        return [
            f"new groups of {inner!r}: fewer than two groups of {outer!r} have "
            "two of them"
        ]

    def _halves(self) -> tuple[np.ndarray, dict[int, dict[int, np.ndarray]]]:
        """Divides the characters of each alphabet.

        Returns:
            The indices of the images that train the classifier; and by the
            outer group, then by the inner one, those that the model sees.
        """
        inner = self.data.labels[self.groups[1]]
        rng = np.random.default_rng(self.seed)
        judged = [np.empty(0, int)]
        shown: dict[int, dict[int, np.ndarray]] = {}
        for group, indices in self.data.members(self.groups[0]).items():
            within = {
                member: indices[places]
                for member, places in group_members(inner[indices]).items()
            }
            members = rng.permutation(list(within)).tolist()
            if len(members) < 2:
                continue
            half = len(members) // 2
            judged.append(
                np.sort(np.concatenate([within[m] for m in members[:half]]))
            )
            shown[group] = {m: within[m] for m in members[half:]}
        return np.concatenate(judged), shown

    def _samples(
        self, model: VHE, index: int, members: list[np.ndarray]
    ) -> np.ndarray:
        """Returns new characters of one alphabet, each from another support."""
        rng = np.random.default_rng((self.seed, index))
        support = np.stack(
            [
                [
                    rng.choice(members[member])
                    for member in rng.permutation(len(members))[
                        : self.num_shots
                    ]
                ]
                for _ in range(self.num_samples)
            ]
        )
        seeds = random.fold_in((self.seed, index), tf.range(self.num_samples))
        drawn = model.sample(
            {self.groups[0]: tf.constant(self.data.images[support])},
            seed=seeds,
            **self.options,
        )
        return np.asarray(drawn)
