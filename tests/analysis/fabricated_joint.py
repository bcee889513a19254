"""Fabricates a joint study: fields with and without a path of their own; every number comes from a formula here."""

import copy
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from fabricated_study import FEATURES, Fabricator, digest, study_json

from analysis.design import Setting
from analysis.results import Results
from sbbridge.records import metric_row

NFE = [3, 5, 10, 20]
SEEDS = (0, 1, 2)
NOISE, COUPLINGS, PATHS = (1.0, 4.0, 20.0), ("independent", "minibatch_ot", "asbm"), ("none", "as published", "best")
BLIND = ("independent", "minibatch_ot")  # a flow on such pairs never sees the noise
FLOOR = 0.5
OF_COUPLING = {"independent": 8.0, "minibatch_ot": 6.0, "asbm": 4.0}
OF_NOISE = {1.0: 1.5, 4.0: 1.0, 20.0: 2.0}
OF_PATH = {"none": 1.0, "as published": 0.9, "best": 0.5}
HEUN = {3: 2, 5: 3, 9: 5, 19: 10}  # {calls: steps}
COLUMNS = {"reference.beta_max": "double", "method.kind": "string", "method.num_steps": "int64", "dataset": "string"}
FITS: dict[str, dict[str, Any]] = {
    "as published": {"kind": "ipf", "halves": "both"},
    "best": {"kind": "teacher", "order": 2, "learn_times": True},
}
CENTRE = ("asbm", 4.0, "best")
WITH_PATH = {"method.kind": ["ldsb"]}
SPACE: list[dict[str, Any]] = [
    {"path": "method.coupling", "label": "coupling", "values": list(COUPLINGS)},
    {"path": "method.student", "label": "student", "values": ["flow", "bridge"]},
    {"path": "reference.beta_max", "label": "noise β_max", "values": list(NOISE),
     "only_if": [{"method.student": ["bridge"]}, {"method.student": ["flow"], "method.coupling": ["asbm"]}]},
    {"path": "method.kind", "label": "path of its own", "values": ["asbm", "ldsb"],
     "only_if": [{"method.student": ["flow"]}]},
    {"path": "method.num_steps", "label": "number of steps", "values": NFE, "only_if": []},
    {"path": "method.fit.kind", "label": "way of fitting", "values": ["teacher", "ipf"], "only_if": [WITH_PATH]},
    {"path": "network.grid_size", "label": "KAN grid size / N", "values": [0.5, 1, 2, 4],
     "multiple_of": "method.num_steps", "only_if": [{**WITH_PATH, "network.kind": ["efficient_kan"]}]},
    {"path": "method.fit.order", "label": "order", "values": [1, 2],
     "only_if": [{**WITH_PATH, "method.fit.kind": ["teacher"]}]},
]  # fmt: skip


def field(coupling: str, noise: float, student: str = "flow") -> dict[str, Any]:
    """A field without a path; of one that never sees the noise, the base's noise."""
    blind = student == "flow" and coupling in BLIND
    return {
        "dataset": "digits", "reference": {"kind": "vp", "beta_min": 0.1, "beta_max": 4.0 if blind else noise},
        "method": {"kind": "asbm", "coupling": coupling, "student": student},
        "network": {"kind": "mlp", "width": 128}, "training": {"batch_size": 256, "budget": 300_000},
        "evaluation": {"nfe": NFE, "samplers": ["heun", "dpm_solver_pp", "ratio_path"], "grids": ["trailing_uniform"]},
    }  # fmt: skip


def path(coupling: str, noise: float, way: str, steps: int = 5, size: float = 2) -> dict[str, Any]:
    """A field with a path of its own."""
    of = field(coupling, noise)
    own = {"kind": "trained", "method": of["method"], "network": of["network"], "training": of["training"]}
    return {
        **of, "network": {"kind": "efficient_kan", "grid_size": math.ceil(size * steps)},
        "training": {"batch_size": 128, "budget": None},
        "method": {"kind": "ldsb", "num_steps": steps, "grid": "trailing_uniform", "boundary": "code",
                   "fit": copy.deepcopy(FITS[way]), "denoiser": own},
    }  # fmt: skip


