"""The models that the project ships.

Their facts are in the header of each model's card (`README.md`), which model
hubs read too.
"""

import dataclasses
import os
import pathlib
from typing import Any

import yaml

__all__ = ["PRESETS", "Preset", "model_path", "presets"]

_FILE = "best.keras"
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# In a wheel; otherwise this is a clone of the repository.
_IN_WHEEL = _PACKAGE / "presets"
_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parent / "saved_models"

PRESETS = tuple(
    sorted(card.parent.name for card in _FOLDER.glob("*/README.md"))
)


@dataclasses.dataclass(frozen=True)
class Preset:
    """The facts about one shipped model.

    Attributes:
        name: String. What `vhe_tf.load_model` takes.
        trained_on: String. The data.
        num_parameters: Integer.
        results: Dictionary from measures to values on classes that were not
            trained on.
        card: Path of the model's card: intervals, limits, how it was made.
        installed: Boolean. Whether this installation has the weights. A wheel
            has those of the smaller models, a clone of the repository all.

    Example:
    >>> preset = presets()["omniglot_pixel_cnn_small"]
    >>> preset.num_parameters, preset.accuracy
    (346327, 98.5)
    """

    name: str
    trained_on: str
    num_parameters: int
    results: dict[str, float]
    card: pathlib.Path
    installed: bool

    @property
    def accuracy(self) -> float | None:
        """The first accuracy in `results`, percent; None if there is none."""
        return next(
            (v for k, v in self.results.items() if "accuracy" in k), None
        )


def presets() -> dict[str, Preset]:
    """Returns the shipped models by name.

    Example:
    >>> presets()["omniglot_pixel_cnn_published_random1200"].trained_on
    "a random 1,200 of Omniglot's 1,623 characters"
    """
    return {name: _preset(name) for name in PRESETS}


def _preset(name: str) -> Preset:
    card = _FOLDER / name / "README.md"
    _, header, _ = card.read_text(encoding="utf-8").split("---\n", 2)
    facts: dict[str, Any] = yaml.safe_load(header)
    measured = facts["model-index"][0]["results"][0]["metrics"]
    return Preset(
        name=name,
        trained_on=facts["trained_on"],
        num_parameters=facts["num_parameters"],
        results={metric["name"]: metric["value"] for metric in measured},
        card=card,
        installed=card.with_name(_FILE).is_file(),
    )


def model_path(name: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the `.keras` file of a model.

    Args:
        name: String, a name in `PRESETS`; or path of a `.keras` file; or path
            of the folder of a run, whose best model it is.

    Raises:
        FileNotFoundError: If the file of a shipped model is not there.

    Example:
    >>> model_path("runs/mine/best.keras").name
    'best.keras'
    """
    if os.fspath(name) not in PRESETS:
        path = pathlib.Path(name).expanduser()
        return path / _FILE if path.is_dir() else path
    path = _FOLDER / name / _FILE
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"The weights of the shipped model {name} are not in the installed "
        "package, which has those of the smaller models alone. The source of "
        f"the project has them as saved_models/{name}/{_FILE}: pass the path "
        "of that file, or one of the names "
        f"{[p.name for p in presets().values() if p.installed]}. "
        f"Received: {name!r}."
    )
