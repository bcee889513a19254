"""Which noise, coupling, student and path of its own give the best images at few network calls, searched together?"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sbbridge.study.cli import main
from sbbridge.study.definition import BEST_PATH, Definition, Factor, Preset
from studies import ldsb_sweep
from studies.asbm_sweep import ON_IMAGES, SMALL, write_report
from studies.ldsb_sweep import FULL_FITS, QUICK_FITS, TINY_FITS, ways_of_fitting

# a field and the path that it is sampled along belong together: the search knows both by one set of names
NOISE_LEVELS = (1.0, 2.0, 4.0, 8.0, 20.0)
COUPLINGS = ("independent", "minibatch_ot", "minibatch_sinkhorn", "bridge_matching", "asbm")
WITH_PATH = {"method.kind": ("ldsb",)}
COUPLING = Factor("method.coupling", "coupling", COUPLINGS)
STUDENT = Factor("method.student", "student", ("flow", "bridge"))
NOISE = Factor(
    "reference.beta_max", "noise β_max", NOISE_LEVELS, neighbours=2,
    # a flow on independent pairs, or on those of an optimal plan, which scaling does not move, never sees the noise
    only_if=(
        {"method.student": ("bridge",)},
        {"method.student": ("flow",), "method.coupling": ("minibatch_sinkhorn", "bridge_matching", "asbm")},
    ),
)  # fmt: skip
# an SDE bridge with memory leaves no denoiser
PATH = Factor(
    "method.kind", "path of its own", ("asbm", "ldsb"),
    only_if=({"method.student": ("flow",)}, {"method.student": ("bridge",), "reference.beta_max": (20.0,)}),
)  # fmt: skip


def of_path(factor: Factor) -> Factor:
    """A factor of `ldsb_sweep`, where there is a path."""
    return replace(factor, only_if=tuple({**WITH_PATH, **when} for when in factor.only_if or ({},)))


GRID_SIZE, ORDER, TIMES = map(of_path, (ldsb_sweep.GRID_SIZE, ldsb_sweep.ORDER, ldsb_sweep.TIMES))
AS_PUBLISHED = {
    "method.kind": "ldsb", "method.student": "flow", "method.fit.kind": "ipf", "network.grid_size": 2,
}  # fmt: skip


def steps(*numbers: int) -> Factor:
    """Network calls: of a path its nodes, else at most as many."""
    return Factor("method.num_steps", "number of steps", numbers)


def space(options: Mapping[str, Mapping[str, Any]], *numbers: int) -> tuple[Factor, ...]:
    """All of it, each where it does something."""
    ways = of_path(ways_of_fitting(options, "teacher", "ipf", "ipf_exact"))
    return (COUPLING, STUDENT, NOISE, PATH, steps(*numbers), ways, GRID_SIZE, ORDER, TIMES)


def own_paths(nfe: int) -> Factor:
    """The ablation's question: no path, LDSB's as published, the search's best, for one and the same flow."""
    published = {**AS_PUBLISHED, "method.num_steps": nfe}
    best = {"method.kind": "ldsb", "method.student": "flow", "method.fit.kind": "teacher", "method.num_steps": nfe}
    return Factor("path", "path", ("none", "as published", BEST_PATH), brings={
        "none": {"method.kind": "asbm", "method.student": "flow", "method.num_steps": nfe},
        "as published": published, BEST_PATH: best,
    })  # fmt: skip


