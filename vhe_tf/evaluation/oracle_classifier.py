"""Oracle classifiers: trained on true images, to classify generated ones.

How often does an image made of this character in that style show both? An
oracle classifier of characters, trained on images in many styles, recognises
the character whatever the style. One of styles, trained across characters,
recognises the style. Its accuracy on true images that it was not trained on is
what a perfect model could reach.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vhe_tf._utils import validation

__all__ = ["OracleClassifier", "train_oracle_classifier"]

_FILTERS = (32, 64, 64)
# Cosines lie in -1..1; the softmax of these could not be sure of anything.
_COSINE_SCALE = 16.0
_LEARNING_RATE = 4e-3
_IMAGES_AT_ONCE = 256


class OracleClassifier:
    """Finds the class of an image, by a network that is trained separately.

    Args:
        network: `keras.Model`. Maps images `[B, H, W, C]` to embeddings of
            unit length, `[B, E]`.
        head: Keras layer from embeddings to scores, `[B, K]`.
        class_ids: `[K]`, the labels that the scores stand for.
    """

    def __init__(
        self,
        network: keras.Model,
        head: keras.layers.Layer,
        class_ids: np.ndarray,
    ) -> None:
        self.network = network
        self.head = head
        self.class_ids = class_ids
        self._image_shape = network.input_shape[1:]
        self._embed = tf.function(
            lambda images: network(images),
            input_signature=[tf.TensorSpec([None, *self._image_shape])],
            autograph=False,
        )

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Returns `[M, E]` float32 of unit length, for `[M, H, W, C]`."""
        _check_images("images", images, ("M", *self._image_shape))
        return np.concatenate(
            [
                self._embed(
                    tf.constant(images[start : start + _IMAGES_AT_ONCE])
                )
                for start in range(0, len(images), _IMAGES_AT_ONCE)
            ]
        )

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns which class of the training each image belongs to.

        Args:
            images: `[M, H, W, C]` float32, the images to classify.

        Returns:
            `[M]`, labels of the training.
        """
        scores = np.asarray(self.head(self.embed(images)))
        return self.class_ids[scores.argmax(axis=1)]

    def nearest(self, images: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
        """Classifies images by the class whose exemplars are nearest.

        The classes may be others than those of the training.

        Args:
            images: `[M, H, W, C]` float32, the images to classify.
            exemplars: `[K, N, H, W, C]` float32, N images of each of K classes.

        Returns:
            int64 array of shape `[M]`, in 0..K-1: for each image the class
            whose mean embedding, scaled to unit length, is nearest.
        """
        _check_images("exemplars", exemplars, ("K", "N", *self._image_shape))
        each = self.embed(exemplars.reshape(-1, *exemplars.shape[2:]))
        means = each.reshape(*exemplars.shape[:2], -1).mean(axis=1)  # [K, E]
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return np.argmax(self.embed(images) @ means.T, axis=1)


def train_oracle_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int = 10,
    batch_size: int = 64,
    embedding: int = 64,
    augment: int = 2,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> OracleClassifier:
    """Trains a small convolutional classifier on true images.

    Equal arguments give equal classifiers on one machine. The global seeds of
    Keras and TensorFlow are neither used nor set.

    Args:
        images: `[M, H, W, C]` float32, with all variation that the
            classifier is to ignore: for characters, in many styles.
        labels: `[M]`, the class ids, any integers; an image whose label is
            negative, not known, is left out.
        epochs: Integer. Passes over the images. A few do for styles; hundreds
            of characters take ten and gain by more.
        batch_size: Integer. Number of images per step.
        embedding: Integer. E, the size of the embedding.
        augment: Integer. The largest random shift of a training image, pixels
            in each direction; 0 for none.
        seed: Integer. Decides the initial weights, the order and the shifts.
        progress: Callable or None. Called with a line of text after each epoch.

    Returns:
        The classifier.

    Raises:
        ValueError: If shapes do not agree, images are not finite float32
            numbers, labels are not integers, there are fewer than two
            classes, or a number is out of range.

    Example:
    >>> oracle = train_oracle_classifier(
    ...     data.images, data.labels["character"], epochs=1)
    >>> oracle.classify(data.images[:3]).shape
    (3,)
    """
    _check_images("images", images, ("M", "H", "W", "C"))
    _check_labels(labels, len(images))
    _check_int("epochs", epochs, 1)
    _check_int("batch_size", batch_size, 1)
    _check_int("embedding", embedding, 1)
    _check_int("augment", augment, 0)
    known = np.flatnonzero(labels >= 0)
    class_ids = np.unique(labels[known])
    batch_size = min(batch_size, len(known))
    steps = len(known) // batch_size
    rng = np.random.default_rng(seed)
    network, head = _network(images.shape[1:], embedding, len(class_ids), rng)
    order = np.concatenate(
        [rng.permutation(known)[: steps * batch_size] for _ in range(epochs)]
    )
    shifts = rng.integers(-augment, augment + 1, (len(order), 2))
    # An image without a label has a class here too, but is not in `order`.
    classes = np.searchsorted(class_ids, labels)
    _classifier(network, head, epochs * steps).fit(
        _batches(images, classes, order, shifts, batch_size),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[_Progress(epochs, progress)] if progress else [],
    )
    return OracleClassifier(network, head, class_ids)


class _Progress(keras.callbacks.Callback):
    def __init__(self, epochs: int, show: Callable[[str], None]) -> None:
        super().__init__()
        self._epochs = epochs
        self._show = show

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        accuracy = float((logs or {})["accuracy"])
        self._show(
            f"oracle classifier: epoch {epoch + 1} of {self._epochs}, "
            f"{accuracy:.1%} of the training images right"
        )


def _network(
    image_shape: tuple[int, ...],
    embedding: int,
    num_classes: int,
    rng: np.random.Generator,
) -> tuple[keras.Model, keras.layers.Layer]:
    """Returns the network to unit embeddings and the head to scores."""

    def initializer() -> keras.initializers.Initializer:
        return keras.initializers.HeNormal(seed=int(rng.integers(2**31)))

    layers = [
        keras.layers.Conv2D(
            filters,
            3,
            strides=2,
            padding="same",
            data_format="channels_last",
            activation="relu",
            kernel_initializer=initializer(),
        )
        for filters in _FILTERS
    ]
    network = keras.Sequential(
        [
            keras.Input(image_shape),
            *layers,
            keras.layers.Flatten(data_format="channels_last"),
            keras.layers.Dense(embedding, kernel_initializer=initializer()),
            keras.layers.UnitNormalization(),
        ]
    )
    head = keras.layers.Dense(
        num_classes, use_bias=False, kernel_initializer=initializer()
    )
    return network, head


def _classifier(
    network: keras.Model, head: keras.layers.Layer, num_steps: int
) -> keras.Model:
    """Returns the compiled classifier that trains network and head."""
    scale = keras.layers.Rescaling(_COSINE_SCALE)
    classifier = keras.Sequential([network, scale, head])
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, num_steps)
    classifier.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return classifier


def _batches(
    images: np.ndarray,
    classes: np.ndarray,
    order: np.ndarray,
    shifts: np.ndarray,
    batch_size: int,
) -> tf.data.Dataset:
    """Returns batches of images, shifted, and classes, in the given order."""
    with tf.device("CPU:0"):
        images, classes = tf.constant(images), tf.constant(classes)

    def batch(which: tf.Tensor, shift: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return _shifted(tf.gather(images, which), shift), tf.gather(
            classes, which
        )

    indices = tf.data.Dataset.from_tensor_slices((order, shifts))
    return indices.batch(batch_size).map(batch).prefetch(tf.data.AUTOTUNE)


def _shifted(images: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """Moves each image by its shift `[B, 2]`; its edges fill the gaps."""
    for axis in (1, 2):
        size = images.shape[axis]
        source = tf.range(size, dtype=shifts.dtype) - shifts[:, axis - 1, None]
        source = tf.clip_by_value(source, 0, size - 1)  # [B, size]
        images = tf.gather(images, source, axis=axis, batch_dims=1)
    return images


def _check_images(
    name: str, images: np.ndarray, shape: tuple[int | str, ...]
) -> None:
    fits = images.ndim == len(shape) and all(
        size == wanted if isinstance(wanted, int) else size > 0
        for size, wanted in zip(images.shape, shape, strict=True)
    )
    if not fits or images.dtype != np.float32:
        raise ValueError(
            f"`{name}` must be float32 of shape "
            f"[{', '.join(map(str, shape))}]; see `vhe_tf.data.ready`. "
            f"Received: {images.dtype} of shape {list(images.shape)}."
        )
    validation.check_finite(name, images)


def _check_labels(labels: np.ndarray, num_images: int) -> None:
    if labels.shape != (num_images,) or labels.dtype.kind not in "iu":
        raise ValueError(
            "`labels` must hold one integer per image. Received: "
            f"{num_images} images and labels, {labels.dtype}, of shape "
            f"{list(labels.shape)}."
        )
    ids = np.unique(labels[labels >= 0])
    if len(ids) < 2:
        raise ValueError(
            "An oracle classifier needs at least two classes; train it on "
            f"images of more. Received: labels of {ids.tolist()} alone."
        )


def _check_int(name: str, value: int, minimum: int) -> None:
    if not isinstance(value, (int, np.integer)) or value < minimum:
        raise ValueError(
            f"`{name}` must be an int of at least {minimum}. "
            f"Received: {name}={value!r}."
        )
