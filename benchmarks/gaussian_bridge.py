"""ASBM on Gaussian bridges against the closed form: coupling, control, backward score, both ends.

    python benchmarks/gaussian_bridge.py [--dimensions 1 2 8] [--warm-start none gaussian] [--output FILE.json]

Each row is one training on one thread; run two of these side by side to use two cores. The relative error of the
backward score is that of sqrt(V) s, which the network predicts, over t uniform on [1e-3, 1] and x_t from the exact
bridge; sampled covariances use the sampler named in the column.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from sbbridge import ASBM, MLP, VPSDE, BrownianMotion, GaussianBridge, Simulation, Training, fit, sample
from sbbridge.metrics import cross_covariance, cross_covariance_noise, relative_error
from sbbridge.problems import gaussian64
from sbbridge.rng import Stream
from sbbridge.study.arguments import positive, whole

REFERENCES = {"VP 2": VPSDE(beta_max=2.0), "VP 4": VPSDE(beta_max=4.0), "Brownian 1": BrownianMotion(1.0)}
METHOD = ASBM(
    cycles=10, corrector_epochs=5, adjoint_epochs=8, new_pairs=8192, buffer_size=65536, backward_epochs=48,
    backward_pairs=65536, reuse=8, simulation=Simulation(num_steps=8),
)  # fmt: skip
TRAINING = Training(batch_size=512, ema_decay=0.998)


def problem(dimension: int, reference: object) -> GaussianBridge:
    """Mean 0.7, eigenvalues from 0.3 to 2 in a random basis, to N(0, I); `gaussian64` for d = 64."""
    if dimension == 64:
        return gaussian64(reference)
    eigenvalues = torch.linspace(0.3, 2.0, dimension, dtype=torch.float64) if dimension > 1 else torch.tensor([2.0])
    noise = Stream(0, ("basis",)).normal(0, range(dimension), (dimension,)).double()
    basis, _ = torch.linalg.qr(noise)
    covariance = basis @ torch.diag(eigenvalues.double()) @ basis.mT
    zero, one = torch.zeros(dimension), torch.eye(dimension)
    return GaussianBridge(torch.full((dimension,), 0.7), (covariance + covariance.mT) / 2, zero, one, reference)


def row(
    name: str, dimension: int, warm_start: str, seed: int, n: int, overrides: dict[str, object]
) -> dict[str, object]:
    """Trains once and measures everything."""
    from dataclasses import replace

    bridge = problem(dimension, REFERENCES[name])
    method = replace(METHOD, warm_start=warm_start, **overrides)
    started = time.monotonic()
    solution = fit(
        method, bridge, seed=seed, network=MLP(width=64 if dimension < 64 else 128, depth=2), training=TRAINING
    )
    seconds = time.monotonic() - started
    batch = 100_000
    cross = torch.zeros(dimension, dimension, dtype=torch.float64)
    terminal = torch.zeros_like(cross)
    for part in range(max(1, n // batch)):
        pair = solution.couple(batch, seed=1000 + part)
        cross += cross_covariance(*pair)
        terminal += torch.cov(pair.x1.double().mT).reshape(dimension, dimension)
    cross, terminal = cross / max(1, n // batch), terminal / max(1, n // batch)
    t = 1e-3 + (1 - 1e-3) * Stream(5, ("t",)).uniform(0, range(20_000))
    exact = bridge.couple(20_000, seed=6)
    x = bridge.reference.bridge(t, *exact, Stream(7, ("z",)).normal(0, range(20_000), (dimension,)))
    scale = bridge.reference.variance(0.0, t).sqrt()[:, None]
    drawn = {
        f"sampled_covariance_{name}_{steps}": torch.cov(
            sample(solution, 400_000, steps, sampler=name, seed=8).x.double().mT
        ).reshape(cross.shape)
        for name, steps in (("heun", 25), ("exponential", 50))
    }
    c = bridge.coupling_covariance
    return {
        "reference": name, "d": dimension, "warm_start": warm_start, "seed": seed, "n": n,
        "coupling": relative_error(cross, c),
        "coupling_noise": cross_covariance_noise(bridge.cov0, bridge.cov1, c, n),
        "control": relative_error(solution.control(t, x), bridge.control(t, x)),
        "backward_score": relative_error(solution.backward_score(t, x) * scale, bridge.backward_score(t, x) * scale),
        "corrector": relative_error(solution.corrector(exact.x1), bridge.corrector(exact.x1)),
        "terminal_covariance": relative_error(terminal, bridge.cov1),
        **{name: relative_error(estimate, bridge.cov0) for name, estimate in drawn.items()},
        "seconds": seconds,
    }  # fmt: skip


def shown(key: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if key == "seconds" else f"{value:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=whole(1), nargs="+", default=[1, 2, 8])
    parser.add_argument("--references", nargs="+", default=list(REFERENCES), choices=list(REFERENCES))
    parser.add_argument("--warm-start", nargs="+", default=["none", "gaussian"], choices=["none", "gaussian"])
    parser.add_argument("--seeds", type=whole(1), default=1)
    parser.add_argument("--n", type=whole(2), default=1_000_000, help="pairs that Cov(x0, x1) is estimated from")
    parser.add_argument("--damping", type=positive, default=1.0)
    for name in ("cycles", "corrector_epochs", "adjoint_epochs", "new_pairs", "buffer_size"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=whole(1), default=getattr(METHOD, name))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for dimension in arguments.dimensions:
        for name in arguments.references:
            for warm_start in arguments.warm_start:
                for seed in range(arguments.seeds):
                    names = ("damping", "cycles", "corrector_epochs", "adjoint_epochs", "new_pairs", "buffer_size")
                    overrides = {name: getattr(arguments, name) for name in names}
                    rows.append(row(name, dimension, warm_start, seed, arguments.n, overrides))
                    if len(rows) == 1:
                        print(" | ".join(rows[0]))
                    print(" | ".join(shown(key, value) for key, value in rows[-1].items()), flush=True)
                    if arguments.output:
                        arguments.output.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
