"""Redraws unseen icons in another weight: a real factorial set (Eq. 18).

    pip install resvg-py; npm pack @phosphor-icons/core  # and unpack it
    python -m tools.icon_weights make --icons=package/assets
    python -m tools.icon_weights train
    python -m tools.icon_weights measure --guidance=0

`make` writes the Phosphor icons (MIT) in their six weights, 28x28 grey images,
and a table of them. `train` trains the model of styles from the weights of
`omniglot_styles_small`, without 300 icons. `measure` redraws these in each
weight, given one drawing of the icon in another weight and one of another icon
in the wanted weight.
"""

import dataclasses
import io
import itertools
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np
from absl import flags
from PIL import Image

from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    import keras

    from vhe_tf.data import GroupedImages
    from vhe_tf.evaluation import Measurement
    from vhe_tf.evaluation.oracle_classifier import OracleClassifier

    Judges = tuple[OracleClassifier, OracleClassifier]

WEIGHTS = ("thin", "light", "regular", "bold", "fill", "duotone")
_GROUPS = ("icon", "weight")
_NUM_LEVELS = 6  # with them the grey of duotone, 20%, is a level
# Icons are drawn on 256x256 units, nearly always within the inner 224x224, and
# on a grid of 8 units: each square of the grid is a pixel.
_CANVAS, _MARGIN, _CELL = 256, 16, 8
_NUM_TEST, _NUM_VALIDATION = 300, 50  # icons
_WAYS = 20
_JUDGE_EPOCHS = 8


