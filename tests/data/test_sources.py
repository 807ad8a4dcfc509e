import functools
import importlib
import os
import pathlib
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

from vhe_tf.data import RecordedImages
from vhe_tf.data import sources
from vhe_tf.data import write_records
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.data.records import DamagedRecordsError

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared/data/tfds"

needs_omniglot = pytest.mark.skipif(
    not (REAL / "omniglot" / "3.0.0").exists(),
    reason="needs Omniglot as prepared by TensorFlow Datasets in "
    "../shared/data/tfds",
)


@pytest.fixture
def few_glyphs(monkeypatch):
    """Embedded handwriting of 10 alphabets with 2 characters by 3 people."""
    module = importlib.import_module("vhe_tf.data.glyphs")
    small = functools.partial(
        module.glyphs,
        num_alphabets=10,
        characters_per_alphabet=2,
        num_drawers=3,
    )
    monkeypatch.setattr(module, "glyphs", small)


@pytest.fixture
def folder(tmp_path):
    """A folder of 10 classes with 3 images: black squares on white pages."""
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
        for number in range(3):
            page = np.full((40, 40), 255, np.uint8)
            page[:20, : 2 + ord(name) - ord("a") + number] = 0
            Image.fromarray(page).save(tmp_path / name / f"{number}.png")
    return tmp_path


def data_of(images, **labels):
    labels = labels or {"character": np.arange(len(images))}
    return GroupedImages(np.asarray(images), labels)


def assert_ready_for_a_model(images):
    assert images.images.dtype == np.float32
    assert images.image_shape == (28, 28, 1)
    assert set(np.unique(images.images)) == {0.0, 1.0}
    # Ink is 1 and rarer than paper.
    assert 0.01 < images.images.mean() < 0.5


# Sources ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "binarization"), [("binary", "threshold"), ("grey", "dynamic")]
)
def test_glyphs_test_on_alphabets_of_their_own(
    few_glyphs, images, binarization
):
    source = sources.load_source("glyphs", images=images)
    assert source.validation is None
    assert source.image_size == (28, 28)
    assert source.binarization == binarization
    assert source.train.images.dtype == np.uint8
    assert_ready_for_a_model(source.test)
    for name in ("alphabet", "character"):
        assert not set(source.train.group_ids(name)) & set(
            source.test.group_ids(name)
        )
    assert len(source.train.group_ids("alphabet")) == 2
    assert len(source.test.group_ids("alphabet")) == 8
    assert len(source.train) == 12
    assert len(source.test) == 48


def test_a_folder_tests_on_a_fifth_of_its_classes(folder):
    source = sources.load_source("folder", data_dir=str(folder), seed=1)
    train = set(source.train.group_ids("character"))
    test = set(source.test.group_ids("character"))
    assert len(test) == 2
    assert not train & test
    assert train | test == set(range(10))
    assert source.validation is None
    assert source.binarization == "threshold"
    assert_ready_for_a_model(source.test)


def test_ink_of_a_folder_is_dark_on_its_pages_and_bright_in_memory(folder):
    source = sources.load_source("folder", data_dir=str(folder))
    assert np.all(source.train.images[:, 0, 0] == 255)
    assert np.all(source.train.images[:, -1, -1] == 0)
    assert np.all(source.test.images[:, 0, 0] == 1.0)
    assert np.all(source.test.images[:, -1, -1] == 0.0)


def test_a_folder_is_of_the_size_asked_for(folder):
    source = sources.load_source(
        "folder", data_dir=str(folder), image_size=(20, 30)
    )
    assert source.image_size == (20, 30)
    for data in (source.train, source.test):
        assert data.image_shape == (20, 30, 1)
    # Height first: the squares are of half the page's height.
    assert np.all(source.test.images[:, :10, 0] == 1.0)
    assert np.all(source.test.images[:, 10:] == 0.0)
    assert source.ink
    assert source.group == "character"


