"""Device-count-invariant randomness, gradients and metrics.

Under `tf.distribute` each replica takes the same step on its rows of the
global batch, and may split them into microbatches, one after the other. N
steps give the same result on every layout: each row samples by a seed of its
own, and gradients and metrics are means over the whole batch. With one replica
and one microbatch, or without a strategy, all of this does nothing.
"""

import json
import os
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

__all__ = [
    "EachReplica",
    "accumulated",
    "has_several_machines",
    "is_chief",
    "make_strategy",
    "mean",
    "split",
    "summed_once",
]


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Makes a strategy, before TensorFlow has done anything else.

    Args:
        name: String. `none`; `mirrored`, all GPUs of this machine, or its
            logical CPUs where it has none; `multi_worker`, those of all the
            machines of the environment variable `TF_CONFIG`.

    Raises:
        ValueError: If the name is another, or `TF_CONFIG` does not say which
            machines there are and which one this is.

    Example:
    >>> make_strategy("none").num_replicas_in_sync
    1
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
    """Returns whether this process is the one that writes.

    Example:
    >>> is_chief(make_strategy("none"))
    True
    """
    return bool(strategy.extended.should_checkpoint)


def has_several_machines(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the strategy spans several workers.

    Example:
    >>> has_several_machines(make_strategy("none"))
    False
    """
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def split(
    strategy: tf.distribute.Strategy, episodes: Callable[..., tf.data.Dataset]
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Gives each replica its rows of every batch of episodes.

    Args:
        strategy: `tf.distribute.Strategy`. The strategy, of R replicas.
        episodes: Callable. Makes episodes as `Episodes.dataset` does, B of them
            per step, B a multiple of R. Called with `part` and `num_parts`.

    Returns:
        The same batches, over and over, of which replica r has the rows from
        r B / R on. Each worker makes the rows of its own replicas alone. With
        one replica, all episodes as they are.

    Example:
    >>> batches = split(make_strategy("none"), lambda: tf.data.Dataset.range(2))
    >>> [int(batch) for batch in batches]
    [0, 1]
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return episodes()

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        here = count // context.num_input_pipelines
        batches = episodes(
            part=context.input_pipeline_id,
            num_parts=context.num_input_pipelines,
        )

        def rows(values: tf.Tensor) -> tf.Tensor:
            return tf.stack(tf.split(values, here))

        def shares(batch: Mapping[str, Any]) -> dict[str, Any]:
            # [replicas here, ...] each
            return tf.nest.map_structure(rows, dict(batch))

        # An endless data set has no last batch to agree about at every step.
        return batches.map(shares).unbatch().repeat().prefetch(here)

    return strategy.distribute_datasets_from_function(of_worker)


def accumulated(
    gradients: Callable[[Mapping[str, Any]], Sequence[tf.Tensor | None]],
    batch: Mapping[str, Any],
    *,
    count: int,
    variables: Sequence[tf.Variable],
) -> list[tf.Tensor | None]:
    """Returns the sums of the gradients on each microbatch of a batch.

    One after the other, so that the memory is that of one of them.

    Args:
        gradients: Callable. Returns the gradients on a microbatch.
        batch: Mapping of strings to tensors. The batch of this replica, of b
            rows, b a multiple of `count`.
        count: Integer. The number of microbatches.
        variables: Sequence of variables. What the gradients are of.

    Example:
    >>> weight = tf.Variable(1.0)
    >>> def gradients(rows):
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_sum(weight * rows["x"])
    ...     return tape.gradient(loss, [weight])
    >>> batch = {"x": tf.constant([1.0, 2.0, 3.0, 4.0])}
    >>> [total] = accumulated(gradients, batch, count=2, variables=[weight])
    >>> float(total)
    10.0
    """
    if count == 1:
        return list(gradients(batch))

    def rows(values: tf.Tensor) -> tf.Tensor:
        return tf.stack(tf.split(values, count))  # [count, b / count, ...]

    parts = tf.nest.map_structure(rows, dict(batch))

    def add(
        index: tf.Tensor, sums: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        more = gradients(
            tf.nest.map_structure(lambda values: values[index], parts)
        )
        return index + 1, [
            a if b is None else a + b for a, b in zip(sums, more, strict=True)
        ]

    _, sums = tf.while_loop(
        lambda index, sums: index < count,
        add,
        (tf.constant(0), [tf.zeros(v.shape, v.dtype) for v in variables]),
        parallel_iterations=1,
    )
    return list(sums)


def mean(values: Any) -> Any:
    """Returns means over all replicas, the same on each.

    Args:
        values: Tensor, or a nest of tensors. Each replica has the same number
            of rows.

    Example:
    >>> float(mean(tf.constant(3.0)))  # outside of a strategy
    3.0
    """
    context = _shared_context()
    if context is None:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)


def summed_once(
    gradients: Sequence[tf.Tensor | None],
) -> list[tf.Tensor | None]:
    """Returns gradients whose sum over the replicas is their mean.

    Keras' optimizers clip on each replica and sum afterwards. To clip the mean
    itself, replica 0 contributes the mean and the others zero, except that
    non-finite values propagate.

    Args:
        gradients: Sequence of tensors. The gradients of the mean loss over
            this replica's rows; None for a variable without influence.

    Example:
    >>> [float(gradient) for gradient in summed_once([tf.constant(3.0)])]
    [3.0]
    """
    context = _shared_context()
    if context is None:
        return list(gradients)
    first = tf.equal(context.replica_id_in_sync_group, 0)
    means = iter(mean([g for g in gradients if g is not None]))
    return [
        None if g is None else next(means) * tf.cast(first, g.dtype)
        for g in gradients
    ]


class EachReplica:
    """A compiled function that each replica calls with its own arguments.

    Unlike in training, the arguments of a replica are not a part of a batch:
    the result equals that on one device. The function must not call `mean`.

    Args:
        strategy: `tf.distribute.Strategy` of R replicas. If they are on several
            machines, each machine calls the function on one device.
        function: Callable on tensors or nests of tensors.
        input_signature: As in `tf.function`. Defaults to None.

    Attributes:
        count: Integer. Number of simultaneous calls: R, or 1 if there are
            several machines.

    Example:
    >>> double = EachReplica(make_strategy("none"), lambda x: 2 * x)
    >>> [int(result) for result in double([(tf.constant(3),)])]
    [6]
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        function: Callable[..., Any],
        *,
        input_signature: Sequence[tf.TensorSpec] | None = None,
    ) -> None:
        alone = has_several_machines(strategy)
        self.count = 1 if alone else strategy.num_replicas_in_sync
        self.strategy = strategy
        self.function = function
        self.input_signature = input_signature
        if self.count > 1:
            function = self._on_all
            input_signature = input_signature and [
                tf.TensorSpec([self.count, *spec.shape], spec.dtype)
                for spec in input_signature
            ]
        self._compiled = tf.function(
            function,
            input_signature=input_signature,
            reduce_retracing=input_signature is None,
            autograph=False,
        )

    def __call__(self, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Returns the results for at most `count` tuples of arguments.

        Args:
            arguments: Sequence of tuples with the same shapes.
        """
        if self.count == 1:
            return [self._compiled(*each) for each in arguments]
        padding = [arguments[-1]] * (self.count - len(arguments))
        stacked = tf.nest.map_structure(
            lambda *values: tf.stack(values), *arguments, *padding
        )
        return self._compiled(*stacked)[: len(arguments)]

    def _on_all(self, *stacked: Any) -> list[Any]:
        def on_replica() -> Any:
            context = tf.distribute.get_replica_context()
            index = context.replica_id_in_sync_group
            own = tf.nest.map_structure(lambda values: values[index], stacked)
            return self.function(*own)

        results = self.strategy.run(on_replica)
        return [
            tf.nest.map_structure(
                lambda value, i=index: self.strategy.experimental_local_results(
                    value
                )[i],
                results,
            )
            for index in range(self.count)
        ]


def _shared_context() -> tf.distribute.ReplicaContext | None:
    """Returns the context of a replica that shares a batch with others."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context


def _check_tf_config(text: str | None) -> None:
    wanted = (
        "Several machines are distinguished by the environment variable "
        'TF_CONFIG, such as {"cluster": {"worker": ["host0:9000", '
        '"host1:9000"]}, "task": {"type": "worker", "index": 0}}, with an '
        "index of its own on each. One machine can be called chief; there are "
        "no other types of tasks. Places are host:port, ports 1 to 65535. "
    )
    try:
        config = json.loads(text or "")
        task = config["task"]
        cluster = config["cluster"]
        workers = cluster[task["type"]]
        places = [place for each in cluster.values() for place in each]
        is_known = (
            set(cluster) <= {"chief", "worker"}
            and all(isinstance(each, list) for each in cluster.values())
            and len(cluster.get("chief", [])) <= 1
            and str(task["index"]).isdecimal()  # TensorFlow reads "0" too
            and int(task["index"]) < len(workers)
            and all(map(_is_place, places))
            and len(set(places)) == len(places)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        is_known = False
    if not is_known:
        raise ValueError(f"{wanted}Received: TF_CONFIG={text!r}.")


def _is_place(text: str) -> bool:
    """Returns whether a text is host:port, also with an IPv6 address."""
    place = re.fullmatch(r"([\w.-]+|\[[0-9A-Fa-f:.%]+\]):([0-9]{1,5})", text)
    return place is not None and 1 <= int(place[2]) <= 65535
