"""What does each ingredient of Adjoint Schrödinger Bridge Matching buy, at the same training budget?"""

import sys

from sbbridge.study.cli import main
from sbbridge.study.definition import Definition, Factor, Preset
from studies.asbm_sweep import write_report

INGREDIENTS = (
    Factor("method.simulation.scheme", "integrator", ("euler_maruyama", "exponential", "exponential_heun")),
    Factor("method.simulation.num_steps", "simulation steps", (2, 4, 8, 19)),
    Factor("method.warm_start", "warm start", ("none", "bridge_matching", "gaussian")),
    Factor("method.damping", "damping", (0.5, 1.0)),
    Factor("method.cycles", "cycles", (1, 2, 4, 8)),
    Factor("method.corrector_epochs", "corrector epochs a cycle", (1, 3, 6)),
    Factor("method.reuse", "epochs that reuse pairs", (1, 4, 8, 16)),
    Factor("method.affine_correction", "affine terminal correction", (False, True)),
    Factor("method.stop", "stop by the terminal test", ("never", "paper", "strict")),
    Factor("method.student", "student", ("bridge", "flow")),
)
BASE = {
    "network.width": 128, "network.depth": 2, "training.batch_size": 256, "training.learning_rate": 2e-3,
    "training.ema_decay": 0.995, "training.budget": 3_000_000, "method.simulation.num_steps": 4, "method.cycles": 4,
    "method.corrector_epochs": 3, "method.adjoint_epochs": 4, "method.new_pairs": 2048, "method.buffer_size": 8192,
    "method.terminal_samples": 4096, "method.backward_pairs": 8192, "method.reuse": 8,
    "evaluation.nfe": [1, 3, 5, 10, 20, 50], "evaluation.grids": ["trailing_uniform", "trailing_quadratic"],
    "evaluation.samplers": ["exponential", "exponential_heun", "heun", "dpm_solver_pp"], "evaluation.draws": 3,
}  # fmt: skip
TINY = {
    **BASE, "network.width": 32, "network.depth": 1, "training.budget": 150_000, "method.cycles": 1,
    "method.new_pairs": 512, "method.buffer_size": 2048, "method.backward_pairs": 1024, "evaluation.nfe": [1, 5],
    "evaluation.grids": ["trailing_uniform"], "evaluation.draws": 1, "evaluation.paths": 64,
}  # fmt: skip

STUDY = Definition(
    name="asbm_ingredients",
    question=__doc__,
    presets={
        "smoke": Preset(
            help="two ingredients on a tiny network, a minute",
            base=TINY, trials=0, seeds=1, space=(), factors=INGREDIENTS[2:4], centre="preset",
        ),
        "default": Preset(
            help="ten ingredients one at a time, 3 seeds, 3 M network evaluations a run, 0.13 M weights",
            base=BASE, trials=0, seeds=3, space=(), factors=INGREDIENTS, centre="preset",
        ),
        "thorough": Preset(
            help="the same with 0.85 M weights, 12 M network evaluations a run and 5 seeds",
            base={**BASE, "network.width": 296, "network.depth": 3, "training.budget": 12_000_000,
                  "training.ema_decay": 0.999},
            trials=0, seeds=5, space=(), factors=INGREDIENTS, centre="preset",
        ),
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(STUDY, write_report))
