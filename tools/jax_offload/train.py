# mypy: disable-error-code="import-not-found"
"""Trains what export_run.py wrote, where there is JAX and no TensorFlow.

    python train.py EXPORTED OUT --seconds=540
    python train.py EXPORTED OUT2 --seconds=540 --resume=OUT

The schedule, optimizer, averages and validation are those of
trainers/omniglot.py. A step is a function of the seed and its number, so that
a resumed run gives the same result as an uninterrupted one. OUT then holds

    state-*.npz      weights, averages, Adam's moments: to resume from
    best-*.npz       the EMA weights with the best validation ELBO
    metrics.csv      means over the steps since the row before
    progress.json    how far the run is, for people
"""

import argparse
import csv
import dataclasses
import json
import pathlib
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import adam
import jax
import jax.numpy as jnp
import numpy as np
import weight_files
from programs import Exported
from programs import Programs

_CHECK_TOLERANCE = 1e-3
_MEASURED_STEPS = 100


@dataclasses.dataclass
class Run:
    """The progress of a run.

    Attributes:
        step: Integer. Number of steps so far.
        state: `adam.State`. The state after them.
        rows: List of dictionaries. Rows of metrics.csv.
        best: Array or None. The EMA weights with the best validation ELBO.
        best_elbo: Float. That ELBO.
        best_step: Integer. The step after which it was computed.
    """

    step: int
    state: adam.State
    rows: list[dict[str, Any]]
    best: np.ndarray | None = None
    best_elbo: float = -np.inf
    best_step: int = 0


def begun(
    exported: Exported, epochs: int | None, steps_per_epoch: int | None
) -> tuple[Run, adam.Schedule]:
    """Returns a run at its start and its schedule."""
    weights, _ = weight_files.read(exported.folder, "initial")
    start = jnp.asarray(weights)
    zeros = jnp.zeros_like(start)
    run = Run(0, adam.State(start, start, zeros, zeros), [])
    return run, _schedule(
        exported,
        epochs or exported.experiment["epochs"],
        steps_per_epoch or exported.experiment["steps_per_epoch"],
    )


def resumed(
    exported: Exported, folder: pathlib.Path
) -> tuple[Run, adam.Schedule]:
    """Returns a run as it was left and its schedule.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is a run of another export, or its files do not
            belong together.
    """
    vector, scalars = weight_files.read(folder, "state")
    if scalars["fingerprint"] != exported.settings["fingerprint"]:
        raise ValueError(
            f"{folder} holds a run of another export than {exported.folder}."
        )
    state = adam.State(*map(jnp.asarray, np.split(vector, 4)))
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    step = scalars["step"]
    run = Run(step, state, [r for r in rows if int(r["step"]) <= step])
    if (folder / "best-00.npz").exists():
        run.best, best = weight_files.read(folder, "best")
        run.best_elbo, run.best_step = best["elbo"], best["step"]
    schedule = _schedule(
        exported, scalars["epochs"], scalars["steps_per_epoch"]
    )
    return run, schedule


def _schedule(
    exported: Exported, epochs: int, steps_per_epoch: int
) -> adam.Schedule:
    names = ("learning_rate", "warmup_steps", "clip_norm", "ema")
    return adam.Schedule(
        epochs, steps_per_epoch, *(exported.experiment[name] for name in names)
    )


def save(
    out: pathlib.Path,
    run: Run,
    programs: Programs,
    *,
    schedule: adam.Schedule,
    **progress: Any,
) -> None:
    """Writes a run; the files to resume from are written last but one.

    The ELBO of the fixed batch is written beside the weights.
    """
    fingerprint = programs.exported.settings["fingerprint"]
    if run.best is not None:
        weight_files.write(
            out,
            "best",
            run.best,
            step=run.best_step,
            elbo=run.best_elbo,
            check=programs.check(run.best),
            fingerprint=fingerprint,
        )
    _write_rows(out / "metrics.csv", run.rows)
    scalars = {
        "step": run.step,
        "epochs": schedule.epochs,
        "steps_per_epoch": schedule.steps_per_epoch,
        "check": programs.check(run.state.average),
        "fingerprint": fingerprint,
    }
    state = np.concatenate([np.asarray(vector) for vector in run.state])
    weight_files.write(out, "state", state, **scalars)
    best = {"best_step": run.best_step, "best_elbo": run.best_elbo}
    progress = scalars | (best if run.best_step else {}) | progress
    _write_json(out / "progress.json", progress)


