"""Makes the numbers and figures of the paper again, beside the published ones.

    python trainers/reproduce.py --table=1 --budget=cpu --data_dir=DIR
    python trainers/reproduce.py --budget=gpu --lake_runs=all_runs.zip ...
    python trainers/reproduce.py --dry_run       # shows what is missing
    python trainers/reproduce.py --render_only   # writes the document alone
    python trainers/reproduce.py --check         # the shipped models again

Trains what is missing, measures it, and writes docs/results.md. Which numbers
there are, and the flags of each, is in paper_tables.py; how they are shown, in
results_document.py. Runs and their logs are
in runs/; what was measured is kept in docs/results/, one small file a model, so
that numbers from several machines stand in one document. A model that has its
file there is not measured again: delete the file to have that. Nor is it
trained again, but to draw a figure that is not there yet. A picture that is
there is kept: delete it to have it drawn again.

Stop it whenever you like: the same command goes on. A row that fails does not
stop the others, which do not depend on it and may take a night; the program
then ends with an error that names it and its log.
"""

import collections
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import paper_tables
import results_document
from absl import app
from absl import flags
from paper_tables import Figure
from paper_tables import Row

_FIGURES = "figures"

_TABLE = flags.DEFINE_multi_enum(
    "table",
    None,
    [*paper_tables.TABLES, _FIGURES],
    "What to make: a table of the paper, Lake's runs, the conditional NLL by "
    "shots, or the figures. May be repeated; all by default. A figure that is "
    "not there yet has its models trained, also those whose numbers are there.",
)
_BUDGET = flags.DEFINE_enum(
    "budget",
    "cpu",
    list(paper_tables.BUDGETS),
    "cpu: small models, some 45 to 80 minutes each on a core, that of "
    "alphabets less; gpu: the published size.",
)
_ROWS = flags.DEFINE_list(
    "rows",
    [],
    "Only the rows whose names contain one of these, and figures of these.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "A TensorFlow Datasets folder with omniglot/3.0.0; default TFDS_DATA_DIR "
    "or ~/tensorflow_datasets.",
)
_LAKE_RUNS = flags.DEFINE_string(
    "lake_runs",
    None,
    "all_runs.zip of Lake et al., or its unpacked folder. --table=lake needs "
    "it; where it is not given, the other tables leave Lake's runs out.",
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Show the commands that are missing, and run nothing."
)
_RENDER_ONLY = flags.DEFINE_bool(
    "render_only", False, "Write docs/results.md from docs/results, no more."
)
_CHECK = flags.DEFINE_bool(
    "check",
    False,
    "Measure the shipped models again, and fail where the 95% intervals of "
    "now and of docs/results do not overlap. Less than half an hour on two "
    "cores.",
)

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The trainer's own last measurement is not needed: evaluate.py's is.
_SHORT_ENDING = (
    "--num_test_trials=1",
    "--num_test_groups=1",
    "--num_test_samples=2",
)
_LOG_LINES_SHOWN = 3


class RowError(RuntimeError):
    """A row could not be made; the message says why, for a person."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where the data are.

    Attributes:
        data_dir: As --data_dir.
        lake_runs: As --lake_runs.
    """

    data_dir: str | None = None
    lake_runs: str | None = None

    def command(
        self, script: str, *arguments: str, lake_runs: bool = False
    ) -> list[str]:
        """Returns a command of a script in trainers/ that reads the data."""
        command = [sys.executable, f"trainers/{script}", *arguments]
        if self.data_dir:
            command.append(f"--data_dir={os.path.abspath(self.data_dir)}")
        if self.lake_runs and lake_runs:
            command.append(f"--lake_runs={os.path.abspath(self.lake_runs)}")
        return command


