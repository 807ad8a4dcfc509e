import logging

import numpy as np
import pytest
from PIL import Image

from vhe_tf.data import Folder
from vhe_tf.data import RecordedImages
from vhe_tf.data import read_image_folder
from vhe_tf.data import read_label_table
from vhe_tf.data.datasets.records import folder_to_records
from vhe_tf.data.polarity import found_polarity
from vhe_tf.data.polarity import with_ink_high


def pages(dtype=np.uint8):
    """Eight dark strokes on light pages."""
    pixels = np.full((8, 12, 12, 1), 240, np.uint8)
    for index in range(8):
        pixels[index, 2:10, 2 + index] = 20
    return pixels if dtype == np.uint8 else (pixels / 255).astype(dtype)


def write(root, pixels):
    for index, image in enumerate(pixels):
        folder = root / f"class{index % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{index}.png")
    return root


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_ink_is_high_whatever_the_page(dtype, caplog):
    light = pages(dtype)
    dark = 255 - light if dtype == np.uint8 else 1 - light
    np.testing.assert_array_equal(with_ink_high(light), dark)
    assert not caplog.records
    np.testing.assert_array_equal(with_ink_high(dark), dark)
    assert "read as light ink on a dark page" in caplog.text
    assert "8 on a dark page" in caplog.text
    assert with_ink_high(light).dtype == dtype


def test_what_was_found_is_counted():
    light = pages()
    unclear = light[:1].copy()
    unclear[:, 1:-1, 1:-1] = 0  # a light border around a dark mean
    mixed = np.concatenate([light, 255 - light[:2], unclear])
    found = found_polarity(mixed)
    assert (found.light, found.dark, found.unclear) == (8, 2, 1)
    assert not found.page_is_dark


def test_a_minority_of_dark_pages_is_warned_of(caplog):
    light = pages()
    mixed = np.concatenate([light, 255 - light[:2]])
    np.testing.assert_array_equal(with_ink_high(mixed, source="X"), 255 - mixed)
    assert "X: all images are read as dark ink on a light page" in caplog.text
    assert "2 on a dark page" in caplog.text
    assert "If that is wrong, pass `invert=False`" in caplog.text


@pytest.mark.parametrize("share", ["a few", "most"])
def test_heavy_drawings_are_warned_of_if_they_are_most(share, caplog):
    light = pages()
    count = 2 if share == "a few" else 6
    light[:count, 1:-1, 1:-1] = 0  # a light border around a dark mean
    with_ink_high(light)
    assert bool(caplog.records) == (share == "most")


@pytest.mark.parametrize("invert", [False, True])
def test_a_choice_that_contradicts_the_page_is_obeyed_with_a_warning(
    invert, caplog
):
    light = pages()
    wrong = 255 - light if invert else light
    result = with_ink_high(wrong, invert=invert)
    np.testing.assert_array_equal(result, light)
    assert f"pass `invert={not invert}`" in caplog.text


def _table(root):
    path = root / "table.csv"
    names = sorted(p.relative_to(root) for p in root.rglob("*.png"))
    rows = [f"{name},{name.parent}" for name in names]
    path.write_text("\n".join(["image,character", *rows]))
    return path


@pytest.mark.parametrize("page", ["light", "dark"])
@pytest.mark.parametrize("reader", ["folder", "spec", "table", "records"])
def test_every_reader_finds_ink(reader, page, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    pixels = pages() if page == "light" else 255 - pages()
    root = write(tmp_path / "pages", pixels)
    size = (12, 12)
    if reader == "folder":
        images = read_image_folder(root, image_size=size, invert=None).images
    elif reader == "spec":
        images = Folder(image_size=size).load(str(root)).train.images
    elif reader == "table":
        images = read_label_table(
            _table(root), image_size=size, invert=None
        ).images
    else:
        folder_to_records.main(
            [
                f"--from_folder={root}",
                f"--to={tmp_path / 'to'}",
                "--image_size=12x12",
            ]
        )
        images = RecordedImages(tmp_path / "to").load().images
    assert found_polarity(images).page_is_dark
    assert ("light ink on a dark page" in caplog.text) == (page == "dark")


def test_photographs_stay_as_they_are(tmp_path, caplog):
    root = write(tmp_path, pages())
    splits = Folder(images="colour", image_size=(12, 12)).load(str(root))
    assert not found_polarity(splits.train.images).page_is_dark
    assert not caplog.records
