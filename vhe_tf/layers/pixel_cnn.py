"""The gated PixelCNN network: parallel, and a pixel at a time."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from vhe_tf.distributions import pixel_cnn as distributions
from vhe_tf.layers import gated_residual
from vhe_tf.layers.gated_residual import gate
from vhe_tf.layers.shift_convolution import Pointwise
from vhe_tf.layers.shift_convolution import ShiftConvolution

__all__ = ["GatedPixelCNN"]


@keras.saving.register_keras_serializable(package="vhe_tf")
class GatedPixelCNN(keras.layers.Layer):
    """A gated PixelCNN without a blind spot (van den Oord et al. 2016).

    A pixel's parameters depend on the pixels before it, in raster order, as
    far as `receptive_field` reaches. A decoder that sees too far can model an
    image without its latents, and then learns to ignore them. Of the
    conditioning they see what lies around those pixels; further down only as
    far as the convolutions of the conditioning itself reach.

    Args:
        num_parameters: P, the parameters of a pixel.
        filters: F, of both stacks.
        num_blocks: K, the number of gated blocks.
        kernel_size: Odd int, of the blocks.
        first_kernel_size: Odd int, of the layer that reads the image.
        conditioning_filters: Filters of 3x3 convolutions through which the
            conditioning goes first, if any.
        conditioning_kernel_size: Size of the convolutions by which it then
            enters each gate.
        dropout: Rate, in every block.
        bias_initializer: As in Keras's own layers; of the last layer, the
            parameters of a pixel before anything is learned. See
            `Pixels.initial_parameters`.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        images: `[N, H, W, C]`.
        conditioning: `[N, H, W, L]` or None; always or never.

    Returns:
        `[N, H, W, P]`, float32.

    Raises:
        ValueError: If a kernel size is even or below 3, or there is no block.
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
        for name, size in (
            ("kernel_size", kernel_size),
            ("first_kernel_size", first_kernel_size),
        ):
            if size % 2 == 0 or size < 3:
                raise ValueError(
                    f"`{name}` must be an odd int, 3 or more. "
                    f"Received: {name}={size!r}."
                )
        if num_blocks < 1:
            raise ValueError(
                "`num_blocks` must be positive: without a block no pixel sees "
                f"the rows above. Received: num_blocks={num_blocks!r}."
            )
        self.num_parameters = num_parameters
        self.filters = filters
        self.num_blocks = num_blocks
        self.kernel_size = kernel_size
        self.first_kernel_size = first_kernel_size
        self.conditioning_filters = tuple(conditioning_filters)
        self.conditioning_kernel_size = conditioning_kernel_size
        self.rate = dropout
        policy = self.dtype_policy
        # They see the pixels before the present one only: the image is
        # shifted by a row or a pixel, and one row and pixel of the kernel go.
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
            num_parameters, bias_initializer=bias_initializer, dtype=policy
        )

    @property
    def receptive_field(self) -> int:
        """How many rows up, and pixels to the left, a pixel sees."""
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
        """Returns what both stacks begin with, `[N, H, W, F]` each.

        A row of the vertical one has seen the rows above it, a pixel of the
        horizontal one those to its left.
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

    @tf.function(reduce_retracing=True)
    def generate(
        self,
        noise: tf.Tensor,
        conditioning: tf.Tensor | None,
        pixels: distributions.Pixels,
        temperature: tf.Tensor,
    ) -> tf.Tensor:
        """Draws images in raster order, with no pass over any image.

        Args:
            noise: `[N, H, W, C]`, from `pixels.noise`, all the chance used.
            conditioning: `[N, H, W, L]` or None.
            pixels: What the parameters of a pixel mean.
            temperature: `[]`, of each pixel.

        Returns:
            `[N, H, W, C]`.
        """
        if not self.built:  # a draw can come before the first density
            self.build(noise.shape, getattr(conditioning, "shape", None))
        batch, height, width, channels = noise.shape
        if batch is None:
            batch = tf.shape(noise)[0]
        incremental = self.incremental(
            conditioning, (batch, height, width, channels)
        )
        # Pixels first: what a step reads is one piece of memory.
        noise = tf.transpose(noise, [1, 2, 0, 3])  # [H, W, N, C]

        def next_row(
            i: tf.Tensor, rows: Any, row_above: tf.Tensor, image: Any
        ) -> Any:
            rows, row = incremental.next_row(
                rows, tf.transpose(row_above, [1, 0, 2]), i
            )
            noise_of_row = noise[i]

            def next_pixel(
                j: tf.Tensor, state: Any, before: tf.Tensor, drawn: Any
            ) -> Any:
                state, parameters = incremental.next_pixel(
                    state, before, row, j
                )
                pixel = pixels.draw(parameters, noise_of_row[j], temperature)
                return j + 1, state, pixel, drawn.write(j, pixel)

            _, _, _, drawn = tf.while_loop(
                lambda j, *_: j < width,
                next_pixel,
                (
                    tf.constant(0),
                    incremental.first_pixels(),
                    tf.zeros([batch, channels]),
                    _array(width, (batch, channels)),
                ),
                parallel_iterations=1,
                maximum_iterations=width,
            )
            row_drawn = tf.reshape(drawn.stack(), [width, batch, channels])
            return i + 1, rows, row_drawn, image.write(i, row_drawn)

        _, _, _, image = tf.while_loop(
            lambda i, *_: i < height,
            next_row,
            (
                tf.constant(0),
                incremental.first_rows(),
                tf.zeros([width, batch, channels]),
                _array(height, (width, batch, channels)),
            ),
            parallel_iterations=1,
            maximum_iterations=height,
        )
        return tf.transpose(image.stack(), [2, 0, 1, 3])

    def incremental(
        self, conditioning: tf.Tensor | None, image_shape: Sequence[Any]
    ) -> "_IncrementalPixelCNN":
        """Returns the same network a pixel at a time.

        Args:
            conditioning: `[N, H, W, L]` or None.
            image_shape: `(N, H, W, C)`.
        """
        return _IncrementalPixelCNN(
            self, self.embedded(self.cast(conditioning)), image_shape
        )

    def cast(self, values: Any) -> Any:
        """Returns tensors or weights in the compute dtype, None as it is."""
        if values is None:
            return None
        return tf.cast(tf.convert_to_tensor(values), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_parameters": self.num_parameters,
            "filters": self.filters,
            "num_blocks": self.num_blocks,
            "kernel_size": self.kernel_size,
            "first_kernel_size": self.first_kernel_size,
            "conditioning_filters": list(self.conditioning_filters),
            "conditioning_kernel_size": self.conditioning_kernel_size,
            "dropout": self.rate,
            "bias_initializer": keras.initializers.serialize(
                self.parameters.bias_initializer
            ),
        }


def _array(size: int, element_shape: tuple[Any, ...]) -> tf.TensorArray:
    static = [v if isinstance(v, int) else None for v in element_shape]
    return tf.TensorArray(tf.float32, size, element_shape=static)


class _IncrementalPixelCNN:
    """The sums of a `GatedPixelCNN`, each taken when its last term is known.

    The state of rows: the last rows of the image, and of the vertical stack
    in each block. The state of pixels: the last pixels of the row, and of the
    horizontal stack in each block.

    Args:
        network: The network.
        conditioning: `[N, H, W, L]`, embedded, or None.
        image_shape: `(N, H, W, C)`.
    """

    def __init__(
        self,
        network: GatedPixelCNN,
        conditioning: tf.Tensor | None,
        image_shape: Sequence[Any],
    ) -> None:
        self._network = network
        self._shape = tuple(image_shape)
        self._added = None
        if conditioning is not None:
            added = [block.condition(conditioning) for block in network.blocks]
            # [H, K, N, W, 2F]: what a step reads is one piece of memory.
            self._added = tf.transpose(tf.stack(added), [2, 0, 1, 3, 4])
        cast = network.cast
        kernels = [cast(block.from_left.kernel)[0] for block in network.blocks]
        self._before = tf.stack(
            [tf.reshape(k[:-1], [-1, 2 * network.filters]) for k in kernels]
        )
        self._present = [kernel[-1] for kernel in kernels]
        self._residual = [
            cast(block.residual.kernel)[0, 0] for block in network.blocks
        ]
        first = cast(network.first_left.kernel)
        self._first = tf.reshape(first, [-1, network.filters])
        self._first_bias = cast(network.first_left.bias)
        self._hidden = cast(network.hidden.kernel)[0, 0]
        self._hidden_bias = cast(network.hidden.bias)
        self._parameters = cast(network.parameters.kernel)[0, 0]
        self._parameters_bias = cast(network.parameters.bias)

    def first_rows(self) -> Any:
        """Returns the state of rows before the first: zeros."""
        network = self._network
        batch, _, width, channels = self._shape
        first_reach = network.first_kernel_size // 2
        reach = network.kernel_size // 2
        dtype = network.compute_dtype
        return (
            tf.zeros([batch, first_reach, width, channels], dtype),
            tf.zeros(
                [network.num_blocks, batch, reach, width, network.filters],
                dtype,
            ),
        )

    def next_row(
        self, rows: Any, row_above: tf.Tensor, index: tf.Tensor
    ) -> tuple[Any, tf.Tensor]:
        """Advances the vertical stack by a row.

        Args:
            rows: The state of rows.
            row_above: `[N, W, C]`.
            index: `[]` int32, which row.

        Returns:
            The state of rows, and `[W, K, N, 2F]`, all that the gates of the
            horizontal stack add to what comes from the left.
        """
        network = self._network
        images, features = rows
        images = tf.concat(
            [images[:, 1:], network.cast(row_above)[:, tf.newaxis]], axis=1
        )
        above = self._row(network.first_above, images)
        added = None if self._added is None else tf.unstack(self._added[index])
        windows, gates = [], []
        for k, block in enumerate(network.blocks):
            window = tf.concat([features[k], above[:, tf.newaxis]], axis=1)
            above_in = self._row(block.from_above, window)
            if added is not None:
                above_in += added[k]
            across = block.across(above_in[:, tf.newaxis])[:, 0]
            gates.append(across + network.cast(block.from_left.bias))
            above += gate(above_in)
            windows.append(window[:, 1:])
        row = tf.transpose(tf.stack(gates), [2, 0, 1, 3])
        return (images, tf.stack(windows)), row

    def _row(self, convolution: ShiftConvolution, rows: tf.Tensor) -> tf.Tensor:
        """Convolves as many rows as the kernel has: `[N, W, F]`."""
        _, columns = convolution.padding
        output = tf.nn.conv2d(
            rows,
            self._network.cast(convolution.kernel),
            1,
            [(0, 0), (0, 0), columns, (0, 0)],
        )
        return output[:, 0] + self._network.cast(convolution.bias)

    def first_pixels(self) -> Any:
        """Returns the state of pixels before the first of a row: zeros."""
        network = self._network
        batch, _, _, channels = self._shape
        first_reach = network.first_kernel_size // 2
        reach = network.kernel_size // 2
        dtype = network.compute_dtype
        return (
            tf.zeros([batch, first_reach * channels], dtype),
            tf.zeros(
                [network.num_blocks, batch, reach * network.filters], dtype
            ),
        )

    def next_pixel(
        self,
        pixels: Any,
        pixel_before: tf.Tensor,
        row: tf.Tensor,
        index: tf.Tensor,
    ) -> tuple[Any, tf.Tensor]:
        """Advances the horizontal stack by a pixel.

        Args:
            pixels: The state of pixels.
            pixel_before: `[N, C]`.
            row: What `next_row` returned.
            index: `[]` int32, which pixel of the row.

        Returns:
            The state of pixels, and the parameters `[N, P]` of this one.
        """
        network = self._network
        images, features = pixels
        images = tf.concat(
            [images[:, self._shape[3] :], network.cast(pixel_before)], axis=1
        )
        left = tf.matmul(images, self._first) + self._first_bias
        # Of all blocks at once: what the pixels further left add.
        gates = tf.unstack(row[index] + tf.matmul(features, self._before))
        entered = []
        for k in range(network.num_blocks):
            entered.append(left)
            left_in = gates[k] + tf.matmul(left, self._present[k])
            left += tf.matmul(gate(left_in), self._residual[k])
        features = tf.concat(
            [features[:, :, network.filters :], tf.stack(entered)], axis=2
        )
        hidden = tf.nn.elu(
            tf.matmul(tf.nn.elu(left), self._hidden) + self._hidden_bias
        )
        parameters = tf.matmul(hidden, self._parameters) + self._parameters_bias
        return (images, features), tf.cast(parameters, tf.float32)
