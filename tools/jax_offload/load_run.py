"""Makes a run of this project from the files that train.py wrote.

    python -m tools.jax_offload.load_run --exported=DIR --trained=OUT \
        --run_dir=runs/x

The folder of the run is then like that of `vhe-tf train`, for `vhe-tf evaluate`
and `vhe-tf export`: best.keras holds the EMA weights with the best validation
ELBO, last.keras those at the end, and metrics.csv and tensorboard/ the run over
time. The ELBO of a fixed batch must be the same by Keras here, by JAX there,
and by JAX here if it is installed.
"""

import csv
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from absl import app
from absl import flags
from absl import logging

from tools.jax_offload import weight_files
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import endings

if TYPE_CHECKING:
    import numpy as np

_EXPORTED = flags.DEFINE_string(
    "exported", None, "The folder of export_run.py.", required=True
)
_TRAINED = flags.DEFINE_string(
    "trained", None, "The last folder of train.py.", required=True
)
_RUN_DIR = flags.DEFINE_string(
    "run_dir", None, "The folder of the run, made here.", required=True
)

_TOLERANCE = 1e-3


def main(argv: Sequence[str]) -> None:
    """Loads, checks and writes."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.WARNING)
    exported = pathlib.Path(_EXPORTED.value)
    trained = pathlib.Path(_TRAINED.value)
    with endings.exit_on_user_error():
        settings = json.loads((exported / "export.json").read_text("utf-8"))
        best, of_best = weight_files.read(trained, "best")
        state, of_state = weight_files.read(trained, "state")
        for scalars in (of_best, of_state):
            _check_export(trained, scalars, settings)
        # With the number of steps that it took.
        names = ("epochs", "steps_per_epoch")
        experiment = Experiment.from_json(
            settings["experiment"] | {name: of_state[name] for name in names}
        )
        run = Run(_RUN_DIR.value, experiment)
        run.begin()
        _save_checked(exported, best, of_best["check"], run.best)
        average = state.reshape(4, -1)[1]
        _save_checked(exported, average, of_state["check"], run.last)
        shutil.copy(trained / "metrics.csv", run.folder)
        _write_scalars(run.folder / "metrics.csv", run.tensorboard)
    num_steps = of_state["epochs"] * of_state["steps_per_epoch"]
    print(
        f"Made {run.best}, of step {of_best['step']}: validation ELBO "
        f"{of_best['elbo']:.2f} nats, after {of_state['step']} of {num_steps} "
        "steps."
    )


def _check_export(
    trained: pathlib.Path,
    scalars: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    if scalars["fingerprint"] != settings["fingerprint"]:
        raise ValueError(
            f"{trained} holds a run of another export than {_EXPORTED.value}."
        )


def _save_checked(
    exported: pathlib.Path,
    vector: "np.ndarray",
    there: float,
    path: pathlib.Path,
) -> None:
    """Saves a model with these weights, if it is what was trained."""
    import numpy as np

    import vhe_tf
    from tools.jax_offload import lowering
    from vhe_tf.models import loading

    model = vhe_tf.load_model(exported / "model.keras")
    lowering.assign_vector(model, vector)
    with np.load(exported / "check.npz") as file:
        episode = dict(file)
    here = lowering.keras_bound(model, episode)
    bounds = {"by JAX there": there} | _by_jax(exported, vector, episode)
    said = ", ".join(f"{value:.4f} {name}" for name, value in bounds.items())
    print(f"{path.name}: ELBO of the fixed batch {here:.4f} by Keras, {said}")
    for value in bounds.values():
        if not abs(value - here) <= _TOLERANCE * abs(here):
            raise ValueError(
                "The ELBOs of the fixed batch must agree to one in "
                f"{1 / _TOLERANCE:.0f}. Received: {here} by Keras, {bounds}."
            )
    loading.save_model(model, path)


def _write_scalars(metrics: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the metrics for TensorBoard, as `callbacks.Scalars` does."""
    import numpy as np
    import tensorflow as tf

    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for part in ("train", "validation"):
        for earlier in (folder / part).glob("events.*"):
            earlier.unlink()
        with tf.summary.create_file_writer(str(folder / part)).as_default():
            for row in rows:
                for name, value in row.items():
                    of_validation = name.startswith("val_")
                    if (
                        name not in ("step", "seconds")
                        and of_validation == (part == "validation")
                        and value  # none of validation within an epoch
                    ):
                        tf.summary.scalar(
                            f"episodes/{name.removeprefix('val_')}",
                            np.float32(value),
                            step=int(row["step"]),
                        )


def _by_jax(
    exported: pathlib.Path,
    vector: "np.ndarray",
    episode: Mapping[str, "np.ndarray"],
) -> dict[str, float]:
    """Returns the ELBO by the lowered function, where that can be run."""
    size = episode["support"].shape[1]
    path = exported / f"bound_{size}.cpu"
    try:
        import jax.export
    except ImportError:
        return {}
    if not path.exists():
        return {}
    jax.config.update("jax_platforms", "cpu")
    bound = jax.export.deserialize(bytearray(path.read_bytes())).call
    measured = bound(vector, dict(episode))
    settings = json.loads((exported / "export.json").read_text("utf-8"))
    return {"by JAX here": float(measured[settings["metrics"].index("elbo")])}


if __name__ == "__main__":
    app.run(main)
