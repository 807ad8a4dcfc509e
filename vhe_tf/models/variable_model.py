"""Inference and generation by models of declared latent variables."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf.distributions import by_row
from vhe_tf.distributions import tempering
from vhe_tf.models import _checks
from vhe_tf.models import _graph
from vhe_tf.models import _summary
from vhe_tf.models._batching import batch_axis_optional
from vhe_tf.models.latents import Latent
from vhe_tf.models.latents import parents_first

__all__ = ["LatentVariableModel", "Samples", "Support"]

Samples = _graph.Samples
Support = _graph.Support


class LatentVariableModel(keras.Model):
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
        self._nodes: dict[str, _summary.Node] = {}
        likelihood = self._build_on_zeros()
        self.has_binary_pixels = _graph.has_binary_pixels(likelihood)
        self._event_ranks = {
            name: len(self._nodes[name].event_shape)
            for name in _graph.group_names(self.latents)
        }
        self.built = True

    def encode(self, support: Support | tf.Tensor) -> dict[str, Any]:
        """Returns the posteriors of group latents, for repeated use.

        The result can replace the support in every other method except
        `classify`. To score a class, pass its posteriors to `log_likelihood`.

        Args:
            support: Mapping from names of group latents to tensors of shape
                `[B, N, H, W, C]`. A model with one group latent also accepts
                the tensor.

        Returns:
            For each latent of `support` and each of its ancestors, a
            `tfd.Distribution` of batch shape `[B]`, q(latent; D, parents) at
            the means of the parents' posteriors.

        Raises:
            ValueError: If `support` holds results of `encode`.
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
        seed: tf.Tensor,
        num_samples: int = 1,
        batch_size: int | tf.Tensor | None = None,
        temperature: float | tf.Tensor = 1.0,
        sample_unobserved: bool = True,
    ) -> Samples:
        """Samples the group latents given supports.

        Args:
            support: Mapping from names of some or all group latents to tensors
                of shape `[B, N, H, W, C]`. A latent with a support is sampled
                from its posterior. So are its ancestors: the elements of a
                group are elements of the groups that contain it. Any other
                latent is sampled from its prior.
            seed: int32 tensor of shape `[2]`.
            num_samples: Integer, S. Number of joint samples per batch element.
                Defaults to 1.
            batch_size: Integer, B. Required if `support` is empty.
            temperature: Float. Temperature of the priors. Defaults to 1.
            sample_unobserved: Boolean. Whether to sample latents without a
                support from their prior. If False, they are omitted.
                Defaults to True.

        Returns:
            For each group latent, a tensor of shape `[S, B, E...]`.

        Raises:
            ValueError: If `support` names an unknown latent, is empty without
                `batch_size`, or has a posterior without those of its parents.
        """
        if not isinstance(support, Mapping) or support:
            support = self._with_implied(support)
            batch_size = _graph.batch_size_of(next(iter(support.values())))
        elif batch_size is None:
            raise ValueError(
                "Without a support, pass `batch_size`, the number of samples "
                "from the prior. Received: support={}, batch_size=None."
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
        seed: tf.Tensor,
        num_samples: int,
        sample_unobserved: bool = True,
    ) -> tuple[Samples, tf.Tensor]:
        """Samples the group latents with their importance weights.

        Args:
            support: As in `infer`.
            seed: int32 tensor of shape `[2]`.
            num_samples: Integer, S.
            sample_unobserved: As in `infer`.

        Returns:
            The result of `infer`, and a tensor of shape `[S, B]` in nats: the
            sum of log p(latent | parents) - log q(latent; D, parents) over the
            group latents that are sampled from their posteriors.
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
        self, samples: Samples, *, seed: tf.Tensor, query: Any = None
    ) -> tfd.Distribution:
        """Returns the likelihood p(x | latents); samples missing latents.

        Args:
            samples: Mapping from names of group latents to tensors of shape
                `[S..., B, E...]`.
            seed: int32 tensor of shape `[2]`.
            query: Tensor of shape `[B, H, W, C]`, or None. With a query, the
                latents that `samples` lacks are sampled from their posterior
                given these elements (reconstruction), else from their prior
                (generation). Defaults to None.

        Returns:
            A distribution of batch shape `[S..., B]`, event shape
            `[H, W, C]`.

        Raises:
            ValueError: If `samples` is empty, names an unknown latent, or has
                a latent without its parents, or if `query` is not a batch of
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
        seed: tf.Tensor,
        query: Any = None,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Returns an image to look at for each sample of the group latents.

        Args:
            samples: As in `decode`.
            seed: int32 tensor of shape `[2]`.
            query: As in `decode`.
            temperature: As in `sample`.

        Returns:
            Tensor of shape `[S..., B, H, W, C]`. The mean of p(x | latents) if
            its pixels are independent, else a sample.
        """
        likelihood = tempering.tempered(
            self.decode(samples, seed=by_row.fold_in(seed, 0), query=query),
            temperature,
        )
        try:
            return likelihood.mean()
        except NotImplementedError:
            return _graph.sample(likelihood, seed=by_row.fold_in(seed, 1))

    @batch_axis_optional()
    def sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Samples a new element of each group (few-shot generation).

        Args:
            support: As in `infer`. Without the axis B, of shape
                `[N, H, W, C]`, it is one group, and the result has no axis B.
            seed: int32 tensor of shape `[2]`.
            temperature: Float. Temperature of p(x | latents), see `tempered`.
                Images are more typical below 1. Defaults to 1.

        Returns:
            Tensor of shape `[B, H, W, C]`, samples of p(x | D). Gaussian
            pixels can lie outside 0..1.
        """
        support = _checks.checked_support(self, support)
        samples = self.infer(support, seed=by_row.fold_in(seed, 0))
        likelihood = self.decode(samples, seed=by_row.fold_in(seed, 1))
        likelihood = tempering.tempered(likelihood, temperature)
        return _graph.sample(likelihood, seed=by_row.fold_in(seed, 2))[0]

    def sample_prior(
        self,
        batch_size: int,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        latent_temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Samples elements of new groups (unconditional generation).

        Args:
            batch_size: Integer, B. Number of groups.
            seed: int32 tensor of shape `[2]`.
            temperature: As in `sample`.
            latent_temperature: Float. Temperature of the priors of the group
                latents. Defaults to 1.

        Returns:
            Tensor of shape `[B, H, W, C]`, one element of each group.
        """
        samples = self.infer(
            {},
            seed=by_row.fold_in(seed, 0),
            batch_size=batch_size,
            temperature=latent_temperature,
        )
        likelihood = self.decode(samples, seed=by_row.fold_in(seed, 1))
        likelihood = tempering.tempered(likelihood, temperature)
        return _graph.sample(likelihood, seed=by_row.fold_in(seed, 2))[0]

    @batch_axis_optional()
    def reconstruct(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Reconstructs elements from their latents.

        Args:
            support: As in `sample`. Group latents without a support are
                inferred from the query.
            query: Tensor of shape `[B, H, W, C]`, the elements.
            seed: int32 tensor of shape `[2]`.
            temperature: As in `sample`.

        Returns:
            Tensor of shape `[B, H, W, C]`, see `render`.
        """
        query = _checks.checked_images(self, "query", images=query)
        samples = self.infer(
            _checks.checked_support(self, support, query=query),
            seed=by_row.fold_in(seed, 0),
            sample_unobserved=False,
        )
        return self.render(
            samples,
            seed=by_row.fold_in(seed, 1),
            query=query,
            temperature=temperature,
        )[0]

    @batch_axis_optional()
    def interpolate(
        self,
        support: Support | tf.Tensor,
        other: Support | tf.Tensor,
        num_steps: int,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Samples elements of groups between two groups.

        All steps use the same randomness, so that only the group changes.

        Args:
            support: As in `sample`.
            other: The same latents, for the groups at the other end.
            num_steps: Integer, T. Number of steps, both ends included.
            seed: int32 tensor of shape `[2]`.
            temperature: As in `sample`.

        Returns:
            Tensor of shape `[B, T, H, W, C]`, see `render`. The group latents
            lie on a straight line between two samples.

        Raises:
            ValueError: If `num_steps` is below 2.
        """
        if num_steps < 2:
            raise ValueError(
                "`num_steps` counts both ends, so it is 2 or more. "
                f"Received: num_steps={num_steps!r}."
            )
        start = self.infer(
            _checks.checked_support(self, support), seed=by_row.fold_in(seed, 0)
        )
        end = self.infer(
            _checks.checked_support(self, other), seed=by_row.fold_in(seed, 0)
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
                between, seed=by_row.fold_in(seed, 1), temperature=temperature
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
        seed: tf.Tensor,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates log p(x | group latents) for given group latents.

        Per-element latents are integrated out by importance weighting with
        their posterior: log (1/T) sum{ p(x, z_t | c) / q(z_t; c, x) }.

        Args:
            samples: As in `decode`. Group latents that it lacks are integrated
                out like the per-element latents, with q(c; {x}).
            query: Tensor of shape `[B, H, W, C]`.
            seed: int32 tensor of shape `[2]`.
            num_element_samples: Integer, T. Defaults to 1.

        Returns:
            Tensor of shape `[S..., B]`, nats. Exact if `samples` has every
            latent, else a lower bound in expectation, tight for large T.

        Raises:
            ValueError: As in `decode`.
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

    @batch_axis_optional()
    def log_likelihood(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates the conditional log-likelihood log E_q(c; D) p(x | c).

        Args:
            support: As in `sample`. Group latents without a support are
                integrated out, see `log_likelihood_given`.
            query: Tensor of shape `[B, H, W, C]`.
            seed: int32 tensor of shape `[2]`.
            num_samples: Integer, S. Number of samples of the group latents.
                Defaults to 20.
            num_element_samples: Integer, T. Number of samples of the
                per-element latents for each of them. Defaults to 1.

        Returns:
            Tensor of shape `[B]`, nats (Section 4.1).
        """
        query = _checks.checked_images(self, "query", images=query)
        samples = self.infer(
            _checks.checked_support(self, support, query=query),
            seed=by_row.fold_in(seed, 0),
            num_samples=num_samples,
            sample_unobserved=False,
        )
        return _graph.log_mean_exp(
            self.log_likelihood_given(
                samples,
                query,
                seed=by_row.fold_in(seed, 1),
                num_element_samples=num_element_samples,
            )
        )

    @batch_axis_optional("BKNHWC")
    def classify(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Scores each query under each of K classes (Section 4.1).

        Args:
            support: Mapping from names of group latents to tensors of shape
                `[B, K, N, H, W, C]`, or the tensor, as in `infer`. Without the
                axis B it is one task, and the result has no axis B.
            query: Tensor of shape `[B, H, W, C]`.
            seed: int32 tensor of shape `[2]`.
            num_samples: Integer, S. Number of samples from q(c; D). Defaults
                to 20, as in the paper.
            num_element_samples: Integer, T. As in `log_likelihood`.

        Returns:
            Tensor of shape `[B, K]`, log E_q(c; D_k) p(x | c) in nats. The
            label is its argmax, and its softmax is the posterior under equal
            class priors. All classes use the same randomness, which cancels
            most of the sampling error between them. The method decodes B S T
            images at once; `evaluation.ClassScorer` bounds the memory.
        """
        query = _checks.checked_images(self, "query", images=query)
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

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Prints the graph of latents, and then Keras' table of layers.

        The arguments are those of `keras.Model.summary`.
        """
        table = _summary.graph_table(
            self.latents, self.likelihood, nodes=self._nodes
        )
        (print_fn or print)(table)
        super().summary(
            line_length=line_length,
            positions=positions,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )

    def _as_query(self, query: Any, samples: Samples) -> tf.Tensor:
        batch_shape = _graph.batch_shape_of(samples, self._event_ranks)
        return _checks.checked_query(self, query, batch_size=batch_shape[-1])

    def _complete(
        self, samples: Samples, *, query: Any, seed: tf.Tensor
    ) -> tuple[Samples, tf.Tensor]:
        return _graph.sample_rest(
            self.latents,
            samples,
            batch_shape=_graph.batch_shape_of(samples, self._event_ranks),
            query=query,
            seed=seed,
        )

    def _build_on_zeros(self) -> tfd.Distribution:
        """Builds every layer; returns p(x | latents)."""
        image = tf.zeros((1, *self.image_shape))
        samples: Samples = {}
        for latent in self.latents:
            observed = image if latent.per_element else image[:, tf.newaxis]
            parents = _graph.parents_of(latent, samples)
            posterior, prior = latent(observed, *parents)
            value = _graph.sample(posterior, [1], seed=tf.zeros([2], tf.int32))
            _checks.check_kl(latent, latent.kl(posterior, prior, value))
            samples[latent.name] = value
            self._nodes[latent.name] = _summary.Node(
                tuple(value.shape[1:]),
                _summary.family_of(prior),
                _summary.family_of(posterior),
            )
        likelihood = _checks.check_all_used(
            self, self.likelihood, samples=samples
        )
        self._nodes["x"] = _summary.Node(
            self.image_shape, _summary.family_of(likelihood), "-"
        )
        return likelihood
