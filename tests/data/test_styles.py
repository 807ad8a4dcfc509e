import colorsys
import re

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from vhe_tf.data import GroupedImages
from vhe_tf.data import generate_glyphs
from vhe_tf.data.augmentation import affine_table
from vhe_tf.data.datasets.styles import PenStyle
from vhe_tf.data.datasets.styles import pen_styles
from vhe_tf.data.datasets.styles import styled

SEEDS = [0, 1, 2]


@pytest.fixture(scope="module")
def drawings():
    # More than are drawn at once.
    return generate_glyphs(
        num_alphabets=2, characters_per_alphabet=10, num_drawers=7
    )


@pytest.fixture(scope="module")
def in_all_styles(drawings):
    """Ink or paper of each drawing in each style, `[M, 30, 28, 28]`."""
    return by_style(drawings)


def by_style(data, **options):
    """Returns where images have ink in each style, `[M, styles, H, W]`."""
    num_styles = options.setdefault("num_styles", 30)
    drawn = styled(data, copies=num_styles, **options)
    order = drawn.labels["style"].reshape(len(data), num_styles).argsort(axis=1)
    ink = drawn.images.any(axis=-1)
    ink = ink.reshape(len(data), num_styles, *ink.shape[1:])
    return np.take_along_axis(ink, order[..., None, None], axis=1)


def page(size=28):
    return np.zeros((size, size), np.uint8)


def pages(*images, **labels):
    labels = labels or {"character": np.arange(len(images))}
    return GroupedImages(np.stack(images)[..., None], labels)


def bar(height=28, thickness=3):
    """A horizontal bar in the middle of a page, from edge to edge."""
    image = page(height)
    first = (height - thickness) // 2
    image[first : first + thickness] = 255
    return image


def nib_extents(pen):
    """Height and width of the nib's ellipse."""
    longer, shorter = pen.width, pen.width * pen.aspect
    sine, cosine = np.sin(pen.angle), np.cos(pen.angle)
    return (
        np.hypot(longer * sine, shorter * cosine),
        np.hypot(longer * cosine, shorter * sine),
    )


# Styles -----------------------------------------------------------------------


def test_equal_seeds_give_equal_styles():
    assert pen_styles(7, seed=3) == pen_styles(7, seed=3)
    assert pen_styles(7, seed=3) != pen_styles(7, seed=4)
    assert len(pen_styles()) == 30
    assert all(isinstance(pen, PenStyle) for pen in pen_styles())


@pytest.mark.parametrize("seed", SEEDS)
def test_inks_are_seen_on_white_paper(seed):
    for pen in pen_styles(seed=seed):
        assert all(type(c) is int and 0 <= c <= 255 for c in pen.ink)
        assert all(c % 51 == 0 for c in pen.ink)  # of INK_LEVELS
        red, green, blue = pen.ink
        # Luma of paper is 255.
        assert 0.299 * red + 0.587 * green + 0.114 * blue < 0.56 * 255
        _, saturation, value = colorsys.rgb_to_hsv(*np.array(pen.ink) / 255)
        assert saturation > 0.66
        assert value > 0.39


@pytest.mark.parametrize("seed", SEEDS)
def test_inks_are_of_all_hues_and_easy_to_tell_apart(seed):
    inks = np.array([pen.ink for pen in pen_styles(seed=seed)]) / 255
    hues = np.sort([colorsys.rgb_to_hsv(*ink)[0] for ink in inks])
    gaps = np.diff(hues, append=hues[0] + 1)
    assert gaps.max() < 1 / 6
    distance = np.linalg.norm(inks[:, None] - inks, axis=-1)
    assert distance[np.triu_indices(30, 1)].min() > 0.19


@pytest.mark.parametrize("seed", SEEDS)
def test_nibs_are_thin_and_broad_round_and_flat_in_all_directions(seed):
    styles = pen_styles(seed=seed)
    width = np.array([pen.width for pen in styles])
    aspect = np.array([pen.aspect for pen in styles])
    shorter = width * aspect
    assert shorter.min() > 1.3 - 1e-9
    assert shorter.max() < 2.6 + 1e-9
    assert 3.7 < width.max() < 4.0 + 1e-9
    assert width.min() < 2.0
    assert np.all(aspect <= 1.0)
    assert aspect.max() > 0.8
    assert aspect.min() < 0.4
    angles = np.array([pen.angle for pen in styles])
    assert np.all((angles >= 0.0) & (angles <= np.pi))
    flat = np.sort(angles[aspect < 0.55])
    assert np.diff(flat, append=flat[0] + np.pi).max() < np.pi / 3


# Assignment -------------------------------------------------------------------