def main(argv: Sequence[str]) -> None:
    """Makes what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    inputs = Inputs(_DATA_DIR.value, _LAKE_RUNS.value)
    if inputs.lake_runs and not os.path.exists(inputs.lake_runs):
        # Before hours of training.
        raise SystemExit(
            "error: --lake_runs must name all_runs.zip of Lake et al., or its "
            f"unpacked folder. There is no {inputs.lake_runs}."
        )
    try:
        kept_results()
    except RowError as error:
        raise SystemExit(f"error: {error}") from error
    if _CHECK.value:
        raise SystemExit(check(inputs))
    tables = _TABLE.value or [*paper_tables.TABLES, _FIGURES]
    failures = []
    if not _RENDER_ONLY.value:
        rows = select_rows(tables, _ROWS.value)
        if not inputs.lake_runs:
            tell_of_lakes_runs(rows, asked_for="lake" in (_TABLE.value or ()))
        if _BUDGET.value == "gpu" and not (_DRY_RUN.value or gpu_name()):
            raise SystemExit(
                "error: --budget=gpu trains the published size and needs an "
                "NVIDIA GPU; nvidia-smi names none. Use --budget=cpu, or start "
                "it on a machine with a GPU and bring back its docs/results/."
            )
        failures = make(
            rows,
            _BUDGET.value,
            inputs,
            drawn=rows_to_draw(_BUDGET.value) if _FIGURES in tables else (),
            dry_run=_DRY_RUN.value,
        )
        if _FIGURES in tables and not _DRY_RUN.value:
            failures += draw_figures(_BUDGET.value, inputs, rows)
    if _DRY_RUN.value:
        return
    write_document()
    if failures:
        raise SystemExit("error: " + "\n".join(["not made:", *failures]))


def tell_of_lakes_runs(rows: Sequence[str], *, asked_for: bool) -> None:
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
        cell.measure == paper_tables.LAKE_MEASURE and cell.row in rows
        for cell in paper_tables.CELLS
    ):
        print("Lake's runs are left out: --lake_runs names none.", flush=True)


def select_rows(tables: Sequence[str], names: Sequence[str]) -> list[str]:
    """Returns the rows that tables and figures need, in their order.

    Args:
        tables: Of `paper_tables.TABLES`, or `"figures"`.
        names: Parts of names, one of which a row must contain; or none.

    Raises:
        SystemExit: If a part is empty or in no name.
    """
    wanted = {cell.row for cell in paper_tables.CELLS if cell.table in tables}
    if _FIGURES in tables:
        for figure in paper_tables.FIGURES:
            wanted.update(figure.rows)
    rows = [name for name in paper_tables.ROWS if name in wanted]
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
    inputs: Inputs,
    *,
    drawn: Collection[str] = (),
    dry_run: bool = False,
) -> list[str]:
    """Makes what is missing of rows; returns what went wrong, a line each.

    Args:
        rows: Their names.
        budget: Of `paper_tables.BUDGETS`.
        inputs: Where the data are.
        drawn: Rows whose models are wanted, not their numbers alone.
        dry_run: Whether to show the commands and run nothing.
    """
    failures = []
    for index, name in enumerate(rows):
        title = f"[{index + 1}/{len(rows)}] {name}, {budget}"
        try:
            commands = missing_commands(
                name, budget, inputs, drawn=name in drawn
            )
            if not commands:
                print(f"{title}: is there", flush=True)
                continue
            print(title, flush=True)
            for command in commands:
                print(f"  {shlex.join(command)}", flush=True)
            if not dry_run:
                make_row(name, budget, inputs, commands)
                write_document()
        except (RowError, OSError) as error:
            print(f"{name} failed: {error}", flush=True)
            failures.append(f"{name}: {error}")
    return failures


def missing_commands(
    name: str, budget: str, inputs: Inputs, *, drawn: bool = False
) -> list[list[str]]:
    """Returns the commands that a row still needs: train, measure, or none.

    Args:
        name: Of the row.
        budget: Of `paper_tables.BUDGETS`.
        inputs: Where the data are.
        drawn: Whether its model is wanted, also where its numbers are there.

    Raises:
        RowError: If the run in the row's folder had other settings.
    """
    row = paper_tables.ROWS[name]
    is_measured = not row.evaluate or measured(name, budget, inputs)
    if is_measured and not drawn:
        return []
    commands = []
    if is_trained(row, budget):
        _check_settings(row, budget)
    else:
        commands.append(training_command(row, budget, inputs))
    if not is_measured:
        commands.append(evaluation_command(row, budget, inputs))
    return commands


def is_trained(row: Row, budget: str) -> bool:
    """Whether the training of a row has ended."""
    # Written last by the trainer.
    return (ROOT / run_folder(row, budget) / "metrics.json").exists()


def measured(name: str, budget: str, inputs: Inputs) -> bool:
    """Whether a row has all that can be measured of it."""
    path = result_path(name, budget)
    if not path.exists():
        return False
    return wanted_measures(name, inputs) <= set(read_json(path)["measures"])


def wanted_measures(name: str, inputs: Inputs) -> set[str]:
    """Returns the measures of a row, Lake's runs if they are there."""
    measures = {c.measure for c in paper_tables.CELLS if c.row == name}
    if not inputs.lake_runs:
        measures.discard(paper_tables.LAKE_MEASURE)
    return measures


