"""Draws the learning curves of runs into one picture.

    python tools/learning_curves.py --runs=runs/a,runs/b --out=curves.png

From the TensorBoard files of the runs: the ELBO in training and on held-out
groups, the KL of the group latents, and few-shot accuracy, as far as a run has
them; two runs whose ELBOs are not alike (other images, other |X|) do not
belong into one picture. Needs matplotlib: `pip install vhe_tf[plots]`.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import app
from absl import flags

_RUNS = flags.DEFINE_list("runs", None, "Folders of runs.", required=True)
_OUT = flags.DEFINE_string("out", None, "The PNG to write.", required=True)
_LABELS = flags.DEFINE_list(
    "labels", None, "What to call the runs; by default as their folders."
)

# The share of the points from which on ELBOs are shown: the first would hide
# the rest.
_LEFT_OUT = 0.1

# One a curve of a run: two ELBOs; few latents, few kinds of tasks.
_STYLES = ("-", "--", ":", "-.")


def main(argv: Sequence[str]) -> None:
    """Reads, draws and saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from vhe_tf._utils import atomic_io
    from vhe_tf.experiments import endings

    with endings.exit_on_user_error():
        folders = [pathlib.Path(run) for run in _RUNS.value]
        labels = _LABELS.value or [folder.name for folder in folders]
        if len(labels) != len(folders):
            raise ValueError(
                "--labels must name each of the runs. "
                f"Received: {len(labels)} labels for {len(folders)} runs."
            )
        runs = {
            label: read_scalars(folder)
            for label, folder in zip(labels, folders, strict=True)
        }
        figure = draw(runs)
        out = pathlib.Path(_OUT.value)
        with atomic_io.beside(out) as partial:
            figure.savefig(partial, dpi=100, format="png")
    print(f"Made {out}")


def read_scalars(folder: pathlib.Path) -> dict[str, tuple[list[int], Any]]:
    """Returns the steps and values of each scalar of a run.

    A scalar is called by its part of the run, `train` or `validation`, and its
    tag, as in `validation/episodes/elbo`.

    Args:
        folder: Path. The folder of the run.

    Raises:
        FileNotFoundError: If it holds no TensorBoard files.
    """
    import numpy as np
    import tensorflow as tf
    from tensorboard.backend.event_processing import event_accumulator

    folder = folder / "tensorboard"
    parts = [
        name
        for name in ("train", "validation")
        if list(folder.glob(f"{name}/events.*"))
    ]
    if not parts:
        raise FileNotFoundError(
            "--runs must be folders of runs of the trainers. Received: "
            f"{folder.parent}, without TensorBoard files in {folder}/train."
        )
    scalars = {}
    for part in parts:
        events = event_accumulator.EventAccumulator(
            str(folder / part), size_guidance={"tensors": 0}
        )
        events.Reload()
        for tag in events.Tags()["tensors"]:
            # A resumed run has written some steps again: the last counts.
            by_step = {
                event.step: float(tf.make_ndarray(event.tensor_proto))
                for event in events.Tensors(tag)
            }
            steps = sorted(by_step)
            scalars[f"{part}/{tag}"] = (
                steps,
                np.array([by_step[step] for step in steps]),
            )
    return scalars


def draw(runs: dict[str, dict[str, tuple[list[int], Any]]]) -> Any:
    """Returns a figure of a panel for bounds, KLs and accuracies.

    Args:
        runs: Dictionary of strings to dictionaries. Scalars by run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tags = {tag for scalars in runs.values() for tag in scalars}
    panels = {
        "ELBO (nats per image)": {
            "train/episodes/elbo",
            "validation/episodes/elbo",
        }
        & tags,
        "KL of the group latents (nats)": {
            tag
            for tag in tags
            if tag.startswith("train/episodes/kl_") and f"{tag}_scaled" in tags
        },
        "few-shot accuracy": {
            tag for tag in tags if "/few_shot/accuracy" in tag
        },
    }
    panels = {title: shown for title, shown in panels.items() if shown}
    if not panels:
        raise ValueError(
            "--runs must be runs with an ELBO to show, an epoch at least. "
            f"Received: {', '.join(runs)}."
        )
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(5 * len(panels), 4),
        layout="constrained",
        squeeze=False,
    )
    for axis, (title, shown) in zip(axes[0], panels.items(), strict=True):
        for color, (label, scalars) in enumerate(runs.items()):
            for style, tag in zip(_STYLES, sorted(shown), strict=False):
                if tag in scalars:
                    steps, values = scalars[tag]
                    first = 0
                    if tag.endswith("elbo"):
                        first = int(_LEFT_OUT * len(steps))
                    axis.plot(
                        steps[first:],
                        values[first:],
                        style,
                        color=f"C{color}",
                        label=f"{label}, {tag}",
                    )
        axis.set_title(title)
        axis.set_xlabel("steps")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    app.run(main)
