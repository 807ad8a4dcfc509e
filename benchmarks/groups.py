"""Growth of the cost of finding groups with their number.

    python benchmarks/groups.py

Tiny images in groups of twenty. Each row has ten times as many groups as the
row above it, so that 10 is linear growth. Seconds are CPU seconds, the best of
all rounds.
"""

import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import measure
import numpy as np
from absl import app
from measure import Figure

from vhe_tf.data import Episodes
from vhe_tf.data import GroupedImages
from vhe_tf.data.datasets import splits
from vhe_tf.evaluation import TaskDesign
from vhe_tf.evaluation import few_shot_tasks
from vhe_tf.evaluation import tasks

_GROUP_SIZE = 20
_NUM_GROUPS = (50, 500, 5_000, 50_000)


def main(argv: Sequence[str]) -> None:
    """Measures each function on a ladder of numbers of groups."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    figures: dict[str, list[Figure]] = {}
    for num_groups in _NUM_GROUPS:
        for name, call in _calls(_data(num_groups)).items():
            rows = figures.setdefault(name, [])
            what, seconds = f"{num_groups:,} groups", _cpu_seconds(call)
            ratio = seconds / rows[-1].value if rows else None
            of = "the one before" if rows else ""
            rows.append(Figure(what, seconds, "CPU s", of, ratio))
    for name, rows in figures.items():
        measure.report(f"{name}, {_GROUP_SIZE} images per group", rows)


def _data(num_groups: int) -> GroupedImages:
    labels = np.repeat(np.arange(num_groups), _GROUP_SIZE)
    order = np.random.default_rng(0).permutation(len(labels))
    return GroupedImages(
        np.zeros((len(labels), 1, 1, 1), np.float32),
        {
            "character": labels[order],
            "alphabet": labels[order] // 25,
            "drawer": (np.arange(len(labels)) % _GROUP_SIZE)[order],
        },
    )


def _calls(data: GroupedImages) -> dict[str, Callable[[], Any]]:
    def task(within: str | None, spread: str | None) -> Any:
        design = TaskDesign(20, 5, within=within, spread=spread)
        found = few_shot_tasks(data, design, group="character", num_tasks=1)
        return next(found)

    return {
        "the first task": lambda: task(None, None),
        "the first task within an alphabet, spread over drawers": lambda: task(
            "alphabet", "drawer"
        ),
        "the most shots": lambda: tasks.most_shots(
            data, "character", spread="drawer"
        ),
        "the most classes": lambda: tasks.most_classes(
            data, "character", within="alphabet"
        ),
        "groups held out": lambda: splits.hold_out_groups(
            data, "character", num_groups=10
        ),
        "episodes made": lambda: Episodes(
            data, batch_size=32, support_size=5, resamples=True
        ),
    }


def _cpu_seconds(call: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(measure.ROUNDS.value):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    app.run(main)
