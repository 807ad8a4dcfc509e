import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import REAL
from tests.data.conftest import data_of
from tests.data.conftest import needs_omniglot
from vhe_tf.data import datasets
from vhe_tf.data.datasets import Folder
from vhe_tf.data.datasets import Glyphs
from vhe_tf.data.datasets import Omniglot
from vhe_tf.data.datasets import Records
from vhe_tf.data.datasets import Styles
from vhe_tf.data.datasets import Table
from vhe_tf.data.datasets import YouTubeFaces


@pytest.fixture
def folder(tmp_path):
    """A folder of 10 classes with 3 images: black squares on white pages."""
    for index, name in enumerate("abcdefghij"):
        (tmp_path / name).mkdir()
        for number in range(3):
            page = np.full((40, 40), 255, np.uint8)
            page[:20, : 2 + 3 * index + number] = 0
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
    source = Glyphs(images).load()
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
    source = Folder(seed=1).load(str(folder))
    train = set(source.train.group_ids("character"))
    validation = set(source.validation.group_ids("character"))
    test = set(source.test.group_ids("character"))
    assert (len(validation), len(test)) == (2, 2)
    assert len(train | validation | test) == 10 == len(train) + 4
    assert source.binarization == "threshold"
    assert_ready_for_a_model(source.test)


def test_a_class_more_or_less_changes_the_checksum_of_the_groups(folder):
    def load(seed=1):
        return Folder(seed=seed).load(str(folder))

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
    assert checksum() == other  # the same class
    for path in (folder / "z").iterdir():
        Image.open(path).rotate(90).save(path)
    assert checksum() not in (before, other)


def test_ink_of_a_folder_is_dark_on_its_pages_and_bright_in_memory(folder):
    source = Folder().load(str(folder))
    assert np.all(source.train.images[:, 0, 0] == 255)
    assert np.all(source.train.images[:, -1, -1] == 0)
    assert np.all(source.test.images[:, 0, 0] == 1.0)
    assert np.all(source.test.images[:, -1, -1] == 0.0)


def test_a_folder_is_of_the_size_asked_for(folder):
    source = Folder(image_size=(20, 30)).load(str(folder))
    assert source.image_size == (20, 30)
    for data in (source.train, source.test):
        assert data.image_shape == (20, 30, 1)
    assert source.ink
    assert source.group == "character"