OWN_PATH: Mapping[str, Any] = {
    "method.grid": "trailing_uniform", "method.boundary": "code", "method.num_steps": 5, "network.grid_size": 10,
    "training.batch_size": 128, "training.ema_decay": 0.0, "training.schedule": "constant",
}  # fmt: skip
EVALUATION = {
    "evaluation.samplers": ["exponential", "heun", "dpm_solver_pp", "ratio_path"],
    "evaluation.grids": ["trailing_uniform", "trailing_quadratic"], "evaluation.localised_times": [],
}  # fmt: skip
TINY: Mapping[str, Any] = {
    **SMALL, **EVALUATION, "network.width": 32, "network.depth": 1, "training.budget": 60_000, "method.cycles": 1,
    "method.corrector_epochs": 1, "method.adjoint_epochs": 1, "method.new_pairs": 512, "method.buffer_size": 1024,
    "method.terminal_samples": 512, "method.backward_pairs": 2048, "evaluation.nfe": [3, 5], "evaluation.draws": 1,
    "evaluation.paths": 64, "evaluation.grids": ["trailing_uniform"], "evaluation.samplers": ["exponential", "heun"],
}  # fmt: skip
# every field for the same number of network evaluations, simulation included
DEFAULT: Mapping[str, Any] = {
    **SMALL, **EVALUATION, "training.budget": 300_000, "method.new_pairs": 1024, "method.reuse": 16,
    "evaluation.nfe": [3, 5, 10, 20], "evaluation.draws": 2, "evaluation.paths": 64,
}  # fmt: skip
LARGE: Mapping[str, Any] = {
    **DEFAULT, "network.width": 192, "training.budget": 3_000_000, "training.precision": "bfloat16",
    "training.ema_decay": 0.999, "method.cycles": 4, "method.new_pairs": 2048, "method.buffer_size": 8192,
    "method.terminal_samples": 8192, "method.backward_pairs": 16384, "evaluation.draws": 5, "evaluation.paths": 512,
}  # fmt: skip
PAPER: Mapping[str, Any] = {
    **{path: value for path, value in DEFAULT.items() if not path.startswith("network.")}, "network.kind": "unet",
    "network.layers_per_block": 4, "method.forward_network": {"kind": "unet"},
    "training.budget": 30_000_000, "training.batch_size": 128, "training.learning_rate": 2e-4,
    "training.ema_decay": 0.999, "training.precision": "bfloat16",
    "method.simulation": {"scheme": "euler_maruyama", "num_steps": 19, "power": 1.0, "batch_size": 512},
    "method.cycles": 15, "method.corrector_epochs": 5, "method.adjoint_epochs": 15, "method.new_pairs": 4096,
    "method.buffer_size": 20_000, "method.terminal_samples": 51_200, "method.backward_pairs": 50_000,
    "evaluation.features": "inception", "evaluation.draws": 5, "evaluation.to_training": True,
}  # fmt: skip
FIRST = (
    {"method.kind": "ldsb", "method.fit.kind": "teacher", "network.grid_size": 2, "method.num_steps": 5},
    {"method.coupling": "asbm", "method.kind": "ldsb", "method.fit.kind": "ipf", "network.grid_size": 1,
     "method.num_steps": 3},
    {"method.coupling": "asbm", "method.student": "bridge", "reference.beta_max": 4.0},
    {"method.coupling": "independent", "method.student": "bridge", "reference.beta_max": 20.0},
)  # fmt: skip
"""Both papers as they are, the flow with a fitted path, and the memoryless score."""

STUDY = Definition(
    name="joint_sweep",
    question=__doc__,
    baseline={"method.coupling": "independent"},
    presets={
        "smoke": Preset(
            help="both phases with and without a path, on a tiny network, under 2 minutes",
            base={**TINY, "method.student": "flow"}, own_path=OWN_PATH, trials=5, seeds=1, centre_nfe=5,
            space=space(TINY_FITS, 3, 5), points=FIRST,
            factors=(Factor(COUPLING.path, COUPLING.label, ("independent", "asbm")), own_paths(5)),
            grid=("method.coupling", "path"), finalists=(3, 5),
        ),
        "default": Preset(
            help="0.13 M weights, 44 search trials, 3 noise levels x 5 couplings x 3 paths x 3 seeds",
            base={**DEFAULT, "method.student": "flow"}, by_dataset=ON_IMAGES, own_path=OWN_PATH, trials=44, seeds=3,
            centre_nfe=5, space=space(QUICK_FITS, 3, 5, 10, 20), points=FIRST,
            factors=(NOISE, COUPLING, own_paths(5)), grid=("reference.beta_max", "method.coupling", "path"),
            finalists=(3, 5, 10),
        ),
        "thorough": Preset(
            help="0.27 M weights, 3 M network evaluations a field, 160 search trials, whole fits x 5 seeds, hours",
            base={**LARGE, "method.student": "flow"}, by_dataset=ON_IMAGES, own_path=OWN_PATH, trials=160, seeds=5,
            centre_nfe=5, space=space(FULL_FITS, 3, 5, 10, 20), points=FIRST,
            factors=(NOISE, COUPLING, own_paths(5), GRID_SIZE, ORDER, TIMES),
            grid=("reference.beta_max", "method.coupling", "path"), finalists=(3, 5, 10, 20),
            datasets=("digits", "photos"),
        ),
        "paper": Preset(
            help="CIFAR-10 with the ASBM paper's U-Nets, LDSB's fits on its flows; for GPUs",
            base={**PAPER, "method.student": "flow"}, own_path=OWN_PATH, trials=60, seeds=3, centre_nfe=10,
            space=space(FULL_FITS, 5, 10, 20), points=FIRST,
            factors=(
                Factor(NOISE.path, NOISE.label, (2.0, 4.0, 8.0), only_if=NOISE.only_if),
                Factor(COUPLING.path, COUPLING.label, ("independent", "asbm")), own_paths(10),
            ),
            grid=("reference.beta_max", "method.coupling", "path"), finalists=(5, 10, 20),
            datasets=("cifar10",),
        ),
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(STUDY, write_report))
