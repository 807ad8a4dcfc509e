"""Measurements of the rows of the tables, kept in docs/results."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vhe_tf._utils import json_files
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

_MEASURED = ("accuracy", "conditional_nll", "joint_nll", "training_kl")


class RowError(RuntimeError):
    """A row could not be made; the message says why, for a person."""


def result_path(name: str, budget: str) -> pathlib.Path:
    """Returns where the measurements of a row are kept."""
    return ROOT / "docs" / "results" / f"{name}_{budget}.json"


def measures_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the measures of a report of `evaluate`, by flat names.

    Returns:
        By the keys of `paper.MEASURES`: `mean`, `interval_95` and
        `standard_error` (None for a single value), `num_values`, and the
        `values`; the numbers of samples, `num_samples` (of
        c) and `num_element_samples` (of z for each), the `num_queries` of an
        accuracy, the `effective_sample_size` of a joint NLL, and the
        `num_dimensions` of photographs.

    Raises:
        RowError: If it is not a report.
    """
    from vhe_tf.evaluation import Report

    try:
        measurements = Report.from_json(report).measurements
    except (KeyError, TypeError) as error:
        raise RowError(
            f"A report of `vhe-tf evaluate` has another form ({error!r}). "
            "Delete it to measure again."
        ) from error
    optional = (
        "num_samples",
        "num_element_samples",
        "effective_sample_size",
        "support_sizes",
        "num_queries",
        "num_dimensions",
        "values",
    )
    return {
        each.key: {
            "mean": each.mean,
            "interval_95": each.interval and list(each.interval),
            "standard_error": each.standard_error,
            "num_values": each.num_values,
            **{
                name: list(value) if isinstance(value, tuple) else value
                for name in optional
                if (value := getattr(each, name)) is not None
            },
        }
        for each in measurements
        if each.metric in _MEASURED
    }


def write_document() -> None:
    """Writes docs/results.md and results/provenance.md from docs/results."""
    pictures = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*.png")
    }
    results = kept_results()
    write_text(
        ROOT / "docs" / "results.md", render.render_summary(results, pictures)
    )
    write_text(
        ROOT / "docs" / "results" / "provenance.md",
        render.render(results),
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
        return json_files.read_json(path)
    except (OSError, ValueError) as error:
        raise RowError(
            f"{relative(path)} cannot be read: {error} Move it away to have it "
            "made again."
        ) from error


def relative(path: pathlib.Path) -> str:
    """Returns a path as seen from the checkout."""
    return path.relative_to(ROOT).as_posix()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file, atomically."""
    from vhe_tf._utils import atomic_io  # imports TensorFlow

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_io.beside(path) as partial:
        partial.write_text(text, encoding="utf-8")
