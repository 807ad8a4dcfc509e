"""Classification among given classes, and whether an image is of none."""

from typing import Any

import tensorflow as tf

from vhe_tf import random
from vhe_tf._utils import validation
from vhe_tf.models import _checks
from vhe_tf.models import classification
from vhe_tf.models import open_set
from vhe_tf.models._batching import batch_axis_optional
from vhe_tf.models._graph import Support
from vhe_tf.models.variable_model import LatentVariableModel

__all__ = ["Recognizer"]

# Images that a query decodes at once.
_MAX_DECODED = 400


class Recognizer(LatentVariableModel):
    """A model of grouped images that classifies by likelihood.

    `VHE` adds the objective.
    """

    @batch_axis_optional("BKN")
    def classify(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
        max_error: float = 0.001,
    ) -> tf.Tensor:
        """Scores each query under each of K classes (Section 4.1).

        Args:
            support: Mapping from names of group latents to tensors of shape
                `[B, K, N, H, W, C]`, or the tensor, as in `infer`. Without the
                axis B it is one task, and the result has no axis B.
            query: Tensor of shape `[B, H, W, C]`, the images to classify.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: Integer, S. Number of samples from q(c; D). Defaults
                to 20, as in the paper.
            num_element_samples: Integer, T. As in `log_likelihood`.
            max_error: Float. Probability of losing the best class. A fifth of
                the samples scores every class, the others only the classes
                that can still win, see `models.classification.contenders`. 0
                scores every class by all samples. Defaults to 0.001.

        Returns:
            Tensor of shape `[B, K]`, log E_q(c; D_k) p(x | c) in nats. The
            label is its argmax, and its softmax is the posterior under equal
            class priors. All classes use the same randomness, which cancels
            most of the sampling error between them.

        Raises:
            ValueError: If `max_error` is not from 0 to below 1, a number of
                samples is not positive, or `support` holds results of
                `encode`.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)  # six classes
        >>> model.classify(images[:, :2], images[3, 2], seed=0).shape
        TensorShape([6])
        """
        classification.check_max_error(max_error)
        validation.positive("num_samples", num_samples)
        validation.positive("num_element_samples", num_element_samples)
        query = _checks.checked_images(self, "query", images=query)
        support = _checks.checked_support(
            self, support, query=query, axes=("B", "K")
        )
        _checks.check_no_posteriors("classify", support)
        seeds = _by_row(seed, query)

        def score(row: Any) -> tf.Tensor:
            of_row, image, seed = row
            return classification.class_scores(
                self,
                classification.infer_classes(
                    self, of_row, seed=seed, num_samples=num_samples
                ),
                query=image,
                seed=seed,
                num_element_samples=num_element_samples,
                max_error=max_error,
                max_decoded=_MAX_DECODED,
            )

        return tf.map_fn(
            score,
            (dict(support), query, seeds),
            fn_output_signature=tf.TensorSpec([None], tf.float32),
            parallel_iterations=1,
        )

    @batch_axis_optional("BKN")
    def novelty(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        log_likelihood: tf.Tensor | None = None,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Scores how much more probable it is that a query is of no class.

        The classes are those of `classify`; "none" is compared with the best of
        them alone. Query and class explain each other: log p(x | D) +
        log p(D | x) is compared with what x and D are worth given themselves,
        see `models.open_set`.

        Args:
            support: As in `classify`, of one group latent.
            query: Tensor of shape `[B, H, W, C]`, the images to judge.
            seed: Integer, or integers of shape `[2]`, or one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            log_likelihood: Tensor of shape `[B, K]`, the result of `classify`,
                without the axis B if the images have none. Defaults to None:
                it is computed.
            num_samples: Integer, S. As in `classify`.
            num_element_samples: Integer, T. As in `log_likelihood`.

        Returns:
            Tensor of shape `[B]`, nats: the log odds of "none of the K
            classes" against "one of them", if half of all queries are of none.
            Above 0, "none" is the better answer. The scale is calibrated for
            PixelCNNs of binary images of shape `[28, 28, 1]` alone, and was
            fitted to Omniglot's characters; for other models and images
            choose a threshold by `evaluation.OpenSet`.

        Raises:
            ValueError: If `support` is of several latents or holds results of
                `encode`, a number of samples is not positive, or
                `log_likelihood` is not of the queries and classes.

        Example:
        >>> images = data.images.reshape(6, 7, 8, 8, 1)
        >>> five, query = images[:5, :2], images[5, 0]  # of none of the five
        >>> model.novelty(five, query, seed=0).shape
        TensorShape([])
        """
        query = _checks.checked_images(self, "query", images=query)
        support = _checks.checked_support(
            self, support, query=query, axes=("B", "K")
        )
        _checks.check_no_posteriors("novelty", support)
        open_set.check_one_latent(support)
        if log_likelihood is None:
            log_likelihood = self.classify(
                support,
                query,
                seed=seed,
                num_samples=num_samples,
                num_element_samples=num_element_samples,
            )
        [images] = support.values()
        log_likelihood = tf.cast(log_likelihood, tf.float32)
        if not log_likelihood.shape.is_compatible_with(images.shape[:2]):
            raise ValueError(
                "`log_likelihood` must be the result of `classify` for the "
                "same queries and classes, [B, K]. "
                f"Received: shape {tuple(log_likelihood.shape)} for "
                f"(B, K) = {tuple(images.shape[:2])}."
            )

        def score(row: Any) -> tf.Tensor:
            of_row, image, scores, seed = row
            return open_set.novelty(
                self,
                {k: v[tf.argmax(scores)] for k, v in of_row.items()},
                query=image,
                log_likelihood=scores,
                seed=seed,
                num_element_samples=num_element_samples,
                max_decoded=_MAX_DECODED,
            )

        return tf.map_fn(
            score,
            (dict(support), query, log_likelihood, _by_row(seed, query)),
            fn_output_signature=tf.float32,
            parallel_iterations=1,
        )


def _by_row(seed: int | tf.Tensor, query: tf.Tensor) -> tf.Tensor:
    """Returns one seed per row, `[B, 2]`."""
    seeds = random.as_seed(seed)
    if seeds.shape.rank == 1:
        seeds = random.fold_in(seeds, tf.range(tf.shape(query)[0]))
    return seeds
