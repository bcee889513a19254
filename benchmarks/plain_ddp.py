"""Backward bridge matching as one writes it for torchrun: DistributedSampler, DataLoader, DDP, averages in a loop.

    torchrun --standalone --nproc-per-node N -m benchmarks.plain_ddp [--batch N] [--epochs N]

The batch is the whole group's. The first epoch warms up; rank 0 prints a JSON line: steps and seconds of the others.
"""

import argparse
import json
import time

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from benchmarks.training_speed import PAIRS, Plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    plain = Plain("cpu")
    chosen = plain.data[torch.randint(len(plain.data), (PAIRS,))]
    pairs = TensorDataset(chosen, torch.randn_like(chosen))
    plain.network = DistributedDataParallel(plain.network)
    optimiser = torch.optim.AdamW(plain.network.parameters(), lr=1e-4)
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(pairs)
    loader = DataLoader(pairs, options.batch // distributed.get_world_size(), sampler=sampler, drop_last=True)
    steps, started = 0, 0.0
    for epoch in range(options.epochs + 1):
        if epoch == 1:
            steps, started = 0, time.perf_counter()
        sampler.set_epoch(epoch)
        for x0, x1 in loader:
            loss = plain.backward_loss(x0, x1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for average, current in zip(plain.ema.parameters(), plain.network.parameters(), strict=True):
                    average.mul_(0.999).add_(current, alpha=0.001)
            steps += 1
    if distributed.get_rank() == 0:
        print(json.dumps({"steps": steps, "seconds": time.perf_counter() - started}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
