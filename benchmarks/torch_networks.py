"""Gated PixelCNNs in PyTorch, beside which peers.py measures ours.

Written from van den Oord et al. (2016), "Conditional Image Generation with
PixelCNN Decoders", Section 2 and Figure 2. Images are `[N, C, H, W]`, and the
logits of binary pixels `[N, 1, H, W]`.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class PaddedConvolution(nn.Conv2d):
    """A convolution whose kernel holds the taps before a pixel, without masks.

    Args:
        channels: Integer. Channels of the input.
        filters: Integer. Channels of the output.
        kernel_size: `(kh, kw)`.
        margins: Four integers. Zeros to the left and right of the input, above
            and below it. Negative ones crop it.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: tuple[int, int],
        *,
        margins: tuple[int, int, int, int],
    ) -> None:
        super().__init__(channels, filters, kernel_size)
        self.margins = margins

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features of the same height and width."""
        return super().forward(functional.pad(images, self.margins))


class CroppedConvolution(nn.Conv2d):
    """The same by padding on both sides, and a crop of the output."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns features of the same height and width."""
        height, width = images.shape[-2:]
        return super().forward(images)[..., :height, :width]


class PlainBlock(nn.Module):
    """The computation of `vhe_tf.layers.GatedResidualBlock`."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        f = filters
        self.from_above = PaddedConvolution(
            f, 2 * f, (2, 3), margins=(1, 1, 1, 0)
        )
        self.from_left = PaddedConvolution(
            f, 2 * f, (1, 2), margins=(1, 0, 0, 0)
        )
        self.across = nn.Conv2d(2 * f, 2 * f, 1, bias=False)
        self.residual = nn.Conv2d(f, f, 1, bias=False)

    def forward(self, above: torch.Tensor, left: torch.Tensor) -> Any:
        """Returns the next `above` and `left`."""
        above_in = self.from_above(above)
        left_in = self.from_left(left) + self.across(above_in)
        return above + gate(above_in), left + self.residual(gate(left_in))


class PlainPixelCNN(nn.Module):
    """The computation of `vhe_tf.layers.GatedPixelCNN`.

    Args:
        filters: Integer. Filters of both stacks.
        num_blocks: Integer. Number of gated blocks.
        channels: Integer. Channels of the images. Defaults to 1.
    """

    def __init__(
        self, filters: int, num_blocks: int, *, channels: int = 1
    ) -> None:
        super().__init__()
        self.first_above = PaddedConvolution(
            channels, filters, (3, 7), margins=(3, 3, 3, -1)
        )
        self.first_left = PaddedConvolution(
            channels, filters, (1, 3), margins=(3, -1, 0, 0)
        )
        self.blocks = nn.ModuleList(
            PlainBlock(filters) for _ in range(num_blocks)
        )
        self.hidden = nn.Conv2d(filters, filters, 1)
        self.parameters_of_pixels = nn.Conv2d(filters, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits of all pixels."""
        above, left = self.first_above(images), self.first_left(images)
        for block in self.blocks:
            above, left = block(above, left)
        hidden = functional.elu(self.hidden(functional.elu(left)))
        return self.parameters_of_pixels(hidden)


class SeparableLayer(nn.Module):
    """A gated layer whose vertical convolution is a row's, then a column's.

    Args:
        channels: Integer. Channels of both inputs.
        filters: Integer. Filters of both stacks.
        kernel_size: Odd integer.
        is_first: Boolean. Whether the horizontal stack omits the present pixel
            and has no residual connection. Defaults to False.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: int,
        *,
        is_first: bool = False,
    ) -> None:
        super().__init__()
        f, reach = filters, kernel_size // 2
        self.is_first = is_first
        self.row = nn.Conv2d(channels, f, (1, kernel_size), padding=(0, reach))
        self.column = CroppedConvolution(
            f, 2 * f, (reach + 1, 1), padding=(reach + 1, 0)
        )
        self.above = nn.Conv2d(channels, 2 * f, 1)
        self.across = nn.Conv2d(2 * f, 2 * f, 1)
        self.left = CroppedConvolution(
            channels, 2 * f, (1, reach + 1), padding=(0, reach + is_first)
        )
        self.residual = nn.Conv2d(f, f, 1)
        self.skip = nn.Conv2d(f, f, 1)

    def forward(self, above: torch.Tensor, left: torch.Tensor) -> Any:
        """Returns the next `above` and `left`, and what goes to the head."""
        rows_before = self.column(self.row(above))
        next_above = gate(rows_before + self.above(above))
        gated = gate(self.left(left) + self.across(rows_before))
        next_left = self.residual(gated)
        if not self.is_first:
            next_left = next_left + left
        return next_above, next_left, self.skip(gated)


class SeparablePixelCNN(nn.Module):
    """The design of pytorch-generative: separable layers, summed skips.

    Args:
        filters: Integer. Filters of both stacks.
        num_layers: Integer. Number of gated layers after the first.
        head_filters: Integer. Filters between the skips and the logits.
        channels: Integer. Channels of the images. Defaults to 1.
    """

    def __init__(
        self,
        filters: int,
        num_layers: int,
        *,
        head_filters: int,
        channels: int = 1,
    ) -> None:
        super().__init__()
        self.first = SeparableLayer(channels, filters, 7, is_first=True)
        self.layers = nn.ModuleList(
            SeparableLayer(filters, filters, 3) for _ in range(num_layers)
        )
        self.hidden = nn.Conv2d(filters, head_filters, 1)
        self.logits = nn.Conv2d(head_filters, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits of all pixels."""
        above, left, skips = self.first(images, images)
        for layer in self.layers:
            above, left, skip = layer(above, left)
            skips = skips + skip
        hidden = functional.relu(self.hidden(functional.relu(skips)))
        return self.logits(hidden)


def gate(features: torch.Tensor) -> torch.Tensor:
    """Returns `tanh(a) * sigmoid(b)` of the halves of the channels (Eq. 2)."""
    a, b = features.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def log_prob(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Returns the log-likelihood of binary images, `[N]`, nats."""
    losses = functional.binary_cross_entropy_with_logits(
        network(images), images, reduction="none"
    )
    return -losses.sum(dim=(1, 2, 3))
