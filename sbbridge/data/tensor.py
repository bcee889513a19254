"""Samples that you already have."""

from typing import Any, final

import torch

from sbbridge.data.arrays import as_real, require_finite
from sbbridge.data.base import AbstractDistribution, DataError
from sbbridge.rng import Stream
from sbbridge.types import State


@final
class TensorData(AbstractDistribution):
    """The empirical law of the rows of a tensor `[n, *shape]`, drawn with replacement.

    Args:
        x: a tensor or array-like (see `as_real`); whole numbers are taken as they are, not scaled.

    Raises:
        DataError: there are no rows, they are not real numbers, or a value is NaN or infinite in the default type (the
            message names the first such row).
    """

    def __init__(self, x: Any) -> None:
        self.x = as_real(x)
        self.x = self.x if self.x.is_floating_point() else self.x.to(torch.get_default_dtype())
        if self.x.dim() < 2 or not self.x.numel():
            raise DataError(f"data must be [n, *shape] with n >= 1, got shape {tuple(self.x.shape)}")
        require_finite(self.x, "data")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        chosen = stream.integers(step, rows, len(self.x)).cpu()
        return self.x[chosen].to(stream.device, torch.get_default_dtype())

    def in_order(self, rows: range, device: str = "cpu") -> State:
        """Rows in their own order, cyclically: every row of the data is used equally often."""
        chosen = torch.arange(rows.start, rows.stop) % len(self.x)
        return self.x[chosen].to(device, torch.get_default_dtype())
