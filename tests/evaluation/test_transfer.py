import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import tiny_vhe
from vhe_tf import random
from vhe_tf.data import GroupedImages
from vhe_tf.distributions.domain import Domain
from vhe_tf.evaluation import transfer as transfer_lib
from vhe_tf.evaluation.measurement import Measurement
from vhe_tf.evaluation.transfer import TransferDesign
from vhe_tf.evaluation.transfer import style_transfer_accuracy
from vhe_tf.evaluation.transfer import transfer

# Images say what they are: thousandths in three of four pixels.
CONTENT, STYLE, NUMBER = (0, 0, 0), (0, 1, 0), (1, 0, 0)


def made(content, style, number=999):
    """Makes the image of a content in a style, by broadcasting."""
    shape = np.broadcast_shapes(*map(np.shape, (content, style, number)))
    images = np.zeros((*shape, 2, 2, 1), np.float32)
    for place, value in [(CONTENT, content), (STYLE, style), (NUMBER, number)]:
        images[(..., *place)] = np.asarray(value) / 1000.0
    return images


def read(images, place):
    return np.rint(1000 * np.asarray(images)[(..., *place)]).astype(int)


def telling_data(num_contents=12, num_styles=4, num_images=12):
    """Makes contents 10, 11, ... in styles 50, 51, ..., each equally often."""
    content = 10 + np.repeat(np.arange(num_contents), num_images)
    style = 50 + np.arange(len(content)) % num_styles
    return GroupedImages(
        made(content, style, np.arange(len(content))),
        {"character": content, "style": style},
    )


class Redraw:
    """A stand-in for a model, that keeps what it is asked for."""

    image_shape = event_shape = (2, 2, 1)
    domain = Domain()

    def __init__(self, content_of="character", style_of="style"):
        self.names = content_of, style_of
        self.supports, self.seeds = [], []

    def sample(self, support, *, seed, **options):
        self.seeds.append(seed)
        self.options = options
        self.supports.append({k: v.numpy() for k, v in support.items()})
        content, style = (support[name][:, 0] for name in self.names)
        images = made(read(content, CONTENT), read(style, STYLE))

        class Tensor:
            numpy = staticmethod(lambda: images)

        return Tensor


class Oracle:
    """Reads off images what they are; some of its readings are spoiled."""

    def __init__(self, blind_to_true=False):
        self.blind_to_true = blind_to_true
        self.exemplars = []

    def _shown(self, images, place):
        drawn = read(images, NUMBER) == 999
        return np.where(
            drawn | (not self.blind_to_true), read(images, place), 0
        )

    def nearest(self, images, exemplars):
        self.exemplars.append((exemplars, images))
        classes = read(exemplars, CONTENT)[:, 0]
        return np.argmax(
            self._shown(images, CONTENT)[:, np.newaxis] == classes, axis=1
        )

    def classify(self, images):
        return self._shown(images, STYLE)


def redrawn(
    model,
    data=None,
    content_oracle=None,
    style_oracle=None,
    *,
    num_tasks=3,
    seed=0,
    progress=None,
    **design,
):
    return style_transfer_accuracy(
        model,
        telling_data() if data is None else data,
        oracles=(content_oracle or Oracle(), style_oracle or Oracle()),
        design=TransferDesign(**{"num_ways": 5, "num_styles": 4, **design}),
        num_tasks=num_tasks,
        seed=seed,
        progress=progress,
    )


def means(measures):
    return {
        name: value.mean
        for name, value in measures._asdict().items()
        if name != "by_style"
    }


# What is redrawn --------------------------------------------------------------


def test_each_content_is_redrawn_in_each_style():
    model = Redraw("tune", "instrument")
    content = made(np.full((3, 2), [[11], [12], [13]]), 60, 1)
    style = made(30, np.full((4, 1), [[51], [52], [53], [54]]), 2)
    images = transfer(
        model,
        content=content,
        style=style,
        groups=("tune", "instrument"),
        seed=(3, 4),
    )
    assert images.shape == (3, 4, 2, 2, 1)
    for row, column in np.ndindex(3, 4):
        assert read(images, CONTENT)[row, column] == 11 + row
        assert read(images, STYLE)[row, column] == 51 + column
    [support] = model.supports
    assert support["tune"].shape == (12, 2, 2, 2, 1)
    assert support["instrument"].shape == (12, 1, 2, 2, 1)
    np.testing.assert_array_equal(
        model.seeds, [random.fold_in((3, 4), tf.range(12))]
    )


