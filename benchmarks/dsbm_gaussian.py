"""DSBM's Gaussian test (Shi et al. 2023, Sec. 6.1; Tab. 3): N(−a 1, I) -> N(a 1, I), a = 0.1, Brownian, sigma = 1.

    python benchmarks/dsbm_gaussian.py [--dimensions 5 20 50] [--methods asbm dsbm_imf …] [--seeds N]
        [--protocol published|exact] [--budget EVALUATIONS] [--output FILE.json]

Mean over 21 times of KL(P_t || P_t^SB) x 10^-3 between Gaussians fitted to simulated paths and the exact bridge, for
the learned backward process from N(a 1, I) and, where there is one, the forward process from N(−a 1, I). `published`:
10,000 points to train on and 10,000 paths to test on, as in the paper, beside its table; Gaussians of independent
coordinates (that the paper fits those is inferred: with covariances exact samples would score 12 and 67 at d = 20 and
50, more than it prints). `exact`: fresh data in training, means and covariances from 10^6 paths. Floor: as many exact
samples in place of the method's. All methods get the same number of network evaluations, simulation included.
Published numbers: other networks (MLP 256-256), 51 M training samples a run, five seeds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from sbbridge import MLP, BrownianMotion, Gaussian, GaussianBridge, Simulation, Solution, TensorData, Training, fit
from sbbridge.config import ConfigurationError
from sbbridge.coupling import Generation
from sbbridge.methods import ASBM, DSB, DSBMIMF, DSBMIPF, Method, SimplifiedDSB
from sbbridge.path import node_times
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.solvers import BACKWARD, FORWARD, SMALLEST_TIME, integrate
from sbbridge.study.arguments import whole

A, TIMES = 0.1, 21
FITTED = {"published": "variances", "exact": "covariances"}
PUBLISHED = {"dsb": (3.26, 13.0, 32.8), "dsbm_ipf": (1.23, 4.42, 8.75), "dsbm_imf": (1.34, 5.05, 9.76)}
FORWARD_PATHS, BACKWARD_PATHS = Simulation("exponential_heun", 6, 2.0), Generation("exponential_heun", 6)
CYCLES: dict[str, Any] = {
    "corrector_epochs": 3, "adjoint_epochs": 5, "new_pairs": 8192, "buffer_size": 32768, "simulation": FORWARD_PATHS,
    "backward_pairs": 131072, "reuse": 8,
}  # fmt: skip
FITS: dict[str, Any] = {
    "iterations": 8, "epochs": 4, "new_pairs": 8192, "buffer_size": 32768, "simulation": FORWARD_PATHS,
    "generation": BACKWARD_PATHS,
}  # fmt: skip
METHODS: dict[str, Method] = {
    "asbm": ASBM(cycles=7, **CYCLES),
    "asbm_gaussian": ASBM(cycles=2, warm_start="gaussian", **CYCLES),
    "dsbm_imf": DSBMIMF(**FITS), "dsbm_ipf": DSBMIPF(**FITS),
    "dsb": DSB(iterations=8, epochs=4, paths=4096, steps=128),
    "simplified_dsb": SimplifiedDSB(iterations=8, epochs=4, paths=4096, steps=128),
}  # fmt: skip


def problem_of(d: int, protocol: str, seed: int) -> tuple[GaussianBridge, BridgeProblem]:
    """The exact bridge, and what a method is given of it."""
    one, identity = np.ones(d), np.eye(d)
    exact = GaussianBridge(-A * one, identity, A * one, identity, BrownianMotion(1.0))
    if protocol == "exact":
        return exact, exact
    points = exact.data.draw(0, range(10_000), Stream(seed, ("training points",)))
    return exact, BridgeProblem(TensorData(points), Gaussian(A * one, identity), exact.reference)


def divergence(mean: torch.Tensor, covariance: torch.Tensor, law: Gaussian) -> float:
    """KL(N(mean, covariance) || law)."""
    inverse = torch.linalg.inv(law.covariance)
    shift = law.mean - mean
    ratio = torch.logdet(law.covariance) - torch.logdet(covariance)
    return float(0.5 * ((inverse @ covariance).trace() - len(mean) + shift @ inverse @ shift + ratio))


class Moments:
    """Mean and covariance of states at every time, gathered in parts."""

    def __init__(self, d: int) -> None:
        self.n, self.total = 0, torch.zeros(TIMES, d, dtype=torch.float64)
        self.products = torch.zeros(TIMES, d, d, dtype=torch.float64)

    def add(self, path: torch.Tensor) -> None:
        """States `[TIMES, batch, d]`."""
        x = path.double()
        self.n += x.shape[1]
        self.total += x.sum(1)
        self.products += x.mT @ x

    def divergence(self, exact: GaussianBridge, times: torch.Tensor, diagonal: bool) -> float:
        """The mean over times of the divergence from the exact marginals, in 10^-3, of variances alone or of all."""
        means = self.total / self.n
        covariances = (self.products - self.n * means[:, :, None] * means[:, None, :]) / (self.n - 1)
        if diagonal:
            covariances = torch.diag_embed(covariances.diagonal(dim1=1, dim2=2))
        found = [divergence(m, c, exact.marginal(t)) for m, c, t in zip(means, covariances, times, strict=True)]
        return 1e3 * float(np.mean(found))


@torch.no_grad()
def simulate(exact: GaussianBridge, solution: Solution | None, way: str, n: int, seed: int) -> dict[str, float]:
    """KL of paths of one direction with 20 steps of the second-order integrator; without a solution, the floor."""
    d, stream = exact.shape[0], Stream(seed, ("test", way))
    backward = node_times("trailing_uniform", TIMES - 1)
    times = backward.clone() if way == "backward" else backward.flip(0)
    schemes = {"backward": BACKWARD["exponential_heun"], "forward": FORWARD["exponential_heun"]}
    law, moments = exact.prior if way == "backward" else exact.data, Moments(d)
    for start in range(0, n, 20_000):
        rows = range(start, min(start + 20_000, n))
        if solution is None:
            marginals = [exact.marginal(t).draw(i, rows, stream.child("exact")) for i, t in enumerate(times)]
            moments.add(torch.stack(marginals))
            continue
        grid = times.clone()
        if way == "backward":
            grid[-1] = SMALLEST_TIME
        x = law.draw(0, rows, stream.child("start"))
        _, path = integrate(schemes[way], solution.dynamics, grid, x, rows, stream.child("noise"), keep=True)
        assert path is not None
        moments.add(path)
    return {"variances": moments.divergence(exact, times, True), "covariances": moments.divergence(exact, times, False)}


def run(d: int, name: str, protocol: str, budget: int, seed: int) -> dict[str, Any]:
    """One training and its test."""
    exact, problem = problem_of(d, protocol, seed)
    n = 10_000 if protocol == "published" else 1_000_000
    training = Training(batch_size=512, learning_rate=2e-3, ema_decay=0.998, budget=budget)
    started = time.monotonic()
    solution = fit(METHODS[name], problem, seed=seed, network=MLP(width=128, depth=2), training=training)
    row: dict[str, Any] = {"d": d, "method": name, "protocol": protocol, "seed": seed, "n": n, "budget": budget}
    row["seconds"] = round(time.monotonic() - started, 1)
    for way in ("backward", "forward"):
        row[way] = simulate(exact, solution, way, n, seed)[FITTED[protocol]]
    row["floor"] = simulate(exact, None, "backward", n, seed)[FITTED[protocol]]
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """One line a method and protocol; mean ± half of the 95 % t interval over seeds."""
    lines = [f"{'method':16s} {'protocol':10s} {'d':>3s} {'backward':>16s} {'forward':>16s} {'floor':>8s} published"]
    for key in dict.fromkeys((r["method"], r["protocol"], r["d"]) for r in rows):
        group = [r for r in rows if (r["method"], r["protocol"], r["d"]) == key]
        known = dict(zip((5, 20, 50), PUBLISHED.get(key[0], ()), strict=False)).get(key[2])
        cells = [interval([r[way] for r in group]) for way in ("backward", "forward")]
        floor = np.mean([r["floor"] for r in group])
        lines.append(f"{key[0]:16s} {key[1]:10s} {key[2]:3d} {cells[0]:>16s} {cells[1]:>16s} {floor:8.3f} "
                     f"{known if known is not None else '-'}")  # fmt: skip
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Mean ± half-width (n)."""
    if len(values) < 2:
        return f"{values[0]:.3f} (1)"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f}±{half:.3f} ({len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=whole(1), nargs="+", default=[5, 20, 50])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--protocols", nargs="+", choices=("published", "exact"), default=["published", "exact"])
    parser.add_argument("--seeds", type=whole(1), default=3)
    parser.add_argument("--budget", type=whole(1), default=16_000_000, help="network evaluations of a training")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for d in arguments.dimensions:
        for protocol in arguments.protocols:
            for name in arguments.methods:
                for seed in range(arguments.seeds):
                    try:
                        rows.append(run(d, name, protocol, arguments.budget, seed))
                    except ConfigurationError as error:
                        parser.error(str(error))
                    print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
                    if arguments.output:
                        arguments.output.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
