"""YouTube Faces: videos of people, as a data set of TensorFlow Datasets.

Importing `vhe_tf.data.datasets.youtube_faces.loading` registers its builder, so
that `tfds.load("youtube_faces")` and its like find it.
"""

from vhe_tf.data.datasets.youtube_faces.spec import YouTubeFaces

__all__ = ["YouTubeFaces"]
