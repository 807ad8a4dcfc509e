"""The flags that name a user's own images. Imports nothing heavy."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vhe_tf.experiments import settings
from vhe_tf.experiments.settings import setting

__all__ = ["OwnImages"]


@dataclasses.dataclass(frozen=True)
class OwnImages(settings.Settings):
    """The arguments for the user's own images."""

    images: str | None = setting(
        None,
        "A folder with a folder of images per class. Like --labels it chooses "
        "the experiment own_images, which starts from the weights of a shipped "
        "model (see --init).",
    )
    labels: str | None = setting(
        None,
        "A CSV file with a header: a column of image files, and a column for "
        "each grouping of them (see --groupings).",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images and self.labels:
            raise ValueError(
                "Give either --images or --labels. "
                f"Received: --images={self.images} --labels={self.labels}."
            )
        if self.images and not os.path.isdir(os.path.expanduser(self.images)):
            raise FileNotFoundError(
                "--images must be an existing folder with a folder of images "
                "per class. That they are grey, say, is set by --pixels=grey. "
                f"Received: --images={self.images}."
            )
        if self.labels and not os.path.isfile(os.path.expanduser(self.labels)):
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
        path = pathlib.Path(self.labels or "").expanduser()
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [cell.strip() for cell in next(csv.reader(file), [])]

    def _only_column(self) -> tuple[str, ...] | None:
        columns = self._columns()
        files = ["image"] if "image" in columns else columns[:1]
        groupings = [name for name in columns if name not in files]
        return tuple(groupings) if len(groupings) == 1 else None