@dataclasses.dataclass(frozen=True)
class Arguments(settings.Settings):
    """The arguments of the tool."""

    dir: str = setting("runs/icon_weights", "Folder of data and model.")
    icons: str | None = setting(
        None, "To make: the folder assets of @phosphor-icons/core."
    )
    epochs: int = setting(9, "Epochs of 500 steps.", kind="integer", least=1)
    learning_rate: float = setting(
        1.5e-3, "Largest learning rate.", kind="float"
    )
    batch_size: int = setting(8, "Episodes per step.", kind="integer", least=1)
    rounds: int = setting(
        1,
        "To measure: tasks of 20 icons for each of the 30 pairs of weights.",
        kind="integer",
        least=1,
    )
    guidance: float | None = setting(None, "As in `VHE.sample`.", kind="float")
    latent_temperature: float = setting(
        0.25, "As in `VHE.sample`.", kind="float"
    )
    temperature: float = setting(1.0, "As in `VHE.sample`.", kind="float")
    best_of: int = setting(1, "As in `VHE.sample`.", kind="integer", least=1)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of `VHE.sample`."""
        names = ("guidance", "latent_temperature", "temperature", "best_of")
        return {name: getattr(self, name) for name in names}


def main(argv: Sequence[str]) -> None:
    """Makes the data, trains, or measures."""
    values = flags.FlagValues()
    settings.add_flags(values, Arguments, title="Icons")
    words = settings.parse(argv, values, usage=__doc__ or "")
    import_tensorflow()
    with exit_on_user_error():
        given = Arguments(**settings.read_flags(values, Arguments))
        folder = pathlib.Path(given.dir)
        if words == ["make"] and given.icons:
            make(folder / "data", pathlib.Path(given.icons))
        elif words == ["train"]:
            train(given, folder)
        elif words == ["measure"]:
            measure(given, folder)
        else:
            raise ValueError(
                f"Name make (with --icons), train or measure. Received: {words}"
            )


def make(folder: pathlib.Path, assets: pathlib.Path) -> None:
    """Writes an image per icon and weight, and the table `labels.csv`.

    An icon that looks the same in two weights is left out.
    """
    rows = ["image,icon,weight"]
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((assets / "regular").glob("*.svg")):
        icon = path.stem
        images = {
            weight: _drawn(
                assets
                / weight
                / f"{icon}{'' if weight == 'regular' else f'-{weight}'}.svg"
            )
            for weight in WEIGHTS
        }
        if len({image.tobytes() for image in images.values()}) < len(WEIGHTS):
            print(f"{icon} looks the same in two weights", flush=True)
            continue
        for weight, image in images.items():
            name = f"{icon}_{weight}.png"
            Image.fromarray(image).save(folder / name)
            rows.append(f"{name},{icon},{weight}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    print(f"{len(rows) - 1} images", flush=True)


def _drawn(path: pathlib.Path) -> np.ndarray:
    """Returns a drawing, black on white, `[28, 28]` uint8 of few levels."""
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_path=str(path),
        width=_CANVAS,
        background="#ffffff",
        skip_system_fonts=True,
    )
    page = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("L"))
    inner = page[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] / 255.0
    size = len(inner) // _CELL
    means = inner.reshape(size, _CELL, size, _CELL).mean(axis=(1, 3))
    top = _NUM_LEVELS - 1
    return np.round(np.round(means * top) * (255 / top)).astype(np.uint8)


def load(
    folder: pathlib.Path,
) -> "tuple[GroupedImages, GroupedImages, GroupedImages]":
    """Returns images of icons to train, to validate and to test on."""
    from vhe_tf.data import hold_out_groups
    from vhe_tf.data import read_label_table

    data = read_label_table(folder / "data" / "labels.csv", invert=True)
    rest, test = hold_out_groups(data, "icon", num_groups=_NUM_TEST)
    train, validation = hold_out_groups(
        rest, "icon", num_groups=_NUM_VALIDATION
    )
    return train, validation, test


def train(given: Arguments, folder: pathlib.Path) -> None:
    """Trains the model, or resumes it."""
    import keras

    import vhe_tf
    from vhe_tf import callbacks
    from vhe_tf.data import Augmentation
    from vhe_tf.data import Episodes

    parts = load(folder)
    keras.utils.set_random_seed(0)
    model = vhe_tf.style_vhe(
        "small",
        image_shape=(28, 28, 1),
        groups=_GROUPS,
        num_levels=_NUM_LEVELS,
        guidance=0.5,
    )
    copy_without_colour(vhe_tf.load_model("omniglot_styles_small"), model)
    steps = 500
    model.compile(
        vhe_tf.optimizers.AveragingAdam(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                decay_steps=given.epochs * steps - 200,
                warmup_target=given.learning_rate,
                warmup_steps=200,
            ),
            global_clipnorm=10.0,
            use_ema=True,
            ema_momentum=0.998,
        )
    )
    episodes = [
        Episodes.for_model(
            model,
            part,
            batch_size=given.batch_size,
            support_size=(1, 3),
            augmentation=Augmentation(
                symmetries=symmetries,
                binarization="none",
                num_levels=_NUM_LEVELS,
            ),
            validation=symmetries == 1,
        )
        for part, symmetries in zip(parts[:2], (2, 1), strict=True)
    ]
    model.fit(
        episodes[0],
        validation_data=episodes[1],
        epochs=given.epochs,
        steps_per_epoch=steps,
        verbose=0,
        callbacks=[
            callbacks.BestModel(folder / "best.keras"),
            callbacks.ProgressLine(),
            callbacks.ExactResume(folder / "checkpoints"),
            callbacks.Preemption(),
        ],
    )


def copy_without_colour(source: "keras.Layer", model: "keras.Layer") -> None:
    """Copies the weights of a model of colour images to one of grey images.

    To kernels that read an image, a grey image is one of three equal channels.
    The last layer keeps what it was initialised with, and so does each layer
    of another shape.
    """
    for a, b in zip(source.weights, model.weights, strict=True):
        value = a.numpy()
        if a.shape != b.shape and value.ndim == 4:
            grey = value[:, :, :3].sum(axis=2, keepdims=True)
            value = np.concatenate([grey, value[:, :, 3:]], axis=2)
        if value.shape == tuple(b.shape):
            b.assign(value)


class Task(NamedTuple):
    """Icons in one weight that are to be redrawn in another one.

    Attributes:
        content: `[K, H, W, C]`, a drawing of each icon.
        style: `[K, H, W, C]`, for each a drawing of another icon.
        true: `[K, H, W, C]`, the icons in the weight of `style`.
        exemplars: `[K, N, H, W, C]`, the icons in all other weights.
        weight: Integer. The wanted weight.
    """

    content: np.ndarray
    style: np.ndarray
    true: np.ndarray
    exemplars: np.ndarray
    weight: int


def tasks(
    images: np.ndarray, *, ways: int, rounds: int, seed: int = 0
) -> list[Task]:
    """Chooses tasks for each pair of two weights.

    Args:
        images: `[I, S, H, W, C]`, icons in weights.
        ways: Integer, K. Icons in a task.
        rounds: Integer. Tasks for each pair.
        seed: Integer. Selects the icons.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    pairs = itertools.permutations(range(images.shape[1]), 2)
    for given, wanted in [*pairs] * rounds:
        icons, others = np.split(rng.permutation(len(images))[: 2 * ways], 2)
        rest = np.delete(np.arange(images.shape[1]), [given, wanted])
        chosen.append(
            Task(
                images[icons, given],
                images[others, wanted],
                images[icons, wanted],
                images[icons][:, rest],
                wanted,
            )
        )
    return chosen


