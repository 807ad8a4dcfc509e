r"""Measures training on images of one's own, from a preset and from nothing.

    apt-get install fonts-ipafont fonts-mplus fonts-motoya-l-cedar \
        fonts-motoya-l-maruberi fonts-kouzan-mouhitsu fonts-aoyagi-soseki \
        fonts-yozvox-yozfont fonts-sawarabi-gothic fonts-sawarabi-mincho \
        fonts-mona fonts-hanazono
    pip install resvg-py; npm pack @phosphor-icons/core  # and unpack it
    python tools/own_images_benchmark.py make --icons=package/assets
    python tools/own_images_benchmark.py train --data=hiragana --init=nearest
    python tools/own_images_benchmark.py train --data=hiragana --init=none
    python tools/own_images_benchmark.py measure --data=hiragana

`make` writes a folder of images per class: 46 Hiragana in 12 fonts that Debian
ships, and 1,511 Phosphor icons in 6 weights. `train` trains the experiment
own_images on one of the two, and saves the model after so many steps.
`measure` writes what the saved models reach on classes that they have not
seen, as a table in Markdown and as a picture.
"""

import dataclasses
import io
import pathlib
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from absl import flags
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from vhe_tf.experiments import get
from vhe_tf.experiments import settings
from vhe_tf.experiments.config import override
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    from vhe_tf.data import GroupedImages
    from vhe_tf.data.datasets import DataSplits
    from vhe_tf.evaluation import Measurement
    from vhe_tf.evaluation.oracle_classifier import OracleClassifier
    from vhe_tf.experiments import Experiment
    from vhe_tf.models.vhe import VHE

_FONTS = pathlib.Path("/usr/share/fonts")
# One font of each design that the packages above hold.
_HIRAGANA_FONTS = (
    "opentype/ipafont-gothic/ipag.ttf",
    "opentype/ipafont-mincho/ipam.ttf",
    "opentype/mplus/Mplus1-Medium.otf",
    "truetype/motoya-l-cedar/MTLc3m.ttf",
    "truetype/motoya-l-maruberi/MTLmr3m.ttf",
    "truetype/kouzan-mouhitsu/kouzan-mouhitsu.ttf",
    "truetype/aoyagi-soseki/aoyagi-soseki.ttf",
    "truetype/yozvox-yozfont/YOzBAF.ttf",
    "truetype/sawarabi-gothic/sawarabi-gothic-medium.ttf",
    "truetype/sawarabi-mincho/sawarabi-mincho-medium.ttf",
    "truetype/mona/mona.ttf",
    "truetype/hanazono/HanaMinA.ttf",
)
_HIRAGANA = (
    "あいうえおかきくけこさしすせそたちつてとなにぬねの"
    "はひふへほまみむめもやゆよらりるれろわをん"
)
_PIXELS = 112  # of the images that are written, four times those of a model
_SAMPLES = 5  # of each support image
_MOST_SUPPORTS = 60  # to sample from, spread over the classes
_CRITIC_EPOCHS = 40


@dataclasses.dataclass(frozen=True)
class Benchmark(settings.Settings):
    """The arguments of the benchmark."""

    dir: str = setting("runs/own_images", "Folder of data and models.")
    data: str = setting(
        "hiragana", "The data set.", choices=("hiragana", "icons")
    )
    icons: str | None = setting(
        None, "To make icons: the folder assets of @phosphor-icons/core."
    )
    init: str = setting("nearest", "Initial weights; see `vhe-tf train`.")
    steps: tuple[int, ...] = setting(
        (1200, 3600),
        "Training steps after which to save the model. The last one ends the "
        "schedule of the learning rate.",
        kind="integers",
        least=1,
    )
    symmetries: int | None = setting(
        None, "See `vhe-tf train`.", kind="integer"
    )
    learning_rate: float | None = setting(
        None, "See `vhe-tf train`.", kind="float"
    )
    num_tasks: int = setting(30, "Few-shot tasks.", kind="integer", least=1)


