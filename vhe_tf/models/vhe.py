"""The Variational Homoencoder over any declared graph of latents.

One bound covers the class-structured, per-element, hierarchical and factorial
models of the paper (Eq. 15, 16, 18 and 21):

    elbo(x) =   E_q [ log p(x | every latent) ]
              - sum over per-element latents   KL[q(z; x) || p(z)]
              - sum over group latents g of x  KL[q(c_g; D_g) || p(c_g)] / |X_g|

(q and p of each latent given its parents), so one class does: the latents are
declared (`vhe_tf.Latent`), not subclassed.
`call` is a pure function of weights, episode and seed: nothing is assigned in
it and every draw is seeded by the episode, so that the same code trains,
compiles, resumes exactly and exports.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from vhe_tf import distribute
from vhe_tf import objectives
from vhe_tf.distributions import by_row
from vhe_tf.distributions import tempering
from vhe_tf.layers import dropout
from vhe_tf.models.latents import Latent
from vhe_tf.models.latents import parents_first

__all__ = ["VHE", "Episode", "Samples", "Support"]

Episode = Mapping[str, Any]
"""`query`, `support`, `group_size` and `seed`; see `VHE`."""

Support = Mapping[str, Any]
"""For some or all group latents, the support set to infer it from, or what
`VHE.encode` made of that."""

# Images are floats from 0 to 1, and Gaussian pixels may be somewhat beyond; a
# larger one tells an image of 0 to 255.
_LARGEST_PIXEL = 16.0

Samples = dict[str, tf.Tensor]
"""The values of latents by name, `[S..., B, E...]` each."""


@keras.saving.register_keras_serializable(package="vhe_tf")
class VHE(keras.Model):
    """A hierarchical Bayesian model of grouped images (Section 3).

    Args:
        latents: The latents, in any order; sorted parents first.
        likelihood: Keras layer, `likelihood(**latents)` returns the
            `tfd.Distribution` `p(x | latents)` with event shape `[H, W, C]`
            and batch shape `[S..., B]`.
        image_shape: `(H, W, C)`.
        objective: An `Objective` or its name: the bound to train.
        **kwargs: Passed on to `keras.Model`.

    Call arguments:
        episode: A mapping with
            `query`: `[B, H, W, C]`, the elements x whose bound is wanted;
            `support`: for each group latent `[B, N, H, W, C]`, D;
            `group_size`: for each group latent `[B]` int32, |X|, augmented
            copies included; read where the objective rescales, and by `fit`,
            which reports it;
            `known`, optional: for some group latents `[B]` bool, whether the
            group of x is known; where it is not, the latent is drawn from its
            prior, whose KL is 0;
            `seed`: `[2]` int32, all the chance that the call uses. XLA turns
            equal seeds into other draws than TensorFlow does.
        training: Bool, as everywhere in Keras.

    Returns:
        `ElboTerms`.

    Raises:
        ValueError: If the latents do not form a proper graph (see
            `parents_first`), `objective` is unknown, or `image_shape` is not
            three positive ints; by `call`, if the shapes of an episode do not
            agree with each other or with `image_shape`.
    """

    def __init__(
        self,
        latents: Sequence[Latent],
        likelihood: keras.layers.Layer,
        *,
        image_shape: Sequence[int],
        objective: objectives.Objective | str = objectives.Objective.VHE,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.latents = parents_first(latents)
        self.likelihood = likelihood
        self.image_shape = _checked_image_shape(image_shape)
        self.objective = _checked_objective(objective)
        self.kl_warmup_steps: dict[str, int] = {}
        self.free_nats: dict[str, float] = {}
        self.accumulation = 1
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in self._metric_names()
        }
        self._event_ranks = self._build_on_zeros()

    # The bound ---------------------------------------------------------------

    def call(
        self, episode: Episode, training: bool = False
    ) -> objectives.ElboTerms:
        episode = self._checked(episode)
        seed = by_row.fold_in(episode["seed"], len(self.latents))
        with dropout.seed_scope(seed, training=training):
            return self._terms(episode)

    def _terms(self, episode: Episode) -> objectives.ElboTerms:
        query = episode["query"]
        batch_size = tf.shape(query)[0]
        samples: Samples = {}
        kl: dict[str, tf.Tensor] = {}
        sharing: dict[str, tf.Tensor] = {}
        for index, latent in enumerate(self.latents):
            name = latent.name
            observed = query if latent.per_element else episode["support"][name]
            posterior, prior = latent(observed, *_parents(latent, samples))
            seed = by_row.fold_in(episode["seed"], index)
            samples[name] = distribute.sample(posterior, batch_size, seed=seed)
            kl[name] = latent.kl(posterior, prior, samples[name])
            sharing[name] = self._sharing(latent, episode)
            if name in episode.get("known", {}):
                known = episode["known"][name]
                drawn = distribute.sample(prior, batch_size, seed=seed)
                samples[name] = _where(known, samples[name], drawn)
                kl[name] = tf.where(known, kl[name], 0.0)
        log_likelihood = self.likelihood(**samples).log_prob(query)
        return objectives.elbo_terms(
            log_likelihood=log_likelihood, kl=kl, sharing=sharing
        )

    def _sharing(self, latent: Latent, episode: Episode) -> tf.Tensor:
        """Returns among how many elements the KL of a latent is shared."""
        if latent.per_element:
            return tf.constant(1)
        if self.objective.rescales:
            # None for an element of no known group, which has no KL to share.
            return tf.maximum(episode["group_size"][latent.name], 1)
        return tf.shape(episode["support"][latent.name])[1]

    # Training ----------------------------------------------------------------

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        *,
        kl_warmup_steps: Mapping[str, int] | None = None,
        free_nats: Mapping[str, float] | None = None,
        accumulation: int = 1,
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            optimizer: As in Keras.
            kl_warmup_steps: For some latents, over how many optimizer steps
                the weight of their KL grows linearly from 0 to 1 in the loss.
                The metrics always report the bound itself.
            free_nats: For some latents, the number of nats below which the
                batch mean of their KL (before sharing; groups weigh in it by
                1 / |X|, as in the bound) costs nothing more to use: the loss
                replaces a smaller mean by this one.
            accumulation: In how many microbatches to go through the batch of
                a device, one after the other, their gradients added up before
                the optimizer's one step: the same step to rounding, in less
                memory. B is a multiple of it.
            **kwargs: Passed on to `keras.Model.compile`.

        Raises:
            ValueError: If a name is no latent of this model, a number is
                negative, `accumulation` is no positive int, or there are free
                nats and more than one microbatch.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.kl_warmup_steps = self._checked_by_latent(
            "kl_warmup_steps", kl_warmup_steps
        )
        self.free_nats = self._checked_by_latent("free_nats", free_nats)
        self.accumulation = self._checked_accumulation(accumulation)

    def loss_of_terms(
        self, terms: objectives.ElboTerms, step: tf.Tensor
    ) -> tf.Tensor:
        """Returns the training loss: the negative bound, KLs annealed.

        Args:
            terms: What `call` returned.
            step: `[]` int, the number of optimizer steps taken so far.

        Returns:
            `[]`, nats an element; `-mean(terms.elbo)` once every warm-up is
            over and every KL above its free nats.
        """
        loss = -tf.reduce_mean(terms.log_likelihood)
        for name, shared_kl in terms.shared_kl.items():
            cost = tf.reduce_mean(shared_kl)
            if self.free_nats.get(name):
                # Free nats are counted before sharing: scale them alike.
                share = tf.math.divide_no_nan(shared_kl, terms.kl[name])
                floor = self.free_nats[name] * tf.reduce_mean(share)
                # The means of the whole batch decide, on every replica.
                below = distribute.mean(cost - floor) < 0
                cost = tf.where(below, tf.stop_gradient(floor), cost)
            if self.kl_warmup_steps.get(name):
                progress = tf.cast(step, tf.float32) / float(
                    self.kl_warmup_steps[name]
                )
                cost *= tf.minimum(progress, 1.0)
            loss += cost
        return loss

    def train_step(self, episode: Episode) -> dict[str, Any]:
        """Takes one step of Algorithm 1 on a minibatch of episodes."""
        gradients = distribute.accumulated(
            self._gradients,
            episode,
            count=self.accumulation,
            variables=self.trainable_variables,
        )
        self.optimizer.apply(
            distribute.summed_once(gradients), self.trainable_variables
        )
        return self._results()

    def _gradients(self, episode: Episode) -> list[tf.Tensor | None]:
        """Returns the share of a microbatch in the gradients, and tracks it."""
        with tf.GradientTape() as tape:
            terms = self(episode, training=True)
            loss = self.loss_of_terms(terms, self.optimizer.iterations)
            # Divided first, so that no float16 gradient outgrows that of one
            # batch.
            scaled_loss = self.optimizer.scale_loss(loss / self.accumulation)
        self._track(terms, loss, episode)
        return tape.gradient(scaled_loss, self.trainable_variables)

    def _maybe_symbolic_build(self, *_: Any, **__: Any) -> None:
        # Built already, but for the optimizer. Keras would average an episode
        # over the replicas, `known` and all, only to see its shapes.
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def test_step(self, episode: Episode) -> dict[str, Any]:
        """Evaluates the bound on a minibatch of episodes."""
        terms = self(episode, training=False)
        self._track(terms, -tf.reduce_mean(terms.elbo), episode)
        return self._results()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means that `fit` reports and resets each epoch, in nats.

        Over all elements: where the group of some is not known, these have no
        KL (and size 0), so that `kl_{latent}` and `group_size_{latent}` are
        lower by their share.
        """
        return list(self._trackers.values())

    def _metric_names(self) -> list[str]:
        names = ["loss", "elbo", "log_likelihood"]
        for latent in self.latents:
            names.append(f"kl_{latent.name}")
            if not latent.per_element:
                names.append(f"kl_{latent.name}_shared")
                names.append(f"group_size_{latent.name}")
        return names

    def _track(
        self, terms: objectives.ElboTerms, loss: tf.Tensor, episode: Episode
    ) -> None:
        sized = [v.name for v in self.latents if not v.per_element]
        _check_keys(episode, sized, with_sizes=True)  # all are reported
        values = {
            "loss": loss,
            "elbo": terms.elbo,
            "log_likelihood": terms.log_likelihood,
        }
        for name in terms.kl:
            values[f"kl_{name}"] = terms.kl[name]
            values[f"kl_{name}_shared"] = terms.shared_kl[name]
        for name, size in episode["group_size"].items():
            values[f"group_size_{name}"] = tf.cast(size, tf.float32)
        for name, tracker in self._trackers.items():
            tracker.update_state(values[name])

    def _results(self) -> dict[str, Any]:
        return {name: t.result() for name, t in self._trackers.items()}

    # Inference ---------------------------------------------------------------

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
        support = self._as_support(support)
        _check_no_posteriors("encode", support)
        support = self._with_implied(support)
        posteriors: dict[str, Any] = {}
        means: Samples = {}
        for latent in self.latents:
            if latent.name in support:
                posterior = latent.posterior(
                    support[latent.name], *_parents(latent, means)
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
        complete: bool = True,
    ) -> Samples:
        """Draws the group latents given supports.

        Args:
            support: For some or all group latents, `[B, N, H, W, C]`. A latent
                with a support is drawn from its posterior. So is one above it
                (the alphabet of a known character): what is in a group is in
                the groups that hold it, so that the support below serves.
                Any other is drawn from its prior.
            seed: `[2]` int32.
            num_samples: S, the number of joint draws for each batch element.
            batch_size: B, needed only where `support` is empty.
            temperature: Of the priors from which latents are drawn.
            complete: Draw from their priors what the supports say nothing of;
                otherwise leave it out.

        Returns:
            For each group latent, `[S, B, E...]`.

        Raises:
            ValueError: If `support` names no group latent of this model, is
                empty without a `batch_size`, or has the posterior of a latent
                without its parents.
        """
        samples, _ = self._draw_groups(
            support,
            seed=seed,
            num_samples=num_samples,
            batch_size=batch_size,
            temperature=temperature,
            complete=complete,
        )
        return samples

    def importance_sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: tf.Tensor,
        num_samples: int,
        complete: bool = True,
    ) -> tuple[Samples, tf.Tensor]:
        """Draws the group latents with their importance weights.

        Args:
            support: For some or all group latents, `[B, N, H, W, C]`.
            seed: `[2]` int32.
            num_samples: S.
            complete: As in `infer`.

        Returns:
            What `infer` returns, and `[S, B]`, sum over the group latents that
            are drawn from their posteriors of
            log p(latent | parents) - log q(latent; D, parents), nats.
        """
        samples, ratios = self._draw_groups(
            support,
            seed=seed,
            num_samples=num_samples,
            complete=complete,
            weigh=True,
        )
        return samples, tf.add_n(ratios)

    def _draw_groups(
        self,
        support: Support | tf.Tensor,
        *,
        seed: tf.Tensor,
        num_samples: int,
        batch_size: int | tf.Tensor | None = None,
        temperature: float | tf.Tensor = 1.0,
        complete: bool = True,
        weigh: bool = False,
    ) -> tuple[Samples, list[tf.Tensor]]:
        if not isinstance(support, Mapping) or support:
            support = self._with_implied(self._as_support(support))
            self._check_given("support", support)
            batch_size = _batch_size(next(iter(support.values())))
        elif batch_size is None:
            raise ValueError(
                "Without any support, `batch_size` says how many draws from "
                "the prior are wanted. Received: support={}, batch_size=None."
            )
        samples: Samples = {}
        ratios: list[tf.Tensor] = []
        for index, latent in enumerate(self.latents):
            known = latent.name in support
            if latent.per_element or not (known or complete):
                continue
            if known:
                distribution = _posterior(latent, support[latent.name], samples)
            else:
                prior = latent.prior(*_parents(latent, samples))
                distribution = tempering.tempered(prior, temperature)
            value = _sample(
                distribution,
                [num_samples, batch_size],
                seed=by_row.fold_in(seed, index),
            )
            samples[latent.name] = value
            if known and weigh:
                prior = latent.prior(*_parents(latent, samples))
                ratios.append(
                    prior.log_prob(value) - distribution.log_prob(value)
                )
        return samples, ratios

    def decode(
        self, samples: Samples, *, seed: tf.Tensor, query: Any = None
    ) -> tfd.Distribution:
        """Returns the likelihood p(x | latents), the other latents drawn.

        Args:
            samples: The group latents, `[S..., B, E...]` each.
            seed: `[2]` int32.
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
        self._check_given("samples", samples)
        if query is not None:
            query = self._as_query(query, samples)
        samples, _ = self._with_own_latents(samples, query, seed)
        return self.likelihood(**samples)

    def render(
        self,
        samples: Samples,
        *,
        seed: tf.Tensor,
        query: Any = None,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Returns an image for each draw of the group latents, to look at.

        Args:
            samples: The group latents, `[S..., B, E...]` each.
            seed: `[2]` int32.
            query: As in `decode`.
            temperature: As in `sample`.

        Returns:
            `[S..., B, H, W, C]`: the mean of p(x | latents) where its pixels
            are independent, and a draw of each would only add noise; a draw
            where they are not.
        """
        likelihood = tempering.tempered(
            self.decode(samples, seed=by_row.fold_in(seed, 0), query=query),
            temperature,
        )
        try:
            return likelihood.mean()
        except NotImplementedError:
            return _draw(likelihood, seed=by_row.fold_in(seed, 1))

    def sample(
        self,
        support: Support | tf.Tensor,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws a new element of each group (few-shot generation).

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known;
                the others are drawn from their priors. With one group latent
                the tensor alone will do.
            seed: `[2]` int32.
            temperature: Of p(x | latents), see `tempered`; below 1, images are
                more typical.

        Returns:
            `[B, H, W, C]`, draws from p(x | D). Gaussian pixels may be beyond
            the 0 to 1 of images.
        """
        support = self._as_support(support)
        samples = self.infer(support, seed=by_row.fold_in(seed, 0))
        likelihood = self.decode(samples, seed=by_row.fold_in(seed, 1))
        likelihood = tempering.tempered(likelihood, temperature)
        return _draw(likelihood, seed=by_row.fold_in(seed, 2))[0]

    def sample_prior(
        self,
        batch_size: int,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
        latent_temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws elements of new groups (unconditional generation).

        Args:
            batch_size: B, the number of groups.
            seed: `[2]` int32.
            temperature: As in `sample`.
            latent_temperature: Of the priors of the group latents.

        Returns:
            `[B, H, W, C]`, one element of each group.
        """
        samples = self.infer(
            {},
            seed=by_row.fold_in(seed, 0),
            batch_size=batch_size,
            temperature=latent_temperature,
        )
        likelihood = self.decode(samples, seed=by_row.fold_in(seed, 1))
        likelihood = tempering.tempered(likelihood, temperature)
        return _draw(likelihood, seed=by_row.fold_in(seed, 2))[0]

    def reconstruct(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Redraws elements from their latents.

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known; the
                others are inferred from the query, as the per-element latents.
            query: `[B, H, W, C]`, the elements to redraw.
            seed: `[2]` int32.
            temperature: As in `sample`.

        Returns:
            `[B, H, W, C]`, see `render`.
        """
        query = self._as_images("query", query)
        samples = self.infer(
            self._as_support(support, query=query),
            seed=by_row.fold_in(seed, 0),
            complete=False,
        )
        return self.render(
            samples,
            seed=by_row.fold_in(seed, 1),
            query=query,
            temperature=temperature,
        )[0]

    def interpolate(
        self,
        support: Support | tf.Tensor,
        other: Support | tf.Tensor,
        num_steps: int,
        *,
        seed: tf.Tensor,
        temperature: float | tf.Tensor = 1.0,
    ) -> tf.Tensor:
        """Draws elements of groups between two groups.

        All chance is the same at every step, so that only the group changes.

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known.
            other: The same latents, for the groups at the other end.
            num_steps: T, both ends included; 2 or more.
            seed: `[2]` int32.
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
            self._as_support(support), seed=by_row.fold_in(seed, 0)
        )
        end = self.infer(self._as_support(other), seed=by_row.fold_in(seed, 0))
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
        """Estimates log p(x | group latents) for given values of those.

        Per-element latents are integrated out by importance weighting with
        their posterior: log (1/T) sum{ p(x, z_t | c) / q(z_t; c, x) }.

        Args:
            samples: Some or all group latents, `[S..., B, E...]` each. Those
                left out, of a group of x of which nothing is known, are
                integrated out like the per-element latents, with q(c; {x}).
            query: `[B, H, W, C]`.
            seed: `[2]` int32.
            num_element_samples: T.

        Returns:
            `[S..., B]`, nats. Exact where `samples` has every latent;
            otherwise a lower bound in expectation, tight as T grows.

        Raises:
            ValueError: As by `decode`.
        """
        self._check_given("samples", samples)
        query = self._as_query(query, samples)
        if all(latent.name in samples for latent in self.latents):
            return self.likelihood(**samples).log_prob(query)
        repeated = {
            name: tf.repeat(value[tf.newaxis], num_element_samples, axis=0)
            for name, value in samples.items()
        }  # [T, S..., B, E...]
        complete, log_weight = self._with_own_latents(repeated, query, seed)
        log_weight += self.likelihood(**complete).log_prob(query)
        return _log_mean_exp(log_weight)

    def log_likelihood(
        self,
        support: Support | tf.Tensor,
        query: tf.Tensor,
        *,
        seed: tf.Tensor,
        num_samples: int = 20,
        num_element_samples: int = 1,
    ) -> tf.Tensor:
        """Estimates the expected conditional likelihood log E_q(c; D) p(x | c).

        Args:
            support: `[B, N, H, W, C]` for each group latent that is known;
                latents above these are inferred from the same supports, any
                other is integrated out (see `log_likelihood_given`).
            query: `[B, H, W, C]`.
            seed: `[2]` int32.
            num_samples: S, draws of the group latents.
            num_element_samples: T, draws of the per-element latents for each.

        Returns:
            `[B]`, nats (Section 4.1).
        """
        query = self._as_images("query", query)
        samples = self.infer(
            self._as_support(support, query=query),
            seed=by_row.fold_in(seed, 0),
            num_samples=num_samples,
            complete=False,
        )
        return _log_mean_exp(
            self.log_likelihood_given(
                samples,
                query,
                seed=by_row.fold_in(seed, 1),
                num_element_samples=num_element_samples,
            )
        )

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
            support: `[B, K, N, H, W, C]` for each group latent that is known
                of the classes; with one group latent the tensor alone will do.
                Latents without a support as in `log_likelihood`.
            query: `[B, H, W, C]`.
            seed: `[2]` int32.
            num_samples: S, draws from q(c; D); the paper takes 20.
            num_element_samples: T, draws of the per-element latents for each.

        Returns:
            `[B, K]`, log E_q(c; D_k) p(x | c), nats: the label is its argmax,
            and its softmax the posterior under equal class priors. A query is
            scored with the same chance under every class, so that much of the
            errors cancels between them. B S T images are decoded at once;
            `evaluation.ClassScorer` does the same in pieces of bounded memory.
        """
        query = self._as_images("query", query)
        support = self._as_support(support, query=query, axes=("B", "K"))
        _check_no_posteriors("classify", support)
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

    def _with_own_latents(
        self, samples: Samples, query: Any, seed: tf.Tensor
    ) -> tuple[Samples, tf.Tensor]:
        """Completes samples by draws of the latents that they leave out.

        Returns:
            All latents, and log p(z | parents) - log q(z; x, parents) summed
            over those that were left out, `[S..., B]` (zeros where they are
            drawn from their priors).
        """
        samples = dict(samples)
        batch_shape = self._batch_shape(samples)
        log_weight = tf.zeros(batch_shape)
        for index, latent in enumerate(self.latents):
            if latent.name in samples:
                continue
            prior = latent.prior(*_parents(latent, samples))
            proposal = prior
            if query is not None:
                # Of its group, x itself is all that is known.
                observed = query if latent.per_element else query[:, tf.newaxis]
                proposal = _posterior(latent, observed, samples)
            value = _sample(
                proposal, batch_shape, seed=by_row.fold_in(seed, index)
            )
            samples[latent.name] = value
            if query is not None:
                log_weight += prior.log_prob(value) - proposal.log_prob(value)
        return samples, log_weight

    def _batch_shape(self, samples: Samples) -> tf.Tensor:
        """Returns `[S..., B]`, the leading axes of group latents."""
        name = next(name for name in self._event_ranks if name in samples)
        event_rank = self._event_ranks[name]
        shape = tf.shape(samples[name])
        return shape[: tf.size(shape) - event_rank]

    def _with_implied(self, support: Support) -> Support:
        """Adds supports of the latents above those that have one.

        What is in a group is in the groups that hold it.
        """
        completed = dict(support)
        for latent in reversed(self.latents):
            if latent.per_element or latent.name in completed:
                continue
            below = [
                completed[v.name]
                for v in self.latents
                if latent.name in v.parents
                and v.name in completed
                and not isinstance(completed[v.name], tfd.Distribution)
            ]
            if below:
                completed[latent.name] = tf.concat(below, axis=1)
        return completed

    def _as_support(
        self,
        support: Support | tf.Tensor,
        *,
        query: tf.Tensor | None = None,
        axes: tuple[str, ...] = ("B",),
    ) -> Support:
        """Returns supports by name; checks them, and their and query's shapes.

        Images are `[axes..., N, H, W, C]`.
        """
        if not isinstance(support, Mapping):
            names = [v.name for v in self.latents if not v.per_element]
            if len(names) > 1:
                raise ValueError(
                    "A model with several group latents takes its support as "
                    f"a mapping from some or all of {names}. Received a tensor."
                )
            support = {names[0]: support}
        if not support:
            raise ValueError(
                "At least one group latent needs a support; `sample_prior` "
                "draws from new groups. Received: an empty support."
            )
        self._check_support_names(support)
        checked = {
            name: value
            if isinstance(value, tfd.Distribution)
            else self._as_images(name, value)
            for name, value in support.items()
        }
        shapes = [
            (value, (*axes, f"N of {name}", *self.image_shape))
            for name, value in checked.items()
            if not isinstance(value, tfd.Distribution)
        ]
        if query is not None:
            # A batch axis of size 1 too many would broadcast unseen.
            shapes.append((query, ("B", *self.image_shape)))
            for value in checked.values():
                if isinstance(value, tfd.Distribution):
                    tf.debugging.assert_equal(
                        value.batch_shape_tensor(),
                        tf.shape(query)[:1],
                        "`support` and `query` must have the same B.",
                    )
        tf.debugging.assert_shapes(
            shapes, message="The support or the query has a wrong shape."
        )
        return checked

    def _as_query(self, query: Any, samples: Samples) -> tf.Tensor:
        """Returns the query of samples; a B of 1 would broadcast unseen."""
        query = self._as_images("query", query)
        tf.debugging.assert_shapes(
            [(query, ("B", *self.image_shape))],
            message="The query has a wrong shape.",
        )
        tf.debugging.assert_equal(
            self._batch_shape(samples)[-1],
            tf.shape(query)[0],
            "`samples` and `query` must have the same B.",
        )
        return query

    def _as_images(self, name: str, images: Any) -> tf.Tensor:
        """Returns float32 images; refuses those of 0 to 255."""
        images = tf.convert_to_tensor(images)
        if not images.dtype.is_floating:
            raise ValueError(
                "Images are floating point, ink 1. "
                f"Received: {name!r} of dtype {images.dtype.name}."
            )
        if tf.executing_eagerly() and tf.size(images) > 0:
            largest = float(tf.reduce_max(images))
            if largest > _LARGEST_PIXEL:
                raise ValueError(
                    "Images are floats from 0 to 1; divide those of 0 to 255 "
                    f"by 255. Received: {name!r} with a pixel of {largest:g}."
                )
        return tf.cast(images, tf.float32)

    def _build_on_zeros(self) -> dict[str, int]:
        """Builds every layer; returns the event rank of each group latent."""
        support = {
            latent.name: tf.zeros((1, 1, *self.image_shape))
            for latent in self.latents
            if not latent.per_element
        }
        seed = tf.zeros([2], tf.int32)
        terms = self(
            {
                "query": tf.zeros((1, *self.image_shape)),
                "support": support,
                "group_size": {
                    name: tf.ones([1], tf.int32) for name in support
                },
                "seed": seed,
            }
        )
        samples = self.infer(support, seed=seed)  # [S=1, B=1, E...] each
        self._check_all_used(samples, seed)
        for latent in self.latents:
            if terms.kl[latent.name].shape != (1,):
                raise ValueError(
                    "The KL of a latent is one number for each batch element; "
                    "a distribution of several dimensions has them in its "
                    "event shape (`tfd.MultivariateNormalDiag`, "
                    "`tfd.Independent`). Received: "
                    f"{terms.kl[latent.name].shape} for a batch of 1 by latent "
                    f"{latent.name!r}."
                )
        return {name: value.shape.rank - 2 for name, value in samples.items()}

    def _check_all_used(self, groups: Samples, seed: tf.Tensor) -> None:
        """Raises a ValueError if a latent has no say in what is generated."""
        samples = {name: value[0] for name, value in groups.items()}
        for index, latent in enumerate(self.latents):
            if latent.per_element:
                prior = latent.prior(*_parents(latent, samples))
                samples[latent.name] = _sample(
                    prior, [1], seed=by_row.fold_in(seed, index)
                )
        continuous = {k: v for k, v in samples.items() if v.dtype.is_floating}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(continuous)
            image = tf.zeros((1, *self.image_shape))
            likelihood = self.likelihood(**samples)
            if not likelihood.event_shape.is_compatible_with(self.image_shape):
                raise ValueError(
                    "The event of the likelihood is an image, of event shape "
                    f"{self.image_shape}; pixels that are independent of each "
                    "other are made one by `tfd.Independent(pixels, 3)`. "
                    f"Received: event shape {likelihood.event_shape}, batch "
                    f"shape {likelihood.batch_shape}."
                )
            log_likelihood = likelihood.log_prob(image)
            log_prior = {
                v.name: v.prior(*_parents(v, samples)).log_prob(samples[v.name])
                for v in self.latents
                if v.parents
            }
        for name, value in continuous.items():
            others = [p for k, p in log_prior.items() if k != name]
            gradients = [
                tape.gradient(density, value)
                for density in (log_likelihood, *others)
            ]
            if all(gradient is None for gradient in gradients):
                raise ValueError(
                    f"Nothing depends on latent {name!r}: neither the "
                    "likelihood nor the prior of a latent that names it as a "
                    "parent. Use it there, or leave it out. Received: "
                    f"latents={[v.name for v in self.latents]}."
                )

    # Configuration -----------------------------------------------------------

    def _check_support_names(self, support: Support) -> None:
        known = [v.name for v in self.latents if not v.per_element]
        for name in support:
            if name not in known:
                raise ValueError(
                    "`support` names a group latent that this model does not "
                    f"have. Group latents: {known}. Received: {name!r}."
                )

    def _check_given(self, argument: str, given: Mapping[str, Any]) -> None:
        """Refuses values of latents that leave out what they depend on."""
        known = [latent.name for latent in self.latents]
        groups = [v.name for v in self.latents if not v.per_element]
        if not set(given) <= set(known) or not set(given) & set(groups):
            raise ValueError(
                f"`{argument}` has some or all latents of this model, {known}, "
                f"at least one of {groups}. Received: {sorted(given)}."
            )
        for latent in self.latents:
            missing = [p for p in latent.parents if p not in given]
            if latent.name in given and missing:
                # Their prior is not what they are given this latent.
                raise ValueError(
                    f"Latent {latent.name!r} depends on {missing}: pass these "
                    "too, all that `infer` or `encode` returned. "
                    f"Received: `{argument}` of {sorted(given)}."
                )

    def _checked(self, episode: Episode) -> Episode:
        """Returns an episode of float32 images; checks its keys and shapes."""
        group_latents = [v.name for v in self.latents if not v.per_element]
        _check_keys(episode, group_latents, with_sizes=self.objective.rescales)
        query = self._as_images("query", episode["query"])
        support = {
            name: self._as_images(name, episode["support"][name])
            for name in group_latents
        }
        # A batch axis of size 1 too many would broadcast into a wrong bound.
        shapes = [
            (query, ("B", *self.image_shape)),
            (episode["seed"], (2,)),
        ]
        for name, images in support.items():
            shapes.append((images, ("B", f"N of {name}", *self.image_shape)))
            if self.objective.rescales:
                shapes.append((episode["group_size"][name], ("B",)))
        tf.debugging.assert_shapes(shapes)
        return {**episode, "query": query, "support": support}

    def _checked_by_latent(
        self, argument: str, values: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        known = [latent.name for latent in self.latents]
        for name, value in (values or {}).items():
            if name not in known or value < 0:
                raise ValueError(
                    f"`{argument}` maps latents of the model, {known}, to "
                    "non-negative numbers. "
                    f"Received: {argument}[{name!r}]={value!r}."
                )
        return dict(values or {})

    def _checked_accumulation(self, accumulation: int) -> int:
        if not isinstance(accumulation, int) or accumulation < 1:
            raise ValueError(
                "`accumulation` is the number of microbatches of a step, a "
                f"positive int. Received: accumulation={accumulation!r}."
            )
        free_nats = {k: v for k, v in self.free_nats.items() if v}
        if accumulation > 1 and free_nats:
            raise ValueError(
                "Free nats are decided by the mean KL of the whole batch, "
                "which none of its microbatches knows: leave `free_nats` or "
                "`accumulation` out, or anneal with `kl_warmup_steps`. "
                f"Received: free_nats={free_nats!r}, "
                f"accumulation={accumulation}."
            )
        return accumulation

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "latents": [serialize(latent) for latent in self.latents],
            "likelihood": serialize(self.likelihood),
            "image_shape": list(self.image_shape),
            "objective": str(self.objective),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "VHE":
        revive = keras.saving.deserialize_keras_object
        return cls(
            **{
                **config,
                "latents": [revive(latent) for latent in config["latents"]],
                "likelihood": revive(config["likelihood"]),
            }
        )

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "kl_warmup_steps": dict(self.kl_warmup_steps),
            "free_nats": dict(self.free_nats),
            "accumulation": self.accumulation,
            "jit_compile": self.jit_compile,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        revive = keras.saving.deserialize_keras_object
        self.compile(**{**config, "optimizer": revive(config["optimizer"])})
        self.optimizer.build(self.trainable_variables)


def _posterior(
    latent: Latent, observed: Any, samples: Samples
) -> tfd.Distribution:
    if isinstance(observed, tfd.Distribution):
        return observed
    return latent.posterior(observed, *_parents(latent, samples))


def _check_keys(
    episode: Episode, group_latents: Sequence[str], *, with_sizes: bool
) -> None:
    by_latent = ["support", "group_size"] if with_sizes else ["support"]
    missing = [
        key for key in ("query", "seed", *by_latent) if key not in episode
    ] or [
        f"{key}[{name!r}]"
        for key in by_latent
        for name in group_latents
        if name not in episode[key]
    ]
    if missing:
        needed = " and ".join(f"`{key}`" for key in by_latent)
        raise ValueError(
            f"An episode has `query`, `seed`, and {needed} of each of "
            f"{group_latents}. Received: an episode without "
            f"{', '.join(missing)}."
        )


def _check_no_posteriors(method: str, support: Support) -> None:
    for name, value in support.items():
        if isinstance(value, tfd.Distribution):
            raise ValueError(
                f"`{method}` takes supports, not what `encode` returned, which "
                "`log_likelihood` scores one class at a time. Received: "
                f"support[{name!r}] of type {type(value).__name__}."
            )


def _where(known: tf.Tensor, value: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Chooses row by row: `known` is `[B]`, the values `[B, E...]`."""
    shape = [-1] + [1] * (value.shape.rank - 1)
    return tf.where(tf.reshape(known, shape), value, other)


def _batch_size(observed: Any) -> tf.Tensor:
    if isinstance(observed, tfd.Distribution):
        return observed.batch_shape_tensor()[-1]
    return tf.shape(observed)[0]


def _parents(latent: Latent, samples: Samples) -> list[tf.Tensor]:
    return [samples[parent] for parent in latent.parents]


def _sample(
    distribution: tfd.Distribution, batch_shape: Any, *, seed: tf.Tensor
) -> tf.Tensor:
    """Samples along those leading axes that the distribution lacks."""
    batch_shape = tf.stack(batch_shape)
    missing = batch_shape.shape[0] - distribution.batch_shape.rank
    if _is_by_row(seed):
        return by_row.sample_by_row(distribution, batch_shape[:missing], seed)
    return distribution.sample(batch_shape[:missing], seed=seed)


def _draw(distribution: tfd.Distribution, *, seed: tf.Tensor) -> tf.Tensor:
    """Draws once from a distribution that has all of the batch shape."""
    if _is_by_row(seed):
        return by_row.sample_by_row(distribution, [], seed)
    return distribution.sample(seed=seed)


def _is_by_row(seed: tf.Tensor) -> bool:
    return tf.convert_to_tensor(seed).shape.rank == 2


def _log_mean_exp(log_values: tf.Tensor) -> tf.Tensor:
    """Returns log(mean(exp(log_values))) over the first axis."""
    count = tf.cast(tf.shape(log_values)[0], log_values.dtype)
    return tf.reduce_logsumexp(log_values, axis=0) - tf.math.log(count)


def _checked_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(v, int) and v > 0 for v in shape):
        raise ValueError(
            "`image_shape` must be three positive ints, (H, W, C). "
            f"Received: image_shape={image_shape!r}."
        )
    return shape


def _checked_objective(
    objective: objectives.Objective | str,
) -> objectives.Objective:
    known = [str(member) for member in objectives.Objective]
    if objective not in known:
        raise ValueError(
            f"`objective` must be one of {known}. "
            f"Received: objective={objective!r}."
        )
    return objectives.Objective(objective)
