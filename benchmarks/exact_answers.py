"""ASBM where the answer is known and not Gaussian: a 1-D mixture against grid Sinkhorn.

    python benchmarks/exact_answers.py [--seed N] [--output FILE.json]

p0 = ½ N(−1.5, 0.3²) + ½ N(1, 0.5²), prior N(0, 1); learned and exact values of the coupling's covariance and
cost, conditional means, control and backward score; errors are relative to the root mean square of their group (a
conditional mean near 0 would otherwise divide by nothing). `mixture_pairs.py` has mixtures in more dimensions.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the Sinkhorn oracle lives in tests/

from sbbridge import (
    ASBM,
    MLP,
    VPSDE,
    BridgeProblem,
    BrownianMotion,
    GaussianMixture,
    Simulation,
    StandardNormal,
    Training,
    fit,
    sample,
)
from sbbridge.metrics import cross_covariance, transport_cost
from tests.oracles import grid_sinkhorn

REFERENCES = {"VP 2": VPSDE(beta_max=2.0), "VP 4": VPSDE(beta_max=4.0), "Brownian 1": BrownianMotion(1.0)}
METHOD = ASBM(
    cycles=10, corrector_epochs=5, adjoint_epochs=8, new_pairs=8192, buffer_size=65536, backward_epochs=48,
    backward_pairs=65536, reuse=8, simulation=Simulation(num_steps=12),
)  # fmt: skip
TRAINING = Training(batch_size=512, ema_decay=0.998)


def log_density(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    parts = [np.log(0.5 / (s * np.sqrt(2 * np.pi))) - 0.5 * ((x - m) / s) ** 2 for m, s in ((-1.5, 0.3), (1.0, 0.5))]
    return np.logaddexp(*parts)


def table(seed: int) -> list[dict[str, Any]]:
    rows = []
    for name, reference in REFERENCES.items():
        exact = grid_sinkhorn(reference, log_density, lambda x: -0.5 * x * x)
        data = GaussianMixture([0.5, 0.5], [[-1.5], [1.0]], [0.09, 0.25])
        started = time.monotonic()
        network = MLP(width=64, depth=3)
        solution = fit(
            METHOD, BridgeProblem(data, StandardNormal((1,)), reference), seed=seed, network=network, training=TRAINING
        )
        seconds = time.monotonic() - started
        pair = solution.couple(400_000, seed=1)
        learned = {
            "covariance": [float(cross_covariance(*pair))], "cost": [transport_cost(*pair)],
            "x1 given x0": conditional_means(solution, [-1.5, 0.0, 1.0], forward=True),
            "x0 given x1": conditional_means(solution, [-1.0, 0.0, 1.0], forward=False),
            "control": field(solution.control), "backward score": field(solution.backward_score),
        }  # fmt: skip
        truth = {
            "covariance": [exact.covariance()], "cost": [exact.cost()],
            "x1 given x0": [exact.x1_given_x0(x) for x in (-1.5, 0.0, 1.0)],
            "x0 given x1": [exact.x0_given_x1(x) for x in (-1.0, 0.0, 1.0)],
            "control": [exact.control(0.5, x) for x in (-1.0, 0.0, 1.0)],
            "backward score": [exact.backward_score(0.5, x) for x in (-1.0, 0.0, 1.0)],
        }  # fmt: skip
        for group, values in learned.items():
            a, b = np.array(values), np.array(truth[group])
            error = float(np.sqrt(np.mean((a - b) ** 2)) / np.sqrt(np.mean(b**2)))
            rows.append(
                {
                    "reference": name,
                    "quantity": group,
                    "learned": values,
                    "exact": b.tolist(),
                    "error": error,
                    "seconds": seconds,
                }
            )
            print(
                f"{name:11s} {group:15s} learned {np.round(a, 4)} exact {np.round(b, 4)} error {error:.2%}", flush=True
            )
    return rows


def field(function: Any) -> list[float]:
    return [float(v) for v in function(torch.tensor(0.5), torch.tensor([[-1.0], [0.0], [1.0]]))]


def conditional_means(solution: Any, points: list[float], forward: bool, n: int = 100_000) -> list[float]:
    """E[x1 | x0] through the forward SDE, E[x0 | x1] through the backward one."""
    from sbbridge.rng import Stream
    from sbbridge.solvers import FORWARD, integrate, time_grid

    means = []
    for index, point in enumerate(points):
        x = torch.full((n, 1), point)
        if forward:
            with torch.no_grad():
                step, times = FORWARD["exponential_heun"], time_grid(25, 2.0)
                end = integrate(step, solution.dynamics, times, x, range(n), Stream(index, ("forward",)))[0]
        else:
            end = sample(solution, num_steps=100, x1=x, seed=index, sampler="exponential").x
        means.append(float(end.double().mean()))
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = table(arguments.seed)
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
