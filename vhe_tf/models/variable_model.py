"""Inference and generation by models of declared latent variables."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import random
from vhe_tf.distributions import tempering
from vhe_tf.distributions.discretized import pixel_levels
from vhe_tf.models import _checks
from vhe_tf.models import _graph
from vhe_tf.models.latents import Latent
from vhe_tf.models.latents import parents_first
from vhe_tf.models.trainer import EpisodeTrainer

__all__ = ["LatentVariableModel", "Samples", "Support"]

Samples = _graph.Samples
Support = _graph.Support


class LatentVariableModel(EpisodeTrainer):
    """A hierarchical model of grouped images, without an objective.

    It holds what can be asked of trained weights: posteriors, samples,
    reconstructions, likelihoods, classes. `VHE` adds objective and training.

    Args:
        latents: Sequence of `Latent`s, in any order. Sorted parents first.
        likelihood: Keras layer. `likelihood(**latents)` returns the
            `tfd.Distribution` `p(x | latents)` with event shape `[H, W, C]`
            and batch shape `[S..., B]`.
        image_shape: Three positive integers, `(H, W, C)`.
        **kwargs: Passed on to `keras.Model`.

    Attributes:
        num_levels: Integer or None. Number of levels per channel that the
            likelihood models; None if it is a density.

    Raises:
        ValueError: If the latents do not form a proper graph (see
            `parents_first`), or `image_shape` is not three positive integers.
    """

    def __init__(
        self,
        latents: Sequence[Latent],
        likelihood: keras.layers.Layer,
        *,
        image_shape: Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latents = parents_first(latents)
        self.likelihood = likelihood
        self.image_shape = _checks.checked_image_shape(image_shape)
        self._event_ranks = self._build_on_zeros()
        self.built = True

    def encode(self, support: Support | tf.Tensor) -> dict[str, Any]:
        """Returns the posteriors of group latents, to be used again and again.

        What it returns can stand, as a whole, for the support in the other
        methods that take one, but in `classify`; `log_likelihood` scores one
        class at a time.

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known;
                with one group latent the tensor alone will do.

        Returns:
            For each latent of `support`, and each latent above one,
            q(latent; D, parents), a `tfd.Distribution` of batch shape `[B]`,
            at the means of its parents' posteriors.

        Raises:
            ValueError: If `support` is what `encode` returned.
        """
        support = _checks.checked_support(self, support)
        _checks.check_no_posteriors("encode", support)
        support = _graph.with_implied(self.latents, support)
        posteriors: dict[str, Any] = {}
        means: Samples = {}
        for latent in self.latents:
            if latent.name in support:
                posterior = latent.posterior(
                    support[latent.name], *_graph.parents_of(latent, means)
                )
                posteriors[latent.name] = posterior
                means[latent.name] = posterior.mean()
        return posteriors

    def infer(
        self,
        support: Support | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int = 1,
        batch_size: int | tf.Tensor | None = None,
        temperature: float | tf.Tensor = 1.0,
        sample_unobserved: bool = True,
    ) -> Samples:
        """Draws the group latents given supports.

        Args:
            support: For some or all group latents, `[B, N, H, W, C]`. A latent
                with a support is drawn from its posterior. So is one above it
                (the alphabet of a known character): what is in a group is in
                the groups that hold it, so that the support below serves.
                Any other is drawn from its prior.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: S, the number of joint draws for each batch element.
            batch_size: B, needed only where `support` is empty.
            temperature: Of the priors from which latents are drawn.
            sample_unobserved: Boolean. Whether to sample latents without a
                support from their prior. If False, they are omitted.
                Defaults to True.

        Returns:
            For each group latent, `[S, B, E...]`.

        Raises:
            ValueError: If `support` names no group latent of this model, is
                empty without a `batch_size`, or has the posterior of a latent
                without its parents.
        """
        if not isinstance(support, Mapping) or support:
            support = self._with_implied(support)
            batch_size = _graph.batch_size_of(next(iter(support.values())))
        elif batch_size is None:
            raise ValueError(
                "Without any support, `batch_size` says how many draws from "
                "the prior are wanted. Received: support={}, batch_size=None."
            )
        samples, _ = _graph.sample_groups(
            self.latents,
            support,
            batch_shape=[num_samples, batch_size],
            seed=seed,
            temperature=temperature,
            sample_unobserved=sample_unobserved,
        )
        return samples

    def importance_sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int,
        sample_unobserved: bool = True,
    ) -> tuple[Samples, tf.Tensor]:
        """Draws the group latents with their importance weights.

        Args:
            support: For some or all group latents, `[B, N, H, W, C]`.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: S.
            sample_unobserved: As in `infer`.

        Returns:
            What `infer` returns, and `[S, B]`, sum over the group latents that
            are drawn from their posteriors of
            log p(latent | parents) - log q(latent; D, parents), nats.
        """
        support = self._with_implied(support)
        batch_size = _graph.batch_size_of(next(iter(support.values())))
        samples, posteriors = _graph.sample_groups(
            self.latents,
            support,
            batch_shape=[num_samples, batch_size],
            seed=seed,
            temperature=1.0,
            sample_unobserved=sample_unobserved,
        )
        ratios = [
            _graph.log_ratio(latent, posteriors[latent.name], samples=samples)
            for latent in self.latents
            if latent.name in posteriors
        ]
        return samples, tf.add_n(ratios)

    def _with_implied(self, support: Support | tf.Tensor) -> Support:
        support = _checks.checked_support(self, support)
        support = _graph.with_implied(self.latents, support)
        _checks.check_given(self, "support", given=support)
        return support

    def decode(
        self, samples: Samples, *, seed: int | tf.Tensor, query: Any = None
    ) -> tfd.Distribution:
        """Returns the likelihood p(x | latents), the other latents drawn.

        Args:
            samples: The group latents, `[S..., B, E...]` each.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            query: `[B, H, W, C]` to draw the per-element latents, and the
                group latents that `samples` leaves out, from their posterior
                given these elements (reconstruction), or None to draw them
                from their prior (generation).

        Returns:
            A distribution of batch shape `[S..., B]`, event shape
            `[H, W, C]`.

        Raises:
            ValueError: If `samples` is empty, names no latent of this model,
                or has a latent without its parents; if `query` is no batch of
                images of this model.
        """
        _checks.check_given(self, "samples", given=samples)
        if query is not None:
            query = self._as_query(query, samples)
        samples, _ = self._complete(samples, query=query, seed=seed)
        return self.likelihood(**samples)

    def render(
        self,
        samples: Samples,
        *,
        seed: int | tf.Tensor,
        query: Any = None,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Returns an image for each draw of the group latents, to look at.

        Args:
            samples: The group latents, `[S..., B, E...]` each.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            query: As in `decode`.
            temperature: As in `sample`.

        Returns:
            `[S..., B, H, W, C]`: the mean of p(x | latents) where its pixels
            are independent, and a draw of each would only add noise; a draw
            where they are not.
        """
        likelihood = tempering.tempered(
            self.decode(samples, seed=random.fold_in(seed, 0), query=query),
            temperature,
        )
        try:
            return likelihood.mean()
        except NotImplementedError:
            return _graph.sample(likelihood, seed=random.fold_in(seed, 1))

    def sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws a new element of each group (few-shot generation).

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known;
                the others are drawn from their priors. With one group latent
                the tensor alone will do.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: Of p(x | latents), see `tempered`; below 1, images are
                more typical.

        Returns:
            `[B, H, W, C]`, draws from p(x | D). Gaussian pixels may be beyond
            the 0 to 1 of images.
        """
        support = _checks.checked_support(self, support)
        samples = self.infer(support, seed=random.fold_in(seed, 0))
        likelihood = self.decode(samples, seed=random.fold_in(seed, 1))
        likelihood = tempering.tempered(likelihood, temperature)
        return _graph.sample(likelihood, seed=random.fold_in(seed, 2))[0]

    def sample_prior(
        self,
        batch_size: int,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        latent_temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws elements of new groups (unconditional generation).

        Args:
            batch_size: B, the number of groups.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: As in `sample`.
            latent_temperature: Of the priors of the group latents.

        Returns:
            `[B, H, W, C]`, one element of each group.
        """
        samples = self.infer(
            {},
            seed=random.fold_in(seed, 0),
            batch_size=batch_size,
            temperature=latent_temperature,
        )
        likelihood = self.decode(samples, seed=random.fold_in(seed, 1))
        likelihood = tempering.tempered(likelihood, temperature)
        return _graph.sample(likelihood, seed=random.fold_in(seed, 2))[0]

    def reconstruct(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Redraws elements from their latents.

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known; the
                others are inferred from the query, as the per-element latents.
            query: `[B, H, W, C]`, the elements to redraw.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: As in `sample`.

        Returns:
            `[B, H, W, C]`, see `render`.
        """
        query = _checks.checked_images("query", query)
        samples = self.infer(
            _checks.checked_support(self, support, query=query),
            seed=random.fold_in(seed, 0),
            sample_unobserved=False,
        )
        return self.render(
            samples,
            seed=random.fold_in(seed, 1),
            query=query,
            temperature=temperature,
        )[0]

    def interpolate(
        self,
        support: Support | tf.Tensor,
        other: Support | tf.Tensor,
        num_steps: int,
        *,
        seed: int | tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws elements of groups between two groups.

        All chance is the same at every step, so that only the group changes.

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known.
            other: The same latents, for the groups at the other end.
            num_steps: T, both ends included; 2 or more.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            temperature: As in `sample`.

        Returns:
            `[B, T, H, W, C]`, see `render`; the group latents go on a straight
            line from one draw to the other.

        Raises:
            ValueError: If `num_steps` is below 2.
        """
        if num_steps < 2:
            raise ValueError(
                "`num_steps` counts both ends, so it is 2 or more. "
                f"Received: num_steps={num_steps!r}."
            )
        start = self.infer(
            _checks.checked_support(self, support), seed=random.fold_in(seed, 0)
        )
        end = self.infer(
            _checks.checked_support(self, other), seed=random.fold_in(seed, 0)
        )
        for name in start:
            tf.debugging.assert_equal(
                tf.shape(start[name]),
                tf.shape(end[name]),
                "`support` and `other` must have the same B.",
            )

        def render(weight: tf.Tensor) -> tf.Tensor:
            between = {
                name: (1.0 - weight) * start[name] + weight * end[name]
                for name in start
            }
            return self.render(
                between, seed=random.fold_in(seed, 1), temperature=temperature
            )[0]

        images = tf.map_fn(
            render, tf.linspace(0.0, 1.0, num_steps), parallel_iterations=1
        )
        return tf.einsum("tb...->bt...", images)

    def log_likelihood_given(
        self,
        samples: Samples,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates log p(x | group latents) for given values of those.

        Per-element latents are integrated out by importance weighting with
        their posterior: log (1/T) sum{ p(x, z_t | c) / q(z_t; c, x) }.

        Args:
            samples: Some or all group latents, `[S..., B, E...]` each. Those
                left out, of a group of x of which nothing is known, are
                integrated out like the per-element latents, with q(c; {x}).
            query: `[B, H, W, C]`.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_element_samples: T.

        Returns:
            `[S..., B]`, nats. Exact where `samples` has every latent;
            otherwise a lower bound in expectation, tight as T grows.

        Raises:
            ValueError: As by `decode`.
        """
        _checks.check_given(self, "samples", given=samples)
        query = self._as_query(query, samples)
        if all(latent.name in samples for latent in self.latents):
            return self.likelihood(**samples).log_prob(query)
        repeated = {
            name: tf.repeat(value[tf.newaxis], num_element_samples, axis=0)
            for name, value in samples.items()
        }  # [T, S..., B, E...]
        complete, log_weight = self._complete(repeated, query=query, seed=seed)
        log_weight += self.likelihood(**complete).log_prob(query)
        return _graph.log_mean_exp(log_weight)

    def log_likelihood(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates the expected conditional likelihood log E_q(c; D) p(x | c).

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known;
                latents above these are inferred from the same supports, any
                other is integrated out (see `log_likelihood_given`).
            query: `[B, H, W, C]`.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: S, draws of the group latents.
            num_element_samples: T, draws of the per-element latents for each.

        Returns:
            `[B]`, nats (Section 4.1).
        """
        query = _checks.checked_images("query", query)
        samples = self.infer(
            _checks.checked_support(self, support, query=query),
            seed=random.fold_in(seed, 0),
            num_samples=num_samples,
            sample_unobserved=False,
        )
        return _graph.log_mean_exp(
            self.log_likelihood_given(
                samples,
                query,
                seed=random.fold_in(seed, 1),
                num_element_samples=num_element_samples,
            )
        )

    def classify(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: int | tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Scores each query under each of K classes (Section 4.1).

        Args:
            support: `[B, K, N, H, W, C]` for each group latent that is known
                of the classes; with one group latent the tensor alone will do.
                Latents without a support as in `log_likelihood`.
            query: `[B, H, W, C]`.
            seed: Integer, or integers of shape `[2]` or, one seed per row,
                `[B, 2]`. See `vhe_tf.random.as_seed`.
            num_samples: S, draws from q(c; D); the paper takes 20.
            num_element_samples: T, draws of the per-element latents for each.

        Returns:
            `[B, K]`, log E_q(c; D_k) p(x | c), nats: the label is its argmax,
            and its softmax the posterior under equal class priors. A query is
            scored with the same chance under every class, so that much of the
            errors cancels between them. B S T images are decoded at once;
            `evaluation.ClassScorer` does the same in pieces of bounded memory.
        """
        query = _checks.checked_images("query", query)
        support = _checks.checked_support(
            self, support, query=query, axes=("B", "K")
        )
        _checks.check_no_posteriors("classify", support)
        scores = tf.map_fn(
            lambda of_class: self.log_likelihood(
                of_class,
                query,
                seed=seed,
                num_samples=num_samples,
                num_element_samples=num_element_samples,
            ),
            {
                name: tf.experimental.numpy.moveaxis(value, 1, 0)
                for name, value in support.items()
            },  # [K, B, N, H, W, C]
            fn_output_signature=tf.TensorSpec(query.shape[:1], tf.float32),
            parallel_iterations=1,
        )  # [K, B]
        return tf.transpose(scores)

    def _as_query(self, query: Any, samples: Samples) -> tf.Tensor:
        batch_shape = _graph.batch_shape_of(samples, self._event_ranks)
        return _checks.checked_query(self, query, batch_size=batch_shape[-1])

    def _complete(
        self, samples: Samples, *, query: Any, seed: int | tf.Tensor
    ) -> tuple[Samples, tf.Tensor]:
        return _graph.sample_rest(
            self.latents,
            samples,
            batch_shape=_graph.batch_shape_of(samples, self._event_ranks),
            query=query,
            seed=seed,
        )

    def _build_on_zeros(self) -> dict[str, int]:
        """Builds every layer; returns the event rank of each group latent."""
        image = tf.zeros((1, *self.image_shape))
        samples: Samples = {}
        for latent in self.latents:
            observed = image if latent.per_element else image[:, tf.newaxis]
            parents = _graph.parents_of(latent, samples)
            posterior, prior = latent(observed, *parents)
            value = _graph.sample(posterior, [1], seed=tf.zeros([2], tf.int32))
            _checks.check_kl(latent, latent.kl(posterior, prior, value))
            samples[latent.name] = value
        _checks.check_all_used(self, self.likelihood, samples=samples)
        self.num_levels = pixel_levels(self.likelihood(**samples))
        return {
            name: samples[name].shape.rank - 1
            for name in _graph.group_names(self.latents)
        }
