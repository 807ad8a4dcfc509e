import numpy as np
import pytest

from vhe_tf.data import generate_glyphs
from vhe_tf.data.datasets.glyphs.characters import _MIN_COVER
from vhe_tf.data.datasets.glyphs.characters import _coarse_images
from vhe_tf.data.datasets.glyphs.characters import sample_characters
from vhe_tf.data.datasets.glyphs.characters import sample_script

SMALL = {
    "num_alphabets": 3,
    "characters_per_alphabet": 7,
    "num_drawers": 5,
}


@pytest.fixture(scope="module")
def small():
    return generate_glyphs(**SMALL)


def _as_groups(data):
    """Returns images `[characters, drawers, H, W]` in 0..1."""
    shape = (SMALL["num_alphabets"] * 7, SMALL["num_drawers"], 28, 28)
    return data.images.reshape(shape) / 255.0


def _blurred_directions(images):
    """Returns one unit vector for each blurred image, axes kept otherwise."""
    for axis in (-2, -1):
        images = (
            np.roll(images, 1, axis) + 2.0 * images + np.roll(images, -1, axis)
        )
    flat = images.reshape(*images.shape[:-2], -1)
    return flat / np.linalg.norm(flat, axis=-1, keepdims=True)


def test_equal_seeds_give_equal_images(small):
    np.testing.assert_array_equal(small.images, generate_glyphs(**SMALL).images)


def test_different_seeds_give_different_images(small):
    other = generate_glyphs(**SMALL, seed=1)
    same = np.all(small.images == other.images, axis=(1, 2, 3))
    assert not same.any()


def test_global_random_state_is_left_alone(small):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    generate_glyphs(num_alphabets=1, characters_per_alphabet=1, num_drawers=1)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_fewer_alphabets_are_a_prefix(small):
    fewer = generate_glyphs(**{**SMALL, "num_alphabets": 2})
    np.testing.assert_array_equal(
        fewer.images, small.images[: len(fewer.images)]
    )
    for name, ids in fewer.labels.items():
        np.testing.assert_array_equal(ids, small.labels[name][: len(ids)])


def test_images_are_single_channel_uint8(small):
    assert small.images.shape == (3 * 7 * 5, 28, 28, 1)
    assert small.images.dtype == np.uint8


@pytest.mark.parametrize("image_size", [8, 21, 64])
def test_image_size(image_size):
    data = generate_glyphs(
        num_alphabets=1,
        characters_per_alphabet=3,
        num_drawers=2,
        image_size=image_size,
    )
    assert data.images.shape == (6, image_size, image_size, 1)
    assert np.all(data.images.max(axis=(1, 2, 3)) > 127)


def test_each_drawer_draws_each_character_once(small):
    assert set(small.labels) == {"alphabet", "character", "drawer"}
    pairs = set(
        zip(small.labels["character"], small.labels["drawer"], strict=True)
    )
    assert pairs == {(c, d) for c in range(21) for d in range(5)}
    assert len(small) == len(pairs)


def test_characters_are_numbered_across_alphabets(small):
    np.testing.assert_array_equal(
        small.labels["alphabet"], small.labels["character"] // 7
    )
    assert {ids.dtype for ids in small.labels.values()} == {np.dtype(np.int32)}


def test_every_group_has_a_name(small):
    for name in small.labels:
        assert list(small.group_names[name]) == list(small.group_ids(name))
    assert small.group_names["alphabet"][2] == "alphabet 02"
    assert small.group_names["character"][18] == "alphabet 02, character 04"


def test_ink_is_that_of_thin_anti_aliased_strokes(small):
    ink = small.images.mean(axis=(1, 2, 3)) / 255.0
    assert 0.06 < ink.mean() < 0.11
    assert ink.min() > 0.01
    assert ink.max() < 0.3
    grey = np.mean((small.images > 0) & (small.images < 255))
    assert 0.05 < grey < 0.25


def test_nothing_is_clipped_at_the_border(small):
    images = small.images
    for edge in (
        images[:, 0],
        images[:, -1],
        images[:, :, 0],
        images[:, :, -1],
    ):
        assert edge.max() == 0


def test_characters_fill_most_of_the_frame(small):
    height = np.any(small.images > 0, axis=(2, 3)).sum(axis=1)
    width = np.any(small.images > 0, axis=(1, 3)).sum(axis=1)
    assert 14 < np.maximum(height, width).mean() < 26


def test_drawings_of_a_character_are_alike_and_of_others_are_not(small):
    groups = _blurred_directions(_as_groups(small))
    similarity = np.einsum("cdp,kep->ckde", groups, groups)
    other_drawer = ~np.eye(5, dtype=bool)
    same = np.stack([similarity[c, c][other_drawer] for c in range(21)])
    other = similarity[~np.eye(21, dtype=bool)]
    assert same.mean() > other.mean() + 0.15


def test_drawings_are_recognised_across_drawers_above_chance(small):
    groups = _blurred_directions(_as_groups(small))
    nearest = (groups[:, 0] @ groups[:, 1].T).argmax(axis=1)
    accuracy = np.mean(nearest == np.arange(21))
    # Chance is 1 in 21; drawings that were copies would give 1.
    assert 0.25 < accuracy < 1.0


def test_drawers_keep_their_hand_across_alphabets():
    data = generate_glyphs(
        num_alphabets=2, characters_per_alphabet=20, num_drawers=8
    )
    ink = data.images.mean(axis=(1, 2, 3)).reshape(2, 20, 8).mean(axis=1)
    assert np.corrcoef(ink)[0, 1] > 0.7


def test_characters_of_an_alphabet_are_distinct():
    rng = np.random.default_rng(5)
    script = sample_script(rng)
    characters = sample_characters(script, 20, rng=rng)
    images, cover = _coarse_images(characters)
    similarity = images @ images.T
    np.fill_diagonal(similarity, 0.0)
    assert similarity.max() < 0.85
    # The spacing of the pen's points depends on the batch, hence the slack.
    assert cover.min() > _MIN_COVER - 0.02


def test_a_poor_inventory_still_yields_enough_characters():
    data = generate_glyphs(
        num_alphabets=1, characters_per_alphabet=150, num_drawers=1
    )
    assert len(np.unique(data.images, axis=0)) == 150


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_alphabets", 0),
        ("characters_per_alphabet", -3),
        ("num_drawers", 0),
        ("num_drawers", 2.5),
        ("num_alphabets", True),
        ("image_size", 7),
        ("seed", -1),
    ],
)
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"Received: {name}={value}"):
        generate_glyphs(**{name: value})