def test_the_seed_chooses_the_test_classes_of_a_folder(folder):
    def chosen(seed):
        source = sources.load_source("folder", data_dir=str(folder), seed=seed)
        return tuple(source.test.group_ids("character"))

    assert chosen(3) == chosen(3)
    assert len({chosen(seed) for seed in range(5)}) > 1


def recorded(folder, num_groups, *, channels=1, group="character"):
    """Writes records of three images a group, dark on the left."""
    images = np.full((3 * num_groups, 12, 10, channels), 255, np.uint8)
    images[:, :, :4] = 0
    ids = np.arange(len(images)) // 3
    write_records(folder, GroupedImages(images, {group: 7 * ids}))


def test_records_test_on_a_fifth_of_their_classes(tmp_path):
    recorded(tmp_path, 20)
    source = sources.load_source("records", data_dir=str(tmp_path), seed=1)
    assert isinstance(source.train, RecordedImages)
    assert isinstance(source.test, GroupedImages)
    assert source.validation is None
    train, test = (
        set(data.group_ids("character")) for data in (source.train, source.test)
    )
    assert len(test) == 4
    assert not train & test
    assert train | test == set(range(0, 140, 7))
    assert source.image_size == (12, 10)
    assert source.binarization == "threshold"
    # Ink is 255 as stored.
    assert source.test.images.dtype == np.float32
    assert np.all(source.test.images[:, :, :4] == 0.0)
    assert np.all(source.test.images[:, :, 4:] == 1.0)


def test_records_of_colour_stay_as_they_are(tmp_path):
    recorded(tmp_path, 10, channels=3, group="person")
    source = sources.load_photo_source("records", data_dir=str(tmp_path))
    assert source.image_size == source.test.image_shape[:2] == (12, 10)
    assert source.group == "person"
    assert source.binarization == "none"
    assert len(source.test) == 6
    assert len(source.train) == 24


def test_the_test_set_of_records_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MAX_TEST_GROUPS_OF_RECORDS", 3)
    recorded(tmp_path, 20)
    source = sources.load_source("records", data_dir=str(tmp_path))
    assert len(source.test.group_ids("character")) == 3
    assert len(source.train.group_ids("character")) == 17


def test_large_classes_of_records_are_tested_in_part(tmp_path, monkeypatch):
    image_bytes = 4 * 12 * 10
    monkeypatch.setattr(sources, "_MIN_TEST_IMAGES_A_GROUP", 2)
    monkeypatch.setattr(sources, "_MAX_TEST_BYTES_OF_RECORDS", 8 * image_bytes)
    recorded(tmp_path, 20)
    source = sources.load_source("records", data_dir=str(tmp_path))
    ids, counts = np.unique(source.test.labels["character"], return_counts=True)
    assert len(ids) == 4
    np.testing.assert_array_equal(counts, 2)
    assert len(source.train) == 3 * 16
    # Where there is no room for so many classes, there are fewer.
    monkeypatch.setattr(sources, "_MAX_TEST_BYTES_OF_RECORDS", 5 * image_bytes)
    source = sources.load_source("records", data_dir=str(tmp_path))
    assert len(source.test.group_ids("character")) == 2
    assert len(source.test) == 4
    assert len(source.train) == 3 * 16  # as before: no run has other classes


