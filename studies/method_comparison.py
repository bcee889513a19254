"""Which method is best at which cost, on which data, when all get the same network and the same training budget?"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sbbridge.study.cli import main
from sbbridge.study.definition import Arm, Definition, Preset
from studies.asbm_sweep import write_report

EVALUATION = {
    "evaluation.nfe": [1, 2, 3, 5, 10, 20, 50],
    "evaluation.samplers": ["exponential", "exponential_heun", "heun", "ddim", "dpm_solver_pp", "one_step"],
    "evaluation.grids": ["trailing_uniform", "trailing_quadratic"], "evaluation.draws": 2, "evaluation.n": 10_000,
    "evaluation.curve": 4,
}  # fmt: skip
ALL_SAMPLERS = {
    "evaluation.samplers": [
        "exponential", "exponential_heun", "ancestral", "euler", "heun", "ddim", "edm_heun", "dpm_solver_pp", "unipc",
        "one_step",
    ],
    "evaluation.grids": [
        "trailing_uniform", "leading_uniform", "trailing_quadratic", "trailing_log_snr", "trailing_karras",
    ],
    "evaluation.draws": 5, "evaluation.n": 20_000,
}  # fmt: skip
BASE = {
    **EVALUATION, "network.width": 128, "network.depth": 2, "training.batch_size": 256,
    "training.learning_rate": 2e-3, "training.ema_decay": 0.995, "training.budget": 2_000_000,
    "method.simulation.num_steps": 4, "method.cycles": 4, "method.corrector_epochs": 3, "method.adjoint_epochs": 4,
    "method.new_pairs": 2048, "method.buffer_size": 8192, "method.terminal_samples": 2048,
    "method.backward_pairs": 8192, "method.reuse": 8,
}  # fmt: skip
PLANE = {"network.width": 64, "network.depth": 3}
# the mixtures' plans are those of Brownian motion with sigma^2 = epsilon = 1
BROWNIAN = {"reference.kind": "brownian", "reference.sigma": 1.0}
BY_DATASET: Mapping[str, Mapping[str, Any]] = {
    "mixture2": {**PLANE, **BROWNIAN}, "mixture16": BROWNIAN, "checkerboard": PLANE, "eight_gaussians": PLANE,
    "moons": PLANE, "swiss_roll": PLANE,
}  # fmt: skip

MEMORYLESS = {"reference.kind": "vp", "reference.beta_max": 20.0}
SIMULATED = {
    "method.iterations": 4, "method.epochs": 3, "method.new_pairs": 2048, "method.buffer_size": 8192,
    "method.simulation": {"num_steps": 4}, "method.generation": {"scheme": "exponential_heun", "num_steps": 4},
}  # fmt: skip
PATHS = {"method.iterations": 4, "method.epochs": 2, "method.paths": 1024, "method.steps": 24, "method.num_steps": 16}

NULL = {"method.coupling": "independent"}
"""The coupling that nothing was done for."""

RIVALS = (
    Arm("score matching VP", {"method.kind": "score_matching_vp", "method.pairs": 8192, **MEMORYLESS},
        family="score matching"),
    Arm("flow matching", {"method.kind": "flow_matching", "method.pairs": 8192}, family="flow matching"),
    Arm("rectified flow", {"method.kind": "rectified_flow", "method.pairs": 8192}, family="flow matching"),
    Arm("OT-CFM", {"method.kind": "ot_cfm", "method.pairs": 8192}, family="OT-CFM"),
    Arm("DSBM-IMF", {"method.kind": "dsbm_imf", **SIMULATED}, family="DSBM"),
    Arm("simplified DSB", {"method.kind": "simplified_dsb", **PATHS}, family="DSB"),
    Arm("independent bridge", NULL, family="bridge matching"),
)  # fmt: skip
FURTHER = (
    Arm("score matching VE", {"method.kind": "score_matching_ve", "method.pairs": 8192, "reference.kind": "ve",
                              "reference.sigma_max": 30.0}, family="score matching"),
    Arm("DSBM-IPF", {"method.kind": "dsbm_ipf", **SIMULATED}, family="DSBM"),
    Arm("DSB", {"method.kind": "dsb", **PATHS}, family="DSB"),
    Arm("minibatch Sinkhorn", {"method.coupling": "minibatch_sinkhorn"}, family="bridge matching"),
)  # fmt: skip


SCORE = {"method.kind": "score_matching_vp", "method.pairs": 8192, **MEMORYLESS}
FIELDS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "score matching": (SCORE, "leading_uniform"),
    "flow matching": ({"method.kind": "flow_matching", "method.pairs": 8192}, "trailing_uniform"),
    "OT-CFM": ({"method.kind": "ot_cfm", "method.pairs": 8192}, "trailing_uniform"),
}
"""What paths are fitted for, and the grid that LDSB's paper has for it."""
FITS: Mapping[str, Mapping[str, Any]] = {
    "LDSB as published": {"method.fit": {"kind": "ipf"}, "method.boundary": "code"},
    "path fitted to a teacher": {
        "method.fit": {"kind": "teacher", "order": 2, "learn_times": True, "pairs": 2048, "learning_rate": 1e-2},
    },
}  # fmt: skip
TINY_FITS: Mapping[str, Mapping[str, Any]] = {
    "LDSB as published": {
        "method.fit": {"kind": "ipf", "iterations": 1, "epochs": 1, "batches": 5}, "method.boundary": "code",
    },
    "path fitted to a teacher": {
        "method.fit": {"kind": "teacher", "order": 2, "learn_times": True, "pairs": 512, "epochs": 4,
                       "learning_rate": 1e-2},
    },
}  # fmt: skip