def test_equal_seeds_give_equal_images(drawings):
    one, again, other = (styled(drawings, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.labels["style"], again.labels["style"])
    assert np.any(one.labels["style"] != other.labels["style"])
    assert np.any(one.images != other.images)


@pytest.mark.parametrize("copy", [0, 1])
def test_style_is_uniform_and_independent_of_the_character(copy):
    images = np.zeros((6000, 4, 4, 1), np.uint8)
    data = GroupedImages(images, {"character": np.arange(6000) % 12})
    drawn = styled(data, num_styles=5, copies=2, image_size=(4, 4))
    table = np.zeros((12, 5))
    np.add.at(
        table,
        (drawn.labels["character"][copy::2], drawn.labels["style"][copy::2]),
        1,
    )
    # Fair styles fail one of these one time in 10**8.
    assert scipy.stats.chi2_contingency(table).pvalue > 1e-8
    assert scipy.stats.chisquare(table.sum(axis=0)).pvalue > 1e-8


def test_copies_of_an_image_follow_each_other_in_different_styles(drawings):
    drawn = styled(drawings, copies=3)
    assert len(drawn) == 3 * len(drawings)
    style = drawn.labels["style"].reshape(-1, 3)
    assert np.all(np.diff(np.sort(style, axis=1), axis=1) > 0)
    ink = drawn.images.any(axis=-1).reshape(-1, 3, 28 * 28).astype(float)
    original = (drawings.images > 127).reshape(-1, 28 * 28).astype(float)
    for copy in range(3):
        overlap = (ink[:, copy] * original).sum(axis=1) / original.sum(axis=1)
        assert overlap.min() > 0.6


def test_affine_copies_are_warped_and_their_strokes_are_as_wide(drawings):
    plain, warped = (
        styled(drawings, copies=3, affine=affine) for affine in (False, True)
    )
    for name, ids in plain.labels.items():
        np.testing.assert_array_equal(warped.labels[name], ids)
    # Each copy has the same style in both.
    same = np.all(warped.images == plain.images, axis=(1, 2, 3))
    same = same.reshape(-1, 3)
    assert np.all(same[:, 0])
    assert np.mean(same[:, 1:]) < 0.05

    def ink(data):
        ink = data.images.any(axis=-1).reshape(len(drawings), 3, -1)
        return ink.sum(axis=-1) / len(drawings)

    ratio = ink(warped)[:, 1:].sum() / ink(plain)[:, 1:].sum()
    assert 0.9 < ratio < 1.1


def test_affine_copies_are_those_of_the_maps_of_section_4_1():
    # The centre of a dot, whatever the nib, is where the map says.
    dot = page(112)
    dot[30:33, 40:43] = 255
    data = pages(*[dot] * 50)
    drawn = styled(data, copies=2, affine=True, image_size=(28, 28))
    maps = affine_table(
        50, 2, stored_size=(112, 112), image_size=(112, 112), seed=0
    )
    for image, (a, b, tx, c, d, ty, _, _) in zip(
        drawn.images[1::2], maps[:, 1], strict=True
    ):
        # The table maps the new (x, y) to the old.
        rows, columns = np.nonzero(image.any(axis=-1))
        x, y = 4 * np.mean(columns) + 1.5, 4 * np.mean(rows) + 1.5
        np.testing.assert_allclose(
            [a * x + b * y + tx, c * x + d * y + ty], [41, 31], atol=3.0
        )


def test_labels_and_names_are_carried():
    data = GroupedImages(
        np.stack([bar()] * 3)[..., None],
        {"character": np.array([7, 3, -1]), "alphabet": np.array([0, 2, 2])},
        {"character": {3: "aleph", 7: "beth"}},
    )
    drawn = styled(data, num_styles=4, copies=2)
    assert list(drawn.labels) == ["character", "alphabet", "style"]
    np.testing.assert_array_equal(
        drawn.labels["character"], [7, 7, 3, 3, -1, -1]
    )
    np.testing.assert_array_equal(drawn.labels["alphabet"], [0, 0, 2, 2, 2, 2])
    assert set(drawn.labels["style"]) <= set(range(4))
    assert drawn.group_names["character"] == {3: "aleph", 7: "beth"}
    assert drawn.group_names["style"][3] == "style 03"
    assert set(drawn.group_names["style"]) == set(range(4))


# Drawing ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pixel_is_paper_or_exactly_the_ink(drawings, seed):
    drawn = styled(drawings, seed=seed)
    assert drawn.images.dtype == np.uint8
    assert drawn.image_shape == (28, 28, 3)
    styles = pen_styles(seed=seed)
    for image, style in zip(drawn.images, drawn.labels["style"], strict=True):
        seen = {tuple(pixel) for pixel in 255 - image.reshape(-1, 3)}
        assert seen == {(255, 255, 255), styles[style].ink}


@pytest.mark.parametrize("thickness", [1, 3, 5])
def test_a_stroke_is_as_thick_as_the_nib_is_in_that_direction(thickness):
    level = bar(thickness=thickness)
    ink = by_style(pages(level, level.T))
    heights = ink[0, :, :, 14].sum(axis=1)
    widths = ink[1, :, 14, :].sum(axis=1)
    extents = np.array([nib_extents(pen) for pen in pen_styles()])
    # The nearest whole number, give or take where the line meets the grid.
    np.testing.assert_allclose(heights, extents[:, 0], atol=1.0)
    np.testing.assert_allclose(widths, extents[:, 1], atol=1.0)
    flat = np.abs(extents[:, 0] - extents[:, 1]) > 1.5
    assert flat.sum() > 5
    np.testing.assert_array_equal(
        (heights > widths)[flat], (extents[:, 0] > extents[:, 1])[flat]
    )


def test_strokes_that_lean_tell_the_direction_of_the_nib():
    falling = np.eye(28, dtype=np.uint8) * 255
    ink = by_style(pages(falling, falling[:, ::-1]))
    amount = ink.sum(axis=(2, 3)).astype(float)
    styles = pen_styles()
    # On a line that falls to the right, at -45 degrees, a nib is as broad as
    # its ellipse is along +45 degrees.
    lean = np.array([np.sin(2 * pen.angle) for pen in styles])
    flat = np.array([pen.aspect < 0.6 for pen in styles]) & (abs(lean) > 0.3)
    assert flat.sum() > 5
    np.testing.assert_array_equal(
        (amount[0] > amount[1])[flat], (lean > 0.0)[flat]
    )


def test_ink_grows_with_the_nib(in_all_styles):
    ink = in_all_styles.mean(axis=(0, 2, 3))
    breadth = [pen.width * np.sqrt(pen.aspect) for pen in pen_styles()]
    assert scipy.stats.spearmanr(ink, breadth).statistic > 0.95
    assert ink.max() > 1.7 * ink.min()


def test_strokes_do_not_break(drawings, in_all_styles):
    eight = np.ones((3, 3))
    for image, styles in zip(drawings.images, in_all_styles, strict=True):
        # Fainter than that, pixels of neighbouring strokes would touch.
        _, pieces = scipy.ndimage.label(image[..., 0] > 127, eight)
        for ink in styles:
            assert ink.any()
            assert scipy.ndimage.label(ink, eight)[1] <= pieces


def test_loops_dots_and_blank_pages_stay_what_they_are():
    row, column = np.mgrid[:28, :28] - 13.5
    radius = np.hypot(row, column)
    loop = np.where(abs(radius - 9) < 1.5, 255, 0).astype(np.uint8)
    dot = np.where(radius < 2, 255, 0).astype(np.uint8)
    ink = by_style(pages(loop, dot, page()))
    for drawn in ink[0]:
        assert scipy.ndimage.label(~drawn)[1] == 2
    amount = ink[1].sum(axis=(1, 2))
    assert amount.min() >= 1
    assert amount.max() <= 16
    assert not ink[2].any()


def test_floating_point_drawings_are_drawn_alike(drawings):
    some = drawings.where(np.arange(len(drawings)) < 20)
    other = GroupedImages((some.images / 255).astype(np.float32), some.labels)
    np.testing.assert_array_equal(styled(some).images, styled(other).images)


def test_originals_of_any_size_are_drawn_at_the_size_asked_for():
    small = by_style(pages(bar(105, thickness=5)))
    large = by_style(pages(bar(105, thickness=5)), image_size=(56, 84))
    assert small.shape == (1, 30, 28, 28)
    assert large.shape == (1, 30, 56, 84)
    thin, thick = small[0, ..., 14].sum(axis=1), large[0, ..., 14].sum(axis=1)
    extents = np.array([nib_extents(pen)[0] for pen in pen_styles()])
    np.testing.assert_allclose(thin, extents, atol=1.0)
    np.testing.assert_allclose(thick, 2 * extents, atol=1.0)
    # No thinner than in images of 28 pixels.
    tiny = by_style(pages(bar(14)), image_size=(14, 14))
    thin = tiny[0, ..., 7].sum(axis=1)
    np.testing.assert_allclose(thin, extents, atol=1.0)


# Errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "received"),
    [
        ({"num_styles": 0}, "Received: num_styles=0."),
        ({"num_styles": 2.5}, "Received: num_styles=2.5."),
        ({"copies": 0}, "Received: copies=0."),
        ({"copies": "2"}, "Received: copies='2'."),
        ({"seed": -1}, "Received: seed=-1."),
        ({"image_size": 28}, "Received: image_size=28."),
        ({"image_size": (28, 0)}, "Received: image_size=(28, 0)."),
        (
            {"num_styles": 3, "copies": 4},
            "Received: num_styles=3, copies=4.",
        ),
    ],
)
def test_bad_arguments_are_refused(options, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        styled(pages(bar()), **options)


def test_colour_images_are_refused():
    data = GroupedImages(
        np.zeros((2, 9, 8, 3), np.uint8), {"character": np.zeros(2, int)}
    )
    with pytest.raises(ValueError, match=re.escape("shape (2, 9, 8, 3)")):
        styled(data)


def test_images_in_styles_are_refused():
    data = pages(bar(), character=[3], style=[4])
    with pytest.raises(ValueError, match="rename that grouping") as error:
        styled(data)
    assert "Received: labels ['character', 'style']" in str(error.value)