def make_hiragana(folder: pathlib.Path) -> None:
    """Writes a folder of images per letter, one per font."""
    for path in _HIRAGANA_FONTS:
        font = ImageFont.truetype(str(_FONTS / path), 3 * _PIXELS)
        for letter in _HIRAGANA:
            page = Image.new("L", (6 * _PIXELS, 6 * _PIXELS), 255)
            ImageDraw.Draw(page).text(
                (3 * _PIXELS, 3 * _PIXELS), letter, 0, font, anchor="mm"
            )
            name = f"{ord(letter):x}/{pathlib.Path(path).stem}.png"
            _write(page, folder / name)


def make_icons(folder: pathlib.Path, assets: pathlib.Path) -> None:
    """Writes a folder of images per icon, one per weight.

    An icon that looks like one before it, in some weight, is left out.
    """
    import resvg_py

    icons: dict[bytes, str] = {}
    left_out = set()
    for path in sorted(assets.glob("*/*.svg")):
        weight = path.parent.name
        icon = path.stem.removesuffix(f"-{weight}")
        png = resvg_py.svg_to_bytes(
            svg_path=str(path),
            width=4 * _PIXELS,
            background="#ffffff",
            skip_system_fonts=True,
        )
        with Image.open(io.BytesIO(bytes(png))) as image:
            written = _write(
                image.convert("L"), folder / icon / f"{weight}.png"
            )
        if icons.setdefault(written, icon) != icon:
            left_out.add(icon)
    for icon in left_out:
        shutil.rmtree(folder / icon)


def _write(page: Image.Image, path: pathlib.Path) -> bytes:
    """Writes the ink of a page, in the middle of a square with a margin.

    Returns:
        The pixels.
    """
    ink = Image.eval(page, lambda v: 255 - v)
    box = ink.getbbox()
    if box is None:
        raise ValueError(f"There is no ink in {path}.")
    ink = ink.crop(box)
    side = round(max(ink.size) / 0.8)
    square = Image.new("L", (side, side), 0)
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    square = square.resize((_PIXELS, _PIXELS), Image.Resampling.BOX)
    square = Image.eval(square, lambda v: 255 - v)
    square.save(path)
    return square.tobytes()


def main(argv: Sequence[str]) -> None:
    """Makes data, trains, or measures."""
    values = flags.FlagValues()
    settings.add_flags(values, Benchmark, title="Benchmark")
    words = settings.parse(argv, values, usage=__doc__ or "")
    import_tensorflow()
    with exit_on_user_error():
        given = Benchmark(**settings.read_flags(values, Benchmark))
        root = pathlib.Path(given.dir)
        if words == ["make"]:
            make_hiragana(root / "data" / "hiragana")
            if given.icons:
                make_icons(root / "data" / "icons", pathlib.Path(given.icons))
        elif words == ["train"]:
            train(given, root)
        elif words == ["measure"]:
            measure(given, root)
        else:
            raise ValueError(f"Name make, train or measure. Received: {words}.")


def experiment_of(given: Benchmark) -> "Experiment":
    """Returns the experiment own_images with the settings that are given."""
    chosen = {
        name: getattr(given, name)
        for name in ("init", "symmetries", "learning_rate")
        if getattr(given, name) is not None
    }
    return override(
        get("own_images"), epochs=1, steps_per_epoch=given.steps[-1], **chosen
    )


def train(given: Benchmark, root: pathlib.Path) -> None:
    """Trains, and saves the EMA weights after each number of steps."""
    from vhe_tf import optimizers
    from vhe_tf.experiments import building
    from vhe_tf.experiments import data
    from vhe_tf.models import loading

    experiment = experiment_of(given)
    building.start(experiment)
    splits = data.load_data(
        experiment, data_dir=str(root / "data" / given.data)
    )
    model = building.build_model(experiment, splits)
    building.compile_model(model, experiment)
    training, _ = building.make_episodes(model, experiment, splits=splits)
    folder = root / given.data
    folder.mkdir(parents=True, exist_ok=True)
    if given.init != "none":
        loading.save_model(model, folder / f"{_name(given, 0)}.keras")
    done, began = 0, time.process_time()
    for steps in given.steps:
        model.fit(training, steps_per_epoch=steps - done, verbose=2)
        done = steps
        with optimizers.ema_weights(model):
            loading.save_model(model, folder / f"{_name(given, steps)}.keras")
        minutes = (time.process_time() - began) / 60
        print(f"{steps} steps: {minutes:.1f} core minutes", flush=True)


