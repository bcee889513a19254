"""Sharing rows among the processes that train one model together."""

from contextlib import suppress
from typing import final

import torch
from torch import Tensor, distributed

with suppress(ImportError):
    # Default arguments of its functions (group=group.WORLD) are evaluated at its first import, which DDP brings about.
    # They would hold the process group of that moment for good: destroyed, it would keep its connections, and other
    # workers would wait. Imported here it finds none.
    import torch.distributed.nn


class Workers:
    """One process: it holds every row."""

    rank: int = 0
    size: int = 1

    def shard(self, n: int) -> range:
        """This worker's rows of 0 … n − 1; the shards are contiguous, in rank order, and differ by one at most."""
        return range(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def gather(self, x: Tensor, n: int) -> Tensor:
        """All n rows, in order, from every worker's shard."""
        return x


@final
class DistributedWorkers(Workers):
    """The processes of torch's default process group."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def gather(self, x: Tensor, n: int) -> Tensor:
        largest = -(-n // self.size)
        padded = torch.zeros(largest, *x.shape[1:], dtype=x.dtype, device=x.device)
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        sizes = [(r + 1) * n // self.size - r * n // self.size for r in range(self.size)]
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
