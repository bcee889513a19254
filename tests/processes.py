"""Two processes of torch's default group on this machine."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, multiprocessing

LIMIT = timedelta(seconds=60)
"""How long one process waits for the other."""


def in_two_processes(work: Callable[[int, str], None], folder: Path) -> None:
    """Run ``work(rank, folder)`` in both; an exception of either is raised here."""
    multiprocessing.spawn(_member, args=(work, str(folder)), nprocs=2)


def _member(rank: int, work: Callable[[int, str], None], folder: str) -> None:
    torch.set_num_threads(1)
    meet = f"file://{folder}/meet"
    distributed.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=LIMIT)
    work(rank, folder)
    _leave_together(rank, folder)


def _leave_together(rank: int, folder: str) -> None:
    """End this process as soon as the other has done its work too.

    A thread of Gloo's that still lives aborts the process: when the other side closes the connection, or when it asks
    for Python's lock after Python has begun to leave (PyTorch pull request 179291). So none gets to see either.
    """
    Path(folder, f"done-{rank}").touch()
    limit = time.monotonic() + LIMIT.total_seconds()
    while not Path(folder, f"done-{1 - rank}").exists():
        if time.monotonic() > limit:
            raise TimeoutError(f"process {1 - rank} has not done its work {LIMIT} after process {rank}")
        time.sleep(0.01)
    os._exit(0)
