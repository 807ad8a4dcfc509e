"""Measures the shipped models again, and compares with what is published."""

import collections
from collections.abc import Mapping
from typing import Any

from vhe_tf.experiments import paper
from vhe_tf.experiments import render
from vhe_tf.experiments import results
from vhe_tf.experiments.reproduce import Inputs
from vhe_tf.experiments.reproduce import as_flags
from vhe_tf.experiments.reproduce import execute
from vhe_tf.experiments.results import RowError

__all__ = ["check", "compare", "measure_again"]


def check(inputs: Inputs) -> int:
    """Measures the shipped models again; returns the exit status."""
    published = results.kept_results()
    lacking = [
        f"docs/results/{result}.json"
        for how in paper.CHECKS.values()
        for result in how.results
        if result not in published
    ]
    if lacking:
        print(f"error: what to compare with is not there: {lacking}")
        return 1
    verdicts = []
    for index, (name, how) in enumerate(paper.CHECKS.items()):
        print(f"[{index + 1}/{len(paper.CHECKS)}] {name}", flush=True)
        try:
            found = measure_again(name, inputs)
        except RowError as error:
            # Most likely the data are not there, for no model.
            print(f"error: {error}")
            return 1
        for result in how.results:
            verdicts += compare(
                result, published=published[result]["measures"], found=found
            )
    for verdict, line in verdicts:
        print(f"{verdict:12} {line}")
    counts = collections.Counter(verdict for verdict, _ in verdicts)
    print(", ".join(f"{verdict}: {n}" for verdict, n in counts.items()))
    if any(verdict == "OUT" for verdict, _ in verdicts):
        print(
            "error: expected the 95% intervals of what is published and of "
            "what was measured now to overlap; they do not where it says OUT."
        )
        return 1
    if not counts["ok"]:
        print("error: nothing that is published was measured.")
        return 1
    return 0


def measure_again(name: str, inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Measures a shipped model as `paper.CHECKS` says.

    Raises:
        RowError: If that fails.
    """
    evaluate = paper.CHECKS[name].evaluate
    out = results.ROOT / "runs" / "results_check" / f"{name}.json"
    command = inputs.command(
        "evaluate",
        f"saved_models/{name}/best.keras",
        *as_flags(evaluate),
        f"--out={results.relative(out)}",
        lake_runs="within" not in evaluate,
    )
    execute(command, out.with_suffix(".log"))  # makes the folder
    return results.measures_of(results.read_json(out))


def compare(
    name: str,
    *,
    published: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Any]],
) -> list[tuple[str, str]]:
    """Compares measurements of a model, by measure.

    Two agree where their 95% intervals overlap.

    Returns:
        For each that is published, `"ok"`, `"OUT"` or, where it was not found
        with as many draws, `"not measured"`; and a line for a person.
    """
    lines = []
    for measure, value in published.items():
        text = f"published {render.number(measure, value)}"
        again = found.get(measure)
        draws = value.get("num_samples")  # of a KL there are none
        if again is None or again.get("num_samples") != draws:
            lines.append(("not measured", f"{name} {measure}: {text}"))
            continue
        distance = abs(value["mean"] - again["mean"])
        tolerance = _half_width(value) + _half_width(again)
        text += f", now {render.number(measure, again)}"
        verdict = "ok" if distance <= tolerance else "OUT"
        lines.append((verdict, f"{name} {measure}: {text}"))
    return lines


def _half_width(value: Mapping[str, Any]) -> float:
    """Returns half of an interval, of accuracies never none."""
    half_width: float | None = value["half_width_95"]
    if half_width is None:
        return 0.0
    if half_width > 0:
        return half_width
    # All tasks, of 20 queries, went alike: the rule of three.
    return 3 / (20 * value["num_trials"])
