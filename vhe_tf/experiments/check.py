"""Measures the shipped models again, and compares with published numbers."""

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

__all__ = ["FALSE_ALARM", "check", "compare", "measure_again"]

# The largest probability that a table without any change has an OUT.
FALSE_ALARM = 0.01

# More than any table has (Bonferroni).
_NUM_MEASURES = 50

# Published numbers have the seed 0: tasks and samples are others.
_SEED = 1


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
            "error: what was measured now differs from what is published where "
            f"it says OUT. If nothing had changed, any OUT in this table would "
            f"have a probability below {FALSE_ALARM:.0%}."
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
        *as_flags({**evaluate, "seed": _SEED}),
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

    Two differ if equal means would differ as much with a probability below
    `FALSE_ALARM` divided by the number of measures of the whole table.

    Returns:
        For each that is published, `"ok"`, `"OUT"` or, where it was not found
        with as many samples, `"not measured"`; and a line for a person.
    """
    lines = []
    for measure, value in published.items():
        text = f"published {render.number(measure, value)}"
        again = found.get(measure)
        num_samples = value.get("num_samples")  # of a KL there are none
        if again is None or again.get("num_samples") != num_samples:
            lines.append(("not measured", f"{name} {measure}: {text}"))
            continue
        p = _p_of_difference(value, again)
        text += f", now {render.number(measure, again)}, p = {p:.2g}"
        verdict = "ok" if p >= FALSE_ALARM / _NUM_MEASURES else "OUT"
        lines.append((verdict, f"{name} {measure}: {text}"))
    return lines


def _p_of_difference(
    value: Mapping[str, Any], again: Mapping[str, Any]
) -> float:
    """Returns how probable so large a difference of equal means is."""
    from vhe_tf.evaluation.intervals import p_of_difference

    both = (value, again)
    means = [each["mean"] for each in both]
    if any(each["standard_error"] is None for each in both):
        return float(means[0] == means[1])
    queries = None
    if "num_queries" in value:
        queries = [each["num_queries"] for each in both]
    return p_of_difference(
        means,
        standard_errors=[each["standard_error"] for each in both],
        sizes=[each["num_values"] for each in both],
        queries=queries,
    )
