"""New characters of alphabets, judged by an oracle classifier."""

import numpy as np
import pytest
import tensorflow as tf

from vhe_tf import evaluation
from vhe_tf.data.grouped_images import GroupedImages
from vhe_tf.distributions.domain import Domain

ALPHABETS = (3, 5, 9)


class Repeating:
    """A stand-in for a model whose new characters are their first support."""

    image_shape = event_shape = (8, 8, 1)
    domain = Domain()

    def __init__(self, *, mirrored=False):
        self.mirrored = mirrored
        self.supports = []

    def sample(self, support, *, seed, **options):
        del seed
        self.options = options
        [(name, images)] = support.items()
        assert name == "alphabet"
        self.supports.append(images.numpy())
        return images[:, 0, :, ::-1] if self.mirrored else images[:, 0]


def alphabets(num_characters=8, num_images=6):
    """Characters that are dots, in the third of the image of their alphabet."""
    rng = np.random.default_rng(0)
    images, labels = [], {"alphabet": [], "character": []}
    for place, alphabet in enumerate(ALPHABETS):
        for character in range(num_characters):
            image = np.zeros((8, 8, 1), np.float32)
            rows = rng.choice(8, 3, replace=False)
            columns = np.arange(2) + 3 * place
            image[rows[:, None], columns[None]] = 1.0
            images += [image] * num_images
            labels["alphabet"] += [alphabet] * num_images
            labels["character"] += [100 * alphabet + character] * num_images
    return GroupedImages(
        np.stack(images), {name: np.array(ids) for name, ids in labels.items()}
    )


def evaluator(data, **settings):
    return evaluation.NewGroups(
        data, num_shots=3, num_samples=7, epochs=8, **settings
    )


def test_characters_of_their_alphabet_are_told_from_those_of_another():
    data, lines = alphabets(), []
    samples, true = evaluator(data)(Repeating(), lines.append)
    assert [samples.key, true.key] == [
        "new_groups.3way_3shot.samples",
        "new_groups.3way_3shot.true",
    ]
    assert samples.mean > 0.9
    assert true.mean > 0.9
    assert samples.chance == pytest.approx(1 / 3)
    assert (samples.num_values, samples.num_queries) == (3, 21)
    assert true.num_queries == 3 * 4 * 6
    assert any("alphabet 3 of 3" in line for line in lines)
    # Mirrored, the first alphabet has the place of the third.
    wrong, same = evaluator(data)(Repeating(mirrored=True))
    assert wrong.mean < 0.5
    assert same == true


def test_supports_are_of_characters_that_the_classifier_has_not_seen():
    data = alphabets()
    model = Repeating()
    measuring = evaluator(data, options={"guidance": 0.5})
    judged = data.images[measuring._judged]
    first = measuring(model)
    assert model.options == {"guidance": 0.5}
    assert len(model.supports) == 3
    for place, support in enumerate(model.supports):
        assert support.shape == (7, 3, 8, 8, 1)
        # All are of one alphabet, by its place.
        columns = np.flatnonzero(support.any(axis=(0, 1, 2, 4)))
        np.testing.assert_array_equal(columns, np.arange(2) + 3 * place)
        for row in support:
            # Each is of another character.
            assert len(np.unique(row.reshape(3, -1), axis=0)) == 3
    labels = data.labels["character"]
    shown = np.concatenate(
        [np.concatenate([*of.values()]) for of in measuring._shown.values()]
    )
    assert not np.isin(labels[shown], labels[measuring._judged]).any()
    assert len(shown) + len(judged) == len(data)
    # Everything that is random comes from the seed.
    assert evaluator(data, options={"guidance": 0.5})(Repeating()) == first
    other = Repeating()
    evaluator(data, seed=1)(other)
    assert not np.array_equal(other.supports, model.supports)


def test_small_alphabets_lower_the_support_or_are_left_out():
    data = alphabets(num_characters=4)
    assert evaluation.NewGroups(data).num_shots == 2
    # One character of the first alphabet is left.
    fewer = data.where(
        (data.labels["alphabet"] != 3) | (data.labels["character"] == 300)
    )
    samples, _ = evaluator(fewer)(Repeating())
    assert samples.ways == 2
    alone = fewer.where(fewer.labels["alphabet"] != 5)
    model = Repeating()
    assert evaluator(alone)(model) == []
    [reason] = evaluator(alone).left_out(model)
    assert "fewer than two groups of 'alphabet'" in reason


def test_images_without_a_character_are_neither_shown_nor_judged_by():
    data = alphabets()
    unknown = np.arange(len(data)) % 5 == 0
    data.labels["character"][unknown] = -1
    measuring = evaluator(data)
    shown = np.concatenate(
        [np.concatenate([*of.values()]) for of in measuring._shown.values()]
    )
    used = np.concatenate([shown, measuring._judged])
    np.testing.assert_array_equal(np.sort(used), np.flatnonzero(~unknown))


def test_characters_of_one_name_in_two_alphabets_are_two():
    data = alphabets()
    data.labels["character"][:] %= 100
    measuring = evaluator(data)
    labels = data.labels["alphabet"]
    for alphabet, characters in measuring._shown.items():
        assert set(labels[np.concatenate([*characters.values()])]) == {alphabet}


def test_the_summary_has_one_line_of_new_groups():
    found = evaluator(alphabets())(Repeating())
    [line] = evaluation.summary_lines(evaluation.Report(tuple(found)))
    assert line.startswith("new groups, 3 support images: right group above")
    assert "chance 33.3%" in line


def test_images_of_another_shape_are_rejected():
    model = Repeating()
    model.image_shape = model.event_shape = (4, 4, 1)
    with pytest.raises(ValueError, match="4, 4"):
        evaluator(alphabets())(model)


@pytest.mark.parametrize("name", ["num_shots", "num_samples", "epochs"])
def test_counts_are_positive(name):
    with pytest.raises(ValueError, match=name):
        evaluation.NewGroups(alphabets(), **{name: 0})


def test_each_sample_has_a_seed_of_its_own():
    seeds = []

    class Model(Repeating):
        def sample(self, support, *, seed, **options):
            seeds.append(seed.numpy())
            return super().sample(support, seed=seed, **options)

    evaluator(alphabets())(Model())
    each = np.concatenate(seeds)
    assert len(np.unique(each, axis=0)) == len(each) == 21
    assert each.dtype == tf.int32.as_numpy_dtype
