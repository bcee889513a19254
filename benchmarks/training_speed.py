"""Training and sampling speed beside a plain loop that does the same work as the published code does it.

    python benchmarks/training_speed.py [--rounds N] [--threads N] [--device cpu|cuda] [--precision float32|bfloat16]
        [--compile] [--output FILE.json]

Same network, batch and data; rounds of either side alternate in one process, and the ratio of their medians counts. The
plain side: torch's DataLoader over a TensorDataset, AdamW as it comes, averages of weights in a Python loop, fields
called one after the other. `step`: backward bridge matching on a fixed buffer. `cycle`: corrector and adjoint matching
with new pairs every epoch, at equal settings (19 Euler–Maruyama steps in the adjoint's epochs, 99 in the corrector's,
as published) and, for `cycle, own integrator`, with this library's second-order integrator at 8 steps in both, whose
terminal law is as accurate. `sample`: throughput of 10 steps. Memory is the process's peak.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from sbbridge import ASBM, MLP, VPSDE, BridgeProblem, Simulation, StandardNormal, TensorData, Training, digits, sample
from sbbridge.study.arguments import device, whole
from sbbridge.training import Reporter, Trainer, solution_of

NETWORK, BATCH, PAIRS = MLP(width=296, depth=3), 128, 4096
REFERENCE = VPSDE(beta_max=4.0)


def problem() -> BridgeProblem:
    """Digits."""
    data = TensorData(digits().train.images)
    return BridgeProblem(data, StandardNormal(data.shape), REFERENCE)


class Plain:
    """The loop as one writes it for a paper."""

    def __init__(self, device: str) -> None:
        self.device, self.data = device, digits().train.images.to(device)
        self.network = NETWORK.build(tuple(self.data.shape[1:]), 0).to(device)
        self.corrector = NETWORK.build(tuple(self.data.shape[1:]), 1).to(device)
        self.ema = deepcopy(self.network)
        self.b0, self.b1 = REFERENCE.beta_min, REFERENCE.beta_max

    def kappa(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * (self.b0 * (b - a) + 0.5 * (self.b1 - self.b0) * (b**2 - a**2)))

    def bridge(self, t: torch.Tensor, x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
        k1, k2 = self.kappa(torch.zeros_like(t), t), self.kappa(t, torch.ones_like(t))
        m2 = (k1 * k2) ** 2
        mean = k1 * (1 - k2**2) / (1 - m2) * x0 + k2 * (1 - k1**2) / (1 - m2) * x1
        return mean + ((1 - k1**2) * (1 - k2**2) / (1 - m2)).sqrt() * torch.randn_like(x0)

    @torch.no_grad()
    def simulate(self, n: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
        starts, ends = [], []
        for _ in range(n // 512):
            x = x0 = self.data[torch.randint(len(self.data), (512,), device=self.device)]
            ts = torch.linspace(0, 1, points, device=self.device)
            for t, dt in zip(ts[:-1], ts.diff(), strict=True):
                beta = self.b0 + (self.b1 - self.b0) * t
                drift = -0.5 * beta * x + beta * self.ema(t.expand(512), x)
                x = x + drift * dt + (beta * dt).sqrt() * torch.randn_like(x)
            starts.append(x0)
            ends.append(x)
        return torch.cat(starts), torch.cat(ends)

    def epoch(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer, tensors: tuple[torch.Tensor, ...],
              loss_of: Callable[..., torch.Tensor]) -> int:  # fmt: skip
        steps = 0
        for batch in DataLoader(TensorDataset(*tensors), batch_size=BATCH, shuffle=True, drop_last=True):
            loss = loss_of(*batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            with torch.no_grad():
                for average, current in zip(self.ema.parameters(), self.network.parameters(), strict=True):
                    average.mul_(0.999).add_(current, alpha=0.001)
            steps += 1
        return steps

    def backward_loss(self, x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
        t = torch.rand(len(x0), 1, 1, 1, device=self.device) * (1 - 1e-5) + 1e-5
        x, al = self.bridge(t, x0, x1), self.kappa(torch.zeros_like(t), t)
        target = (al * x0 - x) / (1 - al**2).sqrt()
        return ((self.network(t.flatten(), x) - target) ** 2).mean()

    def adjoint_loss(self, x0: torch.Tensor, x1: torch.Tensor, a1: torch.Tensor) -> torch.Tensor:
        t = torch.rand(len(x0), 1, 1, 1, device=self.device)
        x = self.bridge(t, x0, x1)
        return ((self.network(t.flatten(), x) + self.kappa(t, torch.ones_like(t)) * a1) ** 2).mean()

    def corrector_loss(self, x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
        m, tau2 = REFERENCE.retained_memory, REFERENCE.terminal_variance
        return ((self.corrector(torch.ones(len(x0), device=self.device), x1) - (m * x0 - x1) / tau2) ** 2).mean()

    def steps(self, epochs: int) -> int:
        x0 = self.data[torch.randint(len(self.data), (PAIRS,), device=self.device)]
        pairs = (x0, torch.randn_like(x0))
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        return sum(self.epoch(self.network, optimiser, pairs, self.backward_loss) for _ in range(epochs))

    def cycle(self, epochs: tuple[int, int]) -> int:
        total, held = 0, [self.data[:0]] * 2
        optimiser = torch.optim.AdamW(self.corrector.parameters(), lr=1e-4)
        for _ in range(epochs[0]):
            held = [torch.cat([old, new])[-20_000:] for old, new in zip(held, self.simulate(PAIRS, 100), strict=True)]
            total += self.epoch(self.corrector, optimiser, tuple(held), self.corrector_loss)
        held = [self.data[:0]] * 3
        optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        for _ in range(epochs[1]):
            x0, x1 = self.simulate(PAIRS, 20)
            with torch.no_grad():
                a1 = torch.cat([x + self.corrector(torch.ones(len(x), device=self.device), x) for x in x1.split(512)])
            held = [torch.cat([old, new])[-20_000:] for old, new in zip(held, (x0, x1, a1), strict=True)]
            total += self.epoch(self.network, optimiser, tuple(held), self.adjoint_loss)
        return total


def trainer(method: ASBM, options: argparse.Namespace) -> Trainer:
    """Ours, with the same network, batch and optimiser."""
    training = Training(BATCH, 1e-4, schedule="constant", ema_decay=0.999, precision=options.precision,
                        compile=options.compile, checkpoint_seconds=1e9)  # fmt: skip
    return Trainer(method, problem(), NETWORK, training, 0, Reporter(device=options.device))


def our_steps(options: argparse.Namespace, epochs: int) -> Callable[[], Any]:
    """Backward bridge matching on pairs that cost nothing; made before the clock starts, as the plain side is."""
    method = ASBM(coupling="independent", backward_epochs=epochs, backward_pairs=PAIRS)
    return trainer(method, options).train


def our_cycle(options: argparse.Namespace, epochs: tuple[int, int], own: bool) -> Callable[[], Any]:
    """One corrector and one adjoint fit, with the terminal test at its end."""
    euler = (Simulation("euler_maruyama", 19, 1.0, 512), Simulation("euler_maruyama", 99, 1.0, 512))
    forward, corrector = (Simulation(num_steps=4), None) if own else euler
    method = ASBM(cycles=1, corrector_epochs=epochs[0], adjoint_epochs=epochs[1], new_pairs=PAIRS, buffer_size=20_000,
                  simulation=forward, corrector_simulation=corrector, warm_start="bridge_matching",
                  backward_epochs=1, backward_pairs=BATCH, terminal_samples=256)  # fmt: skip
    made = trainer(method, options)
    stages = list(made.method.stages(made.run))[1:3]

    def run() -> None:
        made._started = made._saved = time.monotonic()
        made._seconds_before = 0.0
        for stage in stages:
            made._train_stage(stage)

    return run


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=whole(1), default=5)
    parser.add_argument("--threads", type=whole(1), default=2)
    parser.add_argument("--device", type=device, default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    plain, epochs = Plain(options.device), (2, 3)
    parts: dict[str, tuple[Callable[[], Any], Callable[[], Callable[[], Any]]]] = {
        "step": (lambda: plain.steps(6), lambda: our_steps(options, 6)),
        "cycle": (lambda: plain.cycle(epochs), lambda: our_cycle(options, epochs, own=False)),
        "cycle, own integrator": (lambda: plain.cycle(epochs), lambda: our_cycle(options, epochs, own=True)),
    }
    rows = []
    for name, (theirs, ours) in parts.items():
        pairs = [(timed(theirs), timed(ours())) for _ in range(options.rounds + 1)][1:]  # the first warms up
        ratios = [a / b for a, b in pairs]
        row = {"part": name, "plain_seconds": statistics.median(a for a, _ in pairs),
               "our_seconds": statistics.median(b for _, b in pairs), "ratio": statistics.median(ratios),
               "least": min(ratios), "most": max(ratios), "rounds": options.rounds}  # fmt: skip
        rows.append(row)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
    made = trainer(ASBM(coupling="independent", backward_epochs=1, backward_pairs=BATCH), options)
    made.train()
    solution = solution_of(made)
    seconds = min(timed(lambda: sample(solution, 16384, 10)) for _ in range(3))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    rows.append({"part": "sample", "samples_per_second": 16384 / seconds, "steps": 10, "peak_memory_mib": memory})
    print(rows[-1])
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