def test_no_more_is_sampled_at_once_with_best_of(monkeypatch):
    monkeypatch.setattr(transfer_lib, "_SAMPLED_AT_ONCE", 10)
    model = Redraw()
    content = made(np.full((3, 1), [[11], [12], [13]]), 60, 1)
    style = made(30, np.full((4, 1), [[51], [52], [53], [54]]), 2)
    options = {"guidance": 0.5, "best_of": 2}
    images = transfer(
        model, content=content, style=style, options=options, seed=(3, 4)
    )
    assert [len(seeds) for seeds in model.seeds] == [5, 5, 2]
    assert model.options == options
    np.testing.assert_array_equal(
        np.concatenate(model.seeds), random.fold_in((3, 4), tf.range(12))
    )
    assert np.all(read(images, CONTENT) == [[11], [12], [13]])
    assert np.all(read(images, STYLE) == [51, 52, 53, 54])


def test_each_image_is_redrawn_with_its_own_noise():
    model = tiny_vhe("factorial")
    rng = np.random.default_rng(0)
    content, style = (
        rng.integers(0, 2, (num, 2, 8, 8, 1)).astype(np.float32)
        for num in (2, 3)
    )
    settings = {"groups": ("style", "character"), "seed": (1, 2)}
    images = transfer(model, content=content, style=style, **settings)
    assert images.shape == (2, 3, 8, 8, 1)
    assert len(np.unique(images.reshape(6, -1), axis=0)) == 6
    np.testing.assert_array_equal(
        images, transfer(model, content=content, style=style, **settings)
    )


# Measures ---------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2), (4, 5), (6, 3)])
def test_agreement_is_that_of_all_pairs(shape):
    answers = np.random.default_rng(0).integers(0, 3, shape)
    same = [
        row[i] == row[j]
        for row in answers
        for i, j in itertools.permutations(range(shape[1]), 2)
    ]
    np.testing.assert_allclose(transfer_lib._agreement(answers), np.mean(same))


def test_measures_are_those_of_a_hand_example():
    by_content = np.array([[0, 0, 1], [1, 1, 1]])
    by_style = np.array([[7, 8, 9], [7, 7, 8]])
    measures = transfer_lib._measures(by_content, by_style, np.array([7, 8, 9]))
    np.testing.assert_allclose(
        measures,
        [
            4 / 6,  # 7 8 9, and 7 of the second row
            5 / 6,  # all but one
            (1 / 3 + 1) / 2,  # one pair of three, then all
            1 / 3,  # 7 and 7; not 8 and 7; not 9 and 8
            1 - (0 + 1 / 3) / 2,  # no pair, then one of three
        ],
    )


def test_a_perfect_model_is_right_throughout():
    assert means(redrawn(Redraw())) == {
        "style": 1.0,
        "content": 1.0,
        "style_of_true": 1.0,
        "content_of_true": 1.0,
        "content_kept": 1.0,
        "style_kept": 1.0,
        "style_changed": 1.0,
    }


def test_contents_and_styles_have_any_names():
    data = telling_data()
    labels = {
        "tune": data.labels["character"],
        "instrument": data.labels["style"],
    }
    measures = redrawn(
        Redraw("tune", "instrument"),
        GroupedImages(data.images, labels),
        groups=("tune", "instrument"),
    )
    assert set(means(measures).values()) == {1.0}


def test_a_model_that_ignores_the_style_is_at_chance_in_style_alone():
    # It keeps the style of the content's support: one of the 4.
    measures = means(redrawn(Redraw(style_of="character")))
    assert measures["style"] == 0.25
    assert measures["style_changed"] == 0.0
    assert measures["content"] == measures["content_kept"] == 1.0
    assert measures["style_kept"] < 1.0


def test_a_style_that_fails_is_seen_in_its_own_measurements():
    class Smudge(Redraw):
        """Redraws style 52 as style 50, and loses the content of some."""

        def sample(self, support, *, seed):
            images = super().sample(support, seed=seed).numpy()
            style = read(images, STYLE)
            images[(..., *STYLE)] = np.where(style == 52, 50, style) / 1000
            last = np.arange(len(images)) == 3
            images[(..., *CONTENT)] *= ~last

            class Tensor:
                numpy = staticmethod(lambda: images)

            return Tensor

    measures = redrawn(Smudge(), num_ways=4)
    of_style = {
        each.tasks: each for each in measures.by_style if each.factor == "style"
    }
    assert {name: each.mean for name, each in of_style.items()} == {
        "style 50": 1.0,
        "style 51": 1.0,
        "style 52": 0.0,
        "style 53": 1.0,
    }
    assert measures.style.mean == 0.75
    low, high = of_style["style 52"].interval
    z2 = 1.959964**2
    assert (low, high) == pytest.approx((0.0, z2 / (12 + z2)))  # Wilson
    of_content = [
        each.mean for each in measures.by_style if each.factor == "content"
    ]
    assert np.mean(of_content) == pytest.approx(measures.content.mean)
    assert len({each.key for each in measures.by_style}) == 8


