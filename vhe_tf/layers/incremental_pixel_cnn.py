"""The gated PixelCNN network, evaluated pixel by pixel to sample images."""

import contextlib
import contextvars
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import tensorflow as tf

from vhe_tf.distributions import pixel_cnn as distributions
from vhe_tf.layers.gated_residual import gate
from vhe_tf.layers.shift_convolution import ShiftConvolution

if TYPE_CHECKING:
    from vhe_tf.layers.pixel_cnn import GatedPixelCNN

__all__ = ["IncrementalPixelCNN", "may_guess", "pixel_by_pixel"]

# Images of which a whole row is guessed at once. More of them cost more
# arithmetic than operations that are saved.
_MAX_GUESSED = 14

_may_guess = contextvars.ContextVar("may_guess", default=True)


@contextlib.contextmanager
def pixel_by_pixel() -> Iterator[None]:
    """Traces samplers whose loops have a known number of steps.

    For other runtimes: in OpenVINO 2026.4 a loop whose end depends on values
    gives wrong results.

    Example:
    >>> with pixel_by_pixel():
    ...     may_guess()
    False
    """
    token = _may_guess.set(False)
    try:
        yield
    finally:
        _may_guess.reset(token)


def may_guess() -> bool:
    """Returns whether samplers may guess rows.

    Example:
    >>> may_guess()
    True
    """
    return _may_guess.get()


