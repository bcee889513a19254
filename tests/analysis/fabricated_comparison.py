"""Fabricates a comparison of methods on three data sets; every number comes from `expected`, so tests know them all."""

import copy
import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from fabricated_study import Fabricator, config, digest, study_json
from scipy import stats

from analysis.design import Setting
from analysis.results import Results
from sbbridge.records import metric_row

NFE = [1, 5, 10, 50]
SEEDS = (0, 1, 2)
BUDGET = 5_000_000
SAMPLERS = ("ddim", "ancestral")  # validation prefers the first everywhere
PROBLEMS: dict[str, dict[str, Any]] = {
    "digits": {"metric": "frechet_distance", "features": "digits-CNN"},
    "moons": {"metric": "wasserstein2", "features": None},
    "gaussian64": {"metric": "covariance_error", "features": None},
}
SCALE = {"digits": 1.0, "moons": 0.1, "gaussian64": 0.01}
FLOOR = {"digits": 0.3, "moons": 0.02}  # gaussian64 records none
OF_SDES = ("independent coupling",)  # their paths are of an SDE, those of the others of an ODE
PUBLISHED, TUNED = "as published", "tuned"
# name: (overrides, family, table, mean on validation, mean on test, simulation, optimisation)
ARMS: dict[str, tuple[dict[str, Any], str | None, str | None, float, float, int, int]] = {
    "independent coupling": ({"method.coupling": "independent"}, "ASBM", PUBLISHED, 2.0, 2.1, 0, 5_000_000),
    "flow matching": ({"method.kind": "flow_matching"}, "flow matching", PUBLISHED, 1.2, 1.25, 0, 5_100_000),
    "ASBM, noise 1": ({"reference.beta_max": 1.0}, "ASBM", TUNED, 0.9, 0.7, 1_500_000, 3_500_000),
    "ASBM, noise 8": ({"reference.beta_max": 8.0}, "ASBM", TUNED, 0.6, 0.8, 1_500_000, 3_500_000),
    "FM, best on test only": (
        {"method.kind": "flow_matching", "training.learning_rate": 0.1}, "flow matching", TUNED, 5.0, 0.1, 0, 5_000_000,
    ),
    "FM, best on validation": (
        {"method.kind": "flow_matching", "training.learning_rate": 0.01}, "flow matching", TUNED, 1.0, 1.1, 0,
        5_000_000,
    ),
    "FM, as published": ({"method.kind": "flow_matching"}, "flow matching", TUNED, 1.2, 1.25, 0, 5_100_000),
    "LDSB": ({"method.kind": "ldsb"}, None, None, 1.5, 1.6, 500_000, 4_400_000),
}  # fmt: skip
CENTRE = (1.0, 1.05, 1_500_000, 3_500_000)


def tree_of(dataset: str, name: str | None) -> dict[str, Any]:
    """An arm's configuration; None: the centre's."""
    tree = copy.deepcopy(config())
    tree |= {"dataset": dataset, "training": {"budget": BUDGET, "learning_rate": 0.001}}
    tree["evaluation"] = {"nfe": NFE, "samplers": list(SAMPLERS), "grids": ["trailing_uniform"]}
    for path, value in (ARMS[name][0] if name else {}).items():
        parent, key = path.split(".")
        tree[parent][key] = value
        if path == "method.kind":
            tree["method"] = {"kind": value}
    return tree


def expected(dataset: str, name: str | None, seed: int, nfe: int, split: str, sampler: str = "ddim") -> float:
    """The primary metric: larger at few calls, a little larger for each further seed, a thousandth of its own."""
    means = ARMS[name][3:5] if name else CENTRE[:2]
    mean = means[0] if split == "validation" else means[1]
    own = 1 + 0.001 * math.sin(100 * mean + 7 * seed)
    return SCALE[dataset] * mean * (1 + 2 / nfe) * (1 + 0.02 * (seed - 1)) * own * (1 if sampler == "ddim" else 1.5)


