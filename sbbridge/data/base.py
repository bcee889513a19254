"""What a source of samples is."""

import abc
import functools
from typing import Any

import torch
from torch import Tensor

from sbbridge.arguments import whole
from sbbridge.data.files import printable
from sbbridge.rng import Stream
from sbbridge.types import State


class DataError(Exception):
    """Data that are missing or unusable; the message is one line that says which and where they are expected."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class AbstractDistribution(abc.ABC):
    """A law on states of one shape, sampled by address: row i of a draw depends on (stream, step, i) alone.

    A subclass gives `shape` and `draw`, and `score` where the density is known. What these return may be of any type of
    real numbers on any device: it is checked and cast here, in one place, for every law.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, checked in (("draw", _drawn), ("score", _scored)):
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one state."""

    @abc.abstractmethod
    def draw(self, step: int, rows: range, stream: Stream) -> State:
        """Samples `[len(rows), *shape]` of the default type on the stream's device.

        Raises:
            ValueError: an implementation returns something else than real numbers of this shape.
        """

    def sample(self, n: int, seed: int = 0) -> State:
        """n samples."""
        return self.draw(0, range(whole("n", n)), Stream(whole("seed", seed, None), ("sample",)))

    def score(self, x: State) -> State:
        """∇log p(x).

        Raises:
            TypeError: the density of this distribution is not known.
        """
        raise TypeError(f"{type(self).__name__} has no known density, so no score")


def _drawn(draw: Any) -> Any:
    @functools.wraps(draw)
    def checked(self: AbstractDistribution, step: int, rows: range, stream: Stream) -> State:
        found = _real(self, "draw", draw(self, step, rows, stream), (len(rows), *self.shape))
        return found.to(stream.device, torch.get_default_dtype())

    return checked


def _scored(score: Any) -> Any:
    @functools.wraps(score)
    def checked(self: AbstractDistribution, x: State) -> State:
        return _real(self, "score", score(self, x), tuple(x.shape)).to(x)

    return checked


def _real(law: AbstractDistribution, name: str, found: Any, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(found, Tensor) or found.is_complex() or tuple(found.shape) != shape:
        given = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{type(law).__name__}.{name} must return a tensor of real numbers {list(shape)}, got {given}")
    return found