def test_a_model_that_ignores_the_content_is_at_chance_in_content_alone():
    # Of none of the 5: the oracle takes the first.
    measures = means(redrawn(Redraw(content_of="style")))
    assert measures["content"] == pytest.approx(0.2)
    assert measures["style"] == measures["style_changed"] == 1.0
    assert measures["style_kept"] == 1.0


def test_oracles_are_measured_on_true_images():
    blind = Oracle(blind_to_true=True)
    measures = means(redrawn(Redraw(), style_oracle=blind))
    assert measures.pop("style_of_true") == 0.0
    assert set(measures.values()) == {1.0}
    measures = means(redrawn(Redraw(), content_oracle=blind))
    # The first of 5, always.
    assert measures.pop("content_of_true") == pytest.approx(0.2)
    assert set(measures.values()) == {1.0}


def test_intervals_are_over_tasks():
    model = Redraw(style_of="character")
    measures = redrawn(model, num_tasks=6)
    kept = []
    for support in model.supports:
        styles = read(support["character"][:, 0], STYLE).reshape(5, 4)
        kept.append(transfer_lib._agreement(styles.T))
    assert np.ptp(kept) > 0.0
    assert measures.style_kept == Measurement.of(
        "transfer", kept, factor="style_kept", num_queries=6 * 5 * 4
    )


def test_supports_share_neither_image_nor_content():
    model, oracle = Redraw(), Oracle()
    redrawn(model, content_oracle=oracle, num_shots=2, num_exemplars=3)
    assert len(model.supports) == 3
    for task, support in enumerate(model.supports):
        content = support["character"].reshape(5, 4, 2, 2, 2, 1)[:, 0]
        style = support["style"].reshape(5, 4, 2, 2, 2, 1)[0]
        contents = read(content, CONTENT)  # [K, N]
        styles = read(style, STYLE)  # [S, N]
        for ids, num_groups in [(contents, 5), (styles, 4)]:
            assert np.all(ids == ids[:, :1])
            assert len(set(ids[:, 0])) == num_groups
        assert not set(contents.ravel()) & set(read(style, CONTENT).ravel())
        # The oracle sees other true images of the same contents, and is itself
        # tried on yet others.
        (exemplars, _), (again, true) = oracle.exemplars[2 * task :][:2]
        np.testing.assert_array_equal(exemplars, again)
        assert exemplars.shape == (5, 3, 2, 2, 1)
        used = np.concatenate([content, exemplars, true[:, np.newaxis]], axis=1)
        assert np.all(read(used, CONTENT) == contents[:, :1])
        assert len(np.unique(read(used, NUMBER))) == 5 * (2 + 3 + 1)


def test_tasks_differ_and_repeat_with_their_seed():
    models = [Redraw() for _ in range(3)]
    for model, seed in zip(models, [7, 7, 8], strict=True):
        redrawn(model, seed=seed)
    first, again, other = (
        np.stack([support["character"] for support in model.supports])
        for model in models
    )
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)
    assert np.any(first[0] != first[1])
    np.testing.assert_array_equal(
        models[0].seeds,
        [random.fold_in((7, task), tf.range(20)) for task in range(3)],
    )


def test_transfer_reports_progress():
    lines = []
    redrawn(Redraw(style_of="character"), progress=lines.append)
    assert lines[-1] == (
        "style transfer: task 3 of 3, 25.0% in the right style, 100.0% of the "
        "right character so far"
    )
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_ways": 13}, r"13 groups of 'character' with 7 .*Received: 12"),
        ({"num_exemplars": 11}, r"'character' with 13 images.*Received: 0"),
        ({"num_styles": 5}, r"5 groups of 'style' with 1 .*Received: 4"),
        ({"num_ways": 12}, r"4 groups of 'style' with 1 .*Received: 0"),
        ({"num_ways": 1}, "two contents.*num_ways=1, num_styles=4"),
        ({"num_styles": 1}, "two styles.*num_ways=5, num_styles=1"),
    ],
)
def test_too_few_contents_styles_or_images_are_an_error(settings, words):
    with pytest.raises(ValueError, match=words):
        redrawn(Redraw(), **settings)


def test_images_that_are_not_ready_are_rejected():
    data = telling_data()
    stored = GroupedImages(
        np.round(255 * data.images).astype(np.uint8), data.labels
    )
    with pytest.raises(ValueError, match="uint8"):
        redrawn(Redraw(), stored)
