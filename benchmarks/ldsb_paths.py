"""LDSB's parameterisations and ways of fitting, side by side on one denoiser: sizes, cross-talk, seconds, calls.

    python benchmarks/ldsb_paths.py [--steps 5 10 20] [--budget EVALUATIONS] [--output FILE.json]

A denoiser of the digits (0.2 M weights, noise prediction on DDPM's chain) is trained first. Then, for each N:
1. Networks for the ratios: trainable weights, bytes, and how much a step at one node moves others: the mean |cosine| of
   the gradients of two neighbouring nodes' logits, and of the first and last, after the original path was learned
   ("does a KAN resist forgetting?").
2. Ways of fitting: seconds, denoiser calls, and the spread of log a and log b over seeds of one reverse half of `ipf`
   as published beside the standard error that `ipf_exact` reports.
3. Sampling: seconds along a learned path over seconds of plain DDIM at the same N, in turns.
4. Bytes of the path as a scheduler's JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sbbridge import (
    DDPM,
    IPF,
    KAN,
    LDSB,
    MLP,
    BridgeProblem,
    DenoisingProblem,
    EfficientKAN,
    ExactIPF,
    NoFit,
    RatioMLP,
    RatioTable,
    ScoreMatchingVP,
    StandardNormal,
    TeacherFit,
    TensorData,
    Training,
    denoiser_of,
    digits,
    fit,
    sample,
)
from sbbridge.methods.ldsb_paths import inputs_of
from sbbridge.study.arguments import whole
from sbbridge.training import Reporter, Trainer, solution_of

PATHS = Training(batch_size=128, ema_decay=0.0, schedule="constant")


def denoising(budget: int) -> DenoisingProblem:
    x = TensorData(digits().train.images)
    data = BridgeProblem(x, StandardNormal(x.shape), DDPM())
    training = Training(batch_size=256, ema_decay=0.999, budget=budget, precision="bfloat16")
    score = fit(ScoreMatchingVP(pairs=16384), data, network=MLP(width=192), training=training)
    return DenoisingProblem(data.data, data.prior, data.reference, denoiser_of(score))


def networks_of(steps: int) -> dict[str, Any]:
    return {
        "KAN (pykan)": KAN(grid_size=2 * steps), "KAN (release)": EfficientKAN(grid_size=2 * steps),
        "MLP": RatioMLP(), "table": RatioTable(),
    }  # fmt: skip


def cross_talk(trainer: Trainer) -> tuple[float, float]:
    """Mean |cosine| between the gradients of neighbouring nodes' logits, and of the ends'; of the image's network."""
    network = trainer.networks["image"].online
    inputs, nodes = inputs_of(trainer.method.nodes(trainer.run.problem))
    gradients = []
    for k in range(len(inputs)):
        network.zero_grad()
        torch.logit(network(inputs[k : k + 1], nodes[k : k + 1]).double(), eps=1e-9).sum().backward()
        flat = [p.grad.flatten() for p in network.parameters() if p.requires_grad and p.grad is not None]
        gradients.append(torch.nn.functional.normalize(torch.cat(flat), dim=0))
    cosines = (torch.stack(gradients) @ torch.stack(gradients).mT).abs()
    return float(cosines.diagonal(1).mean()), float(cosines[0, -1])


def parameterisations(problem: DenoisingProblem, steps: int) -> list[dict[str, Any]]:
    rows = []
    for name, network in networks_of(steps).items():
        started = time.perf_counter()
        trainer = Trainer(LDSB(num_steps=steps, fit=NoFit()), problem, network, PATHS, 0, Reporter())
        trainer.train()
        neighbours, ends = cross_talk(trainer)
        weights = sum(p.numel() for p in trainer.networks["image"].online.parameters() if p.requires_grad)
        rows.append({"N": steps, "network": name, "weights": weights, "bytes": 8 * weights, "neighbours": neighbours,
                     "ends": ends, "prefit_seconds": time.perf_counter() - started})  # fmt: skip
        seconds = rows[-1]["prefit_seconds"]
        print(f"N = {steps:2d}  {name:14s} 2 x {weights:5d} weights, {8 * weights / 1000:6.2f} kB; gradients of "
              f"neighbours {neighbours:.2f}, of the ends {ends:.2f}; prefit {seconds:.1f} s", flush=True)  # fmt: skip
    return rows


