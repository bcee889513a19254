"""Sharing rows among the processes that train one model together."""

from collections.abc import Callable
from contextlib import suppress
from typing import final

import torch
from torch import Tensor, distributed

with suppress(ImportError):
    # Default arguments of its functions (group=group.WORLD) are evaluated at its first import, which DDP brings about.
    # They would hold the process group of that moment for good: destroyed, it would keep its connections, and other
    # workers would wait. Imported here it finds none.
    import torch.distributed.nn


_NOTHING, _FAILED = -1, -2
_AT_ONCE = 64 * 2**20
"""Bytes that are told at once: on a GPU they need room."""


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

    def decide(self, choose: Callable[[], bytes | None], device: str = "cpu") -> bytes | None:
        """What rank 0 chooses, on every worker; where it raises, all do. Called on every worker.

        Workers that look for themselves may see different things, and then wait for each other in vain.

        Args:
            choose: runs on rank 0 alone.
            device: where the process group's tensors live.
        """
        return choose()


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

    def decide(self, choose: Callable[[], bytes | None], device: str = "cpu") -> bytes | None:
        chosen: bytes | None = None
        error: Exception | None = None
        if self.rank == 0:
            try:
                chosen = choose()
            except Exception as raised:  # noqa: BLE001  the others wait for an answer
                error = raised
        length = torch.tensor(_FAILED if error else _NOTHING if chosen is None else len(chosen), device=device)
        distributed.broadcast(length, 0)
        if error:
            raise error
        if int(length) == _FAILED:
            raise RuntimeError("worker 0 failed where it decides for all")
        if int(length) == _NOTHING:
            return None
        whole = chosen if chosen is not None else bytes(int(length))
        parts = [self._from_first(whole[at : at + _AT_ONCE], device) for at in range(0, int(length), _AT_ONCE)]
        return b"".join(parts)

    def _from_first(self, part: bytes, device: str) -> bytes:
        numbers = torch.frombuffer(bytearray(part), dtype=torch.uint8).to(device)
        distributed.broadcast(numbers, 0)
        return numbers.cpu().numpy().tobytes()