def paths(fits: Mapping[str, Mapping[str, Any]] = FITS, num_steps: tuple[int, ...] = (10,),
          table: str | None = None) -> tuple[Arm, ...]:  # fmt: skip
    """Each field with a path of its own; the budget is the whole training's, the fit's network evaluations in it."""
    made = []
    for field, (changes, grid) in FIELDS.items():
        for fit, options in fits.items():
            for n in num_steps:
                own = {
                    "method.num_steps": n, "network.grid_size": 2 * n, "method.grid": grid, "training.batch_size": 128,
                    "training.ema_decay": 0.0, "training.schedule": "constant", **options,
                }  # fmt: skip
                name = f"{field} + {fit}" if len(num_steps) == 1 else f"{field} + {fit}, N = {n}"
                made.append(Arm(name, changes, matched=True, family=f"{field} + {fit}", table=table, own_path=own))
    return tuple(made)


def of_budget(arm: Arm, factor: int, base: int) -> Arm:
    """The arm with a multiple of the budget."""
    return replace(
        arm, name=f"{arm.name}, {factor} x budget", overrides={**arm.overrides, "training.budget": factor * base}
    )


TINY = {
    "network.width": 32, "network.depth": 1, "training.budget": 300_000, "method.cycles": 1,
    "method.new_pairs": 512, "method.buffer_size": 2048, "evaluation.nfe": [1, 5, 10], "evaluation.draws": 1,
    "evaluation.n": 2000, "evaluation.paths": 64, "evaluation.grids": ["trailing_uniform"],
}  # fmt: skip
SMALLER = {"method.iterations": 1, "method.paths": 256, "method.new_pairs": 512, "method.pairs": 2048}
TINY_RIVALS = tuple(
    replace(arm, overrides={
        path: SMALLER.get(path, value) for path, value in arm.overrides.items()
    })
    for arm in (*RIVALS, *FURTHER)
) + tuple(replace(arm, overrides={**arm.overrides, "method.pairs": 2048}) for arm in paths(TINY_FITS))  # fmt: skip
ASBM = Arm("ASBM", {}, family="ASBM")

