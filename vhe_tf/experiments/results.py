"""What was measured of the rows of the tables, kept in docs/results."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vhe_tf.experiments import render

__all__ = [
    "ROOT",
    "RowError",
    "kept_results",
    "measures_of",
    "read_json",
    "relative",
    "result_path",
    "write_document",
    "write_text",
]

# The checkout, in which docs/ and runs/ lie.
ROOT = pathlib.Path(__file__).resolve().parents[2]


class RowError(RuntimeError):
    """A row could not be made; the message says why, for a person."""


def result_path(name: str, budget: str) -> pathlib.Path:
    """Returns where the measurements of a row are kept."""
    return ROOT / "docs" / "results" / f"{name}_{budget}.json"


def measures_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the measures of a report of `evaluate`, by flat names.

    Returns:
        By the keys of `paper.MEASURES`: `mean`, `half_width_95` (None
        for a single trial) and `num_trials`; the draws that it depends on,
        `num_samples` (of c) and `num_element_samples` (of z for each), and the
        `effective_sample_size` of a joint NLL.
    """
    settings = report["settings"]
    draws = {
        name: settings[name] for name in ("num_samples", "num_element_samples")
    }
    # A shared value of both kinds of NLL is their unit.
    parts = {
        "accuracy": report["accuracy"],
        "conditional_nll": {
            name: value
            for name, value in report["conditional_nll"].items()
            if name != "unit"
        },
    }
    measures = {
        f"{part}.{name}": {**value, **draws}
        for part, values in parts.items()
        for name, value in values.items()
    }
    measures["joint_nll"] = {**draws, **report["joint_nll"]}
    for latent, value in report.get("training_kl", {}).items():
        measures[f"training_kl.{latent}"] = dict(value)
    for value in measures.values():
        value.pop("unit", None)
    return measures


def write_document() -> None:
    """Writes docs/results.md from docs/results."""
    pictures = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*.png")
    }
    write_text(
        ROOT / "docs" / "results.md",
        render.render(kept_results(), pictures),
    )


def kept_results() -> dict[str, Any]:
    """Returns what docs/results holds, by name.

    Raises:
        RowError: If a file is not of a row.
    """
    results = {}
    for path in sorted((ROOT / "docs" / "results").glob("*.json")):
        result = read_json(path)
        if not isinstance(result, dict) or "measures" not in result:
            raise RowError(
                f"{relative(path)} has no measures; bring it back, or delete "
                "it to measure again."
            )
        results[path.stem] = result
    return results


def read_json(path: pathlib.Path) -> Any:
    """Reads a file of a run or of results.

    Raises:
        RowError: If it cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RowError(
            f"{relative(path)} cannot be read ({error}). Move away what is "
            "damaged, to have it made again."
        ) from error


def relative(path: pathlib.Path) -> str:
    """Returns a path as seen from the checkout."""
    return path.relative_to(ROOT).as_posix()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
