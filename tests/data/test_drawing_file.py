import io

import numpy as np
import pytest
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFilter

from vhe_tf.data.datasets.drawing_file import read_drawing

SIZE = 400
Y, X = np.mgrid[:SIZE, :SIZE] / SIZE


def _strokes(*, width=11, scale=1.0, size=SIZE, centre=(0.5, 0.5)):
    """Returns the ink of a drawing in the middle of a page, `[h, w, 1]`."""
    page = Image.new("L", (size, size))
    pen = ImageDraw.Draw(page)
    line = [(-0.3, -0.3), (0.25, -0.25), (-0.1, 0), (0.3, 0.3)]

    def at(x, y):
        return tuple(
            size * (c + scale * v) for c, v in zip(centre, (x, y), strict=True)
        )

    pen.line([at(*point) for point in line], 255, width, joint="curve")
    pen.ellipse([*at(-0.3, 0.1), *at(-0.1, 0.3)], outline=255, width=width)
    soft = page.filter(ImageFilter.GaussianBlur(1))
    return np.asarray(soft, np.float64)[..., None] / 255


def _page(ink=None, *, paper=(0.97, 0.96, 0.93), colour=(0.1, 0.1, 0.12)):
    ink = _strokes() if ink is None else ink
    return np.array(paper) * (1 - ink) + np.array(colour) * ink


def _image(pixels):
    return Image.fromarray(np.uint8(255 * np.clip(pixels, 0, 1)))


def _jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _noise(scale):
    return np.random.default_rng(0).normal(0, scale, (SIZE, SIZE, 3))


def _rotated(image, colour):
    bicubic = Image.Resampling.BICUBIC
    return image.rotate(6, fillcolor=colour, resample=bicubic)


def _light(dark, bright):
    return (dark + (bright - dark) * X * (0.5 + 0.5 * Y))[..., None]


def _read(image, folder, **options):
    path = folder / "photograph.png"
    image.save(path)
    return read_drawing(path, (28, 28), **options)


def _agreement(found, wanted):
    """Returns the share of ink that is within a pixel of the other's ink."""

    def near(image):
        grown = Image.fromarray(np.uint8(255 * image[..., 0]))
        return np.asarray(grown.filter(ImageFilter.MaxFilter(3))) > 0

    shares = [
        near(there)[here[..., 0] > 0].mean()
        for here, there in ((found, wanted), (wanted, found))
    ]
    return min(shares)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """What is read of an uneven page without defects: cropped and scaled."""
    return _read(
        _image(_page() * _light(0.8, 1)), tmp_path_factory.mktemp("read")
    )


@pytest.mark.parametrize(
    "photograph",
    [
        pytest.param(lambda: _image(_page() * _light(0.35, 1)), id="shadow"),
        pytest.param(
            lambda: _image(
                _page() * np.where(X + 0.3 * Y < 0.6, 0.45, 0.95)[..., None]
            ),
            id="edge of a shadow",
        ),
        pytest.param(
            lambda: _image(_page(paper=(0.5, 0.5, 0.5)) * _light(0.6, 1)),
            id="grey paper",
        ),
        pytest.param(
            lambda: _image(_page(colour=(0.15, 0.25, 0.7)) * _light(0.5, 1)),
            id="blue ink",
        ),
        pytest.param(
            lambda: _image(_page(colour=(0.6, 0.6, 0.6)) * _light(0.5, 1)),
            id="pencil",
        ),
        pytest.param(
            lambda: _image(_page() * _light(0.5, 1) + _noise(0.06)), id="noise"
        ),
        pytest.param(
            lambda: _jpeg(_image(_page() * _light(0.5, 1)), 12), id="JPEG"
        ),
        pytest.param(
            lambda: _image(_page(paper=(0.15,) * 3, colour=(0.9,) * 3)).resize(
                (1000, 1000)
            ),
            id="chalk",
        ),
        pytest.param(
            lambda: _image(
                _page(paper=(0.3,) * 3, colour=(1,) * 3) * _light(0.5, 1)
            ),
            id="uneven chalk",
        ),
        pytest.param(
            lambda: _image(
                _page(
                    _strokes(scale=0.3, width=5, centre=(0.7, 0.3), size=1200)
                )
            ),
            id="small on its page",
        ),
        pytest.param(
            lambda: _image(_page(_strokes(width=2)) * _light(0.5, 1)),
            id="thin strokes",
        ),
    ],
)
def test_a_photograph_is_read_as_the_drawing(photograph, wanted, tmp_path):
    read = _read(photograph(), tmp_path)
    assert read.dtype == np.float32
    assert set(np.unique(read)) == {0, 1}
    if photograph().size == (1000, 1000):  # even: it keeps its frame
        wanted = _read(_image(_page()), tmp_path)
    assert _agreement(read, wanted) > 0.9
    assert 0.03 < read.mean() < 0.15


