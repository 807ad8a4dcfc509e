"""Makes the tables and figures of the paper, beside the published numbers.

    vhe-tf reproduce --table=1 --budget=cpu --data_dir=DIR
    vhe-tf reproduce --budget=gpu --lake_runs=all_runs.zip
    vhe-tf reproduce --dry_run       # shows what is missing
    vhe-tf reproduce --render_only   # only writes the document
    vhe-tf reproduce --check         # measures the shipped models again

Run it in a checkout. It trains what is missing, measures it, and writes
docs/results.md. Runs and their logs are in runs/. Measurements are kept in
docs/results/, one small file per model, so that numbers of several machines
stand in one document. A model that has its file is not measured again; delete
the file to repeat that. It is not trained again either, except to make a figure
that is missing, by --table=figures. Figures of models that are trained are made
with their table.

Stop it at any time: the same command resumes. If a row fails, the others are
made all the same; the command then ends with an error that names the row.
"""

import dataclasses
import json
import os
import pathlib
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TextIO

from absl import flags

from vhe_tf.errors import RunError
from vhe_tf.experiments import figures
from vhe_tf.experiments import paper
from vhe_tf.experiments import provenance
from vhe_tf.experiments import results
from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.registry import get
from vhe_tf.experiments.results import RowError
from vhe_tf.experiments.run import Run
from vhe_tf.experiments.settings import setting

__all__ = [
    "Inputs",
    "evaluation_command",
    "execute",
    "main",
    "make",
    "make_row",
    "missing_commands",
    "select_rows",
    "training_command",
]

_FIGURES = "figures"

