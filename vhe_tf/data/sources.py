"""Data sets by the settings of a run's `config.json`."""

from collections.abc import Mapping
from typing import Any

from vhe_tf.data.datasets import Folder
from vhe_tf.data.datasets import Glyphs
from vhe_tf.data.datasets import Omniglot
from vhe_tf.data.datasets import Records
from vhe_tf.data.datasets import Styles
from vhe_tf.data.datasets import YouTubeFaces
from vhe_tf.data.datasets import from_config
from vhe_tf.data.datasets.splits import NUM_LEVELS
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits

__all__ = [
    "IMAGES",
    "Source",
    "load_again",
    "load_photo_source",
    "load_source",
    "load_styled_source",
    "spec_of",
]

IMAGES = ("binary", "grey")

Source = DataSplits


def spec_of(settings: Mapping[str, Any]) -> DatasetSpec:
    """Returns the spec of the data of a run.

    Args:
        settings: As `vhe_tf.training.data_settings` returns them.
    """
    config: dict[str, Any] = dict(settings)
    if "num_styles" in config:
        base: dict[str, Any] = {
            name: config.pop(name)
            for name in ("dataset", "split", "seed")
            if name in config
        }
        return Styles(base=_base(base), **config)
    if "skip_unreadable" in config:
        if config["dataset"] != "youtube_faces":
            config.pop("skip_unreadable")
            config["images"] = "colour"
        elif "seed" in config:
            config.pop("seed")
    elif config["dataset"] != "omniglot":
        config.pop("split", None)
    return from_config(config)


def load_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    split: str = "lake",
    images: str = "binary",
    image_size: tuple[int, int] | None = None,
    skip_corrupt: bool = False,
    seed: int = 0,
) -> DataSplits:
    """Loads drawings; see the specs of `vhe_tf.data.datasets`."""
    if dataset not in ("omniglot", "glyphs", "folder", "records"):
        raise ValueError(
            "`dataset` must be 'omniglot', 'glyphs', 'folder' or 'records'. "
            f"Received: dataset={dataset!r}."
        )
    _check_options(dataset, image_size, skip_corrupt)
    if dataset == "omniglot":
        return Omniglot(split, images, seed).load(data_dir)
    if dataset == "glyphs":
        return Glyphs(images, seed).load()
    if dataset == "folder":
        size = image_size or (28, 28)
        return Folder(images, size, seed=seed).load(data_dir)
    spec = Records(images, skip_corrupt=skip_corrupt, seed=seed)
    return spec.load(data_dir)


def load_styled_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    split: str = "lake",
    num_styles: int = 30,
    copies: int = 8,
    seed: int = 0,
) -> DataSplits:
    """Loads drawings in random styles; see `Styles`."""
    base = _base({"dataset": dataset, "split": split, "seed": seed})
    return Styles(base, num_styles, copies).load(data_dir)


def load_photo_source(
    dataset: str,
    *,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    image_size: tuple[int, int] | None = None,
    group: str = "person",
    num_levels: int = NUM_LEVELS,
    skip_unreadable: bool = False,
    skip_corrupt: bool = False,
    seed: int = 0,
) -> DataSplits:
    """Loads photographs; see the specs of `vhe_tf.data.datasets`."""
    if dataset not in ("youtube_faces", "folder", "records"):
        raise ValueError(
            "`dataset` must be 'youtube_faces', 'folder' or 'records', "
            f"photographs in colour. Received: dataset={dataset!r}."
        )
    _check_options(dataset, image_size, skip_corrupt)
    image_size = image_size or (40, 40)
    if dataset == "youtube_faces":
        return YouTubeFaces(
            group, image_size, num_levels, skip_unreadable, manual_dir
        ).load(data_dir)
    if dataset == "folder":
        spec = Folder("colour", image_size, group, num_levels, seed)
        return spec.load(data_dir)
    return Records("colour", group, num_levels, skip_corrupt, seed).load(
        data_dir
    )


def load_again(
    settings: Mapping[str, Any],
    *,
    data_dir: str | None = None,
    skip_corrupt: bool = False,
) -> DataSplits:
    """Loads the data set of a run.

    Args:
        settings: As `vhe_tf.training.data_settings` returns them.
        data_dir: String. Where the data are.
        skip_corrupt: Boolean. For records, see `RecordedImages`.
    """
    _check_options(settings["dataset"], None, skip_corrupt)
    if settings["dataset"] == "records":
        settings = {**settings, "skip_corrupt": skip_corrupt}
    return spec_of(settings).load(data_dir)


def trained_on_test_classes(
    trained: Mapping[str, Any], tested: Mapping[str, Any]
) -> bool:
    """Tells whether a run has trained on classes that another is tested on."""
    return spec_of(trained).trains_on_test_classes_of(spec_of(tested))


def _base(settings: dict[str, Any]) -> Omniglot | Glyphs:
    seed = settings.get("seed", 0)
    if settings["dataset"] == "omniglot":
        return Omniglot(settings.get("split", "lake"), seed=seed)
    if settings["dataset"] != "glyphs":
        raise ValueError(
            "`dataset` must be 'omniglot' or 'glyphs', drawings whose strokes "
            f"can be drawn anew. Received: dataset={settings['dataset']!r}."
        )
    return Glyphs(seed=seed)


def _check_options(
    dataset: str, image_size: tuple[int, int] | None, skip_corrupt: bool
) -> None:
    if skip_corrupt and dataset != "records":
        raise ValueError(
            "`skip_corrupt` is for dataset='records'; leave it off. "
            f"Received: skip_corrupt=True, dataset={dataset!r}."
        )
    if image_size is not None and dataset not in ("folder", "youtube_faces"):
        raise ValueError(
            "`image_size` is for folders and YouTube Faces: records have the "
            "size at which they are stored, and the others 28x28 pixels; "
            "leave it off. "
            f"Received: image_size={image_size!r}, dataset={dataset!r}."
        )