def _write_rows(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    with (
        weight_files.beside(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        names = dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(file, list(names) or ["step"])
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    with weight_files.beside(path) as partial:
        partial.write_text(
            json.dumps(values, indent=2) + "\n", encoding="utf-8"
        )


def train(
    run: Run,
    programs: Programs,
    out: pathlib.Path,
    *,
    schedule: adam.Schedule,
    chunk: int,
    seconds: float,
) -> str:
    """Trains until the run is done or the time is up.

    Args:
        run: `Run`. The run, which is changed.
        programs: `Programs`. What trains it.
        out: Path. Where to save it, at the end of each epoch and at last.
        schedule: `adam.Schedule`. How many steps, and how large.
        chunk: Integer. Steps between reports, fewer before the end of an epoch.
        seconds: Float. How long it may take.

    Returns:
        Why it ended.

    Raises:
        SystemExit: If the loss or a weight is not finite; the run is saved as
            it was at the last report.
    """
    begin, first_step, slowest = time.monotonic(), run.step, 0.0
    earlier = float(run.rows[-1]["seconds"]) if run.rows else 0.0

    def keep(ended: str) -> str:
        speed = (run.step - first_step) / (time.monotonic() - begin)
        save(
            out,
            run,
            programs,
            schedule=schedule,
            ended=ended,
            steps_a_second=speed,
            precision=programs.exported.precision,
            device=jax.devices()[0].device_kind,
            jax=jax.__version__,
        )
        return ended

    while run.step < schedule.num_steps:
        started = time.monotonic()
        if started - begin + slowest > seconds:
            return keep("time")
        if not _take_chunk(run, programs, chunk, schedule=schedule):
            keep("not finite")
            raise SystemExit(
                f"error: the loss or a weight is not finite after step "
                f"{run.step}, where {out} now is; the best weights are kept. "
                "Resume from there with --precision=float32, or export again "
                "with a lower --learning_rate."
            )
        run.rows[-1]["seconds"] = round(earlier + time.monotonic() - begin, 1)
        print(_line(run.rows[-1], schedule.num_steps), flush=True)
        if run.step % schedule.steps_per_epoch == 0:
            keep("")
        slowest = max(slowest, time.monotonic() - started)
    return keep("done")


def _take_chunk(
    run: Run, programs: Programs, chunk: int, *, schedule: adam.Schedule
) -> bool:
    """Trains to the next report; changes nothing if the loss is not finite."""
    of_epoch = schedule.steps_per_epoch
    last = min((run.step // size + 1) * size for size in (chunk, of_epoch))
    state, means = programs.advance(
        run.state, run.step, last, schedule=schedule
    )
    if not (np.isfinite(means).all() and jnp.isfinite(state.weights).all()):
        return False
    names = programs.exported.metrics
    row: dict[str, Any] = {"step": last, "seconds": 0.0}
    row |= {name: float(v) for name, v in zip(names, means, strict=True)}
    row |= {f"val_{name}": "" for name in names}
    if last % of_epoch == 0:
        held_out = programs.validate(state.average)
        row |= {
            f"val_{name}": float(value)
            for name, value in zip(names, held_out, strict=True)
        }
        if row["val_elbo"] > run.best_elbo:
            run.best = np.asarray(state.average)
            run.best_elbo, run.best_step = row["val_elbo"], last
    run.step, run.state = last, state
    run.rows.append(row)
    return True


def epochs_in(
    seconds: float, run: Run, programs: Programs, *, schedule: adam.Schedule
) -> int:
    """Returns how many epochs take about so long here, at least one."""
    num_steps = min(_MEASURED_STEPS, schedule.steps_per_epoch)
    for _ in range(2):  # the second time, everything is warm
        begin = time.monotonic()
        programs.advance(run.state, 0, num_steps, schedule=schedule)
        a_step = (time.monotonic() - begin) / num_steps
    print(f"{1 / a_step:.1f} steps per second", flush=True)
    return max(1, int(seconds / a_step / schedule.steps_per_epoch))


def _line(row: Mapping[str, Any], num_steps: int) -> str:
    values = ", ".join(
        f"{name} {value:.4g}"
        for name, value in row.items()
        if isinstance(value, float)
        and name not in ("loss", "val_loss", "seconds")
        and (not name.startswith("val_") or name == "val_elbo")
    )
    return f"{row['step']}/{num_steps}, {row['seconds']:.0f} s: {values}"


def check_start(programs: Programs) -> None:
    """Compares the ELBO of the initial weights with that of Keras.

    Raises:
        SystemExit: If they differ: this machine computes something else.
    """
    weights, _ = weight_files.read(programs.exported.folder, "initial")
    here = programs.check(weights)
    expected = programs.exported.settings["check"]["elbo"]
    print(f"ELBO of the fixed batch: {here:.4f}, by Keras {expected:.4f}")
    if not abs(here - expected) <= _CHECK_TOLERANCE * abs(expected):
        raise SystemExit("error: these are not the same ELBO.")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("exported", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--resume", type=pathlib.Path, metavar="OUT")
    parser.add_argument(
        "--seconds",
        type=float,
        default=np.inf,
        help="how long this process may take, its compilation included",
    )
    parser.add_argument(
        "--epochs", type=int, help="of the experiment by default"
    )
    parser.add_argument("--steps_per_epoch", type=int, help="likewise")
    parser.add_argument(
        "--training_seconds",
        type=float,
        help="in place of --epochs: as many as all processes of the run will "
        "take about so long for, at the speed of the first steps here",
    )
    parser.add_argument("--chunk", type=int, default=100, help="steps a report")
    parser.add_argument(
        "--precision", choices=("float32", "tf32", "bf16"), default="float32"
    )
    arguments = parser.parse_args(argv)
    lengths = ("epochs", "steps_per_epoch", "training_seconds")
    if arguments.resume and any(getattr(arguments, n) for n in lengths):
        parser.error("a run that is resumed keeps its number of steps")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Trains."""
    begin = time.monotonic()
    arguments = _arguments(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        exported = Exported(arguments.exported, arguments.precision)
        run, schedule = (
            resumed(exported, arguments.resume)
            if arguments.resume
            else begun(exported, arguments.epochs, arguments.steps_per_epoch)
        )
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    programs = Programs(exported, run.state, schedule)
    print(f"compiled in {time.monotonic() - begin:.0f} s", flush=True)
    check_start(programs)
    if arguments.training_seconds:
        epochs = epochs_in(
            arguments.training_seconds, run, programs, schedule=schedule
        )
        schedule = schedule._replace(epochs=epochs)
    ended = train(
        run,
        programs,
        arguments.out,
        schedule=schedule,
        chunk=arguments.chunk,
        seconds=arguments.seconds - (time.monotonic() - begin),
    )
    print(f"{ended}: {run.step} of {schedule.num_steps} steps, {arguments.out}")


if __name__ == "__main__":
    main()
