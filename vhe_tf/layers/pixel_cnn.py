"""The gated PixelCNN network, for all pixels in parallel."""

import contextlib
import contextvars
import logging
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf._utils import validation
from vhe_tf.distributions import pixel_cnn as distributions
from vhe_tf.layers import base
from vhe_tf.layers import gated_residual
from vhe_tf.layers.incremental_pixel_cnn import IncrementalPixelCNN
from vhe_tf.layers.incremental_pixel_cnn import may_guess
from vhe_tf.layers.shift_convolution import Pointwise
from vhe_tf.layers.shift_convolution import ShiftConvolution

__all__ = ["GatedPixelCNN", "traced_anew"]


def _is_not_about_tracing(record: logging.LogRecord) -> bool:
    # TensorFlow adds up the tracings of all networks, and warns of five.
    message = record.getMessage()
    return not ("GatedPixelCNN" in message and "retracing" in message)


logging.getLogger("tensorflow").addFilter(_is_not_about_tracing)


_keeps_graphs = contextvars.ContextVar("keeps_graphs", default=True)


@contextlib.contextmanager
def traced_anew() -> Iterator[None]:
    """Traces samplers without the graphs that are kept for later calls.

    If weights are arguments of a function, a kept graph would read those of
    another one.

    Example:
    >>> with traced_anew():
    ...     _keeps_graphs.get()
    False
    """
    token = _keeps_graphs.set(False)
    try:
        yield
    finally:
        _keeps_graphs.reset(token)


