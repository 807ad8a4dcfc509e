"""The document of results: the paper's numbers, and ours beside them."""

import math
import pathlib
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from vhe_tf.experiments import paper
from vhe_tf.experiments.paper import Cell

__all__ = ["number", "render", "render_summary"]

_SUMMARY = """\
# Results beside the published ones

Written by `vhe-tf reproduce`; do not edit. "Paper" is what Hewitt et al. \
(UAI 2018) printed. Each of our numbers is from a single training run, with \
its 95% interval; a joint NLL is an upper bound (<=), at k = 20 unless the \
link says otherwise. The last column links to the commands, the machine, the \
number of tasks and the versions of each number, and names how a model departs \
from the protocol of the paper; where it names nothing but a size, the data \
are prepared as the paper's.

Budgets: `cpu`, the small size, 1,000 to 10,000 steps on one core; `gpu, \
short`, the published size, some minutes of a GPU, far below the paper's \
training; `shipped`, the other models in `saved_models/`. Nothing has been \
trained for as long as the paper's models yet. What these numbers can and \
cannot show: [evaluation](concepts/evaluation.md#reading-our-numbers)."""

# Test characters of the joint NLL in the paper's protocol.
_CHARACTERS = 659

# Results that are in the tables of provenance alone: variations of a protocol.
_NOT_IN_SUMMARY = ("mechanism", "binarised together")

_INTRODUCTION = """\
# Where each result comes from

`vhe-tf reproduce` writes this page; do not edit it. "Paper" is the number of \
Hewitt et al. (UAI 2018). Intervals are 95%. Accuracies have Wilson's score \
interval over queries, whose number is divided by the design effect of tasks. \
Nats have Student's t over the tasks, characters, images or batches in the \
column "measured on". "-" means that there is no interval: there is a single \
value, or none was kept. Each model was trained once, so intervals do not \
cover other training runs. A joint NLL is an upper bound (<=) with k samples \
of c; ESS is their effective number. Steps are those of training. The weights \
are from the epoch with the best validation ELBO; those of Rescale, whose \
objective is not a bound, from the epoch with its best value. Rescale models \
that are trained now are selected by the VHE objective.

Budgets: `gpu` is the published size; where it was not trained, no number is \
given. `cpu` is the small size with far fewer steps than the paper. `vhe-tf \
reproduce --rows=ROW --budget=BUDGET` makes the models of these two. All other \
models were made otherwise, and depart from the protocol of their rows. `gpu, \
short` is the published size, trained for some minutes on a GPU by \
tools/jax_offload in tf32. `shipped` are the others in `saved_models/`. `two \
cores` is a small model that is no longer shipped. `from scratch` is a \
likelihood model with random initial weights. `small background set` is a \
small model that was trained on one of Lake's small background sets. \
`mechanism` are four models that differ in the objective alone, trained for a \
few minutes. `binarised together` was trained like `cpu` by the code up to \
commit 8223b43, which binarised x once if x was in D. Their numbers come from \
the reports of `vhe-tf evaluate`, and the KL of `mechanism` from the training \
log. The deconvolutional `shipped` model, `mechanism` and `from scratch` were \
measured before classes shared their noise, so that their commands now give \
other samples. DIR is a TensorFlow Datasets folder with `omniglot/3.0.0`; pass \
`--data_dir=DIR` to each `vhe-tf reproduce`. ARCHIVE is the folder of \
`aligned_images_DB.tar.gz`."""

_TABLE_NOTES = {
    "2": (
        "The paper has VHEs with |D| = 1 and with |D| = 5. We take the first "
        "for the 1-shot accuracy and the second for the 5-shot one. The "
        "published Neural Statistician has a classifier of its own; ours is "
        "the deconvolutional one of Table 1, with the same classifier as the "
        "others. Unlike the paper, models for tasks within an alphabet are "
        "trained on Lake's background set: the random 423 test characters "
        "have 8 per alphabet on average, and a task needs 20."
    ),
    "5": (
        "Ours are of a public subset of YouTube Faces, which has three frames "
        "per video: they are **not comparable with the paper's**. Only models "
        "of ours may be compared with each other. The paper's accuracies are "
        "200-way, ours 20-way; the paper has 5 shots, the subset 2."
    ),
    "lake": (
        "The published numbers are those of other methods, with other "
        "training sets; the VHE paper has no number. Trained on the first or "
        "the second small background set of Lake et al. alone, five alphabets "
        "each, Bayesian Program Learning has 95.7 or 96.0% there."
    ),
    "shots": (
        "-log of the mean p(x | c) over samples of q(c; D), D and x of the "
        "same character; the samples have equal weights, so that there is no "
        "ESS of c. The paper has no numbers."
    ),
}

