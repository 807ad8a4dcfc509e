import numpy as np

from tests.data.conftest import REAL
from tests.data.conftest import needs_omniglot
from vhe_tf.data import Glyphs
from vhe_tf.data import Omniglot
from vhe_tf.data import Styles


def assert_styled_source(source, copies):
    from vhe_tf.data.datasets.styles import pen_styles

    assert source.validation is None
    assert source.image_size == (28, 28)
    assert source.binarization == "none"
    assert source.train.images.dtype == np.uint8
    assert source.test.images.dtype == np.float32
    assert not set(source.train.group_ids("character")) & set(
        source.test.group_ids("character")
    )
    inks = [pen.ink for pen in pen_styles(6, seed=2)]
    for data, scale, times in (
        (source.train, 1, copies),
        (source.test, 255, 1),  # no query is its support in another ink
    ):
        assert data.image_shape == (28, 28, 3)
        style = data.labels["style"].reshape(-1, times)
        assert all(len(set(row)) == times for row in style)
        some = slice(None, None, 1 + len(data) // 500)
        for image, index in zip(
            data.images[some], data.labels["style"][some], strict=True
        ):
            pixels = np.rint(255 - scale * image.astype(float)).reshape(-1, 3)
            assert {tuple(each) for each in pixels} == {
                (255, 255, 255),
                inks[index],
            }


def test_styled_glyphs_have_the_same_styles_in_training_and_testing(
    few_glyphs,
):
    source = Styles(Glyphs(seed=2), num_styles=6, copies=3).load()
    assert_styled_source(source, copies=3)
    assert len(source.train) == 3 * 12
    assert len(source.test) == 48
    for data in (source.train, source.test):
        assert list(data.labels) == [
            "alphabet",
            "character",
            "drawer",
            "style",
        ]
        assert set(data.group_names["style"]) == set(range(6))


@needs_omniglot
def test_styled_omniglot_is_drawn_from_the_originals(monkeypatch):
    from vhe_tf.data.datasets import styles

    seen = []
    styled = styles.styled

    def watched(data, **options):
        seen.append(data.image_shape)
        few = np.arange(len(data)) % 20 == 0
        return styled(data.where(few), **options)

    monkeypatch.setattr(styles, "styled", watched)
    spec = Styles(Omniglot("lake_small1", seed=2), num_styles=6, copies=2)
    source = spec.load(str(REAL))
    assert seen == [(105, 105, 1)] * 2
    assert_styled_source(source, copies=2)
    assert len(source.test) == 659
    assert len(source.test.group_ids("alphabet")) == 20


@needs_omniglot
def test_styled_validation_images_are_kept(monkeypatch):
    from vhe_tf.data.datasets import styles

    styled = styles.styled

    def few(data, **options):
        return styled(data.where(np.arange(len(data)) % 40 == 0), **options)

    monkeypatch.setattr(styles, "styled", few)
    source = Styles(Omniglot("vinyals"), copies=1).load(str(REAL))
    assert source.validation.image_shape == (28, 28, 3)
    assert source.validation.images.dtype == np.uint8
    assert len(source.validation.group_ids("alphabet")) == 5
    assert "style" in source.validation.labels
