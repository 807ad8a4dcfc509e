import numpy as np

from tests.evaluation.test_transfer import STYLE
from tests.evaluation.test_transfer import read
from tests.evaluation.test_transfer import telling_data
from tools import style_figure


def test_groups_have_content_and_style_above_and_redrawings_below():
    values = np.arange(1.0, 17.0, dtype=np.float32) / 16
    images = np.broadcast_to(values[:, None, None, None], (16, 4, 4, 1))
    grid = style_figure.figure(
        images[:4],
        images[4:8],
        redrawn=images[8:].reshape(4, 2, 4, 4, 1),
        columns=2,
    )
    # Two rows and columns of groups; 4 pixels, a gap of 2, 4 pixels, one of 8.
    assert grid.shape == (28, 28, 1)
    for group in range(4):
        top, left = 18 * (group // 2), 18 * (group % 2)
        shown = grid[top : top + 10, left : left + 10, 0] * 16
        np.testing.assert_array_equal(shown[:4, :4], group + 1)
        np.testing.assert_array_equal(shown[:4, 6:], group + 5)
        np.testing.assert_array_equal(shown[6:, :4], 2 * group + 9)
        np.testing.assert_array_equal(shown[6:, 6:], 2 * group + 10)


def test_no_character_is_on_both_sides():
    content, style = style_figure.pairs(telling_data(), 5, seed=1)
    assert content.shape == style.shape == (5, 1, 2, 2, 1)
    both = np.concatenate([content, style])
    assert len(np.unique(both[:, 0, 0, 0, 0])) == 10
    assert len(np.unique(read(style, STYLE))) > 1
