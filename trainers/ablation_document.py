"""The table of what single changes of the small PixelCNN VHE do."""

import json
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

_BASELINE = "baseline"

_WHAT = {
    "baseline": "none",
    "constant_rate": "no cosine: the learning rate stays at its peak",
    "higher_rate": "learning rate 2e-3, not 1e-3",
    "no_averaged_weights": "weights not averaged",
    "dropout": "dropout of 0.2 in the decoder",
    "wider_decoder": "48 filters in the decoder, not 32",
    "deeper_decoder": "8 blocks in the decoder, not 5",
    "published_conditioning": (
        "the template enters the gates by 5x5 convolutions, as published"
    ),
    "attention_in_decoder": "causal self-attention after the decoder's blocks",
    "downsampling_in_decoder": (
        "a path at half the size in the decoder's vertical stack"
    ),
    "attention_over_support": "attention over D in q(c; D), not a mean",
    "deeper_prior": "4 blocks of 32 filters in p(c), not 2 of 16",
    "pose_that_shows": (
        "the map from z to the template's pose does not begin with zeros"
    ),
    "free_pose": "2 free nats of z",
    "pose_warmup": "KL of z annealed over 1,500 steps",
}

_INTRODUCTION = """\
# Changes of the small PixelCNN VHE, one at a time

Written by `python trainers/ablations.py`; change nothing here by hand. Each \
row is a run of its own{steps}, by

    python trainers/ablations.py --flagfile=trainers/flagfiles/ablations.flags \
--change=CHANGE --repeat=REPEAT --data_dir=DIR

All is measured on characters held out from training, with the averaged \
weights of the last step: the bound on 100 batches of 16 episodes, the same \
for all; 20-way accuracy on 10 tasks (200 queries), the same for all, 3 draws \
of c. "Above the baseline" is the mean difference from the baseline of the \
same repeat over those batches, nats an image, with its 95% interval; that \
says nothing of another training run, of which the repeats show something. \
Minutes are of training, a core each beside other work."""

_HEADINGS = (
    "change",
    "",
    "repeat",
    "parameters",
    "minutes",
    "bound (nats an image)",
    "above the baseline",
    "KL of c / z",
    "1-shot / 5-shot (%)",
)


def write(folder: pathlib.Path) -> None:
    """Writes `ablations.md` from what is in `ablations/`."""
    from vhe_tf import files

    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "ablations").glob("*.json"))
    ]
    with files.beside(folder / "ablations.md") as partial:
        partial.write_text(render(results), encoding="utf-8")


def render(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns the document.

    Args:
        results: As `ablations.py` writes them, one a run.

    Returns:
        Markdown.
    """
    steps = sorted({result["steps"] for result in results})
    of_steps = f" of {steps[0]:,} steps" if len(steps) == 1 else ""
    baselines = {
        result["repeat"]: result
        for result in results
        if result["change"] == _BASELINE
    }
    order = list(_WHAT)
    lines = [_row(_HEADINGS), _row(["---"] * len(_HEADINGS))]
    for result in sorted(
        results, key=lambda r: (order.index(r["change"]), r["repeat"])
    ):
        lines.append(_row(_cells(result, baselines.get(result["repeat"]))))
    return (
        "\n\n".join([_INTRODUCTION.format(steps=of_steps), "\n".join(lines)])
        + "\n"
    )


def _cells(
    result: Mapping[str, Any], baseline: Mapping[str, Any] | None
) -> list[str]:
    elbo = np.array(result["elbo"])
    difference = "-"
    if baseline is not None and result["change"] != _BASELINE:
        difference = _with_interval(elbo - np.array(baseline["elbo"]), "+.2f")
    minutes = result["minutes"]
    return [
        f"`{result['change']}`",
        _WHAT[result["change"]],
        str(result["repeat"]),
        f"{result['parameters']:,}",
        "-" if minutes is None else f"{minutes:.1f}",
        _with_interval(elbo, ".2f"),
        difference,
        f"{result['kl']['character']:.1f} / {result['kl']['pose']:.2f}",
        " / ".join(
            f"{100 * np.mean(values):.1f}"
            for values in result["accuracy"].values()
        ),
    ]


def _with_interval(values: np.ndarray, form: str) -> str:
    from vhe_tf.evaluation.estimates import estimate

    mean, half_width, _ = estimate(values)
    return f"{mean:{form}} ± {half_width:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
