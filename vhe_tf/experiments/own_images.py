"""The flags that name a user's own images. Imports nothing heavy."""

import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from vhe_tf._utils.class_tree import check_num_groups
from vhe_tf._utils.class_tree import find_class_folders
from vhe_tf._utils.label_rows import file_column
from vhe_tf._utils.label_rows import image_files
from vhe_tf._utils.label_rows import read_table
from vhe_tf._utils.spelling import is_missing
from vhe_tf._utils.spelling import spelling_key
from vhe_tf._utils.split_names import side_of
from vhe_tf._utils.split_names import split_column
from vhe_tf.experiments import settings
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.settings import SettingsError
from vhe_tf.experiments.settings import setting

__all__ = ["OwnImages", "check_files", "files_checksum"]


@dataclasses.dataclass(frozen=True)
class OwnImages(settings.Settings):
    """The arguments for the user's own images."""

    images: str | None = setting(
        None,
        "A folder with a folder of images per class. Like --labels it chooses "
        "the experiment own_images, which starts from the weights of a shipped "
        "model (see --init).",
        path="any",
    )
    labels: str | None = setting(
        None,
        "A CSV file with a header: a column of image files, and a column for "
        "each grouping of them (see --groupings). A column split with train, "
        "test and perhaps validation is the split.",
        path="any",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images and self.labels:
            raise ValueError(
                "Give either --images or --labels. "
                f"Received: --images={self.images} --labels={self.labels}."
            )
        if self.images and not os.path.isdir(self.images):
            raise FileNotFoundError(
                "--images must be an existing folder with a folder of images "
                f"per class. Received: --images={self.images}."
            )
        if self.labels and not os.path.isfile(self.labels):
            raise FileNotFoundError(
                "--labels must be an existing CSV file. "
                f"Received: --labels={self.labels}."
            )

    @property
    def path(self) -> str | None:
        """The folder or the file."""
        return self.images or self.labels

    def experiment_settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings that the data choose.

        Args:
            given: Mapping. The settings that flags choose.
        """
        chosen: dict[str, Any] = {"dataset": "folder"}
        if self.labels:
            chosen = {"dataset": "table", "groupings": self._only_column()}
        if given.get("dataset", chosen["dataset"]) != chosen["dataset"]:
            raise SettingsError(
                "`dataset` has no effect with --images or --labels, which "
                "choose it. Leave it out.",
                dataset=given["dataset"],
            )
        groupings = given.get("groupings") or chosen.get("groupings") or ()
        if self.labels and not groupings:
            raise ValueError(
                "--groupings must name a column of --labels, or two, the outer "
                f"one first. Received: columns {self._columns()}."
            )
        if len(groupings) == 2:
            # A class with copies would be one of few in its group.
            chosen |= {"architecture": "alphabet", "affine_copies": 1}
        return chosen | dict(given)

    def _columns(self) -> list[str]:
        header, _ = read_table(pathlib.Path(self.labels or ""))
        return header

    def _only_column(self) -> tuple[str, ...] | None:
        columns = self._columns()
        del columns[file_column(columns)]
        columns = [name for name in columns if name != split_column(columns)]
        return tuple(columns) if len(columns) == 1 else None


def check_files(experiment: Experiment, path: str) -> None:
    """Checks a user's own images by the names of their files.

    It is called before TensorFlow is imported. Loading the images checks more.

    Args:
        experiment: `Experiment`. Its data set is folder or table.
        path: String. The folder or the table.

    Raises:
        ValueError, OSError: If there are no such images, groupings or groups.
    """
    place = pathlib.Path(path).expanduser()
    outer, *_ = experiment.groups
    if experiment.dataset == "folder":
        sides, folders = find_class_folders(place, warn=False)
        level = len(folders[0].parts) - len(experiment.groups)
        if level < 0:
            raise SettingsError(
                f"`groupings` must name levels of folders, and {path!r} has "
                f"{len(folders[0].parts)}.",
                groupings=experiment.groups,
            )
        is_split = sides is not None
        total = len({folder.parts[: level + 1] for folder in folders})
    else:
        header, rows = read_table(place)
        index = file_column(header)
        columns = [name for name in header if name != header[index]]
        if not set(experiment.groups).issubset(columns):
            raise SettingsError(
                f"`groupings` must be among the columns {columns} of {path!r}.",
                groupings=experiment.groups,
            )
        image_files(place, rows, column=index)
        split = split_column(columns)
        is_split = split is not None and any(
            side_of(row.cells[header.index(split)]) is not None for row in rows
        )
        names = [
            [spelling_key(row.cells[header.index(name)]) for row in rows]
            for name in experiment.groups
        ]
        if len(names) > 1:
            _check_nested(experiment.groups, *names)
        total = sum(not is_missing(name) for name in set(names[0]))
    if not (experiment.final or is_split):
        check_num_groups(total, group=outer, place=place)


def _check_nested(
    groupings: Sequence[str], parents: Sequence[str], children: Sequence[str]
) -> None:
    """Checks that each group lies in one group of the outer grouping."""
    parent_of: dict[str, str] = {}
    for parent, child in zip(parents, children, strict=True):
        if is_missing(child):
            continue
        first = parent_of.setdefault(child, parent)
        if (is_missing(first) and is_missing(parent)) or first == parent:
            continue
        outer, inner = groupings
        raise SettingsError(
            f"Each group of {inner!r} must lie in one group of {outer!r}, and "
            f"{child!r} is in {first!r} and in {parent!r}. Give groups that "
            "merely share a name different names, correct the table, or name "
            "other `groupings`, the outer one first.",
            groupings=tuple(groupings),
        )


def files_checksum(experiment: Experiment, path: str | None) -> str | None:
    """Returns a checksum of the names and sizes of a user's own images.

    No image is read. The checksum of a table includes its text. That of
    records is of their index, which has all groups and sizes.

    Args:
        experiment: `Experiment`. The experiment.
        path: String. The folder or the table.

    Returns:
        None if the data are not a user's own, or are not there.
    """
    if path is None or experiment.dataset not in ("folder", "table", "records"):
        return None
    place = pathlib.Path(path).expanduser()
    if experiment.dataset == "records":
        place = place / "index.npz"
    if not place.exists():
        return None
    if experiment.dataset == "folder":
        _, folders = find_class_folders(place, warn=False)
        files = [file for folder in folders for file in folder.files]
        content = b""
    else:
        content, files = place.read_bytes(), []
    if experiment.dataset == "table":
        header, rows = read_table(place)
        files = image_files(place, rows, column=file_column(header))
        place = place.parent
    sizes = [[os.path.relpath(f, place), f.stat().st_size] for f in files]
    text = json.dumps(sorted(sizes)).encode()
    return f"{zlib.crc32(text, zlib.crc32(content)):08x}"