def cell(coupling: str, noise: float, way: str) -> dict[str, Any]:
    """The configuration of a cell of the grid."""
    return field(coupling, noise) if way == "none" else path(coupling, noise, way)


BEST_AT_3 = path("asbm", 4.0, "best", 3)
BEST_AT_10 = field("asbm", 1.0, "bridge")
ARMS = {"best of the search at NFE 3": (BEST_AT_3, 3), "best of the search at NFE 10": (BEST_AT_10, 10)}


def value(tree: dict[str, Any], seed: int, calls: int, split: str = "test", sampler: str = "heun") -> float:
    """The metric: what a seed has in common is large, what it has of its own is small."""
    method = tree["method"]
    own = method.get("denoiser", {}).get("method", method)
    fit = method.get("fit", {}).get("kind")
    way = {None: "none", "ipf": "as published", "teacher": "best"}[fit]
    mean = OF_COUPLING[own["coupling"]] * OF_PATH[way] * (0.4 + 3 / calls)
    mean *= 1.0 if own["student"] == "flow" and own["coupling"] in BLIND else OF_NOISE[tree["reference"]["beta_max"]]
    mean *= (0.8 if own["student"] == "bridge" else 1.0) * (1.2 if sampler == "dpm_solver_pp" else 1.0)
    noise = np.random.default_rng([int(digest(tree)[:6], 16), seed, calls, len(split)]).normal()
    return float(mean * (1 + 0.2 * (seed % 1000)) * np.exp(0.02 * noise))


def mean_of(tree: dict[str, Any], calls: int) -> float:
    """On test, over seeds."""
    return float(np.mean([value(tree, seed, calls) for seed in SEEDS]))


def cells() -> list[dict[str, Any]]:
    """Of the design: the centre, then the grid, in which the blind couplings stand once a noise level."""
    places = [CENTRE, *(place for place in product(COUPLINGS, NOISE, PATHS) if place != CENTRE)]
    found = []
    for coupling, noise, way in places:
        levels = {"reference.beta_max": noise, "method.coupling": coupling, "path": way}
        said: dict[str, Any] = {"method.coupling": coupling}
        said |= {} if coupling in BLIND else {"reference.beta_max": noise}
        said |= {} if way == "none" else {"method.kind": "ldsb", "method.fit.kind": FITS[way]["kind"]}
        found.append({"digest": digest(cell(coupling, noise, way)), "levels": levels, "set": said})
    return found


def study_of_both(**changes: Any) -> dict[str, Any]:
    """study.json as the joint study leaves it."""
    centre = path("asbm", 4.0, "best")
    factors = [
        {"path": "reference.beta_max", "label": "noise β_max", "values": list(NOISE), "multiple_of": None},
        {"path": "method.coupling", "label": "coupling", "values": list(COUPLINGS), "multiple_of": None},
        {"path": "path", "label": "path", "values": list(PATHS), "multiple_of": None},
    ]  # fmt: skip
    arms = [
        {"name": name, "overrides": {}, "family": None, "table": None, "nfe": nfe, "digest": digest(tree),
         "set": {"method.num_steps": nfe, "training.learning_rate": 1e-05, "method.note": "it's one"}}
        for name, (tree, nfe) in ARMS.items()
    ]  # fmt: skip
    design = {
        "factors": factors, "grid": ["reference.beta_max", "method.coupling", "path"], "cells": cells(), "arms": arms,
        "baseline": {"method.coupling": "independent"},
    }  # fmt: skip
    own = {
        "study": "joint_sweep", "base": field("asbm", 4.0), "space": SPACE, "trials": 24, "config_columns": COLUMNS,
        "centre": {"config": centre, "digest": digest(centre), "chosen_by": "search", "set": cells()[0]["set"]},
        "design": design, "headline_nfe": 5,
        "objectives": ["log_validation_quality", "nfe", "log_training_evaluations"],
        "trainings": {"search": {"asked": 44, "trained": 14}, "ablation": {"asked": 63, "trained": 15}},
    }  # fmt: skip
    return study_json(**{**own, **changes})


