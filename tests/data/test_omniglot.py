import io
import shutil
import ssl
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from tests.data.conftest import REAL
from tests.data.conftest import SHARED
from tests.data.conftest import needs_omniglot
from vhe_tf.data.datasets import omniglot

GMN = SHARED / "omniglot_gmn"

needs_gmn = pytest.mark.skipif(
    not GMN.exists(),
    reason="needs the Generative Matching Networks arrays in "
    "../shared/data/omniglot_gmn",
)

# The alphabets in the order of the characters' numbers, with their sizes.
BACKGROUND = {
    "Arcadian": 26,
    "Armenian": 41,
    "Asomtavruli_(Georgian)": 40,
    "Balinese": 24,
    "Bengali": 46,
    "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
    "Braille": 26,
    "Cyrillic": 33,
    "Early_Aramaic": 22,
    "Syriac_(Estrangelo)": 23,
    "Anglo-Saxon_Futhorc": 29,
    "Futurama": 26,
    "Grantha": 43,
    "Greek": 24,
    "Gujarati": 48,
    "Hebrew": 22,
    "Japanese_(hiragana)": 52,
    "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
    "Malay_(Jawi_-_Arabic)": 40,
    "Japanese_(katakana)": 47,
    "Korean": 40,
    "Latin": 26,
    "Alphabet_of_the_Magi": 20,
    "Mkhedruli_(Georgian)": 41,
    "Burmese_(Myanmar)": 34,
    "N_Ko": 33,
    "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
    "Sanskrit": 42,
    "Tagalog": 17,
    "Tifinagh": 55,
}
EVALUATION = {
    "Angelic": 20,
    "Atemayar_Qelisayer": 26,
    "Atlantean": 26,
    "Aurek-Besh": 26,
    "Avesta": 26,
    "Ge_ez": 26,
    "Glagolitic": 45,
    "Gurmukhi": 45,
    "Kannada": 41,
    "Keble": 26,
    "Malayalam": 47,
    "Manipuri": 40,
    "Mongolian": 30,
    "Old_Church_Slavonic_(Cyrillic)": 45,
    "Oriya": 46,
    "Syriac_(Serto)": 23,
    "Sylheti": 28,
    "Tengwar": 25,
    "Tibetan": 42,
    "ULOG": 26,
}
SIZES = {**BACKGROUND, **EVALUATION}
CHARACTERS = [
    f"{alphabet}_{number}"
    for alphabet, size in SIZES.items()
    for number in range(size)
]
ALPHABETS = sorted(SIZES)


def drawing(character):
    """A page of 105x105 with a rectangle that tells the character."""
    page = np.full((105, 105, 3), 255, np.uint8)
    page[: 1 + character // 40, : 1 + character % 40] = 0
    return page


def examples(characters):
    for character in characters:
        alphabet, number = CHARACTERS[character].rsplit("_", 1)
        example = {
            "image": drawing(character),
            "alphabet": alphabet,
            "alphabet_char_id": int(number),
            "label": CHARACTERS[character],
        }
        yield character, example


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Omniglot with one made-up drawing of each character."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="omniglot",
        version="3.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(105, 105, 3)),
                "alphabet": tfds.features.ClassLabel(names=ALPHABETS),
                "alphabet_char_id": np.int64,
                "label": tfds.features.ClassLabel(names=CHARACTERS),
            }
        ),
        split_datasets={
            "train": examples(range(964)),
            "test": examples(range(964, 1623)),
            "small1": examples(range(5)),
            "small2": examples(range(5, 12)),
        },
        data_dir=folder,
    )
    return folder


def forbid_network(monkeypatch):
    def network_answers():
        raise AssertionError("The network was asked.")

    monkeypatch.setattr(omniglot, "_network_answers", network_answers)


def sorted_within_classes(images, num_pixels):
    """Packs binary images and sorts those of each class of 20."""
    rows = images.reshape(-1, 20, num_pixels) > 0  # [classes, 20, pixels]
    packed = np.packbits(rows, axis=-1)
    return np.sort(packed.view(f"S{packed.shape[-1]}")[..., 0], axis=1)


def characters(images):
    return set(images.group_ids("character").tolist())


@pytest.mark.parametrize(
    ("split", "train", "validation", "test"),
    [
        ("lake", 964, None, 659),
        ("lake_small1", 5, None, 659),
        ("lake_small2", 7, None, 659),
        ("random1200", 1200, None, 423),
        ("vinyals", 1028, 172, 423),
    ],
)
def test_splits_are_disjoint_and_of_the_published_sizes(
    data_dir, monkeypatch, split, train, validation, test
):
    forbid_network(monkeypatch)
    parts = omniglot.load_omniglot(split, data_dir=data_dir)
    assert len(characters(parts.train)) == train
    assert len(characters(parts.test)) == test
    assert characters(parts.train).isdisjoint(characters(parts.test))
    if validation is None:
        assert parts.validation is None
    else:
        assert len(characters(parts.validation)) == validation
        others = characters(parts.train) | characters(parts.test)
        assert characters(parts.validation).isdisjoint(others)


