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

from vhe_tf import distribute
from vhe_tf import objectives
from vhe_tf.distributions import by_row
from vhe_tf.layers import dropout
from vhe_tf.models import _checks
from vhe_tf.models import _graph
from vhe_tf.models.latents import Latent
from vhe_tf.models.variable_model import LatentVariableModel

__all__ = ["VHE"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class VHE(LatentVariableModel):
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
        super().__init__(latents, likelihood, image_shape=image_shape, **kwargs)
        self.objective = _checks.checked_objective(objective)
        self.kl_warmup_steps: dict[str, int] = {}
        self.free_nats: dict[str, float] = {}
        self.accumulation = 1
        self._trackers = {
            name: keras.metrics.Mean(name=name) for name in self._metric_names()
        }

    # The bound ---------------------------------------------------------------

    def call(
        self, episode: _graph.Episode, training: bool = False
    ) -> objectives.ElboTerms:
        episode = _checks.checked_episode(
            self, episode, rescales=self.objective.rescales
        )
        seed = by_row.fold_in(episode["seed"], len(self.latents))
        with dropout.seed_scope(seed, training=training):
            return self._terms(episode)

    def _terms(self, episode: _graph.Episode) -> objectives.ElboTerms:
        query = episode["query"]
        batch_size = tf.shape(query)[0]
        samples: _graph.Samples = {}
        kl: dict[str, tf.Tensor] = {}
        sharing: dict[str, tf.Tensor] = {}
        for index, latent in enumerate(self.latents):
            name = latent.name
            observed = query if latent.per_element else episode["support"][name]
            posterior, prior = latent(
                observed, *_graph.parents_of(latent, samples)
            )
            seed = by_row.fold_in(episode["seed"], index)
            samples[name] = distribute.sample(posterior, batch_size, seed=seed)
            kl[name] = latent.kl(posterior, prior, samples[name])
            sharing[name] = self._sharing(latent, episode)
            if name in episode.get("known", {}):
                known = episode["known"][name]
                drawn = distribute.sample(prior, batch_size, seed=seed)
                samples[name] = _graph.where_rows(
                    known, samples[name], other=drawn
                )
                kl[name] = tf.where(known, kl[name], 0.0)
        log_likelihood = self.likelihood(**samples).log_prob(query)
        return objectives.elbo_terms(
            log_likelihood=log_likelihood, kl=kl, sharing=sharing
        )

    def _sharing(self, latent: Latent, episode: _graph.Episode) -> tf.Tensor:
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
        self.kl_warmup_steps = _checks.checked_by_latent(
            self, "kl_warmup_steps", values=kl_warmup_steps
        )
        self.free_nats = _checks.checked_by_latent(
            self, "free_nats", values=free_nats
        )
        self.accumulation = _checks.checked_accumulation(
            accumulation, free_nats=self.free_nats
        )

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

    def train_step(self, episode: _graph.Episode) -> dict[str, Any]:
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

    def _gradients(self, episode: _graph.Episode) -> list[tf.Tensor | None]:
        """Returns the share of a microbatch in the gradients, and tracks it."""
        with tf.GradientTape() as tape:
            terms = self(episode, training=True)
            loss = self.loss_of_terms(terms, self.optimizer.iterations)
            # Divided first, so that no float16 gradient outgrows that of one
            # batch.
            scaled_loss = self.optimizer.scale_loss(loss / self.accumulation)
        self._track(terms, loss, episode)
        return tape.gradient(scaled_loss, self.trainable_variables)

    def test_step(self, episode: _graph.Episode) -> dict[str, Any]:
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
        self,
        terms: objectives.ElboTerms,
        loss: tf.Tensor,
        episode: _graph.Episode,
    ) -> None:
        sized = _graph.group_names(self.latents)
        _checks.check_keys(episode, sized, with_sizes=True)  # all are reported
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

    # Configuration -----------------------------------------------------------

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