def training_command(row: Row, budget: str, inputs: Inputs) -> list[str]:
    """Returns the command that trains a row, or goes on with it."""
    flagfile = f"trainers/flagfiles/{row.flagfiles[budget]}"
    ending = _SHORT_ENDING if row.evaluate else ()
    return inputs.command(row.trainer, f"--flagfile={flagfile}", *ending)


def evaluation_command(row: Row, budget: str, inputs: Inputs) -> list[str]:
    """Returns the command that measures a trained row."""
    run_dir = run_folder(row, budget)
    return inputs.command(
        "evaluate.py",
        f"--model={run_dir}/best.keras",
        *row.evaluate[budget],
        f"--out={run_dir}/reproduce.json",
        # Only models of alphabets that no training has seen.
        lake_runs="--within=" not in row.evaluate[budget],
    )


def run_folder(row: Row, budget: str) -> str:
    """Returns the folder of a row's run, from its flagfile."""
    return read_flagfile(ROOT / flagfile_path(row, budget))["run_dir"]


def flagfile_path(row: Row, budget: str) -> str:
    """Returns where a row's flagfile is."""
    return f"trainers/flagfiles/{row.flagfiles[budget]}"


def read_flagfile(path: pathlib.Path) -> dict[str, str]:
    """Reads a flagfile and those that it names; later values win."""
    values: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("--"):
            continue
        name, _, value = line.strip().removeprefix("--").partition("=")
        if name == "flagfile":
            values |= read_flagfile(ROOT / value)
        else:
            values[name] = value or "true"
    return values


def result_path(name: str, budget: str) -> pathlib.Path:
    """Returns where the measurements of a row are kept."""
    return ROOT / "docs" / "results" / f"{name}_{budget}.json"


