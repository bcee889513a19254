"""What a source of samples is."""

import abc

from sbbridge.data.files import printable
from sbbridge.rng import Stream
from sbbridge.types import State


class DataError(Exception):
    """Data that are missing or unusable; the message is one line that says which and where they are expected."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class AbstractDistribution(abc.ABC):
    """A law on states of one shape, sampled by address: row i of a draw depends on (stream, step, i) alone."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one state."""

    @abc.abstractmethod
    def draw(self, step: int, rows: range, stream: Stream) -> State:
        """Samples `[len(rows), *shape]` on the stream's device."""

    def sample(self, n: int, seed: int = 0) -> State:
        """n samples."""
        return self.draw(0, range(n), Stream(seed, ("sample",)))

    def score(self, x: State) -> State:
        """∇log p(x).

        Raises:
            TypeError: the density of this distribution is not known.
        """
        raise TypeError(f"{type(self).__name__} has no known density, so no score")