def _name(given: Benchmark, steps: int) -> str:
    start = "random" if given.init == "none" else "preset"
    changed = [
        f"{name}={getattr(given, name)}"
        for name in ("symmetries", "learning_rate")
        if getattr(given, name) is not None
    ]
    return "_".join([start, *changed, f"{steps:05d}"])


def measure(given: Benchmark, root: pathlib.Path) -> None:
    """Measures the saved models on unseen classes, and pictures samples."""
    import vhe_tf
    from vhe_tf import visualization
    from vhe_tf.evaluation import Measurement
    from vhe_tf.experiments import data

    experiment = experiment_of(given)
    splits = data.load_data(
        experiment, data_dir=str(root / "data" / given.data)
    )
    critic, supports, labels = _critic(splits)
    ceiling = Measurement.of("", critic.classify(supports) == labels)
    print(
        "| initial weights | steps | 1-shot accuracy | 5-shot accuracy | "
        "samples recognised |\n| --- | --- | --- | --- | --- |\n"
        f"| true images | - | - | - | {_percent(ceiling)} |",
        flush=True,
    )
    for path in sorted((root / given.data).glob("*_*.keras")):
        model = vhe_tf.load_model(path)
        cells = [
            _percent(_accuracy(model, splits.test, shots, given.num_tasks))
            for shots in (1, 5)
        ]
        images = np.repeat(supports[:, None], _SAMPLES, axis=0)
        samples = np.concatenate(
            [
                model.sample({splits.group: some}, seed=(i, 0)).numpy()
                for i, some in enumerate(np.array_split(images, _SAMPLES))
            ]
        )
        right = critic.classify(samples) == np.repeat(labels, _SAMPLES)
        # By support: samples of one are not independent.
        right = right.reshape(-1, _SAMPLES).mean(axis=1)
        cells.append(_percent(Measurement.of("", right)))
        start, steps = path.stem.rsplit("_", 1)
        print(f"| {start} | {steps} | {' | '.join(cells)} |", flush=True)
        shown = range(0, len(supports), max(1, len(supports) // 12))
        grid = visualization.conditional_grid(
            model, [supports[shown][:, None]], group=splits.group
        )
        visualization.save_png(path.with_suffix(".png"), grid)


def _critic(
    splits: "DataSplits",
) -> tuple["OracleClassifier", np.ndarray, np.ndarray]:
    """Returns a classifier of the test classes, and images to sample from.

    It is trained on two thirds of the true images of each class. The others,
    with their labels, are the support images: their share that it recognises
    is what samples could reach.
    """
    from vhe_tf.evaluation import train_oracle_classifier

    labels = splits.test.labels[splits.group]
    # Images are sorted by class, and then by font or weight.
    which = np.concatenate(
        [np.arange(count) for count in np.unique(labels, return_counts=True)[1]]
    )
    kept = which % 3 == 1
    critic = train_oracle_classifier(
        splits.test.images[~kept], labels[~kept], epochs=_CRITIC_EPOCHS
    )
    [supports] = kept.nonzero()
    supports = supports[:: -(-len(supports) // _MOST_SUPPORTS)]
    return critic, splits.test.images[supports], labels[supports]


def _accuracy(
    model: "VHE", test: "GroupedImages", num_shots: int, num_tasks: int
) -> "Measurement":
    from vhe_tf import evaluation

    [group] = (v.name for v in model.latents if not v.per_element)
    ways = min(20, len(test.group_ids(group)))
    return evaluation.few_shot_accuracy(
        evaluation.ClassScorer(model, group=group, num_samples=5),
        test,
        design=evaluation.TaskDesign(num_ways=ways, num_shots=num_shots),
        num_tasks=num_tasks,
    )


def _percent(measurement: "Measurement") -> str:
    low, high = measurement.interval or (measurement.mean, measurement.mean)
    return f"{measurement.mean:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    main(sys.argv)