def test_every_image_keeps_its_character_alphabet_and_names(data_dir):
    split = omniglot.load_omniglot(recipe="original", data_dir=data_dir)
    for images in split.train, split.test:
        assert images.images.dtype == np.uint8
        assert images.image_shape == (105, 105, 1)
        ids = images.labels["character"]
        np.testing.assert_array_equal(ids, np.sort(ids))
        for image, character, alphabet in zip(
            images.images[::50],
            ids[::50],
            images.labels["alphabet"][::50],
            strict=True,
        ):
            np.testing.assert_array_equal(
                image, 255 - drawing(character)[..., :1]
            )
            name = images.group_names["character"][character]
            assert name == CHARACTERS[character]
            name = images.group_names["alphabet"][alphabet]
            assert name == CHARACTERS[character].rsplit("_", 1)[0]


def test_vinyals_split_is_the_published_one(data_dir):
    # The lists of torchmeta/datasets/assets/omniglot of
    # github.com/tristandeleu/pytorch-meta: whole alphabets but for Gurmukhi,
    # whose characters 42 to 45 are for testing.
    split = omniglot.load_omniglot("vinyals", data_dir=data_dir)
    assert split.validation is not None

    def names(images):
        return {
            images.group_names["character"][index]
            for index in characters(images)
        }

    def whole(alphabets):
        return {
            f"{alphabet}_{number}"
            for alphabet in alphabets
            for number in range(SIZES[alphabet])
        }

    validation = whole(
        [
            "Armenian",
            "Bengali",
            "Early_Aramaic",
            "Hebrew",
            "Mkhedruli_(Georgian)",
        ]
    )
    test = whole(
        [
            "Kannada",
            "Keble",
            "Malayalam",
            "Manipuri",
            "Mongolian",
            "Old_Church_Slavonic_(Cyrillic)",
            "Oriya",
            "Sylheti",
            "Syriac_(Serto)",
            "Tengwar",
            "Tibetan",
            "ULOG",
        ]
    ) | {f"Gurmukhi_{number}" for number in (41, 42, 43, 44)}
    assert names(split.validation) == validation
    assert names(split.test) == test
    assert names(split.train) == whole(SIZES) - validation - test


def test_random_split_depends_on_the_seed_alone(data_dir):
    first = omniglot.load_omniglot("random1200", data_dir=data_dir, seed=7)
    same = omniglot.load_omniglot(
        "random1200", recipe="binary", data_dir=data_dir, seed=7
    )
    other = omniglot.load_omniglot("random1200", data_dir=data_dir, seed=8)
    assert characters(first.train) == characters(same.train)
    assert characters(first.train) != characters(other.train)


def test_data_are_read_once_in_a_process(data_dir):
    first = omniglot.load_omniglot(data_dir=data_dir)
    second = omniglot.load_omniglot(data_dir=str(data_dir))
    assert first.train.images is second.train.images
    with pytest.raises(ValueError, match="read-only"):
        first.train.images[0] = 0


def test_training_and_test_images_are_each_read_once(data_dir, monkeypatch):
    parts = []
    read = omniglot._read

    def recorded(directory, part, recipe):
        parts.append(part)
        return read(directory, part, recipe)

    monkeypatch.setattr(omniglot, "_read", recorded)
    splits = omniglot.Omniglot("lake_small1", "binary").load(str(data_dir))
    assert sorted(parts) == ["small1", "test"]
    published = omniglot.load_omniglot(
        "lake_small1", recipe="binary", data_dir=data_dir
    ).test
    np.testing.assert_array_equal(splits.test.images * 255, published.images)


def test_data_directory_is_taken_from_the_environment(data_dir, monkeypatch):
    forbid_network(monkeypatch)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(omniglot.load_omniglot("lake_small1").train) == 5


