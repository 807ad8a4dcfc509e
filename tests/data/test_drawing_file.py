import io

import numpy as np
import pytest
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFilter

from vhe_tf.data.datasets.drawing_file import drawing_levels
from vhe_tf.data.datasets.drawing_file import read_drawings

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


def _saved(image, folder):
    path = folder / "photograph.png"
    image.save(path)
    return path


def ink_of(path, image_size=(28, 28), **options):
    """Reads a file; returns where the drawing has ink, `[H, W, 1]`."""
    [drawing] = read_drawings([path], image_size=image_size, **options)
    return drawing.levels >= 128


def _read(image, folder, **options):
    return ink_of(_saved(image, folder), **options)


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
    """The drawing on an uneven page without defects, cropped and scaled."""
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
    read = ink_of(path, (40, 20))[..., 0]
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
    with pytest.raises(
        ValueError, match=r"`invert`.*Received: an image of 400x400"
    ):
        _read(page, tmp_path)


def _rgb(*levels):
    return tuple(level / 255 for level in levels)


YELLOW, WARM = _rgb(255, 235, 90), _rgb(200, 160, 110)
COLOURS = {
    "yellow": (YELLOW, _rgb(20, 20, 30)),
    "pure yellow": (_rgb(255, 255, 0), _rgb(0, 0, 0)),
    "kraft": (_rgb(190, 150, 100), _rgb(20, 20, 20)),
    "light blue": (_rgb(130, 190, 230), _rgb(20, 20, 30)),
    "pink": (_rgb(250, 120, 170), _rgb(10, 10, 10)),
    "orange": (_rgb(255, 165, 60), _rgb(0, 0, 0)),
    "green": (_rgb(120, 220, 120), _rgb(0, 0, 0)),
    "grey": (_rgb(120, 120, 120), _rgb(20, 20, 20)),
    "warm light": (WARM, _rgb(30, 25, 20)),
    "dim warm light": (_rgb(150, 130, 105), _rgb(30, 25, 20)),
    "blue on yellow": (YELLOW, _rgb(20, 40, 160)),
    "red pen": (_rgb(250, 250, 250), _rgb(220, 30, 30)),
    "yellow pen": (_rgb(250, 250, 250), _rgb(240, 220, 30)),
    "white on green": (_rgb(20, 70, 50), _rgb(240, 240, 240)),
    "blue on black": (_rgb(0, 0, 0), _rgb(0, 0, 255)),
}


@pytest.mark.parametrize("shading", [0, 0.1, 0.3])
@pytest.mark.parametrize("name", COLOURS)
def test_ink_is_found_on_paper_of_any_colour(name, shading, tmp_path):
    paper, colour = COLOURS[name]
    page = _image(
        _page(paper=paper, colour=colour) * _light(1 - shading, 1)
        + _noise(0.01 if shading else 0)
    )
    [drawing] = read_drawings([_saved(page, tmp_path)], image_size=(28, 28))
    plain = _image(_page() * _light(1, 1 - shading))
    wanted = _read(plain, tmp_path)
    assert _agreement(drawing.levels >= 128, wanted) > 0.9


def test_a_drawing_that_is_mostly_ink_is_read(tmp_path):
    ink = np.zeros((SIZE, SIZE, 1))
    ink[40:360, 40:360] = 1
    ink[150:250, 150:250] = 0
    read = _read(_image(_page(ink, paper=(1, 1, 1))), tmp_path)
    assert read.mean() == pytest.approx(ink.mean(), abs=0.05)


def test_ink_at_the_edge_of_a_digital_page_is_kept(tmp_path):
    ink = np.zeros((SIZE, SIZE, 1))
    ink[:150, :200] = 1
    read = _read(_image(_page(ink, paper=(1, 1, 1))), tmp_path)
    assert read[:10, :13].all()
    assert not read[12:].any()


def test_grains_of_dim_paper_are_not_read(tmp_path):
    ink = _strokes(scale=0.07, width=6, size=1200)
    light = np.linspace(0.4, 0.75, 1200)[None, :, None]
    noise = np.random.default_rng(0).normal(0, 0.03, (1200, 1200, 1))
    read = _read(_image(_page(ink) * light + noise), tmp_path)
    wanted = _read(_image(_page(ink) * light), tmp_path)
    assert _agreement(read, wanted) > 0.9


def test_a_speck_in_a_corner_is_no_drawing(tmp_path):
    pixels = np.full((256, 256, 3), 0.9)
    pixels[:2, :2] = 0
    with pytest.raises(ValueError, match="shows no drawing"):
        _read(_image(pixels), tmp_path)


