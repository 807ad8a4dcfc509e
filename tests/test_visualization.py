import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.conftest import tiny_pixel_cnn_vhe
from tests.conftest import tiny_vhe
from vhe_tf import visualization

SIZE = 8
CELL = SIZE + 2  # an image and the gap after it
BLOCK_GAP = 8


def binary(*leading, seed=0, channels=1):
    rng = np.random.default_rng(seed)
    shape = (*leading, SIZE, SIZE, channels)
    return rng.integers(0, 2, shape).astype(np.float32)


def cells(grid, left, num_columns):
    """Returns the images in a grid from some column on, `[G, K, H, W, C]`."""
    return np.stack(
        [
            [
                grid[
                    top : top + SIZE,
                    left + k * CELL : left + k * CELL + SIZE,
                ]
                for k in range(num_columns)
            ]
            for top in range(0, len(grid), CELL)
        ]
    )


class Echo:
    """A stand-in for a model whose images are those it is given.

    c is the mean of the support; z is a grey level that counts the images.
    """

    def __init__(self, channels=1):
        self.image_shape = (SIZE, SIZE, channels)

    def infer(self, support, *, seed, batch_size=None, sample_unobserved=True):
        del seed
        # Latents without a support are not sampled once for all images.
        assert sample_unobserved == (not support)
        if not support:
            shape = (batch_size, *self.image_shape)
            return {"character": tf.zeros(shape)[tf.newaxis]}
        [images] = support.values()
        return {"character": tf.reduce_mean(images, axis=1)[tf.newaxis]}

    def render(self, samples, *, seed):
        del seed
        c = samples["character"]  # [1, G * num_images, H, W, C]
        count = tf.range(tf.shape(c)[1])[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return 0.5 * c + tf.cast(count, tf.float32) / 1000.0

    def reconstruct(self, support, query, *, seed):
        del seed
        [images] = support.values()
        return 0.5 * query + 0.25 * tf.reduce_mean(images, axis=1)


# Grids ------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_support_and_samples_stand_side_by_side_one_row_per_group(channels):
    supports = [
        binary(4, 1, seed=1, channels=channels),
        binary(4, 3, seed=2, channels=channels),
    ]
    grid = visualization.conditional_grid(
        Echo(channels), supports, group="character", num_samples=2
    )
    # Supports of 1 and 3, each beside 2 samples, and gaps between blocks.
    width = (1 + 2 + 3 + 2) * CELL + 3 * BLOCK_GAP
    assert grid.shape == (4 * CELL, width, channels)
    assert grid.dtype == np.float32
    left = 0
    for support in supports:
        num_shots = support.shape[1]
        np.testing.assert_array_equal(cells(grid, left, num_shots), support)
        left += num_shots * CELL + BLOCK_GAP
        samples = cells(grid, left, 2)
        left += 2 * CELL + BLOCK_GAP
        # Each sample of its own row's support, and with a z of its own.
        counts = np.arange(8).reshape(4, 2, 1, 1, 1) / 1000.0
        np.testing.assert_allclose(
            samples,
            0.5 * support.mean(axis=1, keepdims=True) + counts,
            atol=1e-6,
        )


def test_samples_of_a_group_stand_beside_its_support():
    class Sampler(Echo):
        def sample(self, support, *, seed):
            [images] = support.values()
            noise = tf.random.stateless_uniform(images[:, 0].shape, seed)
            return tf.reduce_mean(images, axis=1) + 0.01 * noise

    support = binary(4, 3, seed=2, channels=3)
    grid = visualization.sample_grid(
        Sampler(3), support, group="person", num_samples=2, seed=(1, 2)
    )
    assert grid.shape == (4 * CELL, 5 * CELL + BLOCK_GAP, 3)
    np.testing.assert_array_equal(cells(grid, 0, 3), support)
    samples = cells(grid, 3 * CELL + BLOCK_GAP, 2)
    np.testing.assert_allclose(
        samples,
        support.mean(axis=1, keepdims=True).repeat(2, axis=1),
        atol=0.01,
    )
    assert np.all(samples[:, 0] != samples[:, 1])


def test_independent_pixels_are_drawn_where_a_sample_is_asked_for():
    model, support = tiny_vhe(), binary(3, 2)
    shown = [
        draw(model, support, group="character", num_samples=4)
        for draw in (
            visualization.sample_grid,
            lambda model, support, **options: visualization.conditional_grid(
                model, [support], **options
            ),
        )
    ]
    drawn, means = (cells(grid, 2 * CELL + BLOCK_GAP, 4) for grid in shown)
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert len(np.unique(means)) > 2


@pytest.fixture
def hierarchical(monkeypatch):
    """A hierarchical model, and the latents of each call of its likelihood."""
    keras.utils.set_random_seed(0)
    model = tiny_vhe("hierarchical")
    decode, seen = model.likelihood.call, []

    def spy(**latents):
        seen.append({name: v.numpy()[0] for name, v in latents.items()})
        return decode(**latents)

    monkeypatch.setattr(model.likelihood, "call", spy)
    return model, seen


def num_distinct(latents, num_images):
    """Returns how many values of a latent each row of a block has."""
    rows = latents.reshape(-1, num_images, latents.shape[-1])
    return [len(np.unique(row, axis=0)) for row in rows]


def test_latents_without_a_support_are_sampled_anew_for_each_image(
    hierarchical,
):
    model, seen = hierarchical
    visualization.conditional_grid(
        model,
        [binary(2, 1, seed=1), binary(2, 3, seed=2)],
        group=["character", "alphabet"],
        num_samples=4,
    )
    of_character, of_alphabet = seen
    # More of a character: of one alphabet, by different hands.
    assert num_distinct(of_character["character"], 4) == [1, 1]
    assert num_distinct(of_character["alphabet"], 4) == [1, 1]
    assert num_distinct(of_character["element"], 4) == [4, 4]
    # More of an alphabet: other characters.
    assert num_distinct(of_alphabet["alphabet"], 4) == [1, 1]
    assert num_distinct(of_alphabet["character"], 4) == [4, 4]
    for latents in seen:
        assert len(np.unique(latents["alphabet"], axis=0)) == 2  # a row's own


@pytest.mark.parametrize("channels", [1, 3])
def test_contents_stand_on_the_left_and_styles_on_top(channels):
    content, style = (
        binary(num, seed=num, channels=channels) for num in (3, 2)
    )
    redrawn = binary(3, 2, channels=channels)
    grid = visualization.transfer_grid(content, style, redrawn=redrawn)
    step = CELL + BLOCK_GAP
    assert grid.shape == (step + 3 * CELL, step + 2 * CELL, channels)
    assert grid.dtype == np.float32
    top, below = grid[:CELL], grid[step:]
    np.testing.assert_array_equal(top[:SIZE, :SIZE], 0.0)
    np.testing.assert_array_equal(cells(top, step, 2)[0], style)
    np.testing.assert_array_equal(cells(below, 0, 1)[:, 0], content)
    np.testing.assert_array_equal(cells(below, step, 2), redrawn)
    for gap in (grid[CELL:step], grid[:, CELL:step]):
        np.testing.assert_allclose(gap, 0.2, rtol=1e-6)


def test_reconstructions_stand_where_their_queries_do():
    support, query = binary(3, 5, seed=1), binary(3, 4, seed=2)
    grid = visualization.reconstruction_grid(
        Echo(), support, query=query, group="character"
    )
    assert grid.shape == (3 * CELL, 8 * CELL + BLOCK_GAP, 1)
    np.testing.assert_array_equal(cells(grid, 0, 4), query)
    np.testing.assert_allclose(
        cells(grid, 4 * CELL + BLOCK_GAP, 4),
        0.5 * query + 0.25 * support.mean(axis=1, keepdims=True),
        atol=1e-6,
    )


def test_groups_that_do_not_exist_have_a_row_each():
    grid = visualization.prior_grid(Echo(), num_groups=3, num_samples=5)
    assert grid.shape == (3 * CELL, 5 * CELL, 1)
    counts = np.arange(15).reshape(3, 5, 1, 1, 1) / 1000.0
    np.testing.assert_allclose(
        cells(grid, 0, 5), np.broadcast_to(counts, (3, 5, 8, 8, 1)), atol=1e-6
    )


def test_gaps_are_of_one_colour_that_is_neither_ink_nor_paper():
    support = np.zeros((2, 1, SIZE, SIZE, 1), np.float32)
    grid = visualization.conditional_grid(
        Echo(), [support], group="character", num_samples=1
    )
    gaps = np.ones(grid.shape, bool)
    for top in (0, CELL):
        for left in (0, CELL + BLOCK_GAP):
            gaps[top : top + SIZE, left : left + SIZE] = False
    np.testing.assert_allclose(grid[gaps], 0.2, rtol=1e-6)


class Noise(Echo):
    """A stand-in that draws images by the seed alone."""

    def render(self, samples, *, seed):
        return tf.random.stateless_uniform(samples["character"].shape, seed)


def test_what_elements_leave_to_chance_is_drawn_by_the_seed():
    def draw(seed):
        return visualization.conditional_grid(
            Noise(),
            [binary(3, 1, seed=k) for k in range(2)],
            group="character",
            num_samples=2,
            seed=seed,
        )

    grid = draw((1, 2))
    np.testing.assert_array_equal(grid, draw((1, 2)))
    left = CELL + BLOCK_GAP
    samples = cells(grid, left, 2)
    assert np.all(samples != cells(draw((3, 2)), left, 2))
    # Nor do the samples beside another support share it.
    assert np.all(samples != cells(grid, 2 * left + 2 * CELL + BLOCK_GAP, 2))


def draw_grids(model, seed):
    support, query = binary(3, 2, seed=1), binary(3, 2, seed=2)
    return [
        visualization.conditional_grid(
            model, [support], group="character", num_samples=3, seed=seed
        ),
        visualization.reconstruction_grid(
            model, support, query=query, group="character", seed=seed
        ),
        visualization.prior_grid(model, num_groups=3, num_samples=3, seed=seed),
    ]


@pytest.mark.parametrize(
    "structure", ["flat", "hierarchical", "factorial", "pixel_cnn"]
)
def test_equal_seeds_draw_equal_pictures(structure):
    keras.utils.set_random_seed(0)
    model = (
        tiny_pixel_cnn_vhe()
        if structure == "pixel_cnn"
        else tiny_vhe(structure)
    )
    first, again, other = (
        draw_grids(model, seed) for seed in [(1, 2), (1, 2), (3, 4)]
    )
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.any(one != different)
        assert np.all((one >= 0.0) & (one <= 1.0))


def test_samples_of_a_group_differ_by_their_element_latents():
    keras.utils.set_random_seed(0)
    model = tiny_vhe("flat")
    grid = visualization.conditional_grid(
        model, [binary(2, 1)], group="character", num_samples=4
    )
    samples = cells(grid, CELL + BLOCK_GAP, 4).reshape(8, -1)
    assert len(np.unique(samples, axis=0)) == 8


def test_samples_of_a_group_share_its_latent():
    # No latents of elements: all that is left is the latent of the group.
    keras.utils.set_random_seed(0)
    model = tiny_vhe("factorial")
    samples = cells(visualization.prior_grid(model, num_groups=3), 0, 10)
    np.testing.assert_allclose(samples, samples[:, :1].repeat(10, 1), atol=1e-6)
    assert len(np.unique(samples[:, 0].reshape(3, -1), axis=0)) == 3


def test_a_pixel_cnn_is_shown_by_draws():
    support, query = binary(3, 2, seed=1), binary(3, 4, seed=2)
    grids = [
        visualization.conditional_grid(
            model, [support], group="character", num_samples=5
        )
        for model in (tiny_pixel_cnn_vhe(), tiny_pixel_cnn_vhe(seed=1))
    ]
    model = tiny_pixel_cnn_vhe()
    shown = [
        *(cells(grid, 2 * CELL + BLOCK_GAP, 5) for grid in grids),
        cells(
            visualization.reconstruction_grid(
                model, support, query=query, group="character"
            ),
            4 * CELL + BLOCK_GAP,
            4,
        ),
        cells(
            visualization.prior_grid(model, num_groups=3, num_samples=4), 0, 4
        ),
    ]
    for images in shown:
        assert set(np.unique(images)) == {0.0, 1.0}
        flat = images.reshape(-1, SIZE * SIZE)
        assert len(np.unique(flat, axis=0)) == len(flat)
    assert np.any(shown[0] != shown[1])


# Files ------------------------------------------------------------------------


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_ink_is_black_on_white_paper(tmp_path):
    grid = np.array([[0.0, 1.0], [0.2, 0.5]], np.float32)[..., np.newaxis]
    path = tmp_path / "new" / "folder" / "grid.png"
    visualization.save_png(path, grid, scale=1)
    np.testing.assert_array_equal(read(path), [[255, 0], [204, 127]])
    visualization.save_png(path, grid, scale=1, ink=False)
    np.testing.assert_array_equal(read(path), [[0, 255], [51, 128]])


def test_pixels_grow_by_the_scale(tmp_path):
    grid = binary(seed=3)
    visualization.save_png(tmp_path / "grid.png", grid, scale=3, ink=False)
    expected = 255 * grid[..., 0].repeat(3, axis=0).repeat(3, axis=1)
    np.testing.assert_array_equal(read(tmp_path / "grid.png"), expected)


def test_colours_stay(tmp_path):
    grid = binary(channels=3)
    visualization.save_png(tmp_path / "grid.png", grid, scale=1, ink=False)
    np.testing.assert_array_equal(read(tmp_path / "grid.png"), 255 * grid)


def test_values_out_of_range_do_not_wrap_around(tmp_path):
    grid = np.array([[-0.1, 1.1]])[..., np.newaxis]
    visualization.save_png(tmp_path / "grid.png", grid, scale=1)
    np.testing.assert_array_equal(read(tmp_path / "grid.png"), [[255, 0]])


def test_a_picture_that_fails_leaves_the_old_one_and_nothing_else(
    tmp_path, monkeypatch
):
    path = tmp_path / "grid.png"
    visualization.save_png(path, binary(seed=1))
    before = path.read_bytes()

    def fail(image, file, **kwargs):
        file.write_bytes(b"half a pict")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        visualization.save_png(path, binary(seed=2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "grid.png"
    for seed in (1, 2):
        visualization.save_png(path, binary(seed=seed), scale=1, ink=False)
    np.testing.assert_array_equal(read(path), 255 * binary(seed=2)[..., 0])
    assert list(tmp_path.iterdir()) == [path]


def test_models_side_by_side_share_a_support_and_keep_their_own_samples():
    models = [tiny_vhe(), tiny_pixel_cnn_vhe()]
    support = np.zeros([3, 2, 8, 8, 1], np.float32)
    grid = visualization.comparison_grid(
        models,
        support,
        names="ab",
        group="character",
        num_samples=4,
    )
    alone = [
        visualization.conditional_grid(
            model, [support], group="character", num_samples=4
        )
        for model in models
    ]
    shown = 2 * (8 + 2)
    np.testing.assert_array_equal(grid[:, : alone[0].shape[1]], alone[0])
    np.testing.assert_array_equal(
        grid[:, alone[0].shape[1] :], alone[1][:, shown:]
    )
    left = 2 * (8 + 2) + BLOCK_GAP
    assert [(h.left, h.text) for h in grid.headings] == [
        (0, "2 support images"),
        (left, "a"),
        (left + 4 * (8 + 2) + BLOCK_GAP, "b"),
    ]


# Headings ---------------------------------------------------------------------


def test_a_grid_says_what_its_columns_show():
    supports = [binary(4, 1), binary(4, 3)]
    grid = visualization.conditional_grid(
        Echo(), supports, group="character", num_samples=2
    )
    assert [(h.left, h.width, h.text) for h in grid.headings] == [
        (0, CELL, "support"),
        (CELL + BLOCK_GAP, 2 * CELL, "samples"),
        (3 * CELL + 2 * BLOCK_GAP, 3 * CELL, "3 support images"),
        (6 * CELL + 3 * BLOCK_GAP, 2 * CELL, "samples"),
    ]


@pytest.mark.parametrize("ink", [True, False])
def test_headings_stand_above_the_pixels_and_within_their_columns(
    tmp_path, ink
):
    path = tmp_path / "grid.png"
    bare = np.zeros([40, 300, 1], np.float32)
    headings = [visualization.Heading(150, 150, "a_long_name_of_a_model")]
    grid = visualization.ImageGrid.make(bare, headings)
    visualization.save_png(path, bare, ink=ink)
    below = read(path)
    visualization.save_png(path, grid, ink=ink)
    whole = read(path)
    np.testing.assert_array_equal(whole[-len(below) :], below)
    strip = whole[: -len(below)]
    assert len(strip) * 800 / whole.shape[1] > 12  # legible at 800 pixels
    written = np.flatnonzero(strip.min(axis=0) < 128)
    assert written.min() >= 3 * 150
    assert written.max() < 3 * 300