def test_data_directory_is_by_default_that_of_tfds(monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    monkeypatch.setattr(omniglot, "_network_answers", lambda: False)
    with pytest.raises(FileNotFoundError) as error:
        omniglot.load_omniglot()
    assert str(tmp_path / "omniglot" / "3.0.0") in str(error.value)


def test_missing_data_without_a_network_name_every_way_out(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(omniglot, "_network_answers", lambda: False)
    with pytest.raises(FileNotFoundError) as error:
        omniglot.load_omniglot(data_dir=tmp_path / "absent")
    message = str(error.value)
    for words in (
        str(tmp_path / "absent" / "omniglot" / "3.0.0"),
        "connect to the internet",
        "tfds build omniglot",
        "data_dir",
        "TFDS_DATA_DIR",
        "--dataset=glyphs",
        "vhe_tf.data.generate_glyphs()",
    ):
        assert words in message


def test_missing_data_are_downloaded_where_the_network_answers(
    data_dir, monkeypatch, tmp_path
):
    import tensorflow_datasets as tfds

    def download_and_prepare(builder):
        shutil.copytree(data_dir / "omniglot" / "3.0.0", builder.data_path)

    monkeypatch.setattr(omniglot, "_network_answers", lambda: True)
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare
    )
    split = omniglot.load_omniglot("lake_small2", data_dir=tmp_path)
    assert characters(split.train) == set(range(5, 12))
    assert split.train.group_names["character"][7] == CHARACTERS[7]


@pytest.mark.parametrize(
    ("outcome", "answers"),
    [
        (None, True),
        (urllib.error.URLError(OSError("no route")), False),
        (urllib.error.URLError(ssl.SSLError("certificate")), True),
        (urllib.error.HTTPError("", 503, "busy", None, None), True),
        (TimeoutError(), False),
    ],
)
def test_network_is_asked_once_and_quickly(monkeypatch, outcome, answers):
    def urlopen(request, timeout):
        assert request.get_method() == "HEAD"
        assert timeout <= 5
        if outcome is not None:
            raise outcome
        return io.BytesIO()

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert omniglot._network_answers() is answers


def test_unknown_split_is_rejected():
    with pytest.raises(
        ValueError, match=r"'lake', .*'vinyals'.*Received: split='lakes'"
    ):
        omniglot.load_omniglot("lakes")


def test_unknown_recipe_is_rejected():
    with pytest.raises(
        ValueError, match=r"'grey', 'binary', 'original'.*recipe='gray'"
    ):
        omniglot.load_omniglot(recipe="gray")


@pytest.mark.parametrize(
    "recipe", [omniglot.binary_recipe, omniglot.grey_recipe]
)
def test_recipes_reject_images_of_another_size(recipe):
    with pytest.raises(ValueError, match=r"shape=\(3, 28, 28, 1\)"):
        recipe(np.zeros((3, 28, 28, 1), np.uint8))


def random_drawings(num_images):
    rng = np.random.default_rng(0)
    return 255 * (rng.random((num_images, 105, 105, 1)) < 0.3).astype(np.uint8)


def test_binary_recipe_takes_the_documented_pixels():
    images = random_drawings(2)
    small = omniglot.binary_recipe(images)
    for k in range(28):
        for m in range(28):
            np.testing.assert_array_equal(
                small[:, k, m], images[:, int(3.75 * k), int(3.75 * m)]
            )


def test_grey_recipe_is_the_exact_area_average():
    images = random_drawings(2)
    # Each original pixel becomes 4 x 4, and each new one averages 15 x 15.
    fine = images.astype(np.int64).repeat(4, axis=1).repeat(4, axis=2)
    sums = fine.reshape(2, 28, 15, 28, 15, 1).sum(axis=(2, 4))
    expected = (2 * sums + 225) // 450  # Rounds to nearest.
    np.testing.assert_array_equal(omniglot.grey_recipe(images), expected)


def test_grey_recipe_agrees_with_tensorflow():
    images = random_drawings(5)
    expected = tf.image.resize(images, (28, 28), method="area")
    # Half a grey level, by rounding, and float32 error.
    np.testing.assert_allclose(
        omniglot.grey_recipe(images), expected, atol=0.5 + 1e-3
    )


@needs_omniglot
@needs_gmn
def test_binary_recipe_equals_the_published_arrays():
    split = omniglot.load_omniglot(recipe="binary", data_dir=REAL)
    numbers = {name: index for index, name in enumerate(CHARACTERS)}
    for images, first, file in [
        (split.train, 0, "train_small.npz"),
        (split.test, 964, "test_small.npz"),
    ]:
        published = np.zeros((len(images) // 20, 20, 784), np.uint8)
        with np.load(GMN / file) as arrays:
            assert len(arrays.files) == len(published)
            for key in arrays.files:
                _, alphabet, character = key.split("/")
                name = f"{alphabet}_{int(character[-2:]) - 1}"
                published[numbers[name] - first] = 255 - arrays[key]
        assert set(np.unique(images.images)) == {0, 255}
        np.testing.assert_array_equal(
            images.labels["character"],
            np.repeat(np.arange(first, first + len(published)), 20),
        )
        np.testing.assert_array_equal(
            sorted_within_classes(images.images, 784),
            sorted_within_classes(published, 784),
        )


@needs_omniglot
def test_published_ink_fractions():
    split = omniglot.load_omniglot(recipe="binary", data_dir=REAL)
    assert (split.train.images > 0).mean() == pytest.approx(0.0780, abs=5e-5)
    assert (split.test.images > 0).mean() == pytest.approx(0.0843, abs=5e-5)


@needs_omniglot
@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        ("lake", (964, None, 659)),
        ("lake_small1", (136, None, 659)),
        ("lake_small2", (156, None, 659)),
        ("random1200", (1200, None, 423)),
        ("vinyals", (1028, 172, 423)),
    ],
)
def test_real_splits_hold_twenty_drawings_of_each_character(split, sizes):
    parts = omniglot.load_omniglot(split, recipe="binary", data_dir=REAL)
    for images, size in zip(parts, sizes, strict=True):
        if images is None:
            assert size is None
            continue
        assert len(characters(images)) == size
        counts = np.bincount(images.labels["character"])
        assert set(counts.tolist()) <= {0, 20}
        assert images.group_names["character"] == dict(enumerate(CHARACTERS))
        assert images.group_names["alphabet"] == dict(enumerate(ALPHABETS))
