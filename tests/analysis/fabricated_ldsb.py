"""Fabricates a study of LDSB on one data set; every number comes from a formula here, so tests know them all."""

import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np
from fabricated_study import FEATURES, Fabricator, digest, study_json

from sbbridge.path import LINEAR, ratio_nodes
from sbbridge.records import flatten_config, metric_row
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path

SEEDS = (0, 1, 2)
STEPS = (5, 10)
GRIDS = ("leading_uniform", "trailing_quadratic")
FLOOR = 0.3
TABLE = {"network.kind": "table", "network.grid_size": None}
QUADRATIC = {"method.grid": "trailing_quadratic"}
ORIGINAL = {"method.fit": {"kind": "none"}, **TABLE}
TEACHER = {"method.fit": {"kind": "teacher", "learning_rate": 0.02, "order": 1, "learn_times": False}}
IPF = {"kind": "ipf", "halves": "both", "mode": "code", "learning_rate": 1e-4}
PUBLISHED = {"method.fit": IPF, "method.boundary": "code"}
# name: (overrides, mean on validation and on test, as a multiple of the original's)
WAYS: dict[str, tuple[dict[str, Any], float, float]] = {
    "original": (ORIGINAL, 1.0, 1.0),
    "original, quadratic": ({**ORIGINAL, **QUADRATIC}, 0.8, 0.85),
    "LDSB": (PUBLISHED, 0.85, 0.9),
    "teacher, order 2, times": (
        {"method.fit": {**TEACHER["method.fit"], "order": 2, "learn_times": True}, **QUADRATIC, **TABLE}, 0.3, 0.35,
    ),
}  # fmt: skip
ONCE: dict[str, tuple[dict[str, Any], float, float]] = {
    "LDSB, table": ({**PUBLISHED, **TABLE}, 0.7, 0.75),
    "LDSB, MLP": ({**PUBLISHED, "network": {"kind": "ratio_mlp", "squash": True}}, 1.2, 1.25),
    "LDSB, reverse only": ({**PUBLISHED, "method.fit": {**IPF, "halves": "reverse"}}, 0.95, 1.0),
    "best of 4 random paths": ({"method.fit": {"kind": "random", "candidates": 4, "scale": 0.1}, **TABLE}, 0.9, 0.97),
    "wilder random paths": ({"method.fit": {"kind": "random", "candidates": 4, "scale": 0.4}, **TABLE}, 1.0, 1.0),
}  # fmt: skip
"""Only with DDIM at N = 10."""
FAMILIES = ("DDIM", "flow")
ORIGINAL_MEAN = {("DDIM", 5): 4.0, ("DDIM", 10): 2.0, ("flow", 5): 3.0, ("flow", 10): 1.5}
# sampler: {grid: multiple of the original's at that NFE}; on test the quadratic grid of UniPC looks best, not on
# validation
SAMPLERS = {
    "ddim": {"leading_uniform": (1.0, 1.0), "trailing_quadratic": (0.8, 0.85)},
    "unipc": {"leading_uniform": (0.4, 0.5), "trailing_quadratic": (0.6, 0.2)},
}
CANDIDATES = {0.1: (0.9, 1.1, 0.95, 1.3), 0.4: (1.5, 2.0, 1.01, 0.99)}
"""{scale: candidates over the original on validation}."""
PARAMETERS = {"efficient_kan": 6800, "table": 20, "ratio_mlp": 12_674}
COLUMNS = {"method.kind": "string", "method.num_steps": "int64", "method.fit.kind": "string", "dataset": "string"}


def base_tree(family: str = "DDIM") -> dict[str, Any]:
    """The published procedure at N = 10, but for the ends of its path."""
    kind = "score_matching_vp" if family == "DDIM" else "flow_matching"
    return {
        "dataset": "digits", "reference": {"kind": "ddpm", "num_steps": 1000},
        "method": {
            "kind": "ldsb", "num_steps": 10, "grid": "leading_uniform", "boundary": "corrected", "fit": dict(IPF),
            "denoiser": {
                "kind": "trained", "method": {"kind": kind, "pairs": 16384}, "network": {"kind": "mlp", "width": 192},
                "training": {"batch_size": 256, "budget": 3_000_000, "precision": "bfloat16"},
            },
        },
        "network": {"kind": "efficient_kan", "grid_size": 20}, "training": {"batch_size": 128, "budget": None},
        "evaluation": {"nfe": list(STEPS), "samplers": ["ratio_path", *SAMPLERS], "grids": list(GRIDS)},
    }  # fmt: skip