def test_the_seed_chooses_the_test_classes_of_a_folder(folder):
    def chosen(seed):
        source = Folder(seed=seed).load(str(folder))
        return tuple(source.test.group_ids("character"))

    assert chosen(3) == chosen(3)
    assert len({chosen(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("trained", "tested", "expected"),
    [
        (Omniglot("lake"), Omniglot("lake", seed=1), False),
        (Omniglot("lake_small1"), Omniglot("lake_small2", seed=1), False),
        (Omniglot("lake"), Omniglot("random1200"), True),
        (Omniglot("random1200"), Omniglot("lake"), True),
        (Omniglot("random1200"), Omniglot("random1200"), False),
        (Omniglot("random1200"), Omniglot("random1200", seed=1), True),
        (Omniglot("random1200"), Omniglot("vinyals"), True),
        (Omniglot("vinyals"), Omniglot("vinyals", seed=1), False),
        (Omniglot("vinyals"), Omniglot("lake_small1"), True),
        (Omniglot("lake_small1"), Omniglot("vinyals"), False),
        (Folder(image_size=(5, 5), seed=2), Folder(seed=2), False),
        (Folder(seed=2), Folder(), True),
        (Folder(seed=2), Folder("colour"), True),
        (Records(seed=2), Records(), True),
        (Records(seed=2), Folder(), False),
        (Glyphs(seed=2), Glyphs(), False),
        (YouTubeFaces(group="video"), YouTubeFaces(), False),
        (Glyphs(seed=1), Omniglot("random1200"), False),
        (Styles(Omniglot("lake")), Omniglot("random1200"), True),
        (Omniglot("random1200"), Styles(Omniglot("lake")), True),
        (Styles(Omniglot("lake")), Styles(Omniglot("lake"), 9), False),
        (Styles(Glyphs()), Styles(Omniglot("lake")), False),
    ],
)
def test_which_specs_train_on_the_test_classes(trained, tested, expected):
    assert trained.trains_on_test_classes_of(tested) is expected


@needs_omniglot
def test_they_have_where_the_sets_of_characters_meet():
    specs = [
        Omniglot(split, "grey", seed)
        for split, seed in (
            ("lake", 0),
            ("lake_small1", 1),
            ("random1200", 0),
            ("random1200", 1),
            ("vinyals", 0),
            ("vinyals", 1),
        )
    ]

    def characters(spec):
        splits = spec.load(str(REAL))
        train, test = (
            set(part.group_ids("character"))
            for part in (splits.train, splits.test)
        )
        return train, test

    parts = [characters(spec) for spec in specs]
    for one, (train, _) in zip(specs, parts, strict=True):
        for other, (_, test) in zip(specs, parts, strict=True):
            found = one.trains_on_test_classes_of(other)
            assert found is bool(train & test), (one, other)


@needs_omniglot
@pytest.mark.parametrize("images", ["binary", "grey"])
def test_omniglot_trains_on_what_was_drawn_and_tests_on_new_alphabets(images):
    source = Omniglot("lake_small1", images).load(str(REAL))
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
    from vhe_tf.data.datasets.omniglot import load_omniglot

    source = Omniglot("lake_small1").load(str(REAL))
    recipe = load_omniglot("lake_small1", recipe="binary", data_dir=str(REAL))
    np.testing.assert_array_equal(
        255 * source.test.images, recipe.test.images.astype(np.float32)
    )


SPECS = [
    Omniglot("vinyals", "grey", 3),
    Glyphs("grey", 1),
    Styles(Omniglot("random1200", seed=2), 12, 3),
    Styles(Glyphs(seed=4)),
    Folder("colour", (40, 30), ("person",), 86, 2),
    Table("grey", (9, 8), ("alphabet", "letter"), 256, 3, True, (50, 25, 25)),
    Records("colour", "person", 64, 5),
    YouTubeFaces("video", (20, 24), 86, "there"),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_specs_survive_json(spec):
    config = json.loads(json.dumps(spec.get_config()))
    assert config["dataset"] == spec.name
    assert datasets.from_config(config) == spec
    defaults = datasets.from_config({"dataset": spec.name})
    assert defaults == type(spec)()


def test_every_data_set_is_in_the_registry():
    assert set(datasets.DATASETS.values()) == {type(spec) for spec in SPECS}


@pytest.mark.parametrize(
    ("config", "received"),
    [
        ({"dataset": "mnist"}, "Received: dataset='mnist'"),
        ({}, "Received: dataset=None"),
        ({"dataset": "glyphs", "image_size": 28}, r"Received: \['image_size']"),
        ({"dataset": "omniglot", "name": "x"}, r"Received: \['name']"),
        ({"dataset": "glyphs", "images": "gray"}, "Received: images='gray'"),
        ({"dataset": "glyphs", "images": "colour"}, "Received: images='col"),
        ({"dataset": "omniglot", "split": "test"}, "Received: split='test'"),
        ({"dataset": "youtube_faces", "group": "face"}, "Received: group="),
        ({"dataset": "styles", "base": {"dataset": "folder"}}, "base=Folder"),
        ({"dataset": "styles", "copies": 31}, "num_styles=30, copies=31"),
        ({"dataset": "folder", "image_size": [28, 0]}, r"\(28, 0\)"),
        (
            {"dataset": "folder", "num_levels": 86},
            "num_levels=86, images='binary'",
        ),
        (
            {"dataset": "records", "images": "colour", "num_levels": 1},
            "Received: num_levels=1",
        ),
    ],
)
def test_invalid_configurations_are_rejected(config, received):
    with pytest.raises(ValueError, match=received):
        datasets.from_config(config)


def test_an_unknown_recipe_is_rejected():
    with pytest.raises(ValueError, match="Received: images='gray'"):
        datasets.ready(data_of(np.zeros((1, 2, 2, 1))), "gray")


@pytest.mark.parametrize("spec", [Folder(), Folder("colour"), Records()])
def test_a_folder_must_be_named(spec):
    with pytest.raises(ValueError, match="needs `data_dir`"):
        spec.load()


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        Folder().load(str(tmp_path / "absent"))


def test_a_folder_with_too_few_classes_is_an_error(tmp_path):
    for index, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        page = 255 * np.eye(28, k=index, dtype=np.uint8)
        Image.fromarray(page).save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=r"at least 5 groups.*Received: 3 in"):
        Folder().load(str(tmp_path))
