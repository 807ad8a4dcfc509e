import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import REAL
from tests.data.conftest import data_of
from tests.data.conftest import needs_omniglot
from vhe_tf.data import sources


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


def assert_ready_for_a_model(images):
    assert images.images.dtype == np.float32
    assert images.image_shape == (28, 28, 1)
    assert set(np.unique(images.images)) == {0.0, 1.0}
    # Ink is 1 and rarer than paper.
    assert 0.01 < images.images.mean() < 0.5


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


def test_a_class_more_or_less_changes_the_checksum_of_the_groups(folder):
    def load(seed=1):
        return sources.load_source("folder", data_dir=str(folder), seed=seed)

    def checksum(seed=1):
        return load(seed).groups_checksum()

    before = checksum()
    names = load().train.group_names["character"]
    trained_on = names[int(load().train.group_ids("character")[0])]
    assert checksum(seed=2) != before  # others are for testing
    (folder / "a" / "0.png").rename(folder / "a" / "7.png")
    (folder / "b" / "0.png").unlink()
    assert checksum() == before
    (folder / trained_on).rename(folder / f"{trained_on}{trained_on}")
    other = checksum()
    assert other != before
    shutil.copytree(folder / f"{trained_on}{trained_on}", folder / "z")
    assert checksum() not in (before, other)


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


def _omniglot(split, seed=0):
    return {"dataset": "omniglot", "split": split, "seed": seed}


@pytest.mark.parametrize(
    ("trained", "tested", "expected"),
    [
        (_omniglot("lake"), _omniglot("lake", 1), False),
        (_omniglot("lake_small1"), _omniglot("lake_small2", 1), False),
        (_omniglot("lake"), _omniglot("random1200"), True),
        (_omniglot("random1200"), _omniglot("lake"), True),
        (_omniglot("random1200"), _omniglot("random1200"), False),
        (_omniglot("random1200"), _omniglot("random1200", 1), True),
        (_omniglot("random1200"), _omniglot("vinyals"), True),
        (_omniglot("vinyals"), _omniglot("vinyals", 1), False),
        (_omniglot("vinyals"), _omniglot("lake_small1"), True),
        (_omniglot("lake_small1"), _omniglot("vinyals"), False),
        (
            {"dataset": "folder", "seed": 2, "image_size": (5, 5)},
            {"dataset": "folder", "seed": 2},
            False,
        ),
        *(
            (
                {"dataset": name, "seed": 2},
                {"dataset": name, "seed": 0},
                name in ("folder", "records"),
            )
            for name in ("folder", "records", "glyphs", "youtube_faces")
        ),
        ({"dataset": "glyphs", "seed": 1}, _omniglot("random1200"), False),
    ],
)
def test_which_runs_have_trained_on_the_test_classes(trained, tested, expected):
    assert sources.trained_on_test_classes(trained, tested) is expected


@needs_omniglot
def test_they_have_where_the_sets_of_characters_meet():
    runs = [
        _omniglot("lake"),
        _omniglot("lake_small1", 1),
        _omniglot("random1200"),
        _omniglot("random1200", 1),
        _omniglot("vinyals"),
        _omniglot("vinyals", 1),
    ]

    def characters(run):
        source = sources.load_source(data_dir=str(REAL), images="grey", **run)
        train, test = (
            set(part.group_ids("character"))
            for part in (source.train, source.test)
        )
        return train, test

    parts = [characters(run) for run in runs]
    for one, (train, _) in zip(runs, parts, strict=True):
        for other, (_, test) in zip(runs, parts, strict=True):
            found = sources.trained_on_test_classes(one, other)
            assert found is bool(train & test), (one, other)


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
