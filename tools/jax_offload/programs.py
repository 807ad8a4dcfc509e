# mypy: disable-error-code="import-not-found"
"""Programs of export_run.py, compiled for the device of this machine."""

import concurrent.futures
import itertools
import json
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import adam
import batches
import jax
import jax.export
import jax.numpy as jnp
import numpy as np

_VALIDATION_BATCHES = 20  # as in `VHE.fit`


class Exported:
    """The files that export_run.py wrote.

    Args:
        folder: Path. The folder.
        precision: String. Which of the lowered steps to take.
    """

    def __init__(self, folder: pathlib.Path, precision: str) -> None:
        self.folder = folder
        self.precision = precision
        self.settings = json.loads((folder / "export.json").read_text("utf-8"))
        self.experiment = self.settings["experiment"]
        self.support_sizes: list[int] = self.settings["support_sizes"]
        self.metrics: list[str] = self.settings["metrics"]
        recipe = self.settings["recipe"]
        recipe["image_size"] = tuple(recipe["image_size"])
        self.recipe = batches.Recipe(**recipe)

    def step(self, support_size: int) -> Callable[..., Any]:
        """Returns the lowered step for supports of a size."""
        return self._function(f"step_{support_size}.{self.precision}")

    def bound(self, support_size: int) -> Callable[..., Any]:
        """Returns the lowered ELBO for supports of a size."""
        return self._function(f"bound_{support_size}")

    def _function(self, name: str) -> Callable[..., Any]:
        backend = jax.default_backend()
        path = self.folder / f"{name}.{'cuda' if backend == 'gpu' else backend}"
        if not path.exists():
            raise SystemExit(
                f"error: {path} is not there; --platforms and --precisions of "
                "export_run.py say what to lower for."
            )
        call: Callable[..., Any] = jax.export.deserialize(
            bytearray(path.read_bytes())
        ).call
        return call

    def images(self, part: str) -> batches.Images:
        """Returns the images of a part, on the device."""
        with np.load(self.folder / "images.npz") as file:
            names = (f"{part}_{name}" for name in batches.Images._fields)
            return jax.device_put(
                batches.Images(*(file.get(name) for name in names))
            )

    def check_episode(self) -> dict[str, np.ndarray]:
        """Returns the batch of which both sides compute the ELBO."""
        with np.load(self.folder / "check.npz") as file:
            return dict(file)


class Programs:
    """Compiled programs of a run, one per support size, and its probability.

    Args:
        exported: `Exported`. What to train.
        state: `adam.State`. A state, for its shapes.
        schedule: `adam.Schedule`. A schedule, for its types.
    """

    def __init__(
        self, exported: Exported, state: adam.State, schedule: adam.Schedule
    ) -> None:
        self.exported = exported
        self._seed: int = exported.experiment["seed"]
        key = jax.random.fold_in(
            jax.random.key(self._seed % 2**31), np.uint32(self._seed // 2**31)
        )
        self._train_key, self._validation_key = jax.random.split(key)
        self._train = exported.images("train")
        self._validation = exported.images("validation")
        self._advance, self._bound = self._compile_all(state, schedule)

    def _compile_all(
        self, state: adam.State, schedule: adam.Schedule
    ) -> tuple[Any, Any]:
        """Compiles for all support sizes at the same time."""
        totals, step = jnp.zeros(len(self.exported.metrics)), jnp.int32(0)

        def advance(size: int) -> Any:
            function = jax.jit(self._advance_of(size))
            return function.lower(
                state, totals, self._train, _arrays(schedule), step, step
            ).compile()

        def bound(size: int) -> Any:
            episode = self._validation_episode(0, size)
            function = jax.jit(self.exported.bound(size))
            return function.lower(state.average, episode).compile()

        sizes = self.exported.support_sizes
        with concurrent.futures.ThreadPoolExecutor(2 * len(sizes)) as pool:
            steps, bounds = pool.map(advance, sizes), pool.map(bound, sizes)
            return (
                dict(zip(sizes, steps, strict=True)),
                dict(zip(sizes, bounds, strict=True)),
            )

    def _advance_of(self, size: int) -> Callable[..., Any]:
        """Returns what takes the steps from `first` up to `last`."""
        step_of = self.exported.step(size)

        def advance(
            state: adam.State,
            totals: jax.Array,
            images: batches.Images,
            schedule: adam.Schedule,
            first: jax.Array,
            last: jax.Array,
        ) -> Any:
            def body(step: jax.Array, carry: Any) -> Any:
                state, totals = carry
                episode = batches.episodes(
                    images,
                    jax.random.fold_in(self._train_key, step),
                    recipe=self.exported.recipe,
                    support_size=size,
                )
                measured, gradient = step_of(state.weights, episode, step)
                state = adam.updated(state, gradient, step, schedule=schedule)
                return state, totals + measured

            return jax.lax.fori_loop(first, last, body, (state, totals))

        return advance

    def _validation_episode(self, index: int, size: int) -> dict[str, Any]:
        return _episodes(
            self._validation,
            jax.random.fold_in(self._validation_key, index),
            recipe=self.exported.recipe,
            support_size=size,
        )

    def advance(
        self,
        state: adam.State,
        first: int,
        last: int,
        *,
        schedule: adam.Schedule,
    ) -> tuple[adam.State, np.ndarray]:
        """Takes the steps from `first` up to `last`.

        Returns:
            The state after them and the means of what was measured, `[K]`.
        """
        totals = jnp.zeros(len(self.exported.metrics))
        arrays = _arrays(schedule)
        for size, begin, end in self._runs(first, last):
            state, totals = self._advance[size](
                state,
                totals,
                self._train,
                arrays,
                jnp.int32(begin),
                jnp.int32(end),
            )
        return state, np.asarray(totals) / (last - first)

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Yields support size, begin and end of steps of one size."""
        # Drawn here, since each size is a program of its own.
        sizes = [
            np.random.default_rng([self._seed, step]).choice(
                self.exported.support_sizes
            )
            for step in range(first, last)
        ]
        begin = first
        for size, steps in itertools.groupby(sizes):
            end = begin + len(list(steps))
            yield int(size), begin, end
            begin = end

    def validate(self, weights: jax.Array) -> np.ndarray:
        """Returns means over the validation episodes, the same ones always."""
        sizes = self.exported.support_sizes
        values = []
        for index in range(_VALIDATION_BATCHES):
            size = sizes[index % len(sizes)]
            episode = self._validation_episode(index, size)
            values.append(np.asarray(self._bound[size](weights, episode)))
        return np.mean(values, axis=0)

    def check(self, weights: jax.Array | np.ndarray) -> float:
        """Returns the ELBO of the batch of which both sides compute it."""
        episode = jax.device_put(self.exported.check_episode())
        size = episode["support"].shape[1]
        measured = self._bound[size](jnp.asarray(weights), episode)
        return float(measured[self.exported.metrics.index("elbo")])


def _arrays(schedule: adam.Schedule) -> adam.Schedule:
    return jax.tree.map(jnp.asarray, schedule)


_episodes = jax.jit(
    batches.episodes, static_argnames=("recipe", "support_size")
)
