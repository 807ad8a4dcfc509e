import keras
import numpy as np

from tools import icon_weights


def images_of(num_icons, num_weights=6):
    """Makes images that hold their icon and their weight."""
    icons, weights = np.indices((num_icons, num_weights))
    both = np.stack([icons, weights], axis=-1).astype(np.float32)
    return both[..., np.newaxis, :, np.newaxis]  # [I, S, 1, 2, 1]


def test_tasks_have_each_pair_of_weights_and_no_icon_on_both_sides():
    chosen = icon_weights.tasks(images_of(9), ways=4, rounds=2)
    pairs = set()
    for task in chosen:
        icons, given = task.content[:, 0, :, 0].T
        others, wanted = task.style[:, 0, :, 0].T
        assert len({*icons, *others}) == 8
        assert set(wanted) == {task.weight}
        np.testing.assert_array_equal(task.true[:, 0, 0, 0], icons)
        np.testing.assert_array_equal(task.true[:, 0, 1, 0], wanted)
        shown = task.exemplars[:, :, 0, :, 0]
        np.testing.assert_array_equal(shown[..., 0], icons[:, None] + [0] * 4)
        assert {*given, *wanted, *shown[..., 1].ravel()} == set(range(6))
        pairs.add((given[0], task.weight))
    assert len(pairs) == 30
    assert len(chosen) == 60


def test_shares_are_of_the_icons_and_weights_that_judges_find():
    [task, *_] = icon_weights.tasks(images_of(9), ways=4, rounds=1)

    class Icons:
        def nearest(self, images, exemplars):
            known = exemplars[:, 0, 0, 0, 0]
            return (images[:, :1, 0, 0] == known).argmax(axis=1)

    class Weights:
        def classify(self, images):
            return images[:, 0, 1, 0]

    judges = Icons(), Weights()
    assert icon_weights.shares(task.true, task, judges) == [1.0, 1.0]
    assert icon_weights.shares(task.content, task, judges) == [1.0, 0.0]
    turned = task.true[::-1]
    assert icon_weights.shares(turned, task, judges) == [0.0, 1.0]


def test_grey_images_are_encoded_as_equal_channels_are():
    images = np.random.default_rng(0).random([2, 8, 8, 2], np.float32)
    grey, template = np.split(images, 2, axis=-1)
    colours = np.concatenate([grey, grey, grey, template], axis=-1)
    on_grey, on_colours = (keras.layers.Conv2D(4, 3) for _ in range(2))
    wanted = on_colours(colours)
    assert not np.allclose(on_grey(images), wanted, atol=1e-5)
    icon_weights.copy_without_colour(on_colours, on_grey)
    np.testing.assert_allclose(on_grey(images), wanted, atol=1e-5)


def test_the_figure_holds_all_images():
    shown = np.arange(24.0).reshape(6, 4, 1, 1, 1)
    picture = icon_weights.figure(shown, columns=3)
    assert picture.shape == (18, 96, 1)
    assert picture.sum() == shown.sum()
