"""Images in memory: bytes where they are many, floats in [−1, 1] when they are drawn."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sbbridge.data.arrays import as_real
from sbbridge.data.base import AbstractDistribution, DataError
from sbbridge.data.tensor import TensorData
from sbbridge.rng import Stream
from sbbridge.types import State

_TYPES = "images must be uint8 in 0 … 255 or float in [−1, 1], got {}"
_BEYOND = 1e-3
"""What rounding may put a float image beyond [−1, 1]."""


class LabelledImages(NamedTuple):
    """Images `[n, channels, height, width]`, float in [−1, 1] or uint8 in 0 … 255, and their classes `[n]`.

    Large sets are uint8, often a memory-mapped file; `as_floats` makes floats of either. Classes are 0 where a set has
    none.
    """

    images: Tensor
    labels: Tensor


class ImageSplits(NamedTuple):
    """What a model is trained on, chosen by, and reported on."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def as_floats(images: Tensor) -> Tensor:
    """uint8 in 0 … 255 -> [−1, 1] in the default type; floats are only cast.

    Raises:
        DataError: the images are of another type, whose range is not known.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise DataError(_TYPES.format(images.dtype))
    floats = images.to(torch.get_default_dtype())
    return floats if images.is_floating_point() else floats / 127.5 - 1


@final
class ImageData(AbstractDistribution):
    """The empirical law of images, drawn with replacement, each mirrored left to right with probability ½ if asked.

    Which image a row gets and whether it is mirrored depend on (stream, step, row) alone. Bytes stay bytes until they
    are drawn, so a memory-mapped file of any size will do.

    Args:
        images: `[n, channels, height, width]`, uint8 in 0 … 255 or float in [−1, 1].
        flip: mirror half of the draws.

    Raises:
        DataError: there are no images, the shape or type is wrong, or a float is NaN, infinite or not in [−1, 1].
    """

    def __init__(self, images: Any, flip: bool = False) -> None:
        images = as_real(images, "images")
        if images.dim() != 4 or not images.numel():
            raise DataError(f"images must be [n, channels, height, width] with n >= 1, got {tuple(images.shape)}")
        if images.dtype != torch.uint8:
            if not images.is_floating_point():
                raise DataError(_TYPES.format(images.dtype))
            images = TensorData(images).x
            if (largest := float(images.abs().max())) > 1 + _BEYOND:
                raise DataError(_TYPES.format(f"float of up to ±{largest:.4g}"))
        self.images, self.flip = images, flip

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        chosen = stream.integers(step, rows, len(self.images)).cpu()
        x = as_floats(self.images[chosen].to(stream.device))
        if not self.flip:
            return x
        mirrored = stream.child("flip").uniform(step, rows) < 0.5
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x)
