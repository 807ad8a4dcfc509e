"""Made-up alphabets, generated without a download."""

from vhe_tf.data.datasets.glyphs.generating import generate_glyphs
from vhe_tf.data.datasets.glyphs.spec import Glyphs

__all__ = ["Glyphs", "generate_glyphs"]