class JointFabricator(Fabricator):
    """Adds runs of fields and of paths."""

    def add(self, tree: dict[str, Any], seed: int, phase: str = "ablation", **fields: Any) -> None:
        """One completed run with its scores: a path at its own number of calls, a field with two samplers."""
        place = {"digest": digest(tree), "seed": seed, "phase": phase, "attempt": 1000, "stage": "evaluation"}
        rows = []
        for split in ("validation", "test"):
            if tree["method"]["kind"] == "ldsb":
                steps = tree["method"]["num_steps"]
                measured = [("ratio_path", steps, steps)]
            else:
                measured = [("heun", calls, steps) for calls, steps in HEUN.items()]
                measured += [("dpm_solver_pp", calls, calls) for calls in NFE]
            for sampler, calls, steps in measured:
                number = value(tree, seed, calls, split, sampler)
                rows.append(metric_row("frechet_distance", number, features=FEATURES, split=split, n=599, nfe=calls,
                                       sampler=sampler, grid="trailing_uniform", num_steps=steps, weights="ema",
                                       **place))  # fmt: skip
            rows.append(metric_row("frechet_distance", FLOOR, features=FEATURES, split=split, role="floor", n=599,
                                   **place))  # fmt: skip
        own = {"study": "joint_sweep", "simulation_evaluations": 100_000, "optimisation_evaluations": 200_000}
        self.write_trials(self.trial(tree, seed, phase, **{**own, **fields}))
        self.write_metrics(*rows)


def searched() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(configuration, proposal) of each trial: 24, of which 8 have a path and 4 of these are fitted to a teacher."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for coupling, noise, student in product(("independent", "asbm"), NOISE, ("flow", "bridge")):
        if student == "flow" and coupling in BLIND and noise != 4.0:
            continue
        said = {"method.coupling": coupling, "method.student": student, "method.num_steps": 5}
        said |= {} if student == "flow" and coupling in BLIND else {"reference.beta_max": noise}
        said |= {"method.kind": "asbm"} if student == "flow" else {}
        found.append((field(coupling, noise, student), said))
    for coupling, noise in (("independent", 4.0), ("asbm", 1.0), ("asbm", 4.0), ("asbm", 20.0)):
        for way in ("best", "as published"):
            steps, size = (3, 1) if noise == 20.0 else (5, 2)
            fit = FITS[way]["kind"]
            said = {"method.coupling": coupling, "method.student": "flow", "method.kind": "ldsb",
                    "method.num_steps": steps, "method.fit.kind": fit, "network.grid_size": size}  # fmt: skip
            said |= {"reference.beta_max": noise} if coupling == "asbm" else {}
            said |= {"method.fit.order": 2} if fit == "teacher" else {}
            found.append((path(coupling, noise, way, steps, size), said))
    return found


def write_trials_of_optuna(folder: Path) -> None:
    """The trials with three objectives."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["minimize"] * 3, study_name="asbm_sweep",
                                storage=f"sqlite:///{folder / 'optuna.db'}")  # fmt: skip
    kinds = {item["path"]: optuna.distributions.CategoricalDistribution(item["values"]) for item in SPACE}
    for number, (tree, said) in enumerate(searched()):
        calls = said["method.num_steps"]
        values = [math.log(value(tree, 1000, calls, "validation")), calls, math.log(1e5 * (1 + number))]
        study.add_trial(optuna.trial.create_trial(
            params=said, distributions={name: kinds[name] for name in said}, values=values
        ))  # fmt: skip


def fabricate_joint(folder: Path, seeds: tuple[int, ...] = SEEDS, **changes: Any) -> JointFabricator:
    """The whole study: every cell once, the search's best again, the search."""
    maker = JointFabricator(folder, study_of_both(**changes))
    trees = {digest(tree): tree for place in product(COUPLINGS, NOISE, PATHS) for tree in [cell(*place)]}
    trees |= {digest(tree): tree for tree, _ in ARMS.values()}
    for tree in trees.values():
        for seed in seeds:
            maker.add(tree, seed)
    for number, (tree, said) in enumerate(searched()):
        maker.add(tree, 1000, "search", optuna_numbers=[number], optuna_choices=json.dumps(said))
    write_trials_of_optuna(folder)
    return maker


def setting_of(results: Results, tree: dict[str, Any]) -> Setting:
    """A configuration's setting."""
    return next(setting for setting in results.settings if setting.digest == digest(tree))
