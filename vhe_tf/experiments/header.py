"""The header that a run prints before it trains."""

from typing import TYPE_CHECKING

from vhe_tf.experiments import provenance
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.run import Run

if TYPE_CHECKING:
    from vhe_tf.data.datasets import DataSplits
    from vhe_tf.data.episodes import Episodes
    from vhe_tf.models.vhe import VHE

__all__ = ["header"]


def header(
    run: Run,
    model: "VHE",
    *,
    splits: "DataSplits",
    episodes: "tuple[Episodes, Episodes]",
) -> str:
    """Returns what a run trains, on which data and device, and where.

    Args:
        run: `Run`. The run. Called before it begins.
        model: `VHE`. The model.
        splits: `DataSplits`. The data.
        episodes: Two `Episodes`. Those to train on and to validate on.
    """
    experiment = run.experiment
    steps = experiment.epochs * experiment.steps_per_epoch
    lines = {
        "data": _data(experiment, splits, episodes),
        "model": (
            f"{experiment.size} {experiment.architecture}, "
            f"{model.count_params():,} parameters, objective "
            f"{experiment.objective}"
        ),
        "training": f"{steps:,} steps of {experiment.batch_size} episodes",
        "device": _device(model),
        "folder": f"{run.folder}, {_state(run)}",
    }
    return "\n".join(f"{name:9} {text}" for name, text in lines.items())


def _data(
    experiment: Experiment,
    splits: "DataSplits",
    episodes: "tuple[Episodes, Episodes]",
) -> str:
    group = experiment.class_group
    counts = [
        len(data.group_ids(group))
        for data in (episodes[0].data, episodes[1].data, splits.test)
    ]
    names = [experiment.dataset, experiment.split, experiment.images]
    size = "x".join(map(str, splits.image_size))
    return (
        f"{', '.join(name for name in names if name)}, {size} pixels; "
        f"classes by {group}: {_split(counts, final=bool(experiment.final))}"
    )


def _split(counts: list[int], *, final: bool) -> str:
    train, validation, test = counts
    if final:
        return f"{train:,}, all of them to train, validate and test on"
    return f"{train:,} train, {validation:,} validation, {test:,} test"


def _device(model: "VHE") -> str:
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    seen = f"{gpus} GPU{'s' * (gpus != 1)}" if gpus else "no GPU"
    replicas = model.distribute_strategy.num_replicas_in_sync
    several = f" on {replicas} replicas" if replicas > 1 else ""
    return (
        f"{provenance.machine()}; TensorFlow {tf.__version__} sees {seen}"
        f"{several}"
    )


def _state(run: Run) -> str:
    from vhe_tf.callbacks._checkpoint_folder import CheckpointFolder

    for path in CheckpointFolder(run.checkpoints).paths():
        return f"resumed at step {int(path.rpartition('-')[2]):,}"
    return "a new run"
