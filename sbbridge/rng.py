"""One integer seed, named streams, and random numbers addressed by (stream, step, sample).

The numbers of sample i depend on the seed, the names, the step and i alone: they are drawn in fixed blocks of samples,
each block from its own generator. So neither batch size nor number of workers changes them, and nothing here touches
the global random state.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 256


@dataclass(frozen=True)
class Stream:
    """A named source of random numbers.

    Attributes:
        seed: the run's seed.
        names: what the numbers are for, e.g. ("cycle 1", "times").
        device: where the numbers go; they are drawn on the CPU, so that every device gets the same ones.
    """

    seed: int
    names: tuple[str, ...] = ()
    device: str = "cpu"

    def child(self, *names: object) -> "Stream":
        """A stream whose numbers are independent of this one's."""
        return Stream(self.seed, (*self.names, *map(str, names)), self.device)

    def generator(self, *address: int) -> torch.Generator:
        """A generator seeded by the stream and an address in it."""
        text = "\x1f".join([str(self.seed), *self.names, *map(str, address)])
        state = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        return torch.Generator().manual_seed(state & (2**63 - 1))

    def normal(self, step: int, rows: range, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers `[len(rows), *shape]` for these samples at this step."""
        return self._blocks(step, rows, lambda g: torch.randn(BLOCK, *shape, generator=g))

    def uniform(self, step: int, rows: range) -> Tensor:
        """Uniform numbers in [0, 1), float64, `[len(rows)]`."""
        return self._blocks(step, rows, lambda g: torch.rand(BLOCK, generator=g, dtype=torch.float64))

    def integers(self, step: int, rows: range, high: int) -> Tensor:
        """Uniform integers in 0 … high − 1, `[len(rows)]`."""
        return self._blocks(step, rows, lambda g: torch.randint(high, (BLOCK,), generator=g))

    def permutation(self, step: int, n: int) -> Tensor:
        """A random order of 0 … n − 1."""
        return torch.randperm(n, generator=self.generator(step))

    def _blocks(self, step: int, rows: range, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        if rows.step != 1 or not len(rows):
            raise ValueError(f"rows must be a non-empty range of step 1, got {rows}")
        first, last = rows.start // BLOCK, (rows.stop - 1) // BLOCK
        drawn = [draw(self.generator(step, block)) for block in range(first, last + 1)]
        start = rows.start - first * BLOCK
        numbers = (torch.cat(drawn) if len(drawn) > 1 else drawn[0])[start : start + len(rows)]
        return numbers.to(self.device)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Puts Python's and numpy's global generators back after, for libraries that reseed them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def isolated(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seeds torch's global generators inside and restores them after, for libraries that draw from nothing else."""
    with torch.random.fork_rng(devices=[] if device == "cpu" else [torch.device(device)]):
        torch.default_generator.manual_seed(seed)
        if device != "cpu":
            torch.cuda.manual_seed(seed)
        yield