def make_row(
    name: str, budget: str, inputs: Inputs, commands: Sequence[Sequence[str]]
) -> None:
    """Runs the commands of a row and keeps what they measured.

    Raises:
        RowError: If a command fails or was stopped, or a measure is missing.
    """
    row = paper_tables.ROWS[name]
    run_dir = run_folder(row, budget)
    for command in commands:
        execute(command, ROOT / f"{run_dir}.log")
        if not is_trained(row, budget):
            raise RowError(
                f"{command[1]} was asked to stop (SIGTERM) before its end; "
                "start the same command to go on."
            )
    if not row.evaluate or measured(name, budget, inputs):
        return
    report = read_json(ROOT / run_dir / "reproduce.json")
    config = read_json(ROOT / run_dir / "config.json")
    found = measures_of(report)
    wanted = wanted_measures(name, inputs)
    if not wanted <= set(found):
        raise RowError(
            f"expected the measures {sorted(wanted)} in {run_dir}/"
            f"reproduce.json; {sorted(wanted - set(found))} are not there. "
            f"Left out: {report['left_out']}."
        )
    result = {
        "rows": {name: ""},
        "budget": budget,
        "steps": config["epochs"] * config["steps_per_epoch"],
        "machine": machine(),
        "versions": versions(),
        "commands": [
            _readable(training_command(row, budget, inputs)),
            _readable(evaluation_command(row, budget, inputs)),
        ],
        "measures": {measure: found[measure] for measure in sorted(wanted)},
    }
    _write(
        result_path(name, budget),
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
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        file.write(f"$ {shlex.join(command)}\n")
        for line in process.stdout or ():
            file.write(line)
            file.flush()
            last.append(line.rstrip())
            print(f"    {line}", end="", flush=True)
    if process.returncode:
        raise RowError(
            f"{command[1]} ended with status {process.returncode}; its log is "
            f"{_relative(log)}, which ends:\n    " + "\n    ".join(last)
        )


_MEASURED = ("accuracy", "conditional_nll", "joint_nll", "training_kl")


def measures_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the measures of a report of evaluate.py, by flat names.

    Returns:
        By the keys of `paper_tables.MEASURES`: `mean`, `half_width_95` (None
        for a single trial) and `num_trials`; the draws that it depends on,
        `num_samples` (of c) and `num_element_samples` (of z for each), and the
        `effective_sample_size` of a joint NLL.
    """
    from vhe_tf.evaluation import Report

    optional = (
        "num_samples",
        "num_element_samples",
        "effective_sample_size",
        "support_sizes",
    )
    return {
        each.key: {
            "mean": each.mean,
            "half_width_95": each.half_width,
            "num_trials": each.num_values,
            **{
                name: list(value) if isinstance(value, tuple) else value
                for name in optional
                if (value := getattr(each, name)) is not None
            },
        }
        for each in Report.from_json(report).measurements
        if each.metric in _MEASURED
    }


def picture_path(figure: Figure, budget: str) -> pathlib.Path:
    """Returns where the picture of a figure is kept."""
    return ROOT / "docs" / "results" / f"{figure.name}_{budget}.png"


def rows_to_draw(budget: str) -> set[str]:
    """Returns the rows whose models figures need that are not there yet."""
    return {
        row
        for figure in paper_tables.FIGURES
        if not picture_path(figure, budget).exists()
        for row in figure.rows
    }


def draw_figures(
    budget: str, inputs: Inputs, names: Collection[str]
) -> list[str]:
    """Draws the figures that are not there yet and whose models are.

    Args:
        budget: Of `paper_tables.BUDGETS`.
        inputs: Where the data are.
        names: Of rows; figures of other rows alone are left as they are.

    Returns:
        What went wrong, a line each.
    """
    failures = []
    for figure in paper_tables.FIGURES:
        out = picture_path(figure, budget)
        if not set(figure.rows).intersection(names):
            continue
        if out.exists():
            print(f"{figure.name}: is there, {_relative(out)}")
            continue
        rows = [paper_tables.ROWS[name] for name in figure.rows]
        folders = [ROOT / run_folder(row, budget) for row in rows]
        lacking = [
            folder.name
            for row, folder in zip(rows, folders, strict=True)
            if not is_trained(row, budget)
        ]
        if lacking:
            print(f"{figure.name}: no models {', '.join(lacking)} yet")
            continue
        try:
            for row in rows:
                _check_settings(row, budget)
            _draw(figure, folders, out, inputs)
        except (RowError, OSError) as error:
            failures.append(f"{figure.name}: {error}")
    return failures


def _draw(
    figure: Figure,
    folders: Sequence[pathlib.Path],
    out: pathlib.Path,
    inputs: Inputs,
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".partial.{out.name}")
    if figure.picture:
        shutil.copyfile(folders[0] / "pictures" / figure.picture, beside)
    else:
        models = ",".join(_relative(f / "best.keras") for f in folders)
        execute(
            inputs.command(
                "compare.py", f"--models={models}", f"--out={_relative(beside)}"
            ),
            ROOT / "runs" / f"{out.stem}.log",
        )
    os.replace(beside, out)


def check(inputs: Inputs) -> int:
    """Measures the shipped models again; returns the exit status."""
    published = kept_results()
    lacking = [
        f"docs/results/{result}.json"
        for how in paper_tables.CHECKS.values()
        for result in how.results
        if result not in published
    ]
    if lacking:
        print(f"error: what to compare with is not there: {lacking}")
        return 1
    verdicts = []
    for index, (name, how) in enumerate(paper_tables.CHECKS.items()):
        print(f"[{index + 1}/{len(paper_tables.CHECKS)}] {name}", flush=True)
        try:
            found = measure_again(name, inputs)
        except RowError as error:
            # Most likely the data are not there, for no model.
            print(f"error: {error}")
            return 1
        for result in how.results:
            verdicts += compare(result, published[result]["measures"], found)
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
    """Measures a shipped model as `paper_tables.CHECKS` says.

    Raises:
        RowError: If that fails.
    """
    evaluate = paper_tables.CHECKS[name].evaluate
    out = ROOT / "runs" / "results_check" / f"{name}.json"
    command = inputs.command(
        "evaluate.py",
        f"--model=saved_models/{name}/best.keras",
        *evaluate,
        f"--out={_relative(out)}",
        lake_runs="--within=" not in evaluate,
    )
    execute(command, out.with_suffix(".log"))  # makes the folder
    return measures_of(read_json(out))


def compare(
    name: str,
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
        text = f"published {results_document.number(measure, value)}"
        again = found.get(measure)
        draws = value.get("num_samples")  # of a KL there are none
        if again is None or again.get("num_samples") != draws:
            lines.append(("not measured", f"{name} {measure}: {text}"))
            continue
        distance = abs(value["mean"] - again["mean"])
        tolerance = _half_width(value) + _half_width(again)
        text += f", now {results_document.number(measure, again)}"
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


def write_document() -> None:
    """Writes docs/results.md from docs/results."""
    pictures = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*.png")
    }
    _write(
        ROOT / "docs" / "results.md",
        results_document.render(kept_results(), pictures),
    )


def kept_results() -> dict[str, Any]:
    """Returns what docs/results holds, by name.

    Raises:
        RowError: If a file is none of `make_row`'s.
    """
    results = {}
    for path in sorted((ROOT / "docs" / "results").glob("*.json")):
        result = read_json(path)
        if not isinstance(result, dict) or "measures" not in result:
            raise RowError(
                f"{_relative(path)} has no measures; bring it back, or delete "
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
            f"{_relative(path)} cannot be read ({error}). Move away what is "
            "damaged, to have it made again."
        ) from error


def machine() -> str:
    """Returns the GPU, the processor and its cores."""
    processor = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    count = len(os.sched_getaffinity(0))
    text = f"{count} core{'s' * (count != 1)} of {processor}"
    gpu = gpu_name()
    return f"{gpu}, {text}" if gpu else text


def gpu_name() -> str | None:
    """Returns the name of the first NVIDIA GPU, if there is one."""
    if not shutil.which("nvidia-smi"):
        return None
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    names = answer.stdout.splitlines() if answer.returncode == 0 else []
    return names[0].strip() if names else None


def versions() -> dict[str, str]:
    """Returns the versions of Python and of what matters."""
    packages = ("vhe_tf", "tensorflow", "keras", "tensorflow-probability")
    return {
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _check_settings(row: Row, budget: str) -> None:
    """Refuses a finished run of other settings than the flagfile's."""
    run_dir = run_folder(row, budget)
    flagged = read_flagfile(ROOT / flagfile_path(row, budget))
    config = read_json(ROOT / run_dir / "config.json")
    if not isinstance(config, dict) or "epochs" not in config:
        raise RowError(
            f"{run_dir}/config.json is not of a run; move {run_dir} away to "
            "train anew."
        )
    differences = [
        f"{name}: {config[name]!r} there, {value!r} in the flagfile"
        for name, value in flagged.items()
        if name in config and not _same(config[name], value)
    ]
    if differences:
        raise RowError(
            f"{run_dir} holds a run of other settings than "
            f"{flagfile_path(row, budget)}; move it away to train anew. "
            f"Different: {'; '.join(differences)}."
        )


def _same(value: Any, text: str) -> bool:
    """Whether a setting has the value that a flagfile writes."""
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    if isinstance(value, int | float):
        try:
            return float(value) == float(text)
        except ValueError:
            return False
    return str(value) == text


def _readable(command: Sequence[str]) -> str:
    """Returns a command to type, with DIR for the folders of this machine."""
    words = []
    for word in command:
        if word.startswith("--data_dir="):
            word = "--data_dir=DIR"
        elif word.startswith("--lake_runs="):
            word = "--lake_runs=all_runs.zip"
        words.append(word)
    return shlex.join(["python", *words[1:]])


def _relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


if __name__ == "__main__":
    app.run(main)