@pytest.mark.parametrize("colour", [(40, 30, 25), (150, 120, 90)])
def test_what_is_beside_the_page_is_not_read(colour, tmp_path):
    pages = [
        _rotated(_image(_page() * _light(0.6, 1)), beside)
        for beside in ("white", colour)
    ]
    wanted, read = (_read(page, tmp_path) for page in pages)
    assert _agreement(read, wanted) > 0.9


def test_all_defects_at_once(tmp_path):
    pixels = _page(colour=(0.2, 0.25, 0.6)) * _light(0.4, 0.9) + _noise(0.03)
    read = _read(_jpeg(_rotated(_image(pixels), (40, 30, 25)), 30), tmp_path)
    straight = _rotated(_image(_page() * _light(0.8, 1)), "white")
    assert _agreement(read, _read(straight, tmp_path)) > 0.9


def test_a_digital_drawing_keeps_its_frame(tmp_path):
    ink = _strokes(scale=0.8, centre=(0.4, 0.45), width=20)
    read = _read(
        _image(_page(ink, paper=(1, 1, 1), colour=(0, 0, 0))), tmp_path
    )
    rows, columns = np.nonzero(read[..., 0])
    where = [rows.min(), rows.max(), columns.min(), columns.max()]
    rows, columns = np.nonzero(ink[..., 0] > 0.5)
    wanted = np.array([rows.min(), rows.max(), columns.min(), columns.max()])
    np.testing.assert_allclose(where, wanted * 28 / SIZE - 0.5, atol=1)


@pytest.mark.parametrize("paper", [0, 1])
def test_an_image_of_the_model_s_size_is_taken_as_it_is(paper, tmp_path):
    ink = np.random.default_rng(0).random((28, 28)) < 0.1
    read = _read(_image(np.where(ink, 1 - paper, paper)), tmp_path)
    np.testing.assert_array_equal(read[..., 0], ink)


def test_proportions_are_kept(tmp_path):
    ink = np.zeros((300, 500, 1))
    ink[100:180, 60:420] = 1
    path = tmp_path / "wide.png"
    _image(_page(ink)).save(path)
    read = read_drawing(path, (40, 20))[..., 0]
    rows, columns = np.nonzero(read)
    assert np.ptp(columns) + 1 == pytest.approx(20 * 20 / 28, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(20 * 20 / 28 * 80 / 360, abs=1)


def test_ink_may_be_named(tmp_path):
    # A dark stroke and a light one.
    ink = np.zeros((2, SIZE, SIZE, 1))
    ink[0, 100:300, 80:120] = 1
    ink[1, 150:180, 200:330] = 1
    page = _image(0.5 - 0.4 * ink[0] + 0.4 * ink[1] + np.zeros(3))
    for invert, tall in ((True, True), (False, False)):
        read = _read(page, tmp_path, invert=invert)
        rows, columns = np.nonzero(read[..., 0])
        assert (np.ptp(rows) > np.ptp(columns)) == tall


@pytest.mark.parametrize("noise", [0, 0.03])
def test_a_page_without_ink_is_rejected(noise, tmp_path):
    page = _image(np.full((SIZE, SIZE, 3), 0.8) + _noise(noise))
    with pytest.raises(ValueError, match="Received: an image of 400x400"):
        _read(page, tmp_path)
