"""Data sets by name: a spec of each, which loads its splits.

splits = Omniglot(split="lake").load()
splits = from_config({"dataset": "glyphs", "images": "grey"}).load()
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vhe_tf.data.datasets.folder import Folder
from vhe_tf.data.datasets.glyphs import Glyphs
from vhe_tf.data.datasets.omniglot import Omniglot
from vhe_tf.data.datasets.own_images import Table
from vhe_tf.data.datasets.records import Records
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import hold_out_groups
from vhe_tf.data.datasets.splits import ready
from vhe_tf.data.datasets.styles import Styles
from vhe_tf.data.datasets.youtube_faces import YouTubeFaces

__all__ = [
    "DATASETS",
    "DataSplits",
    "DatasetSpec",
    "Folder",
    "Glyphs",
    "Omniglot",
    "Records",
    "Styles",
    "Table",
    "YouTubeFaces",
    "from_config",
    "hold_out_groups",
    "ready",
]

DATASETS: dict[str, type[DatasetSpec]] = {
    spec.name: spec
    for spec in (
        Omniglot,
        Glyphs,
        Styles,
        Folder,
        Table,
        Records,
        YouTubeFaces,
    )
}


def from_config(config: Mapping[str, Any]) -> DatasetSpec:
    """Returns the spec whose `get_config` this is.

    Args:
        config: Mapping. `"dataset"`, a name in `DATASETS`, and fields of that
            spec. Fields that are missing have their defaults.

    Raises:
        ValueError: If the name or a field is unknown, or a value is invalid.

    Example:
    >>> from_config({"dataset": "omniglot", "split": "vinyals"}).split
    'vinyals'
    """
    fields = dict(config)
    name = fields.pop("dataset", None)
    if name not in DATASETS:
        raise ValueError(
            f"`dataset` must be one of {sorted(DATASETS)}. "
            f"Received: dataset={name!r}."
        )
    spec = DATASETS[name]
    known = [field.name for field in dataclasses.fields(spec)]
    unknown = sorted(set(fields).difference(known))
    if unknown:
        raise ValueError(
            f"dataset={name!r} has the fields {known}. Received: {unknown}."
        )
    if isinstance(fields.get("base"), Mapping):
        fields["base"] = from_config(fields["base"])
    return spec(
        **{
            field: tuple(value) if isinstance(value, list) else value
            for field, value in fields.items()
        }
    )
