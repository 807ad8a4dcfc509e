"""One batch on several devices or machines, as if it were on one.

Under `tf.distribute` each replica takes the same step on its rows of the
global batch. Whatever concerns the batch as a whole goes through here, so that
N steps come to the same on every layout: a replica draws what its rows would
have drawn in the whole batch, and gradients and metrics are means over it.
Where there is one replica, or no strategy, all of this does nothing.
"""

import json
import os
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

__all__ = [
    "draw",
    "is_chief",
    "make_strategy",
    "mean",
    "sample",
    "split",
    "summed_once",
]


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Makes a strategy, before TensorFlow has done anything else.

    Args:
        name: `none`; `mirrored`, all GPUs of this machine, or its logical
            CPUs where it has none; `multi_worker`, those of all the machines
            of the environment variable `TF_CONFIG`.

    Raises:
        ValueError: If the name is another, or `TF_CONFIG` does not say which
            machines there are and which one this is.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name != "multi_worker":
        raise ValueError(
            "A distribution is 'none', 'mirrored' or 'multi_worker'. "
            f"Received: {name!r}."
        )
    _check_tf_config(os.environ.get("TF_CONFIG"))
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that writes."""
    return bool(strategy.extended.should_checkpoint)


def split(
    strategy: tf.distribute.Strategy, episodes: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Gives each replica its rows of every batch of episodes.

    Args:
        strategy: Of R replicas.
        episodes: As `EpisodeSampler.dataset` returns; B a multiple of R.

    Returns:
        The same batches, over and over, of which replica r has the rows from
        r B / R on, and the seed of the whole batch. Each worker makes the
        whole batch. With one replica, `episodes` itself.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return episodes

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = count // context.num_input_pipelines
        first = context.input_pipeline_id * here

        def rows(values: tf.Tensor) -> tf.Tensor:
            return tf.stack(tf.split(values, count)[first : first + here])

        def shares(batch: Mapping[str, Any]) -> dict[str, Any]:
            return {
                key: tf.stack([value] * here)
                if key == "seed"
                else tf.nest.map_structure(rows, value)
                for key, value in batch.items()
            }  # [replicas here, ...] each

        # What never ends has no last batch to agree about at every step.
        return episodes.map(shares).unbatch().repeat().prefetch(here)

    return strategy.distribute_datasets_from_function(of_worker)


def draw(of_shape: Callable[[list[int]], tf.Tensor]) -> tf.Tensor:
    """Draws for this replica's rows what the whole batch would have drawn.

    Seeded noise fills a tensor from its first number to its last, so that the
    rows of replica r in a draw for the whole batch are entry r of a draw with
    an axis of all replicas before the others.

    Args:
        of_shape: Draws, with the given axes before `[b, ...]`, those of this
            replica.

    Returns:
        `[b, ...]`.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return of_shape([])
    every = of_shape([context.num_replicas_in_sync])  # [R, b, ...]
    return every[context.replica_id_in_sync_group]


def sample(
    distribution: tfd.Distribution, batch_size: int | tf.Tensor, *, seed: Any
) -> tf.Tensor:
    """Draws for this replica's rows what the whole batch would have drawn.

    To rounding, for Normal, MultivariateNormalDiag, Bernoulli and PixelCNN, and
    an Independent of them. Others draw in orders of their own: what they draw
    here is as random, but not what one device would draw.

    Args:
        distribution: Of batch shape `[b]` or `[]`.
        batch_size: b.
        seed: `[2]` int32, that of the whole batch.

    Returns:
        `[b, E...]`.
    """

    def of_shape(leading: list[int]) -> tf.Tensor:
        if not distribution.batch_shape.rank:
            return distribution.sample([*leading, batch_size], seed=seed)
        if leading and isinstance(distribution, tfd.MultivariateNormalDiag):
            # It draws the batch within each number of the event.
            shape = tf.concat([leading, tf.shape(distribution.loc)], axis=0)
            whole = tf.broadcast_to(distribution.loc, shape)
            return distribution.copy(loc=whole).sample(seed=seed)
        return distribution.sample(leading, seed=seed)

    return draw(of_shape)


def mean(values: Any) -> Any:
    """Returns means over all replicas, the same on each.

    Args:
        values: A tensor, or a nest of them; of equally many rows a replica.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)


def summed_once(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns gradients whose sum over the replicas is their mean.

    Keras' optimizers clip on each replica and sum afterwards. For the mean
    itself to be clipped, one replica brings it and the others nothing; not
    even a number, if it is not finite: then all must see that.

    Args:
        gradients: Of the mean loss over this replica's rows.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(gradients)
    first = tf.equal(context.replica_id_in_sync_group, 0)
    return [
        gradient * tf.cast(first, gradient.dtype)
        for gradient in mean(list(gradients))
    ]


def _check_tf_config(text: str | None) -> None:
    wanted = (
        "Several machines are told from each other by the environment variable "
        'TF_CONFIG, such as {"cluster": {"worker": ["host0:9000", '
        '"host1:9000"]}, "task": {"type": "worker", "index": 0}}, with an '
        "index of its own on each. "
    )
    try:
        config = json.loads(text or "")
        task = config["task"]
        known = config["cluster"][task["type"]][int(task["index"])]
    except (ValueError, KeyError, IndexError, TypeError):
        known = None
    if not known:
        raise ValueError(f"{wanted}Received: TF_CONFIG={text!r}.")
