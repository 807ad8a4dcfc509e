"""Draws the map of drawings: diversity and recognizability.

    python tools/drawing_map.py --reports=a.json,b.json --out=map.png

The reports are those of `vhe-tf evaluate MODEL --drawings --critics=DIR`. With
the published critics, published systems are shown too (`--published`, the
default); they draw images of 50x50 pixels. People are on every map. Needs
matplotlib: `pip install vhe_tf[plots]`.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app
from absl import flags

# Boutin et al. 2022, 2023, 2024: diversity, recognizability in percent.
_SYSTEMS = {
    "people, 50x50": (0.39, 97.5),
    "CFGDM": (0.365, 97.0),
    "FSDM": (0.49, 95.0),
    "DDPM": (0.50, 90.0),
    "VAE-NS": (0.56, 85.0),
    "VAE-STN": (0.645, 75.0),
    "DA-GAN": (0.1, 85.5),
}


def main(argv: Sequence[str]) -> None:
    """Reads, draws and saves."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}.")
    from vhe_tf._utils import atomic_io

    paths = [pathlib.Path(path) for path in flags.FLAGS.reports]
    labels = flags.FLAGS.labels or [path.stem for path in paths]
    if len(labels) != len(paths):
        raise app.UsageError(
            "--labels must name each of the reports. "
            f"Received: {len(labels)} labels for {len(paths)} reports."
        )
    places = {
        label: read_places(path)
        for label, path in zip(labels, paths, strict=True)
    }
    figure = draw(places, published=_SYSTEMS if flags.FLAGS.published else {})
    with atomic_io.beside(pathlib.Path(flags.FLAGS.out)) as partial:
        figure.savefig(partial, dpi=100, format="png")
    print(f"Made {flags.FLAGS.out}")


def read_places(path: pathlib.Path) -> dict[str, tuple[Any, Any]]:
    """Returns where people and a model stand, by who draws.

    Args:
        path: Path. The JSON report.

    Returns:
        For each who draws, diversity and recognizability, each a pair of the
        mean and its interval.

    Raises:
        ValueError: If the report has no drawings.
    """
    found: dict[str, dict[str, Any]] = {}
    for each in json.loads(path.read_text("utf-8"))["measurements"]:
        if each["metric"] == "drawings":
            value = each["mean"], each.get("interval", (each["mean"],) * 2)
            found.setdefault(each["tasks"], {})[each["factor"]] = value
    places = {
        who: (factors["diversity"], factors["recognizability"])
        for who, factors in found.items()
        if "diversity" in factors
    }
    if not places:
        raise ValueError(
            "A report of drawings is one of `vhe-tf evaluate --drawings`. "
            f"Received: {path}, without drawings."
        )
    return places


def draw(
    places: dict[str, dict[str, tuple[Any, Any]]],
    *,
    published: dict[str, tuple[float, float]],
) -> Any:
    """Returns the map, a matplotlib figure."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, (x, y) in published.items():
        axes.plot(x, y, "x", color="0.6")
        axes.annotate(name, (x, y), color="0.4", fontsize=8, **_BESIDE)
    shown = {"people": next(iter(places.values()))["people"]}
    for label, by_whom in places.items():
        for who, place in by_whom.items():
            if who != "people":
                shown[f"{label}, {who}"] = place
    for name, (x, y) in shown.items():
        axes.errorbar(
            x[0],
            100 * y[0],
            xerr=_error_bar(*x),
            yerr=100 * _error_bar(*y),
            fmt="*" if name == "people" else "o",
            markersize=14 if name == "people" else 6,
            elinewidth=0.6,
            label=name,
        )
    axes.set_xlabel("diversity")
    axes.set_ylabel("recognizability, %")
    axes.legend(fontsize=8, loc="lower left")
    return figure


def _error_bar(mean: float, interval: Sequence[float]) -> np.ndarray:
    """Returns how far the interval reaches below and above, `[2, 1]`."""
    low, high = interval
    return np.array([[mean - low], [high - mean]])


_BESIDE: dict[str, Any] = {"xytext": (4, 3), "textcoords": "offset points"}


if __name__ == "__main__":
    flags.DEFINE_list("reports", None, "JSON reports.", required=True)
    flags.DEFINE_string("out", None, "The PNG to write.", required=True)
    flags.DEFINE_list(
        "labels", None, "Names of the reports. Default: those of the files."
    )
    flags.DEFINE_boolean(
        "published", True, "Whether to show published systems."
    )
    app.run(main)