FLOWS = {"method.pairs": 16384}
STRAIGHTENED = {"method.reflow": 1, "method.reflow_epochs": 40, "method.reuse": 10}
WARM = {"method.warm_start": "gaussian"}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "score matching VP": {"method.kind": "score_matching_vp", **FLOWS, **MEMORYLESS},
    "flow matching": {"method.kind": "flow_matching", **FLOWS},
    "OT-CFM": {"method.kind": "ot_cfm", **FLOWS},
}  # fmt: skip
# what asbm_ingredients finds cheap: a quarter of the simulated calls leaves the budget to stage 2
FEW_CALLS = {
    "method.student": "flow", "method.simulation": {"scheme": "exponential", "num_steps": 2}, "method.reuse": 32,
    "method.corrector_epochs": 1,
}  # fmt: skip
TUNED = (
    ("ASBM", "flow on its coupling", {"method.student": "flow"}),
    ("ASBM", "flow, few simulated calls", FEW_CALLS),
    ("ASBM", "flow, few simulated calls, bridge matching first", {
        **FEW_CALLS, "method.cycles": 2, "method.warm_start": "bridge_matching",
    }),
    *(
        (name, tuning, {**PUBLISHED[name], **changes})
        for name, tunings in {
            "score matching VP": {
                "as published": {}, "Gaussian warm start": WARM, "β_max 12": {"reference.beta_max": 12.0},
            },
            "flow matching": {"as published": {}, "Gaussian warm start": WARM, "reflow": STRAIGHTENED},
            "OT-CFM": {"as published": {}, "Gaussian warm start": WARM, "reflow": STRAIGHTENED},
        }.items()
        for tuning, changes in tunings.items()
    ),
)  # fmt: skip
"""Three candidates a family: the same number of tries, chosen among on validation."""
TABLES = (
    *(Arm(name, changes, family=name, table="as published") for name, changes in PUBLISHED.items()),
    *(Arm(f"{family}: {tuning}", changes, family=family, table="tuned") for family, tuning, changes in TUNED),
    *paths(table="as published"),
)

HEUN = {"method.simulation.scheme": "exponential_heun"}
GAP: Mapping[str, Mapping[str, Any]] = {
    "flow matching": PUBLISHED["flow matching"],
    "flow matching, 1.7 M": {**PUBLISHED["flow matching"], "training.budget": 1_700_000},
    "flow on ASBM's coupling, 4.3 M": {"method.student": "flow", "training.budget": 4_300_000},
    "few simulated calls": FEW_CALLS,
    "few simulated calls, 2 cycles": {**FEW_CALLS, "method.cycles": 2},
    "few simulated calls, affine correction": {**FEW_CALLS, "method.affine_correction": True},
    "few simulated calls, β_max 8, 2 cycles": {**FEW_CALLS, **HEUN, "reference.beta_max": 8.0, "method.cycles": 2},
    "few simulated calls, β_max 2.5, affine correction": {
        **FEW_CALLS, "reference.beta_max": 2.5, "method.affine_correction": True,
    },
    "few simulated calls, β_max 2, 6 cycles, affine correction": {
        **FEW_CALLS, "reference.beta_max": 2.0, "method.cycles": 6, "method.affine_correction": True,
    },
    "flow on bridge matching's coupling": {
        "method.student": "flow", "method.coupling": "bridge_matching", "method.simulation.num_steps": 2,
    },
}  # fmt: skip
"""What separates ASBM from flow matching: the budget that simulation takes, the coupling, its terminal law."""
ONE_STEP = {
    "epochs": 40, "pairs": 8192, "learning_rate": 2e-3,
    "generation": {"scheme": "heun", "num_steps": 16, "grid": "trailing_uniform"},
}  # fmt: skip
TEACHERS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "ASBM": ({}, {}),
    "ASBM's flow": (FEW_CALLS, {}),
    "score matching VP": (PUBLISHED["score matching VP"], {"time": 0.5}),
    "flow matching": (PUBLISHED["flow matching"], {}),
    "OT-CFM": (PUBLISHED["OT-CFM"], {}),
}  # fmt: skip
"""What is distilled, and what its distillation has of its own: a memoryless generator is called half way."""