def study(**changes: Any) -> dict[str, Any]:
    """study.json of the comparison."""
    problems = {}
    for dataset, metric in PROBLEMS.items():
        centre = tree_of(dataset, None)
        arms = [
            {"name": name, "overrides": arm[0], "family": arm[1], "table": arm[2],
             "digest": digest(tree_of(dataset, name))}
            for name, arm in ARMS.items()
        ]  # fmt: skip
        problems[dataset] = {
            "primary_metric": metric, "base": centre,
            "centre": {"config": centre, "digest": digest(centre), "chosen_by": "preset"},
            "design": {"factors": [], "grid": None, "arms": arms, "baseline": {"method.coupling": "independent"},
                       "centre_table": PUBLISHED, "centre_family": "ASBM"},
        }  # fmt: skip
    first = next(iter(problems))
    return study_json(
        **{"study": "method_comparison", "dataset": first, "space": [], **problems[first], "problems": problems,
           "trials": 0, **changes}
    )  # fmt: skip


class ComparisonFabricator(Fabricator):
    """Adds the runs of a comparison."""

    def add(self, dataset: str, name: str | None, seed: int, **fields: Any) -> None:
        """One completed run with everything that it measures."""
        tree = tree_of(dataset, name)
        simulation, optimisation = ARMS[name][5:] if name else CENTRE[2:]
        costs = {"simulation_evaluations": simulation, "optimisation_evaluations": optimisation}
        self.write_trials(self.trial(tree, seed, study="method_comparison", **{**costs, **fields}))
        self.write_metrics(
            *scores(dataset, name, seed), *measures(dataset, name, seed), *on_the_way(dataset, name, seed)
        )


def scores(dataset: str, name: str | None, seed: int) -> list[dict[str, Any]]:
    shared = _shared(dataset, name, seed)
    metric = PROBLEMS[dataset]
    rows = []
    for split in ("validation", "test"):
        for sampler in SAMPLERS:
            for nfe in NFE:
                value = expected(dataset, name, seed, nfe, split, sampler)
                rows.append(metric_row(value=value, split=split, weights="ema", n=599, **metric, **shared,
                                       **_place(sampler, nfe)))  # fmt: skip
        if dataset in FLOOR:
            rows.append(metric_row(value=FLOOR[dataset], split=split, role="floor", n=599, **metric, **shared))
    return rows


def measures(dataset: str, name: str | None, seed: int) -> list[dict[str, Any]]:
    """Variety (images and points only), paths, localised coupling."""
    shared = _shared(dataset, name, seed)
    rows = []
    if dataset in FLOOR:
        variety = {"precision": 0.8, "recall": 0.6, "density": 0.9, "coverage": 0.7, "kernel_distance": 0.01}
        for metric, value in variety.items():
            rows.append(metric_row(metric, value / 2, split="test", role="floor", n=599, **shared))
            for sampler in SAMPLERS:
                for nfe in NFE:
                    # Only ddim at 10 calls has the number of the dictionary: everything else would be the wrong row.
                    number = value + 0.01 * seed + (0 if (sampler, nfe) == ("ddim", 10) else 7)
                    rows.append(metric_row(metric, number, split="test", weights="ema", n=599, **shared,
                                           **_place(sampler, nfe)))  # fmt: skip
    sampler, larger = ("exponential", 100) if name in OF_SDES else ("heun", 1)
    for metric, value in (("straightness", 0.2), ("trajectory_variance", 0.05), ("transport_cost", 3.0)):
        value *= larger * (1 + 0.1 * seed)
        rows.append(metric_row(metric, value, weights="ema", n=512, **shared, **_place(sampler, 99)))
    for t in (0.2, 0.6, 1.0):
        rows.append(metric_row(f"localised_distance_t{t:g}", t * (1 + 0.1 * seed), split="test", weights="ema", n=256,
                               sampler="ddim", **shared))  # fmt: skip
    return rows


