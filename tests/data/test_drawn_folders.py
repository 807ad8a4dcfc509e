"""Data sets of drawings are read as `vhe-tf draw` reads one of them."""

import numpy as np
import pytest
from PIL import Image
from PIL import ImageDraw

from tests.data.test_drawing_file import ink_of
from vhe_tf.data import Folder
from vhe_tf.data import RecordedImages
from vhe_tf.data import read_image_folder
from vhe_tf.data import read_label_table
from vhe_tf.data.datasets import Table
from vhe_tf.data.datasets.records import folder_to_records

# Sides of pages and widths of strokes; at 28x28, 0.2 to 1.4 pixels.
PAGES = [(105, 3), (200, 4), (300, 5), (400, 6), (600, 6), (1000, 8), (64, 3)]


def page_of(size, width, *, turn=0, paper="white", ink="black"):
    """Returns a drawing of three strokes that fill the page."""
    page = Image.new("RGB", (size, size), paper)
    pen = ImageDraw.Draw(page)
    line = [(0.15, 0.2), (0.85, 0.3), (0.25, 0.6), (0.8, 0.85)]
    pen.line([(size * x, size * y) for x, y in line], ink, width, "curve")
    return page.rotate(90 * turn)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder per class with one drawing, and a table of them."""
    root = tmp_path_factory.mktemp("pages")
    rows = ["image,character"]
    for index, (size, width) in enumerate(PAGES):
        path = root / "folder" / f"class{index}" / "0.png"
        path.parent.mkdir(parents=True)
        page_of(size, width, turn=index % 4).save(path)
        rows.append(f"{path},class{index}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def _read(reader, pages, folder):
    options = {"drawings": True, "invert": None}
    if reader == "folder":
        return read_image_folder(pages / "folder", **options)
    if reader == "table":
        return read_label_table(pages / "labels.csv", **options)
    to = folder / "records"
    folder_to_records.main([f"--from_folder={pages / 'folder'}", f"--to={to}"])
    return RecordedImages(to).load()


@pytest.mark.parametrize("reader", ["folder", "table", "records"])
def test_a_data_set_is_read_as_its_drawings_are(reader, pages, tmp_path):
    images = _read(reader, pages, tmp_path).images
    wanted = np.stack(
        [ink_of(path) for path in sorted((pages / "folder").glob("*/0.png"))]
    )
    # `draw` looks at a page of 256x256 pixels.
    assert np.mean((images >= 128) == wanted) > 0.98


@pytest.mark.parametrize("kind", [Folder, Table])
def test_thin_strokes_survive(kind, pages):
    where = pages / ("folder" if kind is Folder else "labels.csv")
    splits = kind().load(str(where))
    for part in (splits.train, splits.validation, splits.test):
        seen = part.images if part is splits.test else part.images / 255
        ink = np.mean(seen >= 0.5, axis=(1, 2, 3))
        assert np.all((ink > 0.05) & (ink < 0.13)), ink


def test_drawings_on_photographs_are_cropped_as_by_draw(tmp_path):
    light = np.linspace(0.5, 1, 400)[:, None]
    pixels = np.full((400, 400), 255.0)
    pixels[150:250, 180:190] = pixels[150:160, 180:260] = 40
    (tmp_path / "L").mkdir()
    path = tmp_path / "L" / "0.png"
    Image.fromarray(np.uint8(light * pixels)).save(path)
    [image] = read_image_folder(tmp_path, drawings=True, invert=None).images
    rows, _ = np.nonzero(image[..., 0] >= 128)
    assert np.ptp(rows) + 1 == pytest.approx(20, abs=1)
    np.testing.assert_array_equal(image >= 128, ink_of(path))


@pytest.mark.parametrize("reader", ["folder", "table", "records"])
@pytest.mark.parametrize("num_blank", [1, 3])
def test_drawings_that_are_blank_are_listed(
    reader, num_blank, tmp_path, caplog
):
    rows = ["image,character"]
    for index in range(4):
        path = tmp_path / "folder" / f"class{index}" / "0.png"
        path.parent.mkdir(parents=True)
        page = page_of(200, 4, turn=index)
        blank = Image.new("L", (200, 200), 255)
        (blank if index < num_blank else page).save(path)
        rows.append(f"{path},class{index}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    if num_blank == 1:
        images = _read(reader, tmp_path, tmp_path).images
        assert not images[0].any()
        text = caplog.text
        assert "1 of 4 images show no drawing and are read as blank" in text
    else:
        kind = SystemExit if reader == "records" else ValueError
        with pytest.raises(kind) as error:
            _read(reader, tmp_path, tmp_path)
        text = str(error.value)
        assert "Received: 3 that show none:" in text
        assert "train own_photographs --images=DIR`" in text
        assert "class2/0.png" in text
    named = "--invert" if reader == "records" else "`invert`"
    assert f"decide by {named} whether ink is dark" in text
    assert "class0/0.png (an image of 200x200 pixels in 255..255" in text
    assert "class3" not in text


def test_one_page_of_another_polarity_is_warned_of(tmp_path, caplog):
    for index in range(3):
        path = tmp_path / f"class{index}" / "0.png"
        path.parent.mkdir()
        colours = {"paper": "black", "ink": "white"} if index == 2 else {}
        page_of(200, 4, turn=index, **colours).save(path)
    data = read_image_folder(tmp_path, invert=None, drawings=True)
    assert "2 on a light page, 1 on a dark page" in caplog.text
    shares = np.mean(data.images >= 128, axis=(1, 2, 3))
    assert np.all(shares[:2] < 0.1)
    assert shares[2] > 0.9


def test_drawings_have_one_channel(pages):
    for read, path in (
        (read_image_folder, "folder"),
        (read_label_table, "labels.csv"),
    ):
        with pytest.raises(ValueError, match="Received: channels=3"):
            read(pages / path, channels=3, drawings=True)
