"""Training steps of the paper's U-Nets: steps a second, peak memory, FLOPs and their share of the hardware's peak.

    python benchmarks/unet_speed.py [--network cifar10_forward|cifar10_backward|tiny] [--batch N] [--steps N]
        [--device cpu|cuda] [--precision float32|bfloat16] [--channels-last] [--compile] [--peak-tflops X]
        [--output FILE.json]

A step: forward, backward, AdamW and the average of the weights, of a matched backward score on random images (3 x 32 x
32; `tiny`: 8 x 8), as `training` computes it: precision, memory format and compilation are the library's own options.
FLOPs are counted on one image, two a multiply-accumulate, and a training step is taken as three forward passes. The
share of the peak is FLOPs a second over --peak-tflops. The rate is that of the median step, after five that warm up.
"""

import argparse
import json
import resource
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sbbridge import VPSDE, BridgeProblem, StandardNormal, Training
from sbbridge.methods import ASBM
from sbbridge.networks import UNETS, UNet
from sbbridge.study.arguments import device, positive, whole
from sbbridge.training import Reporter, Trainer

NETWORKS = {
    **{name: (UNETS[name], (3, 32, 32)) for name in ("cifar10_forward", "cifar10_backward")},
    "tiny": (UNet(channels=(8, 16), layers_per_block=1, head_channels=8), (3, 8, 8)),
}
WARM_UP = 5
TRAINING_PASSES = 3  # forward, and twice as much backward


def forward_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """FLOPs of one image's forward pass, two a multiply-accumulate."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, device="meta"), torch.zeros(1, *shape, device="meta"))
    return int(counter.get_total_flops())


def on_meta(config: UNet, shape: tuple[int, ...]) -> nn.Module:
    """The network without its weights' memory."""
    return config.build(shape, 0).eval().to("meta")


def trainer_of(options: argparse.Namespace) -> Trainer:
    """A backward score on pairs that cost nothing, of one epoch of all steps."""
    config, shape = NETWORKS[options.network]
    ends = StandardNormal(shape)
    method = ASBM(coupling="independent", backward_epochs=1, backward_pairs=options.batch * (WARM_UP + options.steps))
    training = Training(
        options.batch, 1e-4, schedule="constant", precision=options.precision, channels_last=options.channels_last,
        compile=options.compile, checkpoint_seconds=1e9,
    )  # fmt: skip
    problem = BridgeProblem(ends, ends, VPSDE(beta_max=4.0))
    return Trainer(method, problem, config, training, 0, Reporter(device=options.device))


def step_seconds(trainer: Trainer, options: argparse.Namespace) -> list[float]:
    """Seconds of each training step but those that warm up."""
    ends: list[float] = []
    step = trainer._step

    def timed(*arguments: Any) -> torch.Tensor:
        loss = step(*arguments)
        if options.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        return loss

    trainer._step = timed  # type: ignore[method-assign]
    trainer.train()
    return [after - before for before, after in pairwise(ends)][WARM_UP - 1 :]


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    config, shape = NETWORKS[options.network]
    flops = forward_flops(on_meta(config, shape), shape)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = trainer_of(options)
    seconds = statistics.median(step_seconds(trainer, options))
    cuda = options.device == "cuda"
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rate = TRAINING_PASSES * flops * options.batch / seconds
    return {
        "network": options.network, "device": torch.cuda.get_device_name() if cuda else "cpu",
        "batch": options.batch, "precision": options.precision, "channels_last": options.channels_last,
        "compile": options.compile, "weights": sum(p.numel() for p in trainer.networks["backward"].online.parameters()),
        "steps_per_second": 1 / seconds, "images_per_second": options.batch / seconds,
        "peak_memory_mib": peak / 2**20, "forward_gflop": flops / 1e9, "tflop_per_second": rate / 1e12,
        "share_of_peak": rate / 1e12 / options.peak_tflops if options.peak_tflops else None,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="cifar10_forward")
    parser.add_argument("--batch", type=whole(1), default=128)
    parser.add_argument("--steps", type=whole(2), default=50)
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--peak-tflops", type=positive, help="the device's, at this precision")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    row = measured(options)
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()})
    if options.output:
        options.output.write_text(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
