import numpy as np
import pytest
from PIL import Image

from tests.data.conftest import data_of
from vhe_tf.data import Augmentation
from vhe_tf.data import Folder
from vhe_tf.data import YouTubeFaces
from vhe_tf.data.datasets.youtube_faces import loading


@pytest.fixture
def photos(tmp_path):
    """A folder of 10 classes, all red above and blue below."""
    for index, name in enumerate("abcdefghij"):
        (tmp_path / name).mkdir()
        for number in range(3):
            pixels = np.zeros((8, 6, 3), np.uint8)
            pixels[:4, :, 0], pixels[4:, :, 2] = 200 + number, 100 + index
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_photographs_of_a_folder_keep_their_colours(photos):
    source = Folder(
        "colour", image_size=(4, 6), groupings=("person",), seed=1
    ).load(str(photos))
    assert len(source.validation.group_ids("person")) == 2
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
        red, blue = [200, 0, 0], [0, 0, 100 + data.labels["person"][0]]
        expected = np.tile([[red], [red], [blue], [blue]], (1, 6, 1))
        np.testing.assert_array_equal(stored[0], expected)


@pytest.mark.parametrize("group", ["person", "video"])
@pytest.mark.parametrize("is_complete", [True, False])
def test_youtube_faces_come_from_their_loader(monkeypatch, is_complete, group):
    seen = {}

    def load_youtube_faces(**options):
        seen.update(options)
        return faces(6), faces(4), is_complete

    def faces(num_people):
        pixels = 40 * np.arange(num_people, dtype=np.uint8)
        pixels = pixels[:, None, None, None]
        return data_of(
            np.broadcast_to(pixels, (num_people, 4, 3, 3)),
            person=np.arange(num_people) // 2,
            video=np.arange(num_people),
        )

    monkeypatch.setattr(loading, "load_youtube_faces", load_youtube_faces)
    source = YouTubeFaces(
        manual_dir="here",
        image_size=(4, 3),
        group=group,
        num_levels=86,
    ).load("there")
    assert source.group == group
    augmentation = source.augmentation(symmetries=2, affine_copies=3)
    assert augmentation == Augmentation(
        symmetries=2,
        affine_copies=3,
        binarization="none",
        image_size=(4, 3),
        repeat_edges=True,
        num_levels=86,
    )
    assert seen == {
        "data_dir": "there",
        "manual_dir": "here",
        "image_size": (4, 3),
    }
    assert len(source.train) == 6
    assert source.train.images.dtype == np.uint8
    assert source.validation is None
    assert source.test.images.dtype == np.float32
    assert ("not comparable" in (source.caveat or "")) is not is_complete
    # The nearest of the multiples of 3.
    np.testing.assert_allclose(
        source.test.images[:, 0, 0, 0], np.float32([0, 39, 81, 120]) / 255
    )
    assert "pixels of 86 levels, not 256" in (source.caveat or "")


@pytest.mark.parametrize("num_levels", [1, 257])
def test_photographs_have_2_to_256_levels(num_levels):
    with pytest.raises(ValueError, match=f"Received: num_levels={num_levels}"):
        Folder("colour", num_levels=num_levels)


def test_photographs_keep_their_8_bits(photos):
    source = Folder("colour", (40, 40)).load(str(photos))
    assert source.num_levels == 256
    assert source.caveat is None
    kept = source.test.images * 255
    np.testing.assert_allclose(kept, np.rint(kept), atol=1e-4)
    assert {200, 201, 202} <= set(np.rint(kept).astype(int).ravel())
