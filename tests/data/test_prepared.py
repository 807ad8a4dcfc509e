"""Corrupt descriptions of prepared data, and folders that are too deep."""

import shutil

import pytest

from tests.data.test_omniglot import data_dir  # noqa: F401
from tests.data.test_youtube_faces import packed
from tests.data.test_youtube_faces import small_faces
from vhe_tf.data.datasets import omniglot
from vhe_tf.data.datasets.omniglot import load_omniglot
from vhe_tf.data.datasets.youtube_faces.loading import load_youtube_faces

CORRUPTIONS = {
    "empty": lambda _: b"",
    "cut": lambda content: content[: len(content) // 2],
    "of_another_type": lambda _: b"[1, 2]",
    "without_its_keys": lambda _: b"{}",
    "no_text": lambda content: b"\xff\xfe\x00" + content,
}


@pytest.fixture
def copied(data_dir, tmp_path):  # noqa: F811
    """A copy of the data whose files may be changed."""
    shutil.copytree(data_dir, tmp_path / "tfds")
    return tmp_path / "tfds"


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_a_corrupt_description_of_omniglot_is_named(copied, name, corruption):
    path = copied / "omniglot" / "3.0.0" / name
    path.write_bytes(CORRUPTIONS[corruption](path.read_bytes()))
    with pytest.raises(ValueError, match=f"{name}' is corrupt.*Received: "):
        load_omniglot("lake_small1", data_dir=copied)


def test_a_missing_description_of_omniglot_is_named(copied):
    (copied / "omniglot" / "3.0.0" / "dataset_info.json").unlink()
    with pytest.raises(ValueError, match=r"dataset_info\.json' is corrupt"):
        load_omniglot("lake_small1", data_dir=copied)


def test_a_list_of_names_that_is_cut_is_named(copied):
    path = copied / "omniglot" / "3.0.0" / "label.labels.txt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"label\.labels\.txt' must name all"):
        load_omniglot("lake", data_dir=copied)


@pytest.mark.parametrize("inner", ["omniglot", "omniglot/3.0.0"])
def test_a_folder_of_omniglot_that_is_too_deep_is_used(
    copied, monkeypatch, inner
):
    def network_answers():
        raise AssertionError("The network was asked.")

    monkeypatch.setattr(omniglot, "_network_answers", network_answers)
    split = load_omniglot("lake_small1", data_dir=copied / inner)
    assert len(split.train) == 5


def test_faces_have_the_same_rules(tmp_path):
    manual_dir = packed(tmp_path, small_faces())
    data_dir = tmp_path / "tfds"  # noqa: F811
    expected = load_youtube_faces(data_dir=data_dir, manual_dir=manual_dir)
    for inner in ("youtube_faces", "youtube_faces/40x40/1.0.0"):
        found = load_youtube_faces(data_dir=data_dir / inner)
        assert len(found.train) == len(expected.train)
    path = data_dir / "youtube_faces/40x40/1.0.0/dataset_info.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"dataset_info\.json' is corrupt"):
        load_youtube_faces(data_dir=data_dir)