@keras.saving.register_keras_serializable(package="vhe_tf")
class GatedPixelCNN(base.BaseLayer):
    """A gated PixelCNN without a blind spot (van den Oord et al. 2016).

    The parameters of a pixel depend on the pixels before it, in raster order,
    within the receptive field. A decoder with a large receptive field can model
    images without the latents, and then learns to ignore them. The conditioning
    is seen around those pixels, and below the present row only as far as the
    convolutions of the conditioning reach.

    Args:
        num_parameters: Integer, P. Number of parameters per pixel.
        filters: Integer, F. Filters of both stacks.
        num_blocks: Integer, K. Number of gated blocks.
        kernel_size: Odd integer. Kernel size of the blocks. Defaults
            to 3.
        first_kernel_size: Odd integer. Kernel size of the layer that
            reads the image. Defaults to 7.
        conditioning_filters: Integers. Filters of 3x3 convolutions that encode
            the conditioning. Defaults to none.
        conditioning_kernel_size: Integer. Kernel size of the convolutions of
            the conditioning into each gate. Defaults to 1.
        dropout: Float. Dropout rate of every block. Defaults to 0.
        bias_initializer: Keras initializer. Initializer of the last bias, which
            gives the initial parameters of a pixel; see
            `Pixels.initial_parameters`. Defaults to `"zeros"`.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        images: `[N, H, W, C]`, the images.
        conditioning: `[N, H, W, L]` or None; always or never.

    Returns:
        `[N, H, W, P]`, float32.

    Raises:
        ValueError: If a kernel size is even or below 3, or there is no block.

    Example:
    >>> network = GatedPixelCNN(1, filters=4, num_blocks=2)
    >>> network.receptive_field
    5
    >>> network(tf.zeros([1, 8, 8, 1])).shape
    TensorShape([1, 8, 8, 1])
    """

    def __init__(
        self,
        num_parameters: int,
        *,
        filters: int,
        num_blocks: int,
        kernel_size: int = 3,
        first_kernel_size: int = 7,
        conditioning_filters: Sequence[int] = (),
        conditioning_kernel_size: int = 1,
        dropout: float = 0.0,
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_kernel_size("kernel_size", kernel_size)
        _check_kernel_size("first_kernel_size", first_kernel_size)
        self.num_parameters = num_parameters
        self.filters = filters
        # Without a block no pixel sees the rows above.
        self.num_blocks = validation.positive("num_blocks", num_blocks)
        self.kernel_size = kernel_size
        self.first_kernel_size = first_kernel_size
        self.conditioning_filters = tuple(conditioning_filters)
        self.conditioning_kernel_size = conditioning_kernel_size
        self.dropout = dropout
        self.bias_initializer = keras.initializers.get(bias_initializer)
        policy = self.dtype_policy
        # Both see only pixels before the present one: the image is shifted by
        # a row or a pixel, and the kernel loses one row and one pixel.
        reach = first_kernel_size // 2
        self.first_above = ShiftConvolution(
            filters,
            (reach, first_kernel_size),
            padding=((reach - 1, 0), (reach, reach)),
            dtype=policy,
        )
        self.first_left = ShiftConvolution(
            filters, (1, reach), padding=((0, 0), (reach - 1, 0)), dtype=policy
        )
        self.embedding = [
            ShiftConvolution(size, (3, 3), dtype=policy)
            for size in self.conditioning_filters
        ]
        self.blocks = [
            gated_residual.GatedResidualBlock(
                filters,
                kernel_size,
                conditioning_kernel_size=conditioning_kernel_size,
                dropout=dropout,
                dtype=policy,
            )
            for _ in range(num_blocks)
        ]
        self.hidden = Pointwise(filters, dtype=policy)
        self.parameters = Pointwise(
            num_parameters, bias_initializer=self.bias_initializer, dtype=policy
        )

    @property
    def receptive_field(self) -> int:
        """Number of rows above and of pixels to the left that a pixel sees."""
        reach = self.kernel_size // 2
        return self.first_kernel_size // 2 + self.num_blocks * reach

    def build(self, images_shape: Any, conditioning_shape: Any = None) -> None:
        self.first_above.build(images_shape)
        self.first_left.build(images_shape)
        shape = conditioning_shape
        if shape is not None:
            for convolution in self.embedding:
                convolution.build(shape)
                shape = (*shape[:-1], convolution.filters)
        features = (None, None, None, self.filters)
        for block in self.blocks:
            block.build(features, features, shape)
        self.hidden.build(features)
        self.parameters.build(features)

    def call(
        self, images: tf.Tensor, conditioning: tf.Tensor | None = None
    ) -> tf.Tensor:
        conditioning = self.embedded(conditioning)
        above, left = self.first(images)
        for block in self.blocks:
            above, left = block(above, left, conditioning)
        return self.last(left)

    def first(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the inputs of both stacks, `[N, H, W, F]` each.

        The vertical stack depends on the rows above, the horizontal one on the
        pixels to the left.
        """
        above = self.first_above(
            tf.pad(images[:, :-1], [(0, 0), (1, 0), (0, 0), (0, 0)])
        )
        left = self.first_left(
            tf.pad(images[:, :, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])
        )
        return above, left

    def last(self, left: tf.Tensor) -> tf.Tensor:
        """Returns the parameters `[N, H, W, P]`, from the horizontal stack."""
        parameters = self.parameters(tf.nn.elu(self.hidden(tf.nn.elu(left))))
        return tf.cast(parameters, tf.float32)

    def embedded(self, conditioning: tf.Tensor | None) -> tf.Tensor | None:
        """Returns the conditioning as the gates see it, `[N, H, W, L']`."""
        if conditioning is not None:
            for convolution in self.embedding:
                conditioning = tf.nn.elu(convolution(conditioning))
        return conditioning

    def generate(
        self,
        noise: tf.Tensor,
        conditioning: tf.Tensor | None,
        *,
        pixels: distributions.Pixels,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Samples images in raster order, without a pass over any image.

        Args:
            noise: float32 tensor of shape `[N, H, W, C]` from `pixels.noise`.
                The only source of randomness.
            conditioning: Tensor of shape `[N, H, W, L]`, what each pixel is
                conditioned on, or None.
            pixels: `Pixels`. The family of distributions of a pixel.
            temperature: Scalar float32 tensor. Temperature of each pixel.

        Returns:
            float32 tensor of shape `[N, H, W, C]`.
        """
        generate = self._generate
        if _keeps_graphs.get():
            generate = self._compiled_generate
        return generate(
            noise,
            conditioning,
            pixels=pixels,
            temperature=temperature,
            guess=may_guess(),
        )

    @tf.function(reduce_retracing=True, autograph=False)
    def _compiled_generate(self, *args: Any, **kwargs: Any) -> tf.Tensor:
        return self._generate(*args, **kwargs)

    def _generate(
        self,
        noise: tf.Tensor,
        conditioning: tf.Tensor | None,
        *,
        pixels: distributions.Pixels,
        temperature: tf.Tensor,
        guess: bool,
    ) -> tf.Tensor:
        if not self.built:  # a sample can come before the first density
            self.build(noise.shape, getattr(conditioning, "shape", None))
        batch, *image_shape = noise.shape
        if batch is None:
            batch = tf.shape(noise)[0]
        sampler = self.incremental(conditioning, (batch, *image_shape))
        return sampler.sample(
            noise, pixels, temperature=temperature, guess=guess
        )

    def incremental(
        self, conditioning: tf.Tensor | None, image_shape: Sequence[Any]
    ) -> IncrementalPixelCNN:
        """Returns the same network, evaluated pixel by pixel.

        Args:
            conditioning: `[N, H, W, L]`, what each pixel is conditioned on, or
                None.
            image_shape: `(N, H, W, C)`.
        """
        return IncrementalPixelCNN(
            self, self.embedded(self.cast(conditioning)), image_shape
        )

    def cast(self, values: Any) -> Any:
        """Returns tensors or weights in the compute dtype, None as it is."""
        if values is None:
            return None
        return tf.cast(tf.convert_to_tensor(values), self.compute_dtype)


def _check_kernel_size(name: str, size: int) -> None:
    if size % 2 == 0 or size < 3:
        raise ValueError(
            f"`{name}` must be an odd integer of 3 or more. "
            f"Received: {name}={size!r}."
        )
