"""The data of an experiment."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.own_images import check_files
from vhe_tf.experiments.paths import check_path
from vhe_tf.experiments.run import Record
from vhe_tf.experiments.run import record_of
from vhe_tf.experiments.settings import SettingsError

if TYPE_CHECKING:
    from vhe_tf.data.datasets import DatasetSpec
    from vhe_tf.data.datasets import DataSplits

__all__ = [
    "OWN_IMAGES",
    "check_options",
    "check_place",
    "check_unseen",
    "load_data",
    "place_of_run",
    "report_what_was_found",
    "sees_test_classes",
    "warn_if_classes_changed",
]


OWN_IMAGES = ("folder", "table")


def load_data(
    experiment: Experiment,
    *,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> "DataSplits":
    """Loads the data of an experiment.

    Args:
        experiment: `Experiment`. The experiment.
        data_dir: String. Folder of the data. Defaults to that of TensorFlow
            Datasets, where the data set is one of these.
        manual_dir: String. For youtube_faces: the folder with
            aligned_images_DB.tar.gz. Not needed once it is prepared.

    Raises:
        ValueError: If an argument is of another data set.
        FileNotFoundError: If the data are not there.
    """
    if experiment.architecture == "style":
        print("Drawing in styles (a minute) ...", flush=True)
    check_options(experiment, data_dir=data_dir)
    spec = _spec(experiment, manual_dir=manual_dir)
    return spec.load(data_dir)


def report_what_was_found(experiment: Experiment, splits: "DataSplits") -> None:
    """Prints how many images and classes there are of a user's own.

    Args:
        experiment: `Experiment`. The experiment. Nothing is printed of other
            data sets.
        splits: `DataSplits`. Its data.
    """
    if experiment.dataset not in OWN_IMAGES:
        return
    import numpy as np

    held_out, group = experiment.groups[0], splits.group
    parts = {"train": splits.train}
    if splits.validation is not None and not experiment.final:
        parts |= {"validation": splits.validation, "test": splits.test}
    sizes = [
        len(members)
        for part in parts.values()
        for members in part.members(group).values()
    ]
    split = ", ".join(
        f"{len(part.group_ids(held_out))} {name}"
        for name, part in parts.items()
    )
    within = "" if held_out == group else f" by {held_out}"
    low, high = min(sizes), max(sizes)
    each = f"{low}" if low == high else f"{low} to {high}"
    images = splits.train.load().images
    level = float(np.mean(images)) / 255
    if splits.binarization == "threshold":
        level = float(np.mean(images >= 128))
    print(
        f"Found {sum(map(len, parts.values()))} images in {len(sizes)} classes "
        f"({each} each): {split}{within}; "
        f"mean {'ink' if splits.ink else 'brightness'} {level:.2f}.",
        flush=True,
    )


def check_options(experiment: Experiment, **options: Any) -> dict[str, Any]:
    """Returns the options that are given, of those to load the data with.

    Raises:
        SettingsError: If one of them is of another data set.
    """
    given = {name: value for name, value in options.items() if value}
    dataset = experiment.dataset
    own = ["data_dir"] if dataset != "glyphs" else []
    own += ["manual_dir"] if dataset == "youtube_faces" else []
    for name in set(given).difference(own):
        raise SettingsError(
            f"`{name}` has no effect on these data. Leave it out.",
            **{name: given[name], "dataset": dataset},
        )
    return given


def check_place(
    experiment: Experiment, data_dir: str | None, *, name: str = "--data_dir"
) -> None:
    """Checks that data are at their place, before TensorFlow is imported.

    Args:
        experiment: `Experiment`. The experiment.
        data_dir: String. The place, or None for the default.
        name: String. What names the place, for errors.

    Raises:
        ValueError, OSError: If they are not, as far as names of files tell.
    """
    dataset = experiment.dataset
    if dataset in ("omniglot", "youtube_faces"):
        if data_dir is not None:
            check_path(name, data_dir, kind="TFDS folder")
        return
    if dataset not in (*OWN_IMAGES, "records"):
        return
    if data_dir is None:
        raise SettingsError(
            "`data_dir` must say where these data are; `vhe-tf train` also "
            "takes --images or --labels.",
            data_dir=None,
            dataset=dataset,
        )
    kind = {"table": "file", "records": "records"}.get(dataset, "folder")
    check_path(name, data_dir, kind=kind)
    if dataset in OWN_IMAGES:
        check_files(experiment, data_dir)


def place_of_run(
    data_dir: str | None, *, record: Record | None, experiment: Experiment
) -> str | None:
    """Returns where the data are on which a model is measured or fitted.

    Checks them as `check_place` does.

    Args:
        data_dir: String. The place that `--data_dir` names, if it does.
        record: `Record`. That of the model's run, if there is one.
        experiment: `Experiment`. The experiment whose data are used.

    Raises:
        ValueError, OSError: If they are not there.
    """
    name = "--data_dir"
    same = record and record.experiment.dataset == experiment.dataset
    if record and same and data_dir is None:
        data_dir = record.data_dir
        name += ", by default the place of the data of the model's run,"
    check_options(experiment, data_dir=data_dir)
    check_place(experiment, data_dir, name=name)
    return data_dir


def _spec(experiment: Experiment, **options: Any) -> "DatasetSpec":
    from vhe_tf.data import datasets

    where = check_options(experiment, **options)
    if experiment.architecture == "style":
        names = ["dataset", "split", "seed"]
        config = {
            "dataset": "styles",
            "base": _given(experiment, names),
            **_given(experiment, ["num_styles", "copies"]),
        }
    elif experiment.dataset == "youtube_faces":
        names = ["group", "image_size", "num_levels"]
        config = _given(experiment, ["dataset", *names])
    else:
        names = ["split", "images", "invert", "image_size", "num_levels"]
        names += ["shares", "final", "seed"]
        config = _given(experiment, ["dataset", *names])
        if experiment.dataset in OWN_IMAGES:
            config["groupings"] = experiment.groups
        elif experiment.dataset == "records":
            config["group"] = experiment.class_group
    return datasets.from_config(config | where)


def _given(experiment: Experiment, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(experiment, name) for name in names}
    return {name: v for name, v in values.items() if v is not None}


def check_unseen(
    model: str | os.PathLike[str], experiment: Experiment
) -> Experiment | None:
    """Checks that a model has not seen the classes that others are tested on.

    A run that started from the weights of another one was held to this when it
    began. If the model has no `config.json` beside it, a line says that this
    cannot be determined.

    Args:
        model: Path. The `.keras` file.
        experiment: `Experiment`. The experiment whose test classes are used.

    Returns:
        The experiment of the model's run, None if it is not known.

    Raises:
        ValueError: If the run of the model trained on some of the classes.
        RunError: If the `config.json` beside the model is not of a run.
    """
    record = record_of(model)
    if record is None:
        print(
            f"{model} has no config.json beside it: cannot determine whether "
            "the test classes were seen during training.",
            flush=True,
        )
        return None
    trained = record.experiment
    if sees_test_classes(trained, experiment):
        there, here = (
            {name: getattr(of, name) for name in ("dataset", "split", "seed")}
            for of in (trained, experiment)
        )
        raise ValueError(
            f"{model} was trained on classes that are tested on here. Use the "
            "split that it was trained on (if the split is random, with the "
            "same seed), or another model. Folders and records are assumed to "
            f"be the same ones. Received: a run with {there}, here {here}."
        )
    return trained


def sees_test_classes(trained: Experiment, tested: Experiment) -> bool:
    """Returns whether a run trains on classes that another one is tested on.

    Args:
        trained: `Experiment`. The experiment of the run.
        tested: `Experiment`. The experiment whose test classes are used.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> sees_test_classes(Experiment(split="vinyals"), Experiment())
    True
    """
    return _spec(trained).trains_on_test_classes_of(_spec(tested))


def warn_if_classes_changed(
    model: str | os.PathLike[str], experiment: Experiment, *, classes: str
) -> None:
    """Prints a line if data have other classes than those of a model's run.

    Args:
        model: Path. The `.keras` file.
        experiment: `Experiment`. The experiment whose data are used. Data sets
            other than folders and records do not change.
        classes: String. The checksum of the classes of the data.
    """
    record = record_of(model)
    if record is None or experiment.dataset not in (*OWN_IMAGES, "records"):
        return
    same = record.experiment.dataset == experiment.dataset
    if same and record.classes not in (None, classes):
        print(
            "The data have other classes than when the model was trained: "
            "cannot determine whether the test classes were seen during "
            "training.",
            flush=True,
        )
