"""Networks that judge drawings of characters, as in Boutin et al. (2022).

"Diversity vs. Recognizability" (arXiv 2205.10370) places people and models on
one map by two networks. A prototypical network says which character a drawing
shows; a contrastive network says how drawings of one character differ.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from vhe_tf._utils import validation

__all__ = ["DrawingCritic", "DrawingCritics"]

_FOLDER = pathlib.Path(__file__).with_name("critics")
_RECOGNITION, _VARIATION = "proto_net.npz", "simclr.npz"
_PUBLISHED_SIZE = 50
_EPSILON = 1e-5
_IMAGES_AT_ONCE = 256


class DrawingCritic:
    """A convolutional network from drawings to features.

    Blocks of a 3x3 convolution, batch normalisation by stored statistics, ReLU
    and 2x2 max pooling; then a linear layer after another ReLU, and maybe a
    second linear layer.

    Args:
        weights: Mapping from PyTorch names to arrays: `embedding.{k}.0.weight`,
            `.0.bias`, `.1.weight`, `.1.bias`, `.1.running_mean` and
            `.1.running_var` for each block k, `embedding.{n}.weight` and
            `.bias`, and optionally `metric_layer.*`; `image_size` if the
            images are not of 50x50 pixels.

    Raises:
        ValueError: If an array is missing.

    Example:
    >>> critic = DrawingCritics.load().recognition
    >>> critic(np.zeros([2, 28, 28, 1], np.float32)).shape
    (2, 128)
    """

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = {
            name: np.asarray(value, np.float32)
            for name, value in weights.items()
        }
        self.image_size = int(self.weights.get("image_size", _PUBLISHED_SIZE))
        matrices = [
            name.removesuffix("weight")
            for name, value in self.weights.items()
            if name.startswith(("embedding.", "metric_layer."))
            and value.ndim == 2
        ]
        try:
            self._blocks = self._folded_blocks()
            self._linear = [
                (self.weights[f"{name}weight"], self.weights[f"{name}bias"])
                for name in sorted(matrices)  # the embedding is the first
            ]
        except KeyError as error:
            raise _not_a_critic(weights) from error
        if not (self._blocks and self._linear):
            raise _not_a_critic(weights)
        self._features = tf.function(
            self._call,
            input_signature=[
                tf.TensorSpec([None, self.image_size, self.image_size, 1])
            ],
            autograph=False,
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the features of drawings.

        Args:
            images: float array of shape `[M, H, W, 1]` in 0..1, ink 1.

        Returns:
            float32 array of shape `[M, F]`.

        Raises:
            ValueError: If an image is not finite.
        """
        validation.check_finite("images", images)
        pieces = [
            self._features(
                binarized(
                    images[start : start + _IMAGES_AT_ONCE], self.image_size
                )
            ).numpy()
            for start in range(0, len(images), _IMAGES_AT_ONCE)
        ]
        return np.concatenate(pieces)

    def _folded_blocks(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns kernels and biases with the normalisation in them."""
        blocks: list[tuple[np.ndarray, np.ndarray]] = []
        while f"embedding.{len(blocks)}.0.weight" in self.weights:
            prefix = f"embedding.{len(blocks)}"
            scale = self.weights[f"{prefix}.1.weight"] / np.sqrt(
                self.weights[f"{prefix}.1.running_var"] + _EPSILON
            )
            kernel = self.weights[f"{prefix}.0.weight"].transpose(2, 3, 1, 0)
            centred = (
                self.weights[f"{prefix}.0.bias"]
                - self.weights[f"{prefix}.1.running_mean"]
            )
            bias = self.weights[f"{prefix}.1.bias"] + scale * centred
            blocks.append((kernel * scale, bias))
        return blocks

    def _call(self, images: tf.Tensor) -> tf.Tensor:
        features = images
        for kernel, bias in self._blocks:
            features = tf.nn.relu(
                tf.nn.conv2d(features, kernel, 1, "SAME") + bias
            )
            features = tf.nn.max_pool2d(features, 2, 2, "VALID")
        # PyTorch flattens channels first.
        features = tf.transpose(features, [0, 3, 1, 2])
        size = int(np.prod(features.shape[1:]))
        features = tf.nn.relu(tf.reshape(features, [-1, size]))
        for weight, bias in self._linear:
            features = tf.matmul(features, weight, transpose_b=True) + bias
        return features


@dataclasses.dataclass(frozen=True)
class DrawingCritics:
    """The two critics of the map of drawings.

    Args:
        recognition: `DrawingCritic` in whose features drawings of a character
            lie together.
        variation: `DrawingCritic` in whose features drawings that look alike
            lie together.

    Example:
    >>> critics = DrawingCritics.load()
    >>> critics.recognition.image_size
    28
    """

    recognition: DrawingCritic
    variation: DrawingCritic

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str] | None = None
    ) -> "DrawingCritics":
        """Loads critics from `proto_net.npz` and `simclr.npz` in a folder.

        Args:
            folder: Path. Defaults to the critics of this package, which
                `tools/train_critics.py` trained on the background set.

        Raises:
            FileNotFoundError: If one of the files is missing.
            ValueError: If a file does not hold a critic.
        """
        folder = pathlib.Path(folder or _FOLDER)
        critics = []
        for name in (_RECOGNITION, _VARIATION):
            path = folder / name
            if not path.is_file():
                raise FileNotFoundError(
                    f"A folder of critics holds {_RECOGNITION} and "
                    f"{_VARIATION}. Received: {folder}, without {name}."
                )
            with np.load(path) as arrays:
                critics.append(DrawingCritic(dict(arrays)))
        return cls(*critics)


def _not_a_critic(weights: Mapping[str, np.ndarray]) -> ValueError:
    return ValueError(
        "`weights` must have all arrays of a critic. "
        f"Received: {sorted(weights)}."
    )


def binarized(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes drawings bilinearly and thresholds each at half its range.

    Args:
        images: Float array of shape `[M, H, W, 1]`, ink above paper.
        size: Integer. Height and width of the result.

    Returns:
        float32 array of shape `[M, size, size, 1]`, 0 or 1. An image of one
        value becomes blank.
    """
    resized = tf.image.resize(images, (size, size), antialias=True).numpy()
    low = resized.min(axis=(1, 2, 3), keepdims=True)
    high = resized.max(axis=(1, 2, 3), keepdims=True)
    # Not below: half of the pixels between ink and paper are at the threshold.
    inked = (resized - low >= 0.5 * (high - low)) & (high > low)
    return inked.astype(np.float32)