class IncrementalPixelCNN:
    """The sums of a `GatedPixelCNN`, each computed at its last term.

    The state of rows holds the last rows of the image and of the vertical
    stack in each block. The state of pixels holds the last pixels of the row
    and of the horizontal stack in each block.

    Args:
        network: `GatedPixelCNN`, which is built.
        conditioning: Tensor of shape `[N, H, W, L]`, the embedded conditioning,
            or None.
        image_shape: `(N, H, W, C)` of the batch of images.
    """

    def __init__(
        self,
        network: "GatedPixelCNN",
        conditioning: tf.Tensor | None,
        image_shape: Sequence[Any],
    ) -> None:
        self.network = network
        self.conditioning = conditioning
        self.image_shape = tuple(image_shape)
        self._added = None
        if conditioning is not None:
            added = [block.condition(conditioning) for block in network.blocks]
            # [H, K, N, W, 2F]: what a step reads is one piece of memory.
            self._added = tf.transpose(tf.stack(added), [2, 0, 1, 3, 4])
        cast = network.cast
        kernels = [cast(block.from_left.kernel)[0] for block in network.blocks]
        self._taps = [tf.reshape(k, [-1, 2 * network.filters]) for k in kernels]
        self._before = tf.stack(
            [taps[: -network.filters] for taps in self._taps]
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

    def sample(
        self,
        noise: tf.Tensor,
        pixels: distributions.Pixels,
        *,
        temperature: tf.Tensor,
        guess: bool = True,
    ) -> tf.Tensor:
        """Samples images in raster order.

        Args:
            noise: float32 tensor of shape `[N, H, W, C]`, the result of
                `pixels.noise`.
            pixels: `Pixels`. The family of distributions of a pixel.
            temperature: Scalar float32 tensor. Temperature of each pixel.
            guess: Boolean. Whether rows of few binary images may be guessed.
                Defaults to True.

        Returns:
            float32 tensor of shape `[N, H, W, C]`.
        """
        batch, height, width, channels = self.image_shape
        # Pixels first: what a step reads is one piece of memory.
        noise = tf.transpose(noise, [1, 2, 0, 3])  # [H, W, N, C]

        def transform(parameters: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
            return pixels.transform(parameters, noise, temperature=temperature)

        def next_row(
            i: tf.Tensor, rows: Any, row_above: tf.Tensor, image: Any
        ) -> Any:
            rows, gates = self.next_row(
                rows, tf.transpose(row_above, [1, 0, 2]), index=i
            )
            noise_of_row = tf.gather(noise, i)

            def by_pixel() -> tf.Tensor:
                return self._sample_row(
                    gates, noise_of_row, transform=transform
                )

            def by_guess() -> tf.Tensor:
                return self._guess_row(
                    gates, noise_of_row, guess=row_above, transform=transform
                )

            few = guess and pixels.binary and batch <= _MAX_GUESSED
            if tf.is_tensor(few):
                sampled = tf.cond(few, by_guess, by_pixel)
            else:
                sampled = by_guess() if few else by_pixel()
            return i + 1, rows, sampled, _followed(image, sampled)

        _, _, _, image = tf.while_loop(
            lambda i, *_: i < height,
            next_row,
            (
                tf.constant(0),
                self.first_rows(),
                tf.zeros([width, batch, channels]),
                tf.zeros([height, width, batch, channels]),
            ),
            parallel_iterations=1,
            maximum_iterations=height,
        )
        return tf.transpose(image, [2, 0, 1, 3])

    def _guess_row(
        self,
        gates: tf.Tensor,
        noise: tf.Tensor,
        *,
        guess: tf.Tensor,
        transform: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    ) -> tf.Tensor:
        """Samples a row, `[W, N, C]`, all pixels at once and again.

        A pixel is right if those before it are, so that guesses repeat only
        when the row is right, after W guesses at the latest. Binary rows take
        few guesses (Wiggers and Hoogeboom 2020, "Predictive Sampling with
        Forecasting Autoregressive Models").
        """
        batch, _, width, _ = self.image_shape
        gates = tf.reshape(
            tf.transpose(gates, [0, 2, 1, 3]),  # [K, W, N, 2F]
            [self.network.num_blocks, -1, 2 * self.network.filters],
        )
        noise = tf.transpose(noise, [1, 0, 2])

        def next_guess(_: tf.Tensor, guess: tf.Tensor) -> Any:
            parameters = tf.reshape(
                self.parameters_of_row(guess, gates=gates),
                [width, batch, self.network.num_parameters],
            )
            pixels = transform(tf.transpose(parameters, [1, 0, 2]), noise)
            pixels = tf.transpose(pixels, [1, 0, 2])
            return tf.reduce_any(tf.not_equal(pixels, guess)), pixels

        _, row = tf.while_loop(
            lambda wrong, _: wrong,
            next_guess,
            (tf.constant(True), guess),
            parallel_iterations=1,
            maximum_iterations=width,
        )
        return tf.ensure_shape(row, guess.shape)

    def parameters_of_row(
        self, pixels: tf.Tensor, *, gates: tf.Tensor
    ) -> tf.Tensor:
        """Evaluates the horizontal stack for all pixels of a row.

        Args:
            pixels: `[W, N, C]`, the row.
            gates: `[K, W * N, 2F]`, what the rows above add to the gates, from
                `next_row`.

        Returns:
            Parameters of the pixels, `[W * N, P]`, each given those before.
        """
        network = self.network
        first_reach = network.first_kernel_size // 2
        images = tf.reshape(network.cast(pixels), [-1, self.image_shape[3]])
        windows = self._windows(images, first_reach)[:-1]
        left = tf.matmul(tf.concat(windows, axis=1), self._first)
        left += self._first_bias
        for k, gates_of_block in enumerate(tf.unstack(gates)):
            windows = self._windows(left, network.kernel_size // 2)
            left_in = tf.matmul(tf.concat(windows, axis=1), self._taps[k])
            gated = gate(gates_of_block + left_in)
            left += tf.matmul(gated, self._residual[k])
        return self._last(left)

    def _windows(self, values: tf.Tensor, reach: int) -> list[tf.Tensor]:
        """Shifts a row, `[W * N, F]`, by `reach` pixels, ..., 1 and 0."""
        batch = self.image_shape[0]
        padded = tf.pad(values, [(reach * batch, 0), (0, 0)])
        size = values.shape[0] or tf.shape(values)[0]
        shifted = [padded[k * batch : k * batch + size] for k in range(reach)]
        return [*shifted, values]

    def _sample_row(
        self,
        gates: tf.Tensor,
        noise: tf.Tensor,
        *,
        transform: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    ) -> tf.Tensor:
        """Samples a row, `[W, N, C]`, from its gates and its noise."""
        batch, _, width, channels = self.image_shape
        row = tf.transpose(
            gates, [2, 0, 1, 3]
        )  # what a step reads is one piece

        def next_pixel(
            j: tf.Tensor, state: Any, before: tf.Tensor, sampled: Any
        ) -> Any:
            state, parameters = self.next_pixel(state, before, row=row, index=j)
            pixel = transform(parameters, tf.gather(noise, j))
            return j + 1, state, pixel, _followed(sampled, pixel)

        _, _, _, sampled = tf.while_loop(
            lambda j, *_: j < width,
            next_pixel,
            (
                tf.constant(0),
                self.first_pixels(),
                tf.zeros([batch, channels]),
                tf.zeros([width, batch, channels]),
            ),
            parallel_iterations=1,
            maximum_iterations=width,
        )
        return sampled

    def first_rows(self) -> Any:
        """Returns the state of rows before the first: zeros."""
        network = self.network
        batch, _, width, channels = self.image_shape
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
        self, rows: Any, row_above: tf.Tensor, *, index: tf.Tensor
    ) -> tuple[Any, tf.Tensor]:
        """Advances the vertical stack by a row.

        Args:
            rows: Nested tensors. The state of rows.
            row_above: `[N, W, C]`, the pixels of the row above.
            index: `[]` int32, which row.

        Returns:
            The state of rows, and `[K, N, W, 2F]`, all that the gates of the
            horizontal stack add to what comes from the left.
        """
        network = self.network
        images, features = rows
        images = tf.concat(
            [images[:, 1:], network.cast(row_above)[:, tf.newaxis]], axis=1
        )
        above = self._row(network.first_above, images)
        added = None
        if self._added is not None:
            added = tf.unstack(tf.gather(self._added, index))
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
        return (images, tf.stack(windows)), tf.stack(gates)

    def _row(self, convolution: ShiftConvolution, rows: tf.Tensor) -> tf.Tensor:
        """Convolves as many rows as the kernel has: `[N, W, F]`."""
        _, columns = convolution.padding
        output = tf.nn.conv2d(
            rows,
            self.network.cast(convolution.kernel),
            1,
            [(0, 0), (0, 0), columns, (0, 0)],
        )
        return output[:, 0] + self.network.cast(convolution.bias)

    def first_pixels(self) -> Any:
        """Returns the state of pixels before the first of a row: zeros."""
        network = self.network
        batch, _, _, channels = self.image_shape
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
        *,
        row: tf.Tensor,
        index: tf.Tensor,
    ) -> tuple[Any, tf.Tensor]:
        """Advances the horizontal stack by a pixel.

        Args:
            pixels: Nested tensors. The state of pixels.
            pixel_before: `[N, C]`, the pixel to the left.
            row: `[W, K, N, 2F]`. The result of `next_row`, columns first.
            index: `[]` int32, which pixel of the row.

        Returns:
            The state of pixels, and the parameters `[N, P]` of this one.
        """
        network = self.network
        images, features = pixels
        images = tf.concat(
            [images[:, self.image_shape[3] :], network.cast(pixel_before)],
            axis=1,
        )
        left = tf.matmul(images, self._first) + self._first_bias
        # The pixels further left add this to all blocks at once.
        gates = tf.unstack(
            tf.gather(row, index) + tf.matmul(features, self._before)
        )
        entered = []
        for k in range(network.num_blocks):
            entered.append(left)
            left_in = gates[k] + tf.matmul(left, self._present[k])
            left += tf.matmul(gate(left_in), self._residual[k])
        features = tf.concat(
            [features[:, :, network.filters :], tf.stack(entered)], axis=2
        )
        return (images, features), self._last(left)

    def _last(self, left: tf.Tensor) -> tf.Tensor:
        """Returns the parameters of pixels, from the horizontal stack."""
        hidden = tf.nn.elu(
            tf.matmul(tf.nn.elu(left), self._hidden) + self._hidden_bias
        )
        parameters = tf.matmul(hidden, self._parameters) + self._parameters_bias
        return tf.cast(parameters, tf.float32)


def _followed(values: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Drops the first value and appends another.

    After as many calls as there are values, all are new. A `tf.TensorArray`
    would do the same without copies, but few other runtimes know it.
    """
    return tf.concat([values[1:], value[tf.newaxis]], axis=0)
