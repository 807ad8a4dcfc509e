"""Omniglot: handwritten characters of 50 alphabets, 20 drawings of each.

References:
    [1] Lake, Salakhutdinov and Tenenbaum. Human-level concept learning through
        probabilistic program induction. Science 350, 2015.
    [2] Vinyals et al. Matching Networks for One Shot Learning. NIPS 2016.
    [3] Bartunov and Vetrov. Few-shot Generative Modelling with Generative
        Matching Networks. AISTATS 2018.
"""

import dataclasses
import functools
import os
import pathlib
import ssl
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from vhe_tf._utils.validation import check_choice
from vhe_tf.data.datasets.prepared import folder_around
from vhe_tf.data.datasets.prepared import name_corrupt_files
from vhe_tf.data.datasets.records.recorded_images import read_whole
from vhe_tf.data.datasets.splits import DatasetSpec
from vhe_tf.data.datasets.splits import DataSplits
from vhe_tf.data.datasets.splits import drawings
from vhe_tf.data.grouped_images import GroupedImages

__all__ = [
    "LakeRun",
    "Omniglot",
    "OmniglotSplit",
    "binary_recipe",
    "grey_recipe",
    "lake_runs",
    "load_omniglot",
]

_TFDS_NAME = "omniglot:3.0.0"
_PREPARED = "omniglot/3.0.0"
_TFDS_TRAINING_SPLITS = {
    "lake": "train",
    "lake_small1": "small1",
    "lake_small2": "small2",
}
_SPLITS = (*_TFDS_TRAINING_SPLITS, "random1200", "vinyals")

_SIZE = 105
_RECIPE_SIZE = 28
# One of 28 pixels covers 105 / 28 = 15 / 4 of the original ones; in quarters
# of an original pixel all borders are whole numbers.
_QUARTERS = 4 * _SIZE // _RECIPE_SIZE

# The lists of [2], as Snell et al. (2017) and Torchmeta publish them, follow
# this rule: validation is five whole alphabets and test the last 423
# characters in Lake's order, which cuts Gurmukhi after its character 41.
_VINYALS_VALIDATION = (
    "Armenian",
    "Bengali",
    "Early_Aramaic",
    "Hebrew",
    "Mkhedruli_(Georgian)",
)
_NUM_TRAINING_CHARACTERS = 1200

_NUM_RUNS = 20
_NUM_WAYS = 20
_MAX_LABEL_BYTES = 2**16  # of a run; they have some 1,200


@dataclasses.dataclass(frozen=True)
class Omniglot(DatasetSpec):
    """Omniglot, by one of its splits; see `load_omniglot`.

    Args:
        split: String. Defaults to `"lake"`.
        images: String. `"binary"` for fixed binary images (Tables 3 and 4),
            `"grey"` for grey ones that are binarized whenever one is sampled
            (Tables 1 and 2). Defaults to `"binary"`.
        seed: Integer. Selects the characters of the split `"random1200"`, and
            is the seed of the binarization of grey test images. Defaults to 0.

    Example:
    >>> Omniglot(split="random1200", images="grey").split
    'random1200'
    """

    name: ClassVar[str] = "omniglot"

    split: str = "lake"
    images: str = "binary"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(_SPLITS, split=self.split)
        check_choice(("binary", "grey"), images=self.images)

    def load(self, data_dir: str | None = None) -> DataSplits:
        """See base class."""
        # Binary copies are warped at full resolution and then subsampled, so
        # that they have the pixel statistics of the recipe itself.
        stored = "original" if self.images == "binary" else "grey"
        parts = load_omniglot(
            self.split, recipe=stored, data_dir=data_dir, seed=self.seed
        )
        test = parts.test
        if self.images == "binary":
            test = dataclasses.replace(test, images=binary_recipe(test.images))
        return drawings(
            parts.train,
            test,
            validation=parts.validation,
            images=self.images,
            image_size=(_RECIPE_SIZE, _RECIPE_SIZE),
            seed=self.seed,
        )

    def _sees_test_of(self, tested: "Omniglot") -> bool:
        if self.split.startswith("lake"):
            # The test characters of vinyals are of Lake's evaluation set.
            return tested.split == "random1200"
        if self.split == tested.split:
            return self.split == "random1200" and self.seed != tested.seed
        return True


class OmniglotSplit(NamedTuple):
    """Training, validation and test images with disjoint characters.

    Attributes:
        train: `GroupedImages`. The images to train on.
        validation: `GroupedImages` or None. The images to choose a model by.
            None if the literature defines none.
        test: `GroupedImages`. The images to report numbers on.
    """

    train: GroupedImages
    validation: GroupedImages | None
    test: GroupedImages


