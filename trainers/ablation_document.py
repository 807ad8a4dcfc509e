"""The table of what single changes of the small PixelCNN VHE do.

    python trainers/ablation_document.py

writes docs/ablations.md from docs/ablations/; `ablations.py` does so too, at
the end of each run.
"""

import json
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

_BASELINE = "baseline"

_INTRODUCTION = """\
# Changes of the small PixelCNN VHE, one at a time

Written by `python trainers/ablations.py`; change nothing here by hand. Each \
row is a run of its own, measured on the 1,000 images of 50 characters that \
were held out from training, with the weights of the last step; "averaged" \
is the bound with the running average of the weights in their place, which \
in so short a run is over the last ninth of its steps ("-": that run had an \
average of another kind). "Above the baseline" is the mean difference from \
the baseline of the same repeat, batch by batch, nats an image. Intervals are \
95%, over 63 batches of 16 episodes, the same for all; they say nothing of \
other characters or of another training run, of which the repeats show \
something. Minutes are of training, a core each beside other work. From random \
weights z is not in use yet after so few steps: what is gained with it cannot \
be seen there."""

_COMMAND = """\
    python trainers/ablations.py --flagfile=trainers/flagfiles/{flagfile} \
--change=CHANGE --repeat=REPEAT --data_dir=DIR"""

_HEADINGS = (
    "change",
    "",
    "repeat",
    "steps",
    "parameters",
    "minutes",
    "bound (nats an image)",
    "above the baseline",
    "averaged",
    "averaged, above the baseline",
    "KL of c / z",
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
    parts = [_INTRODUCTION]
    for begun in sorted({result["flags"]["init"] or "" for result in results}):
        title, flagfile = "From random weights", "ablations.flags"
        if begun:
            title = f"Begun with the weights of `{begun}`"
            flagfile = "ablations_continued.flags"
        of_start = [r for r in results if (r["flags"]["init"] or "") == begun]
        parts += [
            f"## {title}",
            _COMMAND.format(flagfile=flagfile),
            _table(of_start),
        ]
    return "\n\n".join(parts) + "\n"


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    def order(result: Mapping[str, Any]) -> Any:
        flags = result["flags"]
        return flags["change"] != _BASELINE, flags["change"], flags["repeat"]

    lines = [_row(_HEADINGS), _row(["---"] * len(_HEADINGS))]
    for result in sorted(results, key=order):
        alike = [r for r in results if _differ_in_the_change_alone(result, r)]
        lines.append(_row(_cells(result, alike[0] if alike else None)))
    return "\n".join(lines)


def _differ_in_the_change_alone(
    result: Mapping[str, Any], baseline: Mapping[str, Any]
) -> bool:
    """Tells whether a run can be compared with a baseline."""
    here, there = result["flags"], baseline["flags"]
    return (
        here["change"] != there["change"] == _BASELINE
        and here["repeat"] == there["repeat"]
        and not differing(here, there)
    )


def differing(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Returns the flags in which two runs differ beyond change and repeat."""
    own = {
        "change",
        "repeat",
        *here["changed_flags"],
        *there["changed_flags"],
    }
    return [
        name
        for name in here
        if name not in own
        and not name.startswith("changed_")
        and here[name] != there.get(name)
    ]


def _cells(
    result: Mapping[str, Any], baseline: Mapping[str, Any] | None
) -> list[str]:
    flags, minutes = result["flags"], result["minutes"]
    return [
        f"`{flags['change']}`",
        flags["changed_what"],
        str(flags["repeat"]),
        f"{result['steps']:,}",
        f"{result['parameters']:,}",
        "-" if minutes is None else f"{minutes:.1f}",
        *_bound("elbo", result, baseline),
        *_bound("averaged_elbo", result, baseline),
        f"{result['kl']['character']:.1f} / {result['kl']['pose']:.2f}",
    ]


def _bound(
    of: str, result: Mapping[str, Any], baseline: Mapping[str, Any] | None
) -> tuple[str, str]:
    """Returns a bound, and by how much it is above the baseline's."""
    if result[of] is None:
        return "-", "-"
    bound = np.array(result[of])
    difference = "-"
    if baseline is not None and baseline[of] is not None:
        difference = _with_interval(bound - np.array(baseline[of]), "+.2f")
    return _with_interval(bound, ".2f"), difference


def _with_interval(values: np.ndarray, form: str) -> str:
    from vhe_tf.evaluation.estimates import estimate

    mean, half_width, _ = estimate(values)
    return f"{mean:{form}} ± {half_width:.2f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    write(pathlib.Path("docs"))