# Drawn by `python -m tools.figures`.
_PLOTS = {
    "1": "assets/table1.svg",
    "2": "assets/results.svg",
    "3": "assets/table3.svg",
}

_HEADINGS = ("measure", "paper", "ours", "interval", "measured on")


def render(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page of provenance: a section per model.

    Args:
        results: Mapping of strings to mappings. The results of each model:

                rows        the rows it stands in, each with how it departs
                            from that row's protocol, "" if not
                budget      of `paper.BUDGETS`, or a word of its own
                            for a model that was not made by a row's experiment
                steps       optimizer steps
                machine     where it was measured
                versions    of the software, by name
                commands    that train and measure it
                measures    as `measures_of` returns them

    Returns:
        String. Markdown.
    """
    sections = [_section(name, result) for name, result in results.items()]
    return "\n\n".join([_INTRODUCTION, *sections]) + "\n"


def _section(name: str, result: Mapping[str, Any]) -> str:
    """Returns what was measured of a model, and how it was made."""
    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items())
    rows = [
        f"- {row}, {departure or 'by its protocol'}"
        for row, departure in result["rows"].items()
    ]
    table = [_line(_HEADINGS), _line(["---"] * len(_HEADINGS))]
    for measure, value in result["measures"].items():
        published = [
            cell.paper
            for cell in paper.CELLS
            if cell.measure == measure and cell.row in result["rows"]
        ]
        if not published:
            continue
        mean, _, interval = number(measure, value).partition(" [")
        table.append(
            _line(
                [
                    paper.MEASURES[measure],
                    published[0] or "-",
                    mean,
                    interval.removesuffix("]") or "-",
                    _measured_on(measure, value),
                ]
            )
        )
    commands = [f"    {command}" for command in result["commands"]]
    return "\n\n".join(
        [
            f"## {name}",
            f"Budget: {result['budget']}, {result['steps']:,} steps; "
            f"{result['machine']}; {versions}.",
            *("\n".join(lines) for lines in (rows, table, commands)),
        ]
    )


def render_summary(
    results: Mapping[str, Mapping[str, Any]], pictures: Collection[str]
) -> str:
    """Returns the page of results: one small table per table of the paper.

    Args:
        results: As in `render`.
        pictures: Collection of strings. The paths of the existing pictures,
            from the root.

    Returns:
        String. Markdown.
    """
    parts = [_SUMMARY]
    for table, title in paper.TABLES.items():
        cells = [cell for cell in paper.CELLS if cell.table == table]
        parts += [
            f"## {title}",
            *_notes(table, cells),
            *_summary_tables(cells, results),
        ]
    parts += ["## Protocols"]
    for name in dict.fromkeys(r.protocol for r in _rows(paper.CELLS)):
        parts += [f"### {name}", paper.PROTOCOLS[name]]
    parts.append("## Figures")
    for figure in paper.FIGURES:
        paths = [
            (f"docs/results/{figure.name}_{budget}.png", budget)
            for budget in paper.BUDGETS
        ]
        parts += [
            f"{figure.caption} ({of}):\n\n{_image(path)}"
            for path, of in (*paths, *figure.others)
            if path in pictures
        ]
    return "\n\n".join(parts) + "\n"


def _summary_tables(
    cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Returns a table per published measure, or one of all measures."""
    measures = list(dict.fromkeys(cell.measure for cell in cells))
    if not any(cell.paper for cell in cells):
        return [_table(cells, measures, results)]
    parts = []
    for measure in measures:
        if len(measures) > 1:
            parts.append(f"### {paper.MEASURES[measure]}")
        of_measure = [cell for cell in cells if cell.measure == measure]
        parts.append(_table(of_measure, [measure], results))
    return parts


def _table(
    cells: Sequence[Cell],
    measures: Sequence[str],
    results: Mapping[str, Mapping[str, Any]],
) -> str:
    """Returns a table: for each method a line per model, measures across."""
    published = any(cell.paper for cell in cells)
    ours = [paper.MEASURES[m] for m in measures]
    headings = ["paper", "ours with interval"] if published else ours
    lines = [_line(["method", *headings, "budget"])]
    lines.append(_line(["---"] * (len(headings) + 2)))
    for method in dict.fromkeys(cell.method for cell in cells):
        of_method = {c.measure: c for c in cells if c.method == method}
        models = _models(of_method, results)
        if not models:
            run = any(cell.row for cell in of_method.values())
            models = {"not run" if run else "not implemented here": {}}
        number_of_paper = of_method[measures[0]].paper or "-"
        for budget, numbers in models.items():
            columns = [numbers.get(measure, "") for measure in measures]
            if published:
                columns.insert(0, number_of_paper)
            lines.append(_line([method, *columns, budget]))
    return "\n".join(lines)


def _models(
    cells: Mapping[str, Cell], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Returns, by budget with a link, the numbers of each of our models."""
    models: dict[str, dict[str, str]] = {}
    for name, result in results.items():
        if result["budget"] in _NOT_IN_SUMMARY:
            continue
        numbers, departure = {}, ""
        for measure, cell in cells.items():
            value = result["measures"].get(measure)
            if value is None or cell.row not in result["rows"]:
                continue
            if (
                measure == "joint_nll"
                and "num_dimensions" not in value
                and value["num_values"] < _CHARACTERS
            ):
                continue  # characters differ by more than models
            numbers[measure] = number(measure, value)
            departure = result["rows"][cell.row]
        if numbers:
            link = f"[{result['budget']}](results/provenance.md#{name})"
            models[f"{link}: {departure}" if departure else link] = numbers
    return models


def _notes(table: str, cells: Sequence[Cell]) -> list[str]:
    """Returns what is above a table: links to its protocols, a note, a plot."""
    links = [
        f"[{name.lower()}](#{name.lower().replace(' ', '-')})"
        for name in dict.fromkeys(row.protocol for row in _rows(cells))
    ]
    parts = [f"Protocol: {', '.join(links)}."]
    if table in _TABLE_NOTES:
        parts.append(_TABLE_NOTES[table])
    if table in _PLOTS:
        parts.append(
            f"![{paper.TABLES[table]}; intervals are 95%]({_PLOTS[table]})"
        )
    return parts


def _rows(cells: Sequence[Cell]) -> list[paper.Row]:
    """Returns the rows of our models."""
    return [paper.ROWS[cell.row] for cell in cells if cell.row]


def number(measure: str, value: Mapping[str, Any]) -> str:
    """Returns a number with its interval, in the units of the tables."""
    percent = measure.startswith("accuracy")
    scale, digits = (100, 1) if percent else (1, 2)

    def rounded(share: float) -> str:
        # Halves, of 400 queries frequent, to even, whatever the last bit says.
        return f"{round(scale * share, 9):.{digits}f}"

    bound = "<= " if measure == "joint_nll" else ""
    text = bound + rounded(value["mean"])
    if value["interval_95"] is None:
        return text
    low, high = map(rounded, value["interval_95"])
    return f"{text} [{low}, {high}]"


def _measured_on(measure: str, value: Mapping[str, Any]) -> str:
    """Returns the number of values and the settings of the estimator."""
    kinds = {
        "accuracy": "tasks",
        "joint_nll": "characters",
        "conditional_nll": "images",
        "training_kl": "batches",
    }
    kind = kinds[measure.partition(".")[0]]
    if measure == paper.LAKE_MEASURE:
        kind = "runs"
    if "num_dimensions" in value:
        kind = kind.replace("characters", "videos")
    if "num_values" not in value:
        return str(value["measured_on"])
    parts = [f"{value['num_values']} {kind}"]
    if measure == "joint_nll":
        parts.append(f"k = {value['num_samples']}")
    elif "num_samples" in value:
        parts.append(f"{value['num_samples']} of c")
    if "support_sizes" in value:
        low, high = value["support_sizes"]
        parts.append(f"|D| = {low}" if low == high else f"|D| {low} to {high}")
    if "num_element_samples" in value:
        parts.append(f"{value['num_element_samples']} of z each")
    if "effective_sample_size" in value:
        parts.append(f"ESS {value['effective_sample_size']:.1f}")
    if "num_dimensions" in value:
        bits = value["mean"] / value["num_dimensions"] / math.log(2)
        parts.append(f"{bits:.3f} bits per dimension")
    return ", ".join(parts)


def _image(path: str) -> str:
    """Returns a picture as Markdown of a page in docs."""
    picture = pathlib.PurePosixPath(path)
    return f"![{picture.stem}]({picture.relative_to('docs')})"


def _line(columns: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in columns) + " |"
