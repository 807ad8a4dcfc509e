"""The gated block of a PixelCNN without a blind spot.

van den Oord et al. (2016), "Conditional Image Generation with PixelCNN
Decoders", Figure 2. Two stacks: the vertical one sees every row above a pixel,
the horizontal one the pixels to its left and, through the vertical one, all
rows above. No masks are needed: kernels have only the taps that are used.
"""

from typing import Any

import keras
import tensorflow as tf

from vhe_tf.layers import base
from vhe_tf.layers import dropout as dropout_lib
from vhe_tf.layers.shift_convolution import Pointwise
from vhe_tf.layers.shift_convolution import ShiftConvolution

__all__ = ["GatedResidualBlock", "gate", "horizontal", "vertical"]


def gate(features: tf.Tensor) -> tf.Tensor:
    """Returns `tanh(a) * sigmoid(b)` of the halves of the last axis (Eq. 2).

    Example:
    >>> gate(tf.zeros([2, 6])).shape
    TensorShape([2, 3])
    """
    a, b = tf.split(features, 2, axis=-1)
    return tf.tanh(a) * tf.sigmoid(b)


def vertical(filters: int, kernel_size: int, **kwargs: Any) -> ShiftConvolution:
    """Returns a convolution over a row and the rows above, centred in width.

    Example:
    >>> vertical(4, 3).kernel_size
    (2, 3)
    """
    reach = kernel_size // 2
    return ShiftConvolution(
        filters,
        (reach + 1, 2 * reach + 1),
        padding=((reach, 0), (reach, reach)),
        **kwargs,
    )


def horizontal(
    filters: int, kernel_size: int, **kwargs: Any
) -> ShiftConvolution:
    """Returns a convolution over a pixel and the pixels to its left.

    Example:
    >>> horizontal(4, 3).kernel_size
    (1, 2)
    """
    reach = kernel_size // 2
    return ShiftConvolution(
        filters, (1, reach + 1), padding=((0, 0), (reach, 0)), **kwargs
    )


@keras.saving.register_keras_serializable(package="vhe_tf")
class GatedResidualBlock(base.BaseLayer):
    """One block of both stacks, each with a residual connection.

    A 1x1 convolution connects the input of the vertical gate to the horizontal
    gate. The conditioning is added before that fork and reaches both gates.

    Args:
        filters: Integer, F. Filters of both stacks.
        kernel_size: Odd integer k. The block reaches `k // 2` rows up
            and as many pixels to the left (and to the right, in the rows
            above).
        conditioning_kernel_size: Integer. Kernel size of the convolution of
            the conditioning. Defaults to 1.
        dropout: Float. Dropout rate of the outputs of both gates. Defaults to
            0.
        **kwargs: Passed on to `keras.layers.Layer`.

    Call arguments:
        above: `[N, H, W, F]`, of the vertical stack.
        left: `[N, H, W, F]`, of the horizontal stack.
        conditioning: `[N, H, W, L]`, what each location is conditioned on, or
            None.

    Returns:
        The next `above` and `left`.

    Example:
    >>> features = tf.zeros([1, 8, 8, 4])
    >>> above, left = GatedResidualBlock(4, 3)(features, features)
    >>> left.shape
    TensorShape([1, 8, 8, 4])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        conditioning_kernel_size: int = 1,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.conditioning_kernel_size = conditioning_kernel_size
        self.dropout = dropout
        policy = self.dtype_policy
        self.from_above = vertical(2 * filters, kernel_size, dtype=policy)
        self.from_left = horizontal(2 * filters, kernel_size, dtype=policy)
        self.condition = ShiftConvolution(
            2 * filters,
            (conditioning_kernel_size, conditioning_kernel_size),
            use_bias=False,
            dtype=policy,
        )
        self.across = Pointwise(2 * filters, use_bias=False, dtype=policy)
        self.residual = Pointwise(filters, use_bias=False, dtype=policy)
        self.dropout_above = dropout_lib.SeededDropout(dropout, dtype=policy)
        self.dropout_left = dropout_lib.SeededDropout(dropout, dtype=policy)

    def build(
        self,
        above_shape: Any,
        left_shape: Any,
        conditioning_shape: Any = None,
    ) -> None:
        self.from_above.build((None, None, None, self.filters))
        self.from_left.build((None, None, None, self.filters))
        self.across.build((None, None, None, 2 * self.filters))
        self.residual.build((None, None, None, self.filters))
        if conditioning_shape is not None:
            self.condition.build(conditioning_shape)

    def call(
        self,
        above: tf.Tensor,
        left: tf.Tensor,
        conditioning: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        above_in = self.from_above(above)
        if conditioning is not None:
            above_in += self.condition(conditioning)
        left_in = self.from_left(left) + self.across(above_in)
        above += self.dropout_above(gate(above_in))
        left += self.residual(self.dropout_left(gate(left_in)))
        return above, left
