"""Fabricates a study's folder as the study driver leaves it: study.json, record parts, optuna.db, artifacts."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sbbridge.records import (
    METRICS_SCHEMA,
    flatten_config,
    metric_row,
    open_storage,
    trial_row,
    trials_schema,
    write_part,
)

NFE = [1, 2, 3, 5, 10, 20, 50]
NOISE, COUPLINGS, CYCLES = [1.0, 4.0, 8.0], ["independent", "bridge_matching", "asbm"], [2, 6]
FEATURES = "digits-CNN"
FLOOR = 0.31
CONFIG_COLUMNS = {
    "reference.beta_max": "double", "reference.kind": "string", "method.kind": "string", "method.coupling": "string",
    "method.cycles": "int64", "dataset": "string",
}  # fmt: skip


def config(noise: float = 4.0, coupling: str | None = "asbm", cycles: int = 6, kind: str = "asbm") -> dict[str, Any]:
    method: dict[str, Any] = {"kind": kind}
    if coupling is not None:
        method["coupling"] = coupling
    if coupling == "asbm":
        method["cycles"] = cycles
    return {
        "dataset": "digits",
        "reference": {"kind": "vp", "beta_min": 0.1, "beta_max": noise, "sigma": 1.0},
        "method": method,
        "network": {"kind": "mlp", "width": 256},
        "training": {"steps": 2000, "batch_size": 256},
        "evaluation": {"nfe": NFE, "samplers": ["ancestral", "ddim"], "grids": ["trailing_uniform"], "n": 599},
    }


def digest(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def study_json(**changes: Any) -> dict[str, Any]:
    centre = config()
    study = {
        "schema_version": 1, "study": "asbm_sweep", "dataset": "digits", "preset": "default",
        "created": "2026-11-21T19:00:00+00:00", "trials": 10, "seeds": [0, 1, 2], "base": centre,
        "space": [
            {"path": "reference.beta_max", "label": "noise β_max", "values": [0.5, 1, 2, 4, 8, 20]},
            {"path": "method.coupling", "label": "coupling", "values": COUPLINGS},
            {"path": "sampler", "label": "sampler", "values": ["ancestral", "ddim"]},
            {"path": "nfe", "label": "NFE", "values": NFE},
        ],
        "design": {
            "factors": [
                {"path": "reference.beta_max", "label": "noise β_max", "values": [1, 4, 8]},
                {"path": "method.coupling", "label": "coupling", "values": COUPLINGS},
                {"path": "method.cycles", "label": "cycles", "values": CYCLES},
            ],
            "grid": ["reference.beta_max", "method.coupling"],
            "arms": [{"name": "score matching VP", "overrides": {"method.kind": "score_matching_vp"}}],
            "baseline": {"method.coupling": "independent"},
        },
        "centre": {"config": centre, "digest": digest(centre), "chosen_by": "search"},
        "primary_metric": {"metric": "frechet_distance", "features": FEATURES},
        "objectives": ["log_validation_frechet_distance", "nfe"],
        "config_columns": CONFIG_COLUMNS,
        "optuna": {"storage": "sqlite:///optuna.db", "study_name": "asbm_sweep"},
        "versions": {"python": "3.11.7", "torch": "2.15.0", "ray": "2.60.0", "optuna": "5.0.0"}, "commit": "abc1234",
        "hardware": {"cpu_count": 2, "gpus": [], "memory_gib": 23.5, "platform": "Linux-6.1"},
        "sessions": [
            {"started": "2026-11-21T19:00:00+00:00", "ended": "2026-11-21T19:06:42+00:00", "seconds": 402.1,
             "address": "local", "num_workers": 1},
        ],
    }  # fmt: skip
    return {**study, **changes}


class Fabricator:
    """Adds runs to a folder; every number comes from a formula, so that tests know what to expect."""

    def __init__(self, folder: Path, study: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.study = study or study_json()
        self.filesystem, self.root = open_storage(str(folder))
        self.parts = 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "study.json").write_text(json.dumps(self.study))

    def write_trials(self, *rows: dict[str, Any]) -> str:
        self.parts += 1
        schema = trials_schema(self.study["config_columns"])
        return write_part(self.filesystem, f"{self.root}/records/trials", f"part-{self.parts:04d}", rows, schema)

    def write_metrics(self, *rows: dict[str, Any]) -> str:
        self.parts += 1
        return write_part(
            self.filesystem, f"{self.root}/records/metrics", f"part-{self.parts:04d}", rows, METRICS_SCHEMA
        )

    def trial(self, tree: dict[str, Any], seed: int, phase: str = "ablation", **fields: Any) -> dict[str, Any]:
        simulated = 0 if tree["method"].get("coupling") in (None, "independent") else 1_500_000
        defaults = {
            "study": "asbm_sweep", "phase": phase, "digest": digest(tree), "seed": seed,
            "training_digest": digest(tree),
            "method": tree["method"]["kind"], "dataset": tree["dataset"], "status": "completed", "optuna_numbers": [],
            "seconds": 20.0 + simulated / 1e5 + seed, "evaluation_seconds": 5.0,
            "training_seconds": 15.0 + simulated / 1e5 + seed,
            "simulation_evaluations": simulated, "optimisation_evaluations": 2_000_000, "network_parameters": 270_000,
            "peak_memory_bytes": 800_000_000, "retained_memory": 0.36, "terminal_variance": 0.87, "host": "node-1",
            "device": "cpu", "launcher": "inline", "num_workers": 1, "versions": "{}", "commit": "abc1234",
            "attempt": 1000,
        }  # fmt: skip
        return trial_row(tree, CONFIG_COLUMNS, **{**defaults, **fields})

    def run(self, tree: dict[str, Any], seed: int, phase: str = "ablation",
            value: Callable[..., float] | None = None, **fields: Any) -> None:  # fmt: skip
        """One completed run with its metrics."""
        self.write_trials(self.trial(tree, seed, phase, **fields))
        self.write_metrics(*evaluation_rows(tree, seed, phase, value or frechet), *training_rows(tree, seed, phase))


def frechet(tree: dict[str, Any], seed: int, nfe: int, sampler: str, split: str) -> float:
    """A plausible FD: falls with NFE, least at noise 4, best for asbm; noise shared by the runs of a seed."""
    leaves = flatten_config(tree)
    noise = leaves["reference.beta_max"]
    coupling = leaves.get("method.coupling")
    kind = {"independent": 1.9, "bridge_matching": 1.35, "asbm": 0.8}.get(str(coupling), 1.6)
    kind *= 1.25 if leaves.get("method.cycles") == 2 else 1.0
    base = FLOOR + kind * (1 + 0.4 * abs(np.log2(noise / 4))) * (0.4 + 4.0 * nfe**-0.9)
    base *= 1.3 if sampler == "ancestral" and nfe < 10 else 1.0 if sampler == "ancestral" else 1.1
    shared = np.random.default_rng([seed, nfe]).normal() * 0.04
    own = np.random.default_rng([seed, nfe, int(digest(tree)[:6], 16), len(split)]).normal() * 0.03
    return float(base * np.exp(shared + own))


def values_of(tree: dict[str, Any], nfe: int, split: str = "test", seeds: tuple[int, ...] = (0, 1, 2)) -> list[float]:
    """What each seed scored with the sampler that is best on validation."""

    def mean(sampler: str) -> float:
        return float(np.mean([frechet(tree, seed, nfe, sampler, "validation") for seed in seeds]))

    best = min(("ancestral", "ddim"), key=mean)
    return [frechet(tree, seed, nfe, best, split) for seed in seeds]


def evaluation_rows(tree: dict[str, Any], seed: int, phase: str, value: Callable[..., float],
                    attempt: int = 1000) -> list[dict[str, Any]]:  # fmt: skip
    shared = {"digest": digest(tree), "seed": seed, "phase": phase, "stage": "evaluation", "attempt": attempt}
    rows = []
    for split, n in (("validation", 300), ("test", 599)):
        for sampler in ("ancestral", "ddim"):
            for nfe in NFE:
                place = {"sampler": sampler, "grid": "trailing_uniform", "num_steps": nfe, "nfe": nfe}
                number = value(tree, seed, nfe, sampler, split)
                rows.append(metric_row("frechet_distance", number, features=FEATURES, split=split, weights="ema", n=n,
                                       **place, **shared))  # fmt: skip
        floor = FLOOR * (1 + 0.02 * seed)
        rows.append(metric_row("frechet_distance", floor, features=FEATURES, split=split, role="floor", n=n, **shared))
    coupling = tree["method"].get("coupling")
    for name, number in (("transport_cost", 0.5), ("straightness", 0.3), ("trajectory_variance", 0.1)):
        scale = {"independent": 2.0, "bridge_matching": 1.4}.get(str(coupling), 1.0)
        rows.append(metric_row(name, number * scale + 0.01 * seed, sampler="ddim", grid="trailing_uniform",
        num_steps=10,
                               nfe=10, split="test", weights="ema", n=599, **shared))  # fmt: skip
    return rows


def training_rows(tree: dict[str, Any], seed: int, phase: str) -> list[dict[str, Any]]:
    shared = {"digest": digest(tree), "seed": seed, "phase": phase, "attempt": 1000}
    generator = np.random.default_rng(seed)
    rows = []
    done = 0

    def curve(stage: str, start: float) -> None:
        nonlocal done
        for step in range(0, 500, 25):
            number = start * np.exp(-step / 200) + 0.2 + 0.02 * generator.normal()
            # As the trainer does, which reports the steps of all stages so far.
            done += 25
            rows.append(metric_row("loss", number, stage=stage, step=done, **shared))

    cycles = int(tree["method"].get("cycles", 0))
    for cycle in range(1, cycles + 1):
        curve(f"cycle {cycle}: corrector", 1.0 / cycle)
        curve(f"cycle {cycle}: adjoint", 1.5 / cycle)
        terminal = {"terminal_top_eigenvalue": 1 + 0.6 / cycle, "terminal_top_eigenvalue_prior": 1.11,
                    "terminal_norm_mean_error": 0.3 / cycle, "terminal_norm_variance_error": 0.5 / cycle,
                    "terminal_passed": float(cycle >= 4), "terminal_covariance_error": 0.2 / cycle}  # fmt: skip
        rows += [
            metric_row(name, number, stage=f"cycle {cycle}: adjoint", step=done, **shared)
            for name, number in terminal.items()
        ]
    curve("backward", 0.9)
    rows.append(metric_row("step_seconds", 0.01, stage="backward", **shared))
    return rows


def write_artifacts(folder: Path, tree: dict[str, Any], seed: int = 0) -> None:
    place = folder / "artifacts" / f"{digest(tree)}-{seed}"
    place.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:8, 0:8]
    centres = generator.uniform(2, 5, size=(64, 2, 1, 1))
    blobs = np.exp(-(((rows - centres[:, 0]) ** 2 + (columns - centres[:, 1]) ** 2) / 4))
    arrays = {"real": (255 * blobs).astype(np.uint8)}
    for nfe in NFE:
        noisy = 255 * blobs + generator.normal(size=blobs.shape) * 120 / nfe
        arrays[f"nfe_{nfe}"] = noisy.clip(0, 255).astype(np.uint8)
    np.savez(place / "samples.npz", **arrays)
    prior = np.sort(generator.chisquare(600, size=64) / 600)[::-1]
    spectra = {f"cycle_{k}": prior * (1 + 0.6 / k * np.exp(-np.arange(64) / 10)) for k in range(1, 7)}
    np.savez(place / "spectrum.npz", prior=prior, **spectra)


def write_optuna(folder: Path, trials: int = 12) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize", "minimize"], study_name="asbm_sweep",
                                storage=f"sqlite:///{folder / 'optuna.db'}")  # fmt: skip
    generator = np.random.default_rng(0)
    distributions = {
        "reference.beta_max": optuna.distributions.CategoricalDistribution([0.5, 1, 2, 4, 8, 20]),
        "method.coupling": optuna.distributions.CategoricalDistribution(COUPLINGS),
        "sampler": optuna.distributions.CategoricalDistribution(["ancestral", "ddim"]),
        "nfe": optuna.distributions.CategoricalDistribution(NFE),
    }
    for _ in range(trials):
        params = {name: generator.choice(kind.choices).item() for name, kind in distributions.items()}
        tree = config(params["reference.beta_max"], params["method.coupling"])
        value = frechet(tree, 0, params["nfe"], params["sampler"], "validation")
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions,
                                                  values=[float(np.log(value)), params["nfe"]]))  # fmt: skip


def fabricate(folder: Path, search: bool = True, ablation: bool = True, artifacts: bool = True, optuna_db: bool = True,
              seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> Fabricator:  # fmt: skip
    """A whole study: 3 noises x 3 couplings x seeds, cycles, one arm, a failed and a cut-off run, a search."""
    maker = Fabricator(folder, study_json(**changes))
    if ablation:
        for seed in seeds:
            for noise in NOISE:
                for coupling in COUPLINGS:
                    maker.run(config(noise, coupling), seed)
            maker.run(config(cycles=2), seed)
            maker.run(config(coupling=None, kind="score_matching_vp"), seed)
        failure = "FloatingPointError: the loss is not finite at step 120 of stage <cycle 1: adjoint>"
        maker.write_trials(maker.trial(config(8.0, "asbm"), 7, status="failed", error=failure))
    if search:
        number = 0
        for noise in (0.5, 1.0, 4.0, 20.0):
            for coupling in COUPLINGS:
                maker.run(config(noise, coupling), 0, "search", optuna_numbers=[number])
                number += 1
        maker.write_trials(maker.trial(config(2.0, "asbm"), 0, "search", status="pruned", optuna_numbers=[number]))
        maker.write_trials(
            maker.trial(config(2.0, "independent"), 0, "search", status="running", optuna_numbers=[number + 1])
        )
    if artifacts:
        for tree in (config(), config(coupling="independent"), config(coupling=None, kind="score_matching_vp")):
            write_artifacts(folder, tree)
    if optuna_db:
        write_optuna(folder)
    return maker