def test_damaged_records_are_left_out_on_request(tmp_path, capsys):
    recorded(tmp_path, 20)
    [path] = tmp_path.glob("*.tfrecord")
    intact = sources.load_source("records", data_dir=str(tmp_path))
    # Of the test set, the first image alone is there.
    first = np.flatnonzero(
        np.isin(7 * (np.arange(60) // 3), intact.test.group_ids("character"))
    )[0]
    with np.load(tmp_path / "index.npz") as index:
        os.truncate(path, index["offsets"][first + 1])
    with pytest.raises(DamagedRecordsError, match=path.name):
        sources.load_source("records", data_dir=str(tmp_path))
    source = sources.load_source(
        "records", data_dir=str(tmp_path), skip_corrupt=True
    )
    np.testing.assert_array_equal(source.test.images, intact.test.images[:1])
    assert len(source.train) == len(intact.train)
    assert "Left out 11 of 12 records" in capsys.readouterr().out
    again = sources.load_again(
        {"dataset": "records", "images": "grey"},
        data_dir=str(tmp_path),
        skip_corrupt=True,
    )
    assert again.test.labels["character"] == source.test.labels["character"]


@pytest.mark.parametrize(
    ("load", "channels", "group", "wanted"),
    [
        ("load_source", 3, "character", "1 channels in the grouping 'char"),
        ("load_source", 1, "person", "1 channels in the grouping 'character'"),
        ("load_photo_source", 1, "person", "3 channels in the grouping 'per"),
        ("load_photo_source", 3, "face", "3 channels in the grouping 'person'"),
    ],
)
def test_records_of_another_kind_are_refused(
    tmp_path, load, channels, group, wanted
):
    recorded(tmp_path, 10, channels=channels, group=group)
    with pytest.raises(ValueError, match=wanted) as error:
        getattr(sources, load)("records", data_dir=str(tmp_path))
    assert str(error.value).endswith(
        f"Received: images of shape (12, 10, {channels}) in ['{group}'] in "
        f"{tmp_path}."
    )


def test_records_need_a_folder_and_five_classes(tmp_path):
    with pytest.raises(ValueError, match=r"Received: data_dir=None\."):
        sources.load_source("records")
    recorded(tmp_path, 4)
    with pytest.raises(ValueError, match="Received: 4 in"):
        sources.load_source("records", data_dir=str(tmp_path))


def test_records_are_not_resized(tmp_path):
    for load in (sources.load_source, sources.load_photo_source):
        with pytest.raises(ValueError, match="size at which they are stored"):
            load("records", data_dir=str(tmp_path), image_size=(28, 28))


def test_what_is_not_recorded_cannot_be_skipped(folder):
    received = "Received: skip_corrupt=True, dataset='folder'."
    for load in (sources.load_source, sources.load_photo_source):
        with pytest.raises(ValueError, match=re.escape(received)):
            load("folder", data_dir=str(folder), skip_corrupt=True)
    with pytest.raises(ValueError, match="skip_corrupt=True, dataset='glyphs'"):
        sources.load_again(
            {"dataset": "glyphs", "num_styles": 3}, skip_corrupt=True
        )


@needs_omniglot
@pytest.mark.parametrize("images", ["binary", "grey"])
def test_omniglot_trains_on_what_was_drawn_and_tests_on_new_alphabets(images):
    source = sources.load_source(
        "omniglot", data_dir=str(REAL), split="lake_small1", images=images
    )
    size = {"binary": 105, "grey": 28}[images]
    assert source.train.images.dtype == np.uint8
    assert source.train.image_shape == (size, size, 1)
    assert source.image_size == (28, 28)
    assert source.validation is None
    assert_ready_for_a_model(source.test)
    for name in ("alphabet", "character"):
        assert not set(source.train.group_ids(name)) & set(
            source.test.group_ids(name)
        )
    assert len(source.test.group_ids("alphabet")) == 20
    assert len(source.test) == 659 * 20


@needs_omniglot
def test_fixed_binary_test_images_are_those_of_the_recipe():
    from vhe_tf.data.omniglot import load_omniglot

    source = sources.load_source(
        "omniglot", data_dir=str(REAL), split="lake_small1"
    )
    recipe = load_omniglot("lake_small1", recipe="binary", data_dir=str(REAL))
    np.testing.assert_array_equal(
        255 * source.test.images, recipe.test.images.astype(np.float32)
    )


def assert_styled_source(source, copies):
    from vhe_tf.data.styles import pen_styles

    assert source.validation is None
    assert source.image_size == (28, 28)
    assert source.binarization == "none"
    assert source.train.images.dtype == np.uint8
    assert source.test.images.dtype == np.float32
    assert not set(source.train.group_ids("character")) & set(
        source.test.group_ids("character")
    )
    inks = [pen.ink for pen in pen_styles(6, seed=2)]
    for data, scale, times in (
        (source.train, 1, copies),
        (source.test, 255, 1),  # no query is its support in another ink
    ):
        assert data.image_shape == (28, 28, 3)
        style = data.labels["style"].reshape(-1, times)
        assert all(len(set(row)) == times for row in style)
        some = slice(None, None, 1 + len(data) // 500)
        for image, index in zip(
            data.images[some], data.labels["style"][some], strict=True
        ):
            pixels = np.rint(255 - scale * image.astype(float)).reshape(-1, 3)
            assert {tuple(each) for each in pixels} == {
                (255, 255, 255),
                inks[index],
            }


def test_styled_glyphs_have_the_same_styles_in_training_and_testing(
    few_glyphs,
):
    source = sources.load_styled_source(
        "glyphs", num_styles=6, copies=3, seed=2
    )
    assert_styled_source(source, copies=3)
    assert len(source.train) == 3 * 12
    assert len(source.test) == 48
    for data in (source.train, source.test):
        assert list(data.labels) == [
            "alphabet",
            "character",
            "drawer",
            "style",
        ]
        assert set(data.group_names["style"]) == set(range(6))


@needs_omniglot
def test_styled_omniglot_is_drawn_from_the_originals(monkeypatch):
    from vhe_tf.data import styles

    seen = []
    styled = styles.styled

    def watched(data, **options):
        seen.append(data.image_shape)
        few = np.arange(len(data)) % 20 == 0
        return styled(data.where(few), **options)

    monkeypatch.setattr(styles, "styled", watched)
    source = sources.load_styled_source(
        "omniglot",
        data_dir=str(REAL),
        split="lake_small1",
        num_styles=6,
        copies=2,
        seed=2,
    )
    assert seen == [(105, 105, 1)] * 2
    assert_styled_source(source, copies=2)
    assert len(source.test) == 659
    assert len(source.test.group_ids("alphabet")) == 20


@needs_omniglot
def test_styled_validation_images_are_kept(monkeypatch):
    from vhe_tf.data import styles

    styled = styles.styled

    def few(data, **options):
        return styled(data.where(np.arange(len(data)) % 40 == 0), **options)

    monkeypatch.setattr(styles, "styled", few)
    source = sources.load_styled_source(
        "omniglot", data_dir=str(REAL), split="vinyals", copies=1
    )
    assert source.validation.image_shape == (28, 28, 3)
    assert source.validation.images.dtype == np.uint8
    assert len(source.validation.group_ids("alphabet")) == 5
    assert "style" in source.validation.labels


@pytest.fixture
def photos(tmp_path):
    """A folder of 10 classes, all red above and blue below."""
    for name in "abcdefghij":
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.zeros((8, 6, 3), np.uint8)
            pixels[:4, :, 0], pixels[4:, :, 2] = 200 + number, 100
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_photographs_of_a_folder_keep_their_colours(photos):
    source = sources.load_photo_source(
        "folder", data_dir=str(photos), image_size=(4, 6), seed=1
    )
    assert source.validation is None
    assert source.image_size == (4, 6)
    assert source.binarization == "none"
    assert source.group == "person"
    assert not source.ink
    assert len(source.test.group_ids("person")) == 2
    assert set(source.test.group_ids("person")).isdisjoint(
        source.train.group_ids("person")
    )
    assert source.train.images.dtype == np.uint8
    assert source.test.images.dtype == np.float32
    for data, scale in ((source.train, 1), (source.test, 255)):
        assert data.image_shape == (4, 6, 3)
        stored = data.images * scale
        np.testing.assert_array_equal(stored, np.rint(stored))  # of 8 bits
        red, blue = [200, 0, 0], [0, 0, 100]
        expected = np.tile([[red], [red], [blue], [blue]], (1, 6, 1))
        np.testing.assert_array_equal(stored[0], expected)


@pytest.mark.parametrize("is_complete", [True, False])
def test_youtube_faces_come_from_their_loader(monkeypatch, is_complete):
    seen = {}

    def load_youtube_faces(**options):
        seen.update(options)
        return faces(6), faces(4), is_complete

    def faces(num_people):
        pixels = np.arange(num_people, dtype=np.uint8)[:, None, None, None]
        return data_of(
            np.broadcast_to(pixels, (num_people, 4, 3, 3)),
            person=np.arange(num_people),
            video=np.arange(num_people),
        )

    loader = types.ModuleType("vhe_tf.data.youtube_faces")
    loader.load_youtube_faces = load_youtube_faces
    monkeypatch.setitem(sys.modules, "vhe_tf.data.youtube_faces", loader)
    source = sources.load_photo_source(
        "youtube_faces",
        data_dir="there",
        manual_dir="here",
        image_size=(4, 3),
        group="video",
        skip_unreadable=True,
    )
    assert source.group == "video"
    assert seen == {
        "data_dir": "there",
        "manual_dir": "here",
        "image_size": (4, 3),
        "skip_unreadable": True,
    }
    assert len(source.train) == 6
    assert source.train.images.dtype == np.uint8
    assert source.validation is None
    assert source.test.images.dtype == np.float32
    assert ("not comparable" in (source.caveat or "")) is not is_complete
    np.testing.assert_array_equal(
        source.test.images[:, 0, 0, 0], np.float32([0, 1, 2, 3]) / 255
    )


def test_the_data_of_a_run_are_loaded_again_by_their_kind(monkeypatch):
    kinds = {
        "load_source": {"dataset": "glyphs", "images": "grey", "seed": 1},
        "load_styled_source": {"dataset": "glyphs", "num_styles": 3},
        "load_photo_source": {"dataset": "folder", "skip_unreadable": False},
    }
    for name in kinds:
        monkeypatch.setattr(
            sources, name, lambda name=name, **options: (name, options)
        )
    for name, settings in kinds.items():
        options = {"data_dir": "DIR", "skip_corrupt": False, **settings}
        if name == "load_styled_source":
            del options["skip_corrupt"]
        assert sources.load_again(settings, data_dir="DIR") == (name, options)


@pytest.mark.parametrize("dataset", ["omniglot", "glyphs"])
def test_only_a_folder_has_a_size_of_its_own(dataset):
    with pytest.raises(
        ValueError, match=r"leave it off. Received: image_size=\(40, 40\)"
    ):
        sources.load_source(dataset, image_size=(40, 40))


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="Received: dataset='omniglot'"):
        sources.load_photo_source("omniglot")
    with pytest.raises(ValueError, match="Received: dataset='folder'"):
        sources.load_styled_source("folder")
    with pytest.raises(ValueError, match="Received: images='colour'"):
        sources.load_source("glyphs", images="colour")
    with pytest.raises(ValueError, match="Received: dataset='mnist'"):
        sources.load_source("mnist")
    with pytest.raises(ValueError, match="Received: images='gray'"):
        sources.load_source("glyphs", images="gray")
    with pytest.raises(ValueError, match="Received: images='gray'"):
        sources.ready(data_of(np.zeros((1, 2, 2, 1))), "gray")


def test_a_folder_must_be_named():
    for load in (sources.load_source, sources.load_photo_source):
        with pytest.raises(ValueError, match="needs `data_dir`"):
            load("folder")


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        sources.load_source("folder", data_dir=str(tmp_path / "absent"))


def test_a_folder_with_too_few_classes_is_an_error(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=r"at least 5 classes.*Received: 3 in"):
        sources.load_source("folder", data_dir=str(tmp_path))


# Binarisation -----------------------------------------------------------------


@pytest.mark.parametrize("images", ["binary", "grey"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_full_ink_is_always_ink_and_paper_never(images, dtype):
    full = 255 if dtype == np.uint8 else 1.0
    stored = np.zeros((40, 100, 100, 1), dtype)
    stored[20:] = full
    binary = sources.ready(data_of(stored), images).images
    assert binary.dtype == np.float32
    assert np.all(binary[:20] == 0.0)
    assert np.all(binary[20:] == 1.0)


def test_binary_images_have_their_threshold_at_one_half():
    values = np.array([0, 1, 127, 128, 254, 255], np.uint8)
    stored = values.reshape(6, 1, 1, 1)
    ink = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    np.testing.assert_array_equal(
        sources.ready(data_of(stored), "binary").images.ravel(), ink
    )
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(
            sources.ready(
                data_of((stored / 255).astype(dtype)), "binary"
            ).images.ravel(),
            ink,
        )


def test_a_grey_pixel_is_ink_as_often_as_it_is_dark():
    values = np.array([1, 64, 127, 200, 254], np.uint8)
    stored = np.tile(values.reshape(5, 1, 1, 1), (1, 300, 300, 1))
    binary = sources.ready(data_of(stored), "grey", seed=1).images
    assert set(np.unique(binary)) == {0.0, 1.0}
    p = values / 255
    # Five standard errors of a mean of 90000 Bernoulli draws.
    error = np.sqrt(p * (1 - p) / 300**2)
    assert np.all(np.abs(binary.mean(axis=(1, 2, 3)) - p) < 5.0 * error)


def test_grey_pixels_are_drawn_once_by_the_seed():
    data = data_of(np.full((2, 20, 20, 1), 0.5, np.float32))

    def drawn(seed):
        return sources.ready(data, "grey", seed=seed).images

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert np.any(drawn(1) != drawn(2))
    assert np.any(drawn(1)[0] != drawn(1)[1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_colours_stay_as_they_are(dtype):
    values = np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3) * 20
    stored = values if dtype == np.uint8 else (values / 255).astype(dtype)
    ready = sources.ready(data_of(stored, style=[4, -1]), "colour")
    assert ready.images.dtype == np.float32
    np.testing.assert_array_equal(
        ready.images, values.astype(np.float32) / np.float32(255)
    )
    np.testing.assert_array_equal(ready.labels["style"], [4, -1])


def test_ready_images_keep_their_labels_and_leave_the_stored_ones_alone():
    labels = {"character": np.array([4, 9]), "alphabet": np.array([1, 1])}
    stored = np.full((2, 3, 3, 1), 100, np.uint8)
    stored.setflags(write=False)
    data = GroupedImages(stored, labels, {"alphabet": {1: "Greek"}})
    ready = sources.ready(data, "grey")
    for name, ids in labels.items():
        np.testing.assert_array_equal(ready.labels[name], ids)
    assert ready.group_names == {"alphabet": {1: "Greek"}}
    assert np.all(data.images == 100)


# Held-out groups --------------------------------------------------------------


def numbered(ids):
    images = np.arange(len(ids), dtype=np.float32) / len(ids)
    return data_of(images.reshape(-1, 1, 1, 1), character=np.asarray(ids))


def test_held_out_groups_are_whole_and_the_rest_stays():
    data = numbered([3, 5, 3, 8, 5, 11, 3])
    rest, held_out = sources.hold_out_groups(data, "character", 2, seed=0)
    assert len(held_out.group_ids("character")) == 2
    assert len(rest.group_ids("character")) == 2
    assert not set(rest.group_ids("character")) & set(
        held_out.group_ids("character")
    )
    together = np.concatenate([rest.images, held_out.images]).ravel()
    np.testing.assert_array_equal(np.sort(together), data.images.ravel())


def test_the_seed_chooses_the_held_out_groups():
    data = numbered(np.arange(20))

    def chosen(seed):
        _, held_out = sources.hold_out_groups(data, "character", 5, seed=seed)
        return held_out.images.ravel().tolist()

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


@pytest.mark.parametrize("num_groups", [-1, 0, 3, 4])
def test_a_group_is_left_on_each_side(num_groups):
    with pytest.raises(ValueError, match=rf"1 to 2 of 3.*: {num_groups}\."):
        sources.hold_out_groups(numbered([0, 1, 2]), "character", num_groups)