def changed(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(tree)
    for path, value in overrides.items():
        *parents, key = path.split(".")
        place = made
        for parent in parents:
            place = place[parent]
        place[key] = copy.deepcopy(value)
    return made


def tree_of(family: str, name: str, n: int = 10) -> dict[str, Any]:
    """A way's configuration."""
    return changed(base_tree(), overrides_of(family, name, n))


def overrides_of(family: str, name: str, n: int) -> dict[str, Any]:
    """What a way changes in the centre; KANs have 2 N intervals."""
    kind = {} if family == "DDIM" else {"method.denoiser.method.kind": "flow_matching"}
    return {**kind, "network.grid_size": 2 * n, "method.num_steps": n, **{**WAYS, **ONCE}[name][0]}


def own_tree(family: str) -> dict[str, Any]:
    """The training that a family's denoiser comes from, which says more than the denoiser's options do."""
    tree = base_tree(family)
    own = tree["method"]["denoiser"]
    training = {**own["training"], "accumulate": 1}
    return {**tree, "method": own["method"], "network": own["network"], "training": training}


def value(family: str, name: str, n: int, seed: int, split: str) -> float:
    """A way's score: what a seed has in common is large, what it has of its own is small."""
    mean = {**WAYS, **ONCE}[name][1 if split == "validation" else 2]
    return ORIGINAL_MEAN[family, n] * mean * shared(seed) * own_noise(name, n, seed)


def sampled(family: str, sampler: str, grid: str, n: int, seed: int, split: str) -> float:
    mean = SAMPLERS[sampler][grid][0 if split == "validation" else 1]
    return ORIGINAL_MEAN[family, n] * mean * shared(seed) * own_noise(sampler + grid, n, seed)


def shared(seed: int) -> float:
    return 1 + 0.2 * seed


def own_noise(name: str, n: int, seed: int) -> float:
    return float(np.exp(0.01 * np.random.default_rng([len(name), ord(name[-1]), n, seed]).normal()))


def distance(name: str, n: int, seed: int) -> float:
    """Teacher distance."""
    return (0.1 + 0.01 * len(name)) / n * (1 + 0.1 * seed)


def arms() -> list[dict[str, Any]]:
    found = [
        {"name": f"{family} denoiser, other samplers", "overrides": {}, "family": None, "table": None,
         "digest": digest(own_tree(family))}
        for family in FAMILIES
    ]  # fmt: skip
    for family in FAMILIES:
        for n in STEPS:
            for name in [*WAYS, *(ONCE if (family, n) == ("DDIM", 10) else ())]:
                tree = tree_of(family, name, n)
                found.append({
                    "name": f"{family}, {name}, N = {n}", "overrides": overrides_of(family, name, n), "family": family,
                    "table": f"{family}, N = {n}", "digest": digest(tree),
                })  # fmt: skip
    return found


def study_of_ldsb(**changes: Any) -> dict[str, Any]:
    """study.json as the thorough preset leaves it: no factors, everything an arm."""
    centre = base_tree()
    own = {
        "study": "ldsb_sweep", "preset": "thorough", "base": centre, "space": [], "trials": 0,
        "config_columns": COLUMNS, "centre": {"config": centre, "digest": digest(centre), "chosen_by": "preset"},
        "design": {"factors": [], "grid": None, "arms": arms(), "baseline": {"method.fit.kind": "none"}},
    }  # fmt: skip
    return study_json(**{**own, **changes})


class LDSBFabricator(Fabricator):
    """Adds runs of paths and of denoisers."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        super().__init__(folder, study_of_ldsb(**changes))

    def trial(self, tree: dict[str, Any], seed: int, phase: str = "ablation", **fields: Any) -> dict[str, Any]:
        parameters = PARAMETERS.get(tree["network"]["kind"], 100_000)
        own = {"study": "ldsb_sweep", "network_parameters": parameters}
        return super().trial(tree, seed, phase, **{**own, **fields})

    def way(self, family: str, name: str, n: int, seed: int, tree: dict[str, Any] | None = None) -> None:
        """One completed run of a way, with its candidates and its path."""
        tree = tree or tree_of(family, name, n)
        place = {"digest": digest(tree), "seed": seed, "phase": "ablation", "attempt": 1000}
        entry = {**place, "stage": "evaluation", "sampler": "ratio_path", "grid": tree["method"]["grid"],
                 "num_steps": n, "nfe": n, "weights": "ema"}  # fmt: skip
        rows = [
            metric_row("frechet_distance", value(family, name, n, seed, split), features=FEATURES, split=split, n=599,
                       **entry)
            for split in ("validation", "test")
        ]  # fmt: skip
        rows.append(metric_row("teacher_distance", distance(name, n, seed), split="test", n=256, **entry))
        rows += [
            metric_row("frechet_distance", FLOOR, features=FEATURES, split="test", role="floor", **place,
                       stage="evaluation"),
            metric_row("path_scalars", 2.0 * n, stage="evaluation", weights="ema", **place),
        ]  # fmt: skip
        rows += self._candidates(tree, seed, place)
        self.write_trials(self.trial(tree, seed))
        self.write_metrics(*rows)
        write_path(self.folder, tree, seed)

    def denoiser(self, family: str, seed: int, nfe: tuple[int, ...] = STEPS) -> None:
        """One completed run of a denoiser's own training with its samplers; Heun's with many calls."""
        tree = own_tree(family)
        place = {"digest": digest(tree), "seed": seed, "phase": "ablation", "attempt": 1000, "stage": "evaluation"}
        rows = []
        for split in ("validation", "test"):
            for sampler, grids in SAMPLERS.items():
                for grid in grids:
                    for n in nfe:
                        entry = {"sampler": sampler, "grid": grid, "num_steps": n, "nfe": n, "weights": "ema"}
                        number = sampled(family, sampler, grid, n, seed, split)
                        rows.append(metric_row("frechet_distance", number, features=FEATURES, split=split, n=599,
                                               **entry, **place))  # fmt: skip
                        if split == "test":
                            far = distance(sampler + grid, n, seed)
                            rows.append(metric_row("teacher_distance", far, split=split, n=256, **entry, **place))
            rows.append(metric_row("frechet_distance", 0.5 * shared(seed), features=FEATURES, split=split, n=599,
                                   sampler="heun", grid="trailing_quadratic", num_steps=25, nfe=49, weights="ema",
                                   **place))  # fmt: skip
        self.write_trials(self.trial(tree, seed))
        self.write_metrics(*rows)

    def _candidates(self, tree: dict[str, Any], seed: int, place: dict[str, Any]) -> list[dict[str, Any]]:
        fit = tree["method"]["fit"]
        ratios = CANDIDATES.get(fit.get("scale"), ()) if fit["kind"] == "random" else ()
        stages = [(f"candidate {k + 1}", ratio) for k, ratio in enumerate(ratios)]
        if fit["kind"] == "ipf":
            stages = [("reverse 1", 0.9 + 0.2 * seed), ("forward 1", 1.2)]
        return [
            metric_row("selection_validation", 3.0 * ratio * shared(seed), stage=stage, step=step, **place)
            for step, (stage, ratio) in enumerate([("original", 1.0), *stages] if stages else [])
        ]  # fmt: skip


def path_arrays(tree: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """The denoiser's own path, and one whose a is a little less at each further seed."""
    leaves = flatten_config(tree)
    n, flow = leaves["method.num_steps"], leaves.get("method.denoiser.method.kind") == "flow_matching"
    chain = DDPM()
    own = LINEAR if flow else reference_path(chain)
    original = ratio_nodes(own, leaves["method.grid"], n, "code", chain=None if flow else chain.num_steps).original
    times, a, b = (values.numpy() for values in (original.times, original.image, original.noise))
    learned = a * (0.9 - 0.01 * seed)
    moved = times**1.1 if leaves.get("method.fit.learn_times") else times
    with np.errstate(divide="ignore"):
        log_snr, original_log_snr = (2 * np.log(image / b) for image in (learned, a))
    arrays = {
        "times": moved, "image": learned, "noise": b, "log_snr": log_snr, "original_times": times,
        "original_image": a, "original_noise": b, "original_log_snr": original_log_snr,
    }  # fmt: skip
    if leaves.get("method.fit.order") == 2:
        arrays["momentum"] = np.linspace(0.1, 0.5, n - 1) + 0.1 * seed
    return arrays


def write_path(folder: Path, tree: dict[str, Any], seed: int) -> None:
    place = folder / "artifacts" / f"{digest(tree)}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    np.savez(place / "ratio_path.npz", **path_arrays(tree, seed))


def fabricate_ldsb(folder: Path, seeds: tuple[int, ...] = SEEDS, families: tuple[str, ...] = FAMILIES,
                   **changes: Any) -> LDSBFabricator:  # fmt: skip
    """The whole study; one run of the table of logits failed on a further seed."""
    maker = LDSBFabricator(folder, **changes)
    for seed in seeds:
        for family in families:
            maker.denoiser(family, seed)
            for n in STEPS:
                for name in [*WAYS, *(ONCE if (family, n) == ("DDIM", 10) else ())]:
                    maker.way(family, name, n, seed)
    maker.write_trials(maker.trial(tree_of("DDIM", "LDSB, table"), 7, status="failed", error="PathError: too far"))
    return maker


def csv_rows(folder: Path, name: str) -> list[dict[str, str]]:
    """A table that a report wrote."""
    with (folder / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))