# The measurements of training itself are not needed: those of `evaluate` are.
_SHORT_ENDING = (
    "--num_test_tasks=1",
    "--num_test_groups=1",
    "--num_test_samples=2",
)
_LOG_LINES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Reproduction(settings.Settings):
    """The arguments of `vhe-tf reproduce`, but the places of the data."""

    table: tuple[str, ...] | None = setting(
        None,
        "A table of the paper, Lake's runs, the conditional NLL by shots, or "
        "the figures. May be repeated. Default: all.",
        choices=(*paper.TABLES, _FIGURES),
    )
    budget: str = setting(
        "cpu",
        "cpu: small models, 45 to 80 minutes each on a core. gpu: the "
        "published size.",
        choices=tuple(paper.BUDGETS),
    )
    rows: tuple[str, ...] | None = setting(
        None,
        "Only rows whose names contain one of these, and their figures. "
        "Default: all.",
    )
    dry_run: bool = setting(False, "Show the missing commands; run nothing.")
    render_only: bool = setting(False, "Only write docs/results.md.")
    check: bool = setting(
        False,
        "Measure the shipped models again, and fail if the 95% intervals do "
        "not overlap with those in docs/results. Less than half an hour on two "
        "cores.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = ("table", "rows", "budget", "dry_run")
        if self.check:
            self._reject_without_effect("check", *chosen, "render_only")
        if self.render_only:
            self._reject_without_effect("render_only", *chosen)


@dataclasses.dataclass(frozen=True)
class Inputs(settings.Settings):
    """The places of the data."""

    data_dir: str | None = setting(
        None,
        "A TensorFlow Datasets folder with omniglot/3.0.0. Default: "
        "TFDS_DATA_DIR or ~/tensorflow_datasets.",
        path="TFDS folder",
    )
    manual_dir: str | None = setting(
        None,
        "For --table=5: the folder with aligned_images_DB.tar.gz. Not needed "
        "once YouTube Faces is prepared in --data_dir.",
        path="folder",
    )
    lake_runs: str | None = setting(
        None,
        "all_runs.zip of Lake et al., or its unpacked folder. --table=lake "
        "needs it; other tables omit Lake's runs without it.",
        path="path",
    )

    def command(
        self, *arguments: str, lake_runs: bool = False, manual_dir: bool = False
    ) -> list[str]:
        """Returns a command of `vhe-tf` that reads the data."""
        command = [sys.executable, "-m", "vhe_tf.experiments.cli", *arguments]
        if self.data_dir:
            command.append(f"--data_dir={os.path.abspath(self.data_dir)}")
        if self.lake_runs and lake_runs:
            command.append(f"--lake_runs={os.path.abspath(self.lake_runs)}")
        if self.manual_dir and manual_dir:
            command.append(f"--manual_dir={os.path.abspath(self.manual_dir)}")
        return command


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf reproduce`."""
    values = _flags()
    settings.parse(argv, values, usage=__doc__ or "", words=False)
    with exit_on_user_error():  # before hours of training
        inputs = Inputs(**settings.read_flags(values, Inputs))
        asked = Reproduction(**settings.read_flags(values, Reproduction))
    if not (results.ROOT / "docs" / "results").is_dir():
        raise SystemExit(
            "error: this needs the source of the project, installed in its "
            "folder by `pip install --editable .`: there is no docs/results in "
            f"{results.ROOT}."
        )
    try:
        results.kept_results()
    except RowError as error:
        raise SystemExit(f"error: {error}") from error
    if asked.check:
        from vhe_tf.experiments.check import check

        raise SystemExit(check(inputs))
    _make_all(asked, inputs)


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    settings.add_flags(values, Reproduction, title="Reproduction")
    settings.add_flags(values, Inputs, title="Data")
    return values


def _make_all(asked: Reproduction, inputs: Inputs) -> None:
    tables = asked.table or (*paper.TABLES, _FIGURES)
    budget, dry_run = asked.budget, asked.dry_run
    failures = []
    if not asked.render_only:
        rows = select_rows(tables, asked.rows or ())
        if not inputs.lake_runs:
            _tell_of_lakes_runs(rows, asked_for="lake" in (asked.table or ()))
        if budget == "gpu" and not (dry_run or provenance.gpu_name()):
            raise SystemExit(
                "error: --budget=gpu trains the published size and needs an "
                "NVIDIA GPU; nvidia-smi lists none. Use --budget=cpu, or run "
                "it on a machine with a GPU and copy its docs/results/ here."
            )
        failures = make(
            rows,
            budget,
            inputs=inputs,
            drawn=figures.rows_to_draw(budget) if _FIGURES in tables else (),
            dry_run=dry_run,
        )
        if not dry_run:
            failures += figures.draw_figures(
                budget, rows, data_dir=inputs.data_dir
            )
    if dry_run:
        return
    results.write_document()
    if failures:
        raise SystemExit("error: " + "\n".join(["not made:", *failures]))


def _tell_of_lakes_runs(rows: Sequence[str], *, asked_for: bool) -> None:
    """Says that Lake's runs of rows are left out.

    Raises:
        SystemExit: If they were asked for.
    """
    if asked_for:
        raise SystemExit(
            "error: --table=lake needs --lake_runs, which names all_runs.zip "
            "of Lake et al., or its unpacked folder."
        )
    if any(
        cell.measure == paper.LAKE_MEASURE and cell.row in rows
        for cell in paper.CELLS
    ):
        print("Lake's runs are left out: --lake_runs names none.", flush=True)


def select_rows(tables: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns the rows that tables and figures need, in their order.

    Args:
        tables: Strings. Names in `paper.TABLES`, or `"figures"`.
        names: Sequence of strings. Parts of names, one of which a row must
            contain; or none.

    Raises:
        SystemExit: If a part is empty or in no name.
    """
    wanted = {cell.row for cell in paper.CELLS if cell.table in tables}
    if _FIGURES in tables:
        for figure in paper.FIGURES:
            wanted.update(figure.rows)
    rows = [name for name in paper.ROWS if name in wanted]
    unknown = [
        part for part in names if not (part and any(part in r for r in rows))
    ]
    if unknown:
        raise SystemExit(
            "error: --rows must be parts of names of rows, among "
            f"{', '.join(rows)}. Received: {', '.join(map(repr, unknown))}."
        )
    return [
        row for row in rows if not names or any(part in row for part in names)
    ]


def make(
    rows: Sequence[str],
    budget: str,
    *,
    inputs: Inputs,
    drawn: Collection[str] = (),
    dry_run: bool = False,
) -> list[str]:
    """Makes what is missing of rows; returns what went wrong, a line each.

    Args:
        rows: Sequence of strings. Their names.
        budget: String. A key of `paper.BUDGETS`.
        inputs: `Inputs`. The places of the data.
        drawn: Collection of strings. Rows whose models are wanted, not their
            numbers alone.
        dry_run: Boolean. Whether to show the commands and run nothing.
    """
    failures = []
    for index, name in enumerate(rows):
        title = f"[{index + 1}/{len(rows)}] {name}, {budget}"
        try:
            commands = missing_commands(
                name, budget, inputs=inputs, drawn=name in drawn
            )
            if not commands:
                print(f"{title}: is there", flush=True)
                continue
            print(title, flush=True)
            for command in commands:
                print(f"  {shlex.join(command)}", flush=True)
            if not dry_run:
                make_row(name, budget, inputs=inputs, commands=commands)
                results.write_document()
        except (RowError, OSError) as error:
            print(f"{name} failed: {error}", flush=True)
            failures.append(f"{name}: {error}")
    return failures


def missing_commands(
    name: str, budget: str, *, inputs: Inputs, drawn: bool = False
) -> list[list[str]]:
    """Returns the commands that a row still needs: train, measure, or none.

    Args:
        name: String. Name of the row.
        budget: String. A key of `paper.BUDGETS`.
        inputs: `Inputs`. The places of the data.
        drawn: Boolean. Whether its model is needed for a figure, even if its
            numbers exist.

    Raises:
        RowError: If the run in the row's folder had other settings.
    """
    row, run = paper.ROWS[name], _run(name, budget)
    is_measured = not row.evaluate or measured(name, budget, inputs=inputs)
    if is_measured and not drawn:
        return []
    commands = []
    if not run.is_complete:
        commands.append(training_command(name, budget, inputs=inputs))
    if not is_measured:
        commands.append(evaluation_command(name, budget, inputs=inputs))
    return commands


def measured(name: str, budget: str, *, inputs: Inputs) -> bool:
    """Returns whether a row has all that can be measured of it."""
    path = results.result_path(name, budget)
    if not path.exists():
        return False
    return wanted_measures(name, inputs) <= set(
        results.read_json(path)["measures"]
    )


def wanted_measures(name: str, inputs: Inputs) -> set[str]:
    """Returns the measures of a row, Lake's runs if they are there."""
    measures = {c.measure for c in paper.CELLS if c.row == name}
    if not inputs.lake_runs:
        measures.discard(paper.LAKE_MEASURE)
    return measures


def _run(row: str, budget: str) -> Run:
    """Returns the run of a row.

    Raises:
        RowError: If the run in its folder has other settings.
    """
    name = paper.ROWS[row].experiments[budget]
    try:
        return Run(results.ROOT / "runs" / name, get(name))
    except RunError as error:
        raise RowError(f"{error} Move it away to train again.") from error


def training_command(name: str, budget: str, *, inputs: Inputs) -> list[str]:
    """Returns the command that trains a row, or resumes it."""
    row = paper.ROWS[name]
    ending = _SHORT_ENDING if row.evaluate else ()
    experiment = row.experiments[budget]
    return inputs.command(
        "train",
        experiment,
        *ending,
        manual_dir=get(experiment).dataset == "youtube_faces",
    )


def evaluation_command(name: str, budget: str, *, inputs: Inputs) -> list[str]:
    """Returns the command that measures a trained row."""
    row = paper.ROWS[name]
    folder = f"runs/{row.experiments[budget]}"
    return inputs.command(
        "evaluate",
        f"{folder}/best.keras",
        *as_flags(row.evaluate[budget]),
        f"--out={folder}/reproduce.json",
        # Only models of alphabets that were not seen during training.
        lake_runs="within" not in row.evaluate[budget],
    )


def as_flags(measuring: Mapping[str, Any]) -> list[str]:
    """Returns the flags of `vhe-tf evaluate` for settings of `Measuring`."""
    return [
        f"--{name}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
        for name, v in measuring.items()
    ]


def make_row(
    name: str, budget: str, *, inputs: Inputs, commands: Sequence[Sequence[str]]
) -> None:
    """Runs the commands of a row and keeps what they measured.

    Raises:
        RowError: If a command fails or was stopped, or a measure is missing.
    """
    row, run = paper.ROWS[name], _run(name, budget)
    for command in commands:
        execute(command, run.folder.with_name(f"{run.folder.name}.log"))
        if not run.is_complete:
            raise RowError(
                f"vhe-tf {command[3]} was stopped by SIGTERM before its end. "
                "The same command resumes."
            )
    if not row.evaluate or measured(name, budget, inputs=inputs):
        return
    report = results.read_json(run.folder / "reproduce.json")
    found = results.measures_of(report)
    wanted = wanted_measures(name, inputs)
    if not wanted <= set(found):
        raise RowError(
            f"expected the measures {sorted(wanted)} in {run.folder}/"
            f"reproduce.json; {sorted(wanted - set(found))} are not there. "
            f"Left out: {report['left_out']}."
        )
    result = {
        # What must stand beside the numbers.
        "rows": {name: report["caveat"] or ""},
        "budget": budget,
        "steps": run.experiment.epochs * run.experiment.steps_per_epoch,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commands": [
            _readable(training_command(name, budget, inputs=inputs)),
            _readable(evaluation_command(name, budget, inputs=inputs)),
        ],
        "measures": {measure: found[measure] for measure in sorted(wanted)},
    }
    results.write_text(
        results.result_path(name, budget),
        json.dumps(result, indent=2, ensure_ascii=False) + "\n",
    )


def execute(command: Sequence[str], log: pathlib.Path) -> None:
    """Runs a command, shows what it says and keeps that in a log.

    Raises:
        RowError: If it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=_LOG_LINES_SHOWN)
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            cwd=results.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        file.write(f"$ {shlex.join(command)}\n")
        try:
            _relay(process, file, last=last)
        except KeyboardInterrupt:
            # It saves its work, if it trains.
            process.terminate()
            _relay(process, file, last=last)
            raise
    if process.returncode:
        raise RowError(
            f"vhe-tf {command[3]} ended with status {process.returncode}. Its "
            f"log, {results.relative(log)}, ends:\n    " + "\n    ".join(last)
        )


def _relay(
    process: "subprocess.Popen[str]", file: TextIO, *, last: deque[str]
) -> None:
    """Shows what a process says, and keeps it."""
    for line in process.stdout or ():
        file.write(line)
        file.flush()
        last.append(line.rstrip())
        print(f"    {line}", end="", flush=True)


def _readable(command: Sequence[str]) -> str:
    """Returns a command to type, without the folders of this machine."""
    words = []
    for word in command[3:]:
        flag, _, _ = word.partition("=")
        if flag == "--data_dir":
            word = "--data_dir=DIR"
        elif flag == "--manual_dir":
            word = "--manual_dir=ARCHIVE"
        elif word.startswith("--lake_runs="):
            word = "--lake_runs=all_runs.zip"
        words.append(word)
    return shlex.join(["vhe-tf", *words])
