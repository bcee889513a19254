"""What a coupling is."""

import abc

from sbbridge.rng import Stream
from sbbridge.types import Pair


class AbstractCoupling(abc.ABC):
    """A joint law of (x0, x1), sampled by address: row i of a draw depends on (stream, step, i) alone."""

    @abc.abstractmethod
    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        """Pairs of these rows."""