def on_the_way(dataset: str, name: str | None, seed: int) -> list[dict[str, Any]]:
    """The primary metric during training: better and of more steps than in the end, so that a mix-up would show."""
    shared = {**_shared(dataset, name, seed), "stage": "training"}
    return [
        metric_row(value=1e-4 * (5 - k) * (1 + 0.1 * seed), split="validation", weights="ema", n=300, step=10**k,
                   **PROBLEMS[dataset], **shared, **_place("ddim", 10) | {"num_steps": 11})
        for k in range(1, 5)
    ]  # fmt: skip


def write_artifacts(folder: Path, dataset: str, name: str | None, seed: int = 0) -> None:
    """Paths and samples carried to t and back."""
    place = folder / "artifacts" / f"{digest(tree_of(dataset, name))}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, len(name or "")])
    times = np.linspace(1, 0, 51)
    start, end = generator.normal(size=(2, 1, 64, 2))
    larger = 100 if name in OF_SDES else 1
    bent = start + (1 - times)[:, None, None] * (end - start) + 0.3 * np.sin(np.pi * times)[:, None, None]
    np.savez(
        place / "paths.npz", times=times, straightness=larger * generator.chisquare(4, 512) / 20,
        trajectory_variance=larger * generator.chisquare(4, 512) / 80, accumulated_length=3 * (1 - times),
        trajectories=bent.astype(np.float32), drift_times=1 - times, accumulated_drift=2 * (1 - times) ** 2,
    )  # fmt: skip
    t = np.array([0.2, 0.6, 1.0])
    if dataset == "digits":
        originals = (255 * generator.uniform(size=(8, 8, 8))).astype(np.uint8)
        returned = np.stack([np.clip(originals + 80 * s * generator.normal(size=(8, 8, 8)), 0, 255) for s in t])
        np.savez(place / "localised.npz", t=t, distance=t, originals=originals, returned=returned.astype(np.uint8))
    if dataset == "moons":
        originals = generator.normal(size=(8, 2))
        returned = np.stack([originals + s * generator.normal(size=(8, 2)) for s in t])
        np.savez(place / "localised.npz", t=t, distance=t, originals=originals, returned=returned)


def fabricate_comparison(folder: Path, artifacts: bool = True, datasets: tuple[str, ...] = tuple(PROBLEMS),
                         **changes: Any) -> ComparisonFabricator:  # fmt: skip
    """The whole comparison; one configuration is both published and tuned, and so has one run a seed."""
    maker = ComparisonFabricator(folder, study(**changes))
    for dataset in datasets:
        for name in (None, *(name for name in ARMS if name != "FM, as published")):
            for seed in SEEDS:
                maker.add(dataset, name, seed)
            if artifacts:
                write_artifacts(folder, dataset, name)
    return maker


def mean_and_half_width(dataset: str, name: str | None, nfe: int = 10) -> tuple[float, float]:
    """Of an arm on the test split, with the 95 % t interval over seeds."""
    values = [expected(dataset, name, seed, nfe, "test") for seed in SEEDS]
    return float(np.mean(values)), float(stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3))


def setting_of(results: Results, name: str | None) -> Setting:
    """An arm's setting."""
    own = digest(tree_of(results.dataset, name))
    return next(setting for setting in results.settings if setting.digest == own)


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    """A table that a report wrote."""
    with (folder / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def _shared(dataset: str, name: str | None, seed: int) -> dict[str, Any]:
    place = {"digest": digest(tree_of(dataset, name)), "seed": seed, "phase": "ablation", "attempt": 1000}
    return {**place, "stage": "evaluation"}


def _place(sampler: str, nfe: int) -> dict[str, Any]:
    return {"sampler": sampler, "grid": "trailing_uniform", "num_steps": nfe, "nfe": nfe}