@pytest.mark.parametrize("side", [20, 32, 40])
def test_strokes_of_small_images_do_not_grow(side, tmp_path):
    pixels = np.ones((side, side, 3))
    pixels[side // 6 : -side // 6, side // 2] = 0
    pixels[side // 2, side // 6 : -side // 6] = 0
    read = _read(_image(pixels), tmp_path)[..., 0]
    # A cross of two lines of a pixel or two.
    assert 30 <= read.sum() <= 2 * 2 * 28
    assert read[8].sum() <= 2


# What is in files of the size of a model, and what is read of them.
def _levels(paper, ink):
    pixels = np.full((28, 28), paper, np.uint8)
    pixels[5:20, 8] = pixels[19, 8:16] = ink
    return pixels


@pytest.mark.parametrize(
    ("paper", "ink"), [(255, 0), (250, 150), (120, 20), (140, 60), (20, 100)]
)
def test_faint_ink_is_read_at_the_model_s_size(paper, ink, tmp_path):
    read = _read(Image.fromarray(_levels(paper, ink)), tmp_path)
    np.testing.assert_array_equal(read[..., 0] > 0, _levels(paper, ink) == ink)


@pytest.mark.parametrize(
    ("image", "range_"),
    [
        (Image.fromarray(_levels(0, 1)), "0..1"),
        (Image.fromarray(_levels(0, 15)), "0..15"),
        (Image.fromarray(_levels(255, 255)), "255..255"),
        (
            Image.merge(
                "LA",
                [
                    Image.fromarray(_levels(255, 255)),
                    Image.fromarray(_levels(0, 255)),
                ],
            ),
            "255..255",
        ),
    ],
    ids=["0 and 1", "4 bits", "blank", "white on transparent"],
)
def test_a_blank_image_of_the_model_s_size_is_rejected(image, range_, tmp_path):
    with pytest.raises(
        ValueError, match=f"Received: an image of 28x28 pixels in {range_}"
    ):
        _read(image, tmp_path)


RED = (0.8, 0.1, 0.2)


def test_the_colour_of_ink_is_as_on_white_paper(tmp_path):
    for paper in ((1, 1, 1), (0.9, 0.8, 0.6)):
        ink = _strokes(width=30)
        pixels = _page(ink, paper=paper, colour=np.array(paper) * RED)
        for size in (SIZE, 28):
            page = _image(pixels).resize((size, size), Image.Resampling.BOX)
            [drawing] = read_drawings(
                [_saved(page, tmp_path)], image_size=(28, 28)
            )
            np.testing.assert_allclose(
                drawing.colour,
                RED,
                atol=0.15 if size == 28 else 0.06,
            )


# Data sets --------------------------------------------------------------------


def _written(folder, pictures):
    folder.mkdir(exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def _letters(size):
    """Dark letters that fill their image to its edges: E, H, L, O."""
    width = size // 5
    letters = np.full((4, size, size), 255, np.uint8)
    middle = slice((size - width) // 2, (size + width) // 2)
    letters[[0, 1, 2, 3], :, :width] = 0
    letters[[1, 3], :, -width:] = 0
    letters[[0, 2, 3], -width:] = 0
    letters[[0, 3], :width] = 0
    letters[[0, 1], middle] = 0
    return letters


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("size", [28, 64])
def test_letters_that_fill_their_images_keep_frame_and_ink(
    light, size, tmp_path
):
    pictures = _letters(size)
    paths = _written(tmp_path / "some", 255 - pictures if light else pictures)
    levels = drawing_levels(
        paths, image_size=(28, 28), invert=not light, source=tmp_path
    )
    expected = [
        np.asarray(Image.fromarray(p).resize((28, 28), Image.Resampling.BOX))
        for p in pictures
    ]
    for found, true in zip(levels, expected, strict=True):
        assert ((found[..., 0] >= 128) == (true < 128)).mean() > 0.9
    if not light:
        drawings = read_drawings(paths, image_size=(28, 28), invert=True)
        for drawing, true in zip(drawings, expected, strict=True):
            inked = drawing.levels[..., 0] >= 128
            assert (inked == (true < 128)).mean() > 0.9


def test_one_polarity_holds_for_all_drawings_of_a_data_set(tmp_path):
    """Also for a bold one, whose ink is most of its image."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    disc = rows**2 + columns**2
    pictures = [(255 * (disc < r**2)).astype(np.uint8) for r in (8, 12, 20, 29)]
    levels = drawing_levels(
        _written(tmp_path / "some", pictures),
        image_size=(28, 28),
        invert=None,
        source=tmp_path,
    )
    shares = [(found >= 128).mean() for found in levels]
    np.testing.assert_allclose(
        shares, [(p > 0).mean() for p in pictures], atol=0.02
    )


@pytest.mark.parametrize(("size", "stroke"), [(200, 4), (600, 6), (1000, 8)])
def test_thin_strokes_survive_in_their_frame(size, stroke, tmp_path):
    picture = np.full((size, size), 255, np.uint8)
    picture[size // 2 : size // 2 + stroke, size // 10 : -size // 10] = 0
    [levels] = drawing_levels(
        _written(tmp_path / "some", [picture]),
        image_size=(28, 28),
        invert=None,
        source=tmp_path,
    )
    rows, columns = np.nonzero(levels[..., 0] >= 128)
    assert set(rows) <= {13, 14}
    assert len(set(columns)) >= 22


def test_ink_that_is_as_light_as_its_paper_is_read(tmp_path):
    picture = np.full((100, 100, 3), (0, 150, 0), np.uint8)
    picture[20:80, 40:60] = (255, 20, 0)
    [levels] = drawing_levels(
        _written(tmp_path / "some", [picture]),
        image_size=(28, 28),
        invert=True,
        source=tmp_path,
    )
    assert (levels >= 128).mean() == pytest.approx(0.12, abs=0.01)