def distilled() -> tuple[Arm, ...]:
    """Each teacher with a longer training in place of its distillation, and with it at two weights of its pairs."""
    made = []
    for family, (teacher, own) in TEACHERS.items():
        if teacher:
            made.append(Arm(family, teacher, family=family, table="many steps"))
        for weight in (0.1, 1.0):
            options = {**ONE_STEP, **own, "pair_weight": weight}
            made.append(Arm(f"{family}, one step, pair weight {weight:g}", {**teacher, "method.distillation": options},
                            family=family, table="one step"))  # fmt: skip
    return tuple(made)


LARGER = {
    **BASE, "network.width": 192, "network.depth": 2, "training.budget": 3_000_000,
    "training.precision": "bfloat16", "training.ema_decay": 0.999, "method.terminal_samples": 8192,
    "method.backward_pairs": 16384, "method.reuse": 16, "evaluation.nfe": [1, 3, 5, 10, 20],
    "evaluation.curve": 0,
}  # fmt: skip

STUDY = Definition(
    name="method_comparison",
    question=__doc__,
    baseline=NULL,
    presets={
        "smoke": Preset(
            help="every method once, on the checkerboard and on digits, under 5 minutes",
            base={**BASE, **TINY}, trials=0, seeds=1, space=(), factors=(), arms=TINY_RIVALS, centre="preset",
            datasets=("checkerboard", "digits"), together=True, centre_name="ASBM", centre_family="ASBM",
        ),
        "default": Preset(
            help="7 methods, 6 with paths of their own and a null x mixture2, checkerboard, digits x 3 seeds at 2 M "
                 "network evaluations each",
            base=BASE, trials=0, seeds=3, space=(), factors=(), arms=(*RIVALS, *paths()), centre="preset",
            datasets=("mixture2", "checkerboard", "digits"), by_dataset=BY_DATASET, together=True,
            centre_name="ASBM", centre_family="ASBM",
        ),
        "tables": Preset(
            help="digits: methods as published, and the best of each family among three tunings x 3 seeds",
            base=LARGER, trials=0, seeds=3, space=(), factors=(), arms=TABLES, centre="preset",
            centre_name="ASBM", centre_family="ASBM", centre_table="as published",
        ),
        "one_step": Preset(
            help="digits: every family distilled to one call, beside as long a training without it x 3 seeds",
            base={**LARGER, "training.budget": 4_000_000, "evaluation.nfe": [1, 2, 5, 10]}, trials=0, seeds=3,
            space=(), factors=(), arms=(*distilled(), *paths(table="many steps")), centre="preset",
            centre_name="ASBM", centre_family="ASBM",
            centre_table="many steps",
        ),
        "gap": Preset(
            help="digits: what separates flows on ASBM's coupling from flow matching x 3 seeds",
            base={**LARGER, "method.student": "flow"}, trials=0, seeds=3, space=(), factors=(), centre="preset",
            arms=tuple(
                Arm(name, changes, family="flow matching" if "method.kind" in changes else "ASBM")
                for name, changes in GAP.items()
            ) + paths(),
            centre_name="flow on ASBM's coupling", centre_family="ASBM",
        ),
        "thorough": Preset(
            help="all methods x all embedded data sets x 5 seeds at two budgets, all samplers; for a cluster",
            base={**BASE, **ALL_SAMPLERS, "training.budget": 8_000_000, "network.width": 256, "network.depth": 3},
            trials=0, seeds=5, space=(), factors=(), centre="preset",
            arms=(
                *RIVALS, *FURTHER, *paths(num_steps=(5, 10)),
                *(of_budget(arm, 4, 8_000_000) for arm in (ASBM, *RIVALS, *FURTHER, *paths(num_steps=(5, 10)))),
            ),
            datasets=("digits", "photos", "gaussian64", *BY_DATASET), by_dataset=BY_DATASET, together=True,
            centre_name="ASBM", centre_family="ASBM",
        ),
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(STUDY, write_report))