def ways(problem: DenoisingProblem, steps: int, seeds: int) -> list[dict[str, Any]]:
    published = IPF(iterations=1, halves="reverse")
    chosen = {
        "ipf, KAN (pykan)": (published, KAN(grid_size=2 * steps)),
        "ipf, KAN (release)": (published, EfficientKAN(grid_size=2 * steps)),
        "ipf, table": (published, RatioTable()),
        "ipf exact, table": (ExactIPF(iterations=1, halves="reverse"), RatioTable()),
        "teacher, table": (TeacherFit(), RatioTable()),
    }
    rows = []
    for name, (way, network) in chosen.items():
        seconds, calls, logs = [], 0, []
        for seed in range(seeds if "pykan" not in name else 1):
            boundary = "code" if way.kind == "ipf" else "corrected"
            method = LDSB(num_steps=steps, fit=way, boundary=boundary, select="last")
            trainer = Trainer(method, problem, network, PATHS, seed, Reporter())
            started = time.perf_counter()
            trainer.train()
            seconds.append(time.perf_counter() - started)
            calls = trainer.run.evaluations.simulation
            path = solution_of(trainer).path
            logs.append(torch.cat([path.image[1:].log(), path.noise.log()]))
        spread = float(torch.stack(logs).std(0).median()) if len(logs) > 1 else None
        rows.append({"N": steps, "way": name, "seconds": statistics.median(seconds), "calls": calls, "spread": spread})
        shown = f"{spread:.1e}" if spread is not None else "one seed"
        print(f"N = {steps:2d}  {name:18s} {rows[-1]['seconds']:6.1f} s, {calls / 1e3:7.0f} k denoiser calls, spread "
              f"over seeds of log a, log b (median) {shown}", flush=True)  # fmt: skip
    return rows


def sampling(problem: DenoisingProblem, steps: int, rounds: int = 15) -> dict[str, Any]:
    path = fit(LDSB(num_steps=steps, fit=NoFit()), problem, network=RatioTable(), training=PATHS)
    x1, ratios = torch.randn(2048, 1, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for _ in range(rounds):
        times = []
        for options in ({}, {"sampler": "ddim", "grid": "leading_uniform"}):
            started = time.perf_counter()
            sample(path, x1=x1, num_steps=steps, **options)
            times.append(time.perf_counter() - started)
        ratios.append(times[0] / times[1])
    size = scheduler_bytes(path.path)
    middle = statistics.median(ratios)
    print(f"N = {steps:2d}  a learned path takes {middle:.2f} x the time of DDIM (median of {rounds} rounds, "
          f"{min(ratios):.2f} to {max(ratios):.2f}); its scheduler is {size} bytes", flush=True)  # fmt: skip
    return {"N": steps, "over_ddim": ratios, "scheduler_bytes": size}


def scheduler_bytes(path: Any) -> int:
    from sbbridge.integrations.diffusers import LDSBScheduler

    with tempfile.TemporaryDirectory() as folder:
        LDSBScheduler.from_path(path, prediction="epsilon", chain=True).save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=whole(2), nargs="+", default=[5, 10, 20])
    parser.add_argument("--budget", type=whole(1), default=3_000_000,
                        help="network evaluations of the denoiser's training")  # fmt: skip
    parser.add_argument("--seeds", type=whole(1), default=3)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    problem = denoising(arguments.budget)
    found: dict[str, list[Any]] = {"parameterisations": [], "ways": [], "sampling": []}
    for steps in arguments.steps:
        found["parameterisations"] += parameterisations(problem, steps)
        found["ways"] += ways(problem, steps, arguments.seeds)
        found["sampling"].append(sampling(problem, steps))
        if arguments.output:
            arguments.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
