"""The shapes of convolutions."""

from torch import Tensor


def output_length(x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int) -> int:
    """Return the length of the convolution of x `(..., length)` with weight `(..., taps)`."""
    return (x.shape[2] + 2 * padding - dilation * (weight.shape[2] - 1) - 1) // stride + 1