class LakeRun(NamedTuple):
    """One of the 20-way one-shot classification runs of [1].

    Attributes:
        support: `[20, 105, 105, 1]` uint8, one drawing of each of 20
            characters of one alphabet, ink 255.
        queries: `[20, 105, 105, 1]` uint8, another person's drawings of the
            same characters, ink 255.
        labels: `[20]` int64, the index in `support` of the character of each
            query.
    """

    support: np.ndarray
    queries: np.ndarray
    labels: np.ndarray


def load_omniglot(
    split: str = "lake",
    *,
    recipe: str = "grey",
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> OmniglotSplit:
    """Reads Omniglot by TensorFlow Datasets and splits it by character.

    The splits, in numbers of characters (20 images each):

        lake          964 / 659         background and evaluation set of [1]
        lake_small1   136 / 659         a small background set of [1]
        lake_small2   156 / 659         another one
        random1200    1200 / 423        a random sample, by `seed`
        vinyals       1028 / 172 / 423  of [2], the one with validation

    The test alphabets of the `lake` splits are new ones; `random1200` and
    `vinyals` train on alphabets that they test on, and on characters of Lake's
    one-shot runs.

    The images are sorted by character and uint8, ink 255 on 0:

        grey          28x28, the area average
        binary        28x28, the fixed binary images of [3]
        original      105x105, binary, as drawn

    An image's labels are its `"character"`, 0..1622 over both of Lake's sets,
    and its `"alphabet"`, 0..49. What was read once is kept in memory until the
    process ends; the arrays may therefore be read-only.

    Args:
        split: String. `"lake"`, `"lake_small1"`, `"lake_small2"`,
            `"random1200"` or `"vinyals"`.
        recipe: String. `"grey"`, `"binary"` or `"original"`.
        data_dir: Path or None. The folder that holds `omniglot/3.0.0` as
            TensorFlow Datasets prepares it, or is to hold it after a download.
            Default: the environment variable `TFDS_DATA_DIR`, or else
            TensorFlow Datasets' own default.
        seed: Integer. Chooses the training characters of `random1200`; without
            effect on the other splits.

    Returns:
        The images of each part of the split.

    Raises:
        ValueError: If `split` or `recipe` is unknown, or a file that describes
            the data is corrupt.
        FileNotFoundError: If the data are neither prepared in `data_dir` nor
            can be downloaded.
    """
    check_choice(_SPLITS, split=split)
    check_choice(_RECIPES, recipe=recipe)
    directory = _data_directory(data_dir)
    evaluation = _read(directory, "test", recipe)
    if split in _TFDS_TRAINING_SPLITS:
        training = _read(directory, _TFDS_TRAINING_SPLITS[split], recipe)
        return OmniglotSplit(training, None, evaluation)
    everything = _concatenate(_read(directory, "train", recipe), evaluation)
    if split == "vinyals":
        return _vinyals_split(everything)
    return _random_split(everything, seed)


def binary_recipe(images105: np.ndarray) -> np.ndarray:
    """Subsamples original drawings as Generative Matching Networks do [3].

    `image28[i, j] = image105[floor(3.75 * i), floor(3.75 * j)]` gives the very
    28x28 binary images on which likelihoods are compared; a library's
    "nearest" resize picks other pixels.

    Args:
        images105: `[M, 105, 105, 1]`, ink 255, as the recipe `"original"` and
            `lake_runs` give them.

    Returns:
        `[M, 28, 28, 1]` of the same dtype and values.

    Raises:
        ValueError: If `images105` has another shape.
    """
    _check_originals(images105)
    index = _QUARTERS * np.arange(_RECIPE_SIZE) // 4
    return images105[:, index][:, :, index]


def grey_recipe(images105: np.ndarray) -> np.ndarray:
    """Shrinks original drawings by averaging over each new pixel's area.

    Args:
        images105: `[M, 105, 105, 1]` uint8, ink 255, as the recipe
            `"original"` and `lake_runs` give them.

    Returns:
        `[M, 28, 28, 1]` uint8, the averages rounded to the nearest integer.

    Raises:
        ValueError: If `images105` has another shape.
    """
    _check_originals(images105)
    coverage = _coverage()
    # Sums of whole quarters stay below 2**24 and no average lies halfway
    # between two integers, so float32 is exact and rounding is unambiguous.
    sums = coverage @ images105[..., 0].astype(np.float32) @ coverage.T
    return np.rint(sums / _QUARTERS**2).astype(np.uint8)[..., np.newaxis]


def lake_runs(path: str | os.PathLike[str]) -> list[LakeRun]:
    """Reads the 20 one-shot classification runs of [1].

    Each run takes 20 characters of one of ten evaluation alphabets, two runs
    an alphabet. Models to be tested on them train on a `lake` split.

    Args:
        path: Path. `all_runs.zip` of https://github.com/brendenlake/omniglot
            (folder `python/one-shot-classification`), or the folder that it
            unpacks to.

    Returns:
        The runs 1 to 20.

    Raises:
        FileNotFoundError: If `path`, or a file of a run, does not exist.
        ValueError: If a file is not what the name says.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(
            "Lake's one-shot runs were not found. Give the path of "
            "`all_runs.zip`, or of the folder that it unpacks to, from "
            "https://github.com/brendenlake/omniglot (folder "
            f"python/one-shot-classification). Received: path={str(path)!r}."
        )
    numbers = range(1, _NUM_RUNS + 1)
    if path.is_dir():
        return [_lake_run(path, number) for number in numbers]
    try:
        with zipfile.ZipFile(path) as archive:
            root = zipfile.Path(archive)
            return [_lake_run(root, number) for number in numbers]
    except zipfile.BadZipFile as error:
        raise ValueError(
            "Lake's runs must be a folder or an intact zip file; download "
            f"`all_runs.zip` again. Received: {str(path)!r}."
        ) from error


def _check_originals(images: np.ndarray) -> None:
    if images.ndim != 4 or images.shape[1:] != (_SIZE, _SIZE, 1):
        raise ValueError(
            "`images105` must be original drawings of shape [M, 105, 105, 1] "
            "(see the recipe 'original'). "
            f"Received: images105.shape={images.shape}."
        )


_RECIPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "grey": grey_recipe,
    "binary": binary_recipe,
    "original": lambda images105: images105,
}


def _coverage() -> np.ndarray:
    """Returns `[28, 105]`: quarters of old pixels that a new one covers."""
    new = _QUARTERS * np.arange(_RECIPE_SIZE)[:, np.newaxis]
    old = 4 * np.arange(_SIZE)[np.newaxis]
    overlap = np.minimum(new + _QUARTERS, old + 4) - np.maximum(new, old)
    return np.maximum(overlap, 0).astype(np.float32)


def _data_directory(data_dir: str | os.PathLike[str] | None) -> str:
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR")
    if not chosen:
        import tensorflow_datasets as tfds  # Slow: only where it is needed.

        chosen = tfds.core.constants.DATA_DIR
    directory = os.path.expanduser(os.fspath(chosen))
    if "://" in directory:
        return directory
    # The cache of `_read` must not depend on the current folder.
    return folder_around(os.path.abspath(directory), _PREPARED)


def _network_answers() -> bool:
    """Returns whether Omniglot's server answers within a few seconds."""
    request = urllib.request.Request("https://github.com", method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # TensorFlow Datasets brings its own certificates.
        return isinstance(error.reason, ssl.SSLError)
    except OSError:
        return False


def _prepared_builder(directory: str) -> Any:
    import tensorflow_datasets as tfds

    with name_corrupt_files(os.path.join(directory, _PREPARED)):
        builder = tfds.builder(_TFDS_NAME, data_dir=directory)
    if builder.is_prepared():
        return builder
    # Without a network, TensorFlow Datasets retries for minutes.
    if not _network_answers():
        raise FileNotFoundError(
            "Omniglot is not prepared in "
            f"{os.path.join(directory, _PREPARED)!r}, and "
            "github.com, where to download it from, does not answer. Either "
            "connect to the internet and try again, or run `tfds build "
            "omniglot` on a machine that is connected, copy the folder "
            "`omniglot/3.0.0` that it makes, and give the folder around "
            "`omniglot` by `data_dir` or the environment variable "
            "TFDS_DATA_DIR. To work without Omniglot, use the embedded data "
            "set: `--dataset=glyphs` in the trainers, "
            "`vhe_tf.data.generate_glyphs()` in Python."
        )
    builder.download_and_prepare()
    return tfds.builder(_TFDS_NAME, data_dir=directory)


@functools.cache
def _read(directory: str, tfds_split: str, recipe: str) -> GroupedImages:
    """Reads one split of the prepared data, sorted by character."""
    import tensorflow_datasets as tfds

    one_channel = tfds.decode.make_decoder(output_dtype=tf.uint8)(
        lambda image, _: tf.io.decode_png(image, channels=1)
    )
    builder = _prepared_builder(directory)
    dataset = builder.as_dataset(
        split=tfds_split,
        batch_size=256,
        decoders={"image": one_channel()},
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    shrink = _RECIPES[recipe]
    batches = [
        (shrink(255 - batch["image"]), batch["label"], batch["alphabet"])
        for batch in read_whole(tfds.as_numpy(dataset), builder.data_dir)
    ]
    images, characters, alphabets = map(
        np.concatenate, zip(*batches, strict=True)
    )
    order = np.argsort(characters, kind="stable")
    labels = {"character": characters[order], "alphabet": alphabets[order]}
    images = images[order]
    for array in (images, *labels.values()):
        array.setflags(write=False)
    features = builder.info.features
    names = {}
    for name, feature in (("character", "label"), ("alphabet", "alphabet")):
        names[name] = dict(enumerate(features[feature].names))
        if labels[name].max() >= len(names[name]):
            path = os.path.join(builder.data_dir, f"{feature}.labels.txt")
            raise ValueError(
                f"{path!r} must name all {name}s; put back a copy, or delete "
                "the folder that it is in, and the data are prepared again. "
                f"Received: {len(names[name])} names, and the id "
                f"{labels[name].max()}."
            )
    return GroupedImages(images, labels, names)


def _concatenate(first: GroupedImages, second: GroupedImages) -> GroupedImages:
    return GroupedImages(
        np.concatenate([first.images, second.images]),
        {
            name: np.concatenate([first.labels[name], second.labels[name]])
            for name in first.labels
        },
        first.group_names,
    )


def _random_split(everything: GroupedImages, seed: int) -> OmniglotSplit:
    characters = np.random.default_rng(seed).permutation(
        everything.group_ids("character")
    )
    train = np.isin(
        everything.labels["character"], characters[:_NUM_TRAINING_CHARACTERS]
    )
    return OmniglotSplit(
        everything.where(train), None, everything.where(~train)
    )


def _vinyals_split(everything: GroupedImages) -> OmniglotSplit:
    alphabets = [
        alphabet
        for alphabet, name in everything.group_names["alphabet"].items()
        if name in _VINYALS_VALIDATION
    ]
    validation = np.isin(everything.labels["alphabet"], alphabets)
    test = everything.labels["character"] >= _NUM_TRAINING_CHARACTERS
    return OmniglotSplit(
        everything.where(~validation & ~test),
        everything.where(validation),
        everything.where(test),
    )


def _lake_run(root: pathlib.Path | zipfile.Path, number: int) -> LakeRun:
    folder = f"run{number:02d}"
    pairs = _label_pairs(root, folder)
    training = [
        f"{folder}/training/class{way:02d}.png"
        for way in range(1, _NUM_WAYS + 1)
    ]
    unknown = sorted({answer for _, answer in pairs} - set(training))
    if unknown or len(pairs) != _NUM_WAYS:
        raise ValueError(
            f"{str(root / folder / 'class_labels.txt')!r} must assign one of "
            f"{training[0]} to {training[-1]} to each of {_NUM_WAYS} test "
            f"images. Received: {len(pairs)} test images; unknown classes "
            f"{unknown}."
        )
    return LakeRun(
        support=np.stack([_read_drawing(root, name) for name in training]),
        queries=np.stack([_read_drawing(root, item) for item, _ in pairs]),
        labels=np.array([training.index(answer) for _, answer in pairs]),
    )


def _label_pairs(
    root: pathlib.Path | zipfile.Path, folder: str
) -> list[tuple[str, str]]:
    """Returns the test image and the training image of each line."""
    path = root / folder / "class_labels.txt"
    if not path.is_file():
        raise FileNotFoundError(_missing(root, f"{folder}/class_labels.txt"))
    pairs = []
    with path.open("rb") as file:
        text = file.read(_MAX_LABEL_BYTES + 1)
    if len(text) > _MAX_LABEL_BYTES:
        raise ValueError(
            f"{str(path)!r} must name {_NUM_WAYS} pairs of images; unpack or "
            "download `all_runs.zip` again. Received: more than "
            f"{_MAX_LABEL_BYTES:,} bytes."
        )
    for line in text.decode("utf-8", "replace").splitlines():
        if not line.strip():
            continue
        words = line.split()
        if len(words) != 2:
            raise ValueError(
                f"Each line of {str(path)!r} must name a test image and a "
                f"training image. Received: {line!r}."
            )
        pairs.append((words[0], words[1]))
    return pairs


def _read_drawing(root: pathlib.Path | zipfile.Path, name: str) -> np.ndarray:
    path = root.joinpath(*name.split("/"))
    if not path.is_file():
        raise FileNotFoundError(_missing(root, name))
    try:
        with path.open("rb") as file, Image.open(file) as image:
            shape = image.height, image.width
            if shape == (_SIZE, _SIZE):  # Others may be huge.
                page = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, zlib.error) as error:
        raise ValueError(
            f"{str(path)!r} must be an intact PNG file; unpack or download "
            f"`all_runs.zip` again. Received: {type(error).__name__}: {error}."
        ) from error
    if shape != (_SIZE, _SIZE):
        raise ValueError(
            f"{str(path)!r} must be an image of 105x105 pixels. "
            f"Received: shape {shape}."
        )
    return 255 - page[..., np.newaxis]


def _missing(root: pathlib.Path | zipfile.Path, name: str) -> str:
    return (
        f"{str(root)!r} must hold the folders run01 to run{_NUM_RUNS} of "
        f"Lake's one-shot runs. Received: a folder without {name!r}."
    )