def shares(drawn: np.ndarray, task: Task, judges: "Judges") -> list[float]:
    """Returns the shares of drawings of the right icon and weight."""
    icons, weights = judges
    right = icons.nearest(drawn, task.exemplars) == np.arange(len(drawn))
    return [
        float(np.mean(right)),
        float(np.mean(weights.classify(drawn) == task.weight)),
    ]


def judges_of(data: "GroupedImages") -> "Judges":
    """Trains a classifier of icons and one of weights on true images."""
    from vhe_tf.evaluation import train_oracle_classifier

    icons, weights = (
        train_oracle_classifier(
            data.images, data.labels[name], epochs=_JUDGE_EPOCHS
        )
        for name in _GROUPS
    )
    return icons, weights


def measure(given: Arguments, folder: pathlib.Path) -> None:
    """Measures redrawings of unseen icons, and pictures some."""
    import vhe_tf
    from vhe_tf import visualization
    from vhe_tf.data import ready
    from vhe_tf.evaluation import Measurement

    train, _, test = (ready(part, "colour") for part in load(folder))
    order = np.lexsort((test.labels["weight"], test.labels["icon"]))
    images = test.images[order].reshape(_NUM_TEST, -1, *test.image_shape)
    model = vhe_tf.load_model(folder / "best.keras")
    judges = judges_of(train)
    rows: dict[int, list[list[float]]] = {}
    shown = []
    for index, task in enumerate(
        tasks(images, ways=_WAYS, rounds=given.rounds)
    ):
        support = (task.content[:, np.newaxis], task.style[:, np.newaxis])
        drawn = model.sample(
            dict(zip(_GROUPS, support, strict=True)),
            seed=index,
            **given.options,
        ).numpy()
        rows.setdefault(task.weight, []).append(
            [
                *shares(drawn, task, judges),
                *shares(task.true, task, judges),
            ]
        )
        shown.append((task.content[0], task.style[0], drawn[0], task.true[0]))
    names = test.group_names["weight"]
    of_all = [row for some in rows.values() for row in some]
    print(
        "| redrawn in | right icon | right weight | of true: right icon | "
        "right weight |\n| --- | --- | --- | --- | --- |"
    )
    for name, values in [
        *((names[weight], rows[weight]) for weight in sorted(rows)),
        ("all", of_all),
    ]:
        cells = [
            Measurement.of("", each, num_queries=len(values) * _WAYS)
            for each in np.array(values).T
        ]
        print(f"| {name} | {' | '.join(map(_percent, cells))} |", flush=True)
    picture = figure(np.array(shown[:30]), columns=6)
    visualization.save_png(folder / "redrawn.png", picture, scale=3)


def figure(shown: np.ndarray, *, columns: int) -> np.ndarray:
    """Sets icons, weights, redrawings and true drawings side by side.

    Args:
        shown: `[R, 4, H, W, C]`.
        columns: Integer. How many fours stand side by side.

    Returns:
        `[height, width, C]`.
    """
    padded = np.pad(shown, [(0, 0), (0, 0), (2, 2), (2, 2), (0, 0)])
    fours = np.concatenate(list(np.moveaxis(padded, 1, 0)), axis=2)
    fours = np.pad(fours, [(0, 0), (2, 2), (6, 6), (0, 0)])
    lines = [
        np.concatenate(list(fours[first : first + columns]), axis=1)
        for first in range(0, len(fours), columns)
    ]
    return np.concatenate(lines, axis=0)


def _percent(measurement: "Measurement") -> str:
    low, high = measurement.interval or (measurement.mean, measurement.mean)
    return f"{measurement.mean:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    main(sys.argv)
