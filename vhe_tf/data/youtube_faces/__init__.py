"""YouTube Faces: videos of people, as a data set of TensorFlow Datasets.

Importing this package registers the data set's builder, so that
`tfds.load("youtube_faces")` and its like find it.
"""

from vhe_tf.data.youtube_faces.loading import YouTubeFacesSplit
from vhe_tf.data.youtube_faces.loading import load_youtube_faces

__all__ = ["YouTubeFacesSplit", "load_youtube_faces"]
