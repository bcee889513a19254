"""2-D transport as in OT-CFM's and DSBM's papers: W2 and normalised path energy, beside published numbers.

    python benchmarks/plane_transport.py [--tasks "moons -> 8gaussians" …] [--methods ot_cfm …] [--seeds N]
        [--n 1024 10000] [--budget EVALUATIONS] [--output FILE.json]

A task's left side is t = 1 (where sampling starts), its right side t = 0. W2 is exact (POT's network simplex) between n
samples (Heun, 50 steps; DSBM by its SDE) and n true ones; floor: n true ones against n others, which falls with n.
NPE = |E ∫ |v|^2 dt − W2^2| / W2^2 with W2^2 between the ends. Published: OT-CFM 0.716 (Shi et al. 2023, Tab. 2) and
0.601 ± 0.027 (Tong et al. 2024b, Tab. 2) on moons -> 8gaussians.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sbbridge import MLP, BrownianMotion, StandardNormal, Toy2D, Training, eight_gaussians, fit, sample
from sbbridge.config import ConfigurationError
from sbbridge.methods import DSBMIMF, OTCFM, FlowMatching, Method, RectifiedFlow
from sbbridge.problems import BridgeProblem
from sbbridge.study.arguments import whole

ENDS: dict[str, Any] = {
    "normal": StandardNormal((2,)), "moons": Toy2D("moons"), "8gaussians": eight_gaussians(),
}  # fmt: skip
TASKS = ("normal -> 8gaussians", "moons -> 8gaussians", "normal -> moons")
METHODS: dict[str, Method] = {
    "ot_cfm": OTCFM(), "flow_matching": FlowMatching(),
    "rectified_flow": RectifiedFlow(pairs=16384, reflow_epochs=32, reuse=16), "dsbm_imf": DSBMIMF(epochs=3),
}  # fmt: skip
PUBLISHED = {
    ("moons -> 8gaussians", "ot_cfm"): "0.601 to 0.716", ("normal -> 8gaussians", "ot_cfm"): "0.303",
    ("normal -> moons", "ot_cfm"): "0.130", ("moons -> 8gaussians", "flow_matching"): "1.557 (I-CFM)",
    ("moons -> 8gaussians", "rectified_flow"): "1.525", ("moons -> 8gaussians", "dsbm_imf"): "0.838",
}  # fmt: skip


def exact_w2(x: torch.Tensor, y: torch.Tensor) -> float:
    """W2 between two samples of equal size."""
    import ot

    cost = torch.cdist(x.double(), y.double()).square().numpy()
    return float(ot.emd2([], [], cost, numItermax=10_000_000) ** 0.5)


def run(task: str, name: str, seed: int, sizes: list[int], budget: int) -> dict[str, Any]:
    """One training and its figures."""
    start, end = (ENDS[side] for side in task.split(" -> "))
    problem = BridgeProblem(data=end, prior=start, reference=BrownianMotion(1.0))
    training = Training(batch_size=256, ema_decay=0.998, budget=budget)
    started = time.monotonic()
    solution = fit(METHODS[name], problem, seed=seed, network=MLP(width=64, depth=3), training=training)
    seconds = time.monotonic() - started
    steps = 50
    made = sample(solution, max(sizes), steps, seed=1000 + seed, trajectory=True)
    assert made.trajectory is not None
    energy = float(made.trajectory.diff(dim=0).double().square().sum(2).mean(1).sum() * steps)
    between = exact_w2(start.sample(4096, seed=5), end.sample(4096, seed=6)) ** 2
    row: dict[str, Any] = {"task": task, "method": name, "seed": seed, "seconds": round(seconds, 1), "energy": energy,
                           "npe": abs(energy - between) / between}  # fmt: skip
    for n in sizes:
        true, other = end.sample(n, seed=77), end.sample(n, seed=78)
        row |= {f"w2 n={n}": exact_w2(made.x[:n], true), f"floor n={n}": exact_w2(other, true)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=whole(1), default=3)
    parser.add_argument("--n", type=whole(2), nargs="+", default=[1024, 10_000])
    parser.add_argument("--budget", type=whole(1), default=4_000_000, help="network evaluations of a training")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for task in arguments.tasks:
        for name in arguments.methods:
            group = []
            for seed in range(arguments.seeds):
                try:
                    group.append(run(task, name, seed, arguments.n, arguments.budget))
                except ConfigurationError as error:
                    parser.error(str(error))
                rows.append(group[-1])
                if arguments.output:
                    arguments.output.write_text(json.dumps(rows, indent=1))
            keys = [key for key in group[0] if key.startswith(("w2", "floor", "npe"))]
            shown = {key: [round(row[key], 3) for row in group] for key in keys}
            known = PUBLISHED.get((task, name), "-")
            seconds = np.mean([row["seconds"] for row in group])
            print(task, name, shown, "published", known, f"{seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
