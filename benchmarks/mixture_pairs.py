"""Mixture pairs with a known plan: cBW-UVP of ASBM, DSBM and minibatch-Sinkhorn bridge matching, same budget.

    python benchmarks/mixture_pairs.py [--dimensions 2 16 64] [--epsilons 0.1 1 10] [--methods asbm …] [--seeds N]
        [--steps 20 100] [--budget EVALUATIONS] [--output FILE.json]

Our own pairs (seed 0) by the construction of the entropic-OT benchmark (Gushchin et al. 2023): t = 1 is N(0, I), t = 0
the side that a mixture potential of five components makes, Brownian motion with sigma^2 = epsilon. cBW-UVP (%) of x0
given x1: 250 conditions x 1000 draws. Floor: the exact plan's own draws. Nulls: the independent plan, and x1 with the
reference's noise added. Published numbers are of other pairs and do not compare.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from sbbridge import MLP, BrownianMotion, Simulation, Training, fit, sample
from sbbridge.config import ConfigurationError
from sbbridge.coupling import Generation
from sbbridge.methods import ASBM, DSBMIMF, Method
from sbbridge.metrics import conditional_bures_wasserstein_uvp
from sbbridge.problems import mixture_pair
from sbbridge.study.arguments import positive, whole

CONDITIONS, DRAWS = 250, 1000
PATHS = Simulation("exponential_heun", 8, 2.0)
ASBM_OPTIONS: dict[str, Any] = {
    "corrector_epochs": 3, "adjoint_epochs": 5, "new_pairs": 8192, "buffer_size": 32768, "simulation": PATHS,
    "backward_pairs": 65536, "reuse": 8,
}  # fmt: skip
CYCLES = {0.1: 12, 1.0: 8, 10.0: 5}
METHODS = ("asbm", "asbm_gaussian", "dsbm_imf", "minibatch_sinkhorn")


def method_of(name: str, epsilon: float) -> Method:
    """As configured for this noise."""
    if name == "dsbm_imf":
        return DSBMIMF(iterations=10, epochs=4, new_pairs=8192, buffer_size=32768, simulation=PATHS,
                       generation=Generation("exponential_heun", 8))  # fmt: skip
    if name == "minibatch_sinkhorn":
        return ASBM(coupling="minibatch_sinkhorn", backward_pairs=65536)
    cycles = CYCLES.get(epsilon, 8)
    if name == "asbm_gaussian":
        return ASBM(cycles=max(3, cycles // 2), warm_start="gaussian", **ASBM_OPTIONS)
    return ASBM(cycles=cycles, **ASBM_OPTIONS)


class Judge:
    """cBW-UVP against one pair's exact plan."""

    def __init__(self, dimension: int, epsilon: float) -> None:
        self.problem = mixture_pair(dimension, BrownianMotion(epsilon**0.5))
        conditions = self.problem.prior.sample(CONDITIONS, seed=3)
        self.x1 = conditions.repeat_interleave(DRAWS, dim=0)
        self.moments = self.problem.conditional_moments(conditions)
        self.end = torch.cov(self.problem.data.sample(200_000, seed=5).double().mT)

    def __call__(self, x0: torch.Tensor) -> float:
        drawn = x0.view(CONDITIONS, DRAWS, -1)
        return conditional_bures_wasserstein_uvp(drawn, self.moments.mean, self.moments.covariance, self.end)

    def references(self) -> dict[str, float]:
        """Floor and nulls."""
        noise = torch.randn(self.x1.shape, generator=torch.Generator().manual_seed(6))
        noised = self.x1 + self.problem.reference.terminal_variance**0.5 * noise
        return {
            "floor": self(self.problem.sample_conditional(self.x1, seed=2)),
            "null independent": self(self.problem.data.sample(len(self.x1), seed=4)),
            "null x1 + noise": self(noised),
        }


def run(judge: Judge, name: str, epsilon: float, seed: int, budget: int, steps: list[int]) -> dict[str, Any]:
    """One training, judged at several numbers of steps."""
    dimension = judge.problem.shape[0]
    network = MLP(width=256 if dimension > 16 else 128, depth=3)
    training = Training(batch_size=512, ema_decay=0.998, budget=budget)
    started = time.monotonic()
    solution = fit(method_of(name, epsilon), judge.problem, seed=seed, network=network, training=training)
    row: dict[str, Any] = {
        "D": dimension, "epsilon": epsilon, "method": name, "seed": seed, "budget": budget,
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    for n in steps:
        made = sample(solution, num_steps=n, x1=judge.x1, seed=1, sampler="exponential", batch_size=50_000)
        row[f"{n} steps"] = judge(made.x)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=whole(2), nargs="+", default=[2, 16, 64])
    parser.add_argument("--epsilons", type=positive, nargs="+", default=[0.1, 1.0, 10.0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=whole(1), nargs="+", default=[20, 100])
    parser.add_argument("--seeds", type=whole(1), default=1)
    parser.add_argument("--budget", type=whole(1), default=20_000_000, help="network evaluations of a training")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dimension in arguments.dimensions:
        for epsilon in arguments.epsilons:
            judge = Judge(dimension, epsilon)
            references = judge.references()
            print({"D": dimension, "epsilon": epsilon, **{k: round(v, 3) for k, v in references.items()}}, flush=True)
            for name in arguments.methods:
                for seed in range(arguments.seeds):
                    try:
                        row = run(judge, name, epsilon, seed, arguments.budget, arguments.steps)
                    except ConfigurationError as error:
                        parser.error(str(error))
                    rows.append({**row, **references})
                    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
                    if arguments.output:
                        arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
