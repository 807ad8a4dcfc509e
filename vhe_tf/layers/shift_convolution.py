"""Stride-1 convolutions with a fast gradient."""

import contextlib
import contextvars
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf.layers import base

__all__ = [
    "Padding",
    "Pointwise",
    "ShiftConvolution",
    "convolve",
    "library_gradients",
]

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Number of zeros added: `((above, below), (left, right))`."""

# Where matrix products per tap beat TensorFlow's gradient on CPU, see
# benchmarks/convolution.py. Products of fewer channels are thin.
_MIN_CHANNELS = 8
_MAX_TAPS = 9

_library_gradients = contextvars.ContextVar("library_gradients", default=False)


@contextlib.contextmanager
def library_gradients() -> Iterator[None]:
    """Traces convolutions with TensorFlow's own gradients, as for a GPU.

    For programs that are lowered here and run elsewhere.

    Example:
    >>> with library_gradients():
    ...     convolve(
    ...         tf.zeros([1, 8, 8, 8]),
    ...         tf.zeros([3, 3, 8, 4]),
    ...         padding=((1, 1), (1, 1)),
    ...     ).shape
    TensorShape([1, 8, 8, 4])
    """
    token = _library_gradients.set(True)
    try:
        yield
    finally:
        _library_gradients.reset(token)


def convolve(
    images: tf.Tensor, kernel: tf.Tensor, *, padding: Padding
) -> tf.Tensor:
    """Convolves with stride 1, as `tf.nn.conv2d` does.

    A 1x1 kernel is a matrix product. For other small kernels of several
    channels the gradients are explicit on CPU (`benchmarks/convolution.py`
    compares them with TensorFlow's). The gradient of the images is another
    forward convolution. That of the kernel is
    one matrix product per tap, between slices of the padded images that are
    contiguous in memory.

    Args:
        images: `[N, H, W, C]`, the inputs.
        kernel: `[kh, kw, C, F]`, the weights.
        padding: `Padding`, at most `kh - 1` rows above or below and `kw - 1`
            columns to the left or right.

    Returns:
        Tensor of shape `[N, H', W', F]`. The size of the images is kept if the
        padding adds up to `kh - 1` and `kw - 1`.

    Example:
    >>> kernel = tf.zeros([3, 3, 2, 4])
    >>> convolve(
    ...     tf.zeros([1, 8, 8, 2]), kernel, padding=((1, 1), (1, 1))
    ... ).shape
    TensorShape([1, 8, 8, 4])
    """
    kh, kw, channels, filters = kernel.shape
    if (kh, kw) == (1, 1):
        flat = tf.reshape(images, [-1, channels])
        product = tf.matmul(flat, tf.reshape(kernel, [channels, filters]))
        known = images.shape[:3].is_fully_defined()
        shape = images.shape[:3] if known else tf.shape(images)[:3]
        return tf.ensure_shape(
            tf.reshape(product, tf.concat([shape, [filters]], axis=0)),
            [*images.shape[:3], filters],
        )
    if kh * kw > _MAX_TAPS or channels < _MIN_CHANNELS or not _by_taps():
        return _forward(images, kernel, padding)
    (above, below), (left, right) = padding

    @tf.custom_gradient
    def with_gradient(images: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            flipped = tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2])
            mirrored = (
                (kh - 1 - above, kh - 1 - below),
                (kw - 1 - left, kw - 1 - right),
            )
            return (
                _forward(upstream, flipped, mirrored),
                _kernel_gradient(images, upstream, kernel.shape, padding),
            )

        return _forward(images, kernel, padding), gradient

    return with_gradient(images, kernel)


def _by_taps() -> bool:
    if _library_gradients.get():
        return False
    return not tf.config.list_physical_devices("GPU")


def _forward(
    images: tf.Tensor, kernel: tf.Tensor, padding: Padding
) -> tf.Tensor:
    return tf.nn.conv2d(images, kernel, 1, [(0, 0), *padding, (0, 0)])


def _kernel_gradient(
    images: tf.Tensor,
    upstream: tf.Tensor,
    kernel_shape: tf.TensorShape,
    padding: Padding,
) -> tf.Tensor:
    kh, kw, channels, filters = kernel_shape
    padded = tf.pad(images, [(0, 0), *padding, (0, 0)])
    width = tf.shape(padded)[2]
    # Aligned to the padded images, a tap is a constant offset in memory.
    aligned = tf.pad(upstream, [(0, 0), (0, kh - 1), (0, kw - 1), (0, 0)])
    flat_images = tf.reshape(padded, [-1, channels])
    flat_upstream = tf.reshape(aligned, [-1, filters])
    last = (kh - 1) * width + kw - 1
    count = tf.shape(flat_upstream)[0] - last
    flat_upstream = flat_upstream[:count]
    taps = []
    for row in range(kh):
        for column in range(kw):
            start = row * width + column
            taps.append(
                tf.matmul(
                    flat_images[start : start + count],
                    flat_upstream,
                    transpose_a=True,
                )
            )
    return tf.reshape(tf.stack(taps), kernel_shape)


@keras.saving.register_keras_serializable(package="vhe_tf")
class ShiftConvolution(base.BaseLayer):
    """A convolution of stride 1 with explicit padding.

    Args:
        filters: Integer, F.
        kernel_size: `(kh, kw)`.
        padding: `Padding`, see `convolve`. Defaults to the padding that keeps
            the image centred and its size.
        use_bias: Boolean. Defaults to True.
        bias_initializer: Initializer. Defaults to `"zeros"`.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        images: `[N, H, W, C]`, the inputs.

    Returns:
        `[N, H', W', F]`.

    Example:
    >>> ShiftConvolution(4, (3, 3))(tf.zeros([1, 8, 8, 2])).shape
    TensorShape([1, 8, 8, 4])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Sequence[int],
        *,
        padding: Sequence[Sequence[int]] | None = None,
        use_bias: bool = True,
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = tuple(kernel_size)
        if padding is None:
            padding = [((k - 1) // 2, k // 2) for k in self.kernel_size]
        (above, below), (left, right) = padding
        self.padding: Padding = ((above, below), (left, right))
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: Sequence[Any]) -> None:
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, input_shape[-1], self.filters),
            initializer="glorot_uniform",
            name="kernel",
        )
        self.bias = (
            self.add_weight(
                shape=(self.filters,),
                initializer=self.bias_initializer,
                name="bias",
            )
            if self.use_bias
            else None
        )

    def call(self, images: tf.Tensor) -> tf.Tensor:
        output = convolve(
            images, tf.convert_to_tensor(self.kernel), padding=self.padding
        )
        return output if self.bias is None else output + self.bias


@keras.saving.register_keras_serializable(package="vhe_tf")
class Pointwise(ShiftConvolution):
    """A 1x1 convolution: the same affine map for every pixel.

    Args:
        filters: Integer, F.
        **kwargs: Passed on to `ShiftConvolution`.

    Example:
    >>> Pointwise(4)(tf.zeros([1, 8, 8, 2])).shape
    TensorShape([1, 8, 8, 4])
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, (1, 1), **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("kernel_size", "padding"):
            config.pop(name, None)
        return config
