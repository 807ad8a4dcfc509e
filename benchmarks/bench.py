"""Runs every benchmark and writes one table, docs/benchmarks.md.

    python benchmarks/bench.py
    python benchmarks/bench.py --only=models,ladders

Each runs in a process of its own, whose largest resident memory stands in the
table, with oneDNN as in the commands of the package. Nine minutes on two
cores, and four more where PyTorch is installed (`vhe_tf[peers]`); leave the
machine alone meanwhile. docs/performance.md says what the figures mean.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import measure
from absl import app
from absl import flags

from vhe_tf._utils import atomic_io

_ONLY = flags.DEFINE_list(
    "only", [], "Only the benchmarks whose commands contain one of these."
)
_OUT = flags.DEFINE_string(
    "out", None, "The file to write; default docs/benchmarks.md."
)

ROOT = pathlib.Path(__file__).resolve().parents[1]

COMMANDS = (
    ("episodes.py",),
    ("records.py", "--num_images=100000"),
    ("photographs.py",),
    ("models.py", "--architecture=deconvolutional"),
    ("models.py", "--architecture=pixel_cnn"),
    ("profile_step.py",),
    ("pixel_cnn.py",),
    ("pixel_cnn.py", "--images=colour"),
    ("accumulation.py",),
    ("distribute.py",),
    ("ladders.py",),
    (
        "serving.py",
        "--model=saved_models/omniglot_pixel_cnn_small/best.keras",
    ),
    *([("peers.py",)] if importlib.util.find_spec("torch") else []),
)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmarks and writes the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    commands = [
        command
        for command in COMMANDS
        if not _ONLY.value
        or any(part in " ".join(command) for part in _ONLY.value)
    ]
    lines: list[str] = []
    machine = ""  # as the first table says
    failed = []
    out = pathlib.Path(_OUT.value or ROOT / "docs" / "benchmarks.md")
    for index, command in enumerate(commands):
        shown = f"python benchmarks/{' '.join(command)}"
        print(f"[{index + 1}/{len(commands)}] {shown}", flush=True)
        tables, seconds, mebibytes = _run(command)
        if tables is None:
            failed.append(shown)
            lines += [f"## `{shown}`", "", "Failed.", ""]
        else:
            memory = f"at most {mebibytes:,.0f} MiB resident."
            machine = machine or tables[0]["machine"]
            lines += [f"## `{shown}`", "", f"{seconds:.0f} s; {memory}", ""]
            for table in tables:
                lines += _table(table)
        # After each: a run that is stopped leaves what it has.
        with atomic_io.beside(out) as beside:
            text = "\n".join(_heading(machine) + lines).rstrip()
            beside.write_text(text + "\n", "utf-8")
    print(f"Made {out}")
    if failed:
        raise SystemExit(f"error: failed: {'; '.join(failed)}")


def _run(
    command: Sequence[str],
) -> tuple[list[dict[str, Any]] | None, float, float]:
    """Returns the tables of a benchmark, its seconds and its memory in MiB."""
    script, *arguments = command
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "figures.json")
        start = time.perf_counter()
        process = subprocess.Popen(
            [
                sys.executable,
                f"benchmarks/{script}",
                *arguments,
                f"--json={path}",
            ],
            cwd=ROOT,
            env={
                "TF_ENABLE_ONEDNN_OPTS": "1",
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        mebibytes = used.ru_maxrss / 1024
        if process.returncode or not path.exists():
            return None, seconds, mebibytes
        return json.loads(path.read_text("utf-8")), seconds, mebibytes


def _table(table: dict[str, Any]) -> list[str]:
    lines = [
        f"{table['title']}:",
        "",
        "| measured | figure | in ratio to | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for row in table["figures"]:
        ratio = measure.Figure(**row).of_ratio()
        what = row["what"].replace("|", "\\|")
        lines.append(
            f"| {what} | {measure.shown(row['value'])} {row['unit']} "
            f"| {row['yardstick']} | {ratio} |"
        )
    return [*lines, ""]


def _heading(machine: str) -> list[str]:
    command = "make bench"
    if sys.argv[1:]:
        command = " ".join(["python benchmarks/bench.py", *sys.argv[1:]])
    return [
        "# Benchmarks",
        "",
        f"Written by `{command}`; change nothing here by hand. A ratio is how "
        "many times as fast as the yardstick (or as large, where a cost is "
        "given), timed in turn with it in the same run, with its quartiles "
        "over the rounds where a ratio is of medians: seconds depend on the "
        "machine, ratios less. docs/performance.md reads this table.",
        "",
        f"{machine}; {_memory():.0f} GiB. Tables that say so differ.",
        "",
    ]


def _memory() -> float:
    pages = os.sysconf("SC_PHYS_PAGES")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


if __name__ == "__main__":
    app.run(main)
