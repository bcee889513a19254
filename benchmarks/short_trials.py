"""A study of Gaussian trainings that take as long as one likes, run as a script: what is measured is not they.

    python -m benchmarks.short_trials --preset timed|trivial|searched|speed|curves [--set method.backward_epochs=N] …

`timed`, `trivial`: no search; every seed of one configuration is a trial. `searched`: asbm_sweep's own space, too; the
search's trials repeat trainings, which are then looked up. `speed`: the network and pairs of `training_speed`.
`curves`: a short training of every stage that there is, ASBM's and LDSB's.
"""

import sys

from sbbridge.study.cli import main
from sbbridge.study.definition import Arm, Definition, Preset
from studies.asbm_sweep import STUDY as ASBM_SWEEP
from studies.asbm_sweep import write_report

TRIVIAL = {
    "network.width": 8, "network.depth": 1, "training.batch_size": 64,
    "method.coupling": "independent", "method.cycles": 1, "method.corrector_epochs": 1, "method.adjoint_epochs": 1,
    "method.simulation.num_steps": 2, "method.new_pairs": 64, "method.buffer_size": 64, "method.terminal_samples": 64,
    "method.backward_pairs": 64, "method.backward_epochs": 1,
    "evaluation.nfe": [1, 2], "evaluation.samplers": ["exponential"], "evaluation.grids": ["trailing_uniform"],
    "evaluation.draws": 1, "evaluation.paths": 2, "evaluation.n": 100, "evaluation.localised_times": [],
}  # fmt: skip
TIMED = {**TRIVIAL, "network.width": 64, "training.batch_size": 256, "method.backward_pairs": 4096}
SPEED = {
    **TRIVIAL, "network.width": 296, "network.depth": 3, "training.learning_rate": 1e-4,
    "training.schedule": "constant", "training.ema_decay": 0.999, "reference.beta_max": 4.0,
    "method.backward_pairs": 4096, "evaluation.nfe": [1],
}  # fmt: skip
CURVES = {
    **TRIVIAL, "network.width": 64, "network.depth": 2, "training.batch_size": 128, "method.coupling": "asbm",
    "method.cycles": 2, "method.corrector_epochs": 2, "method.adjoint_epochs": 2, "method.new_pairs": 1024,
    "method.buffer_size": 2048, "method.simulation.num_steps": 4, "method.terminal_samples": 512,
    "method.backward_pairs": 2048, "method.backward_epochs": 8,
}  # fmt: skip
PATH = {
    "reference.kind": "ddpm", "network.kind": "table", "evaluation.nfe": [5], "evaluation.samplers": ["ddim"],
    "method.kind": "ldsb", "method.num_steps": 5,
    "method.denoiser": {
        "kind": "trained", "method": {"kind": "score_matching_vp", "epochs": 4, "pairs": 2048},
        "network": {"kind": "mlp", "width": 64, "depth": 2}, "training": {"batch_size": 128},
    },
}  # fmt: skip
WAYS = (
    {"kind": "ipf", "iterations": 1, "epochs": 2, "batches": 4}, {"kind": "ipf_exact", "iterations": 1, "images": 1024},
    {"kind": "teacher", "epochs": 3, "pairs": 512},
)  # fmt: skip
HERE = ("gaussian64",)

STUDY = Definition(
    name="short_trials",
    question="What does a trial cost beside its training?",
    baseline={"method.coupling": "independent"},
    presets={
        "timed": Preset("trainings whose length --set method.backward_epochs chooses", TIMED, trials=0, seeds=8,
                        space=(), factors=(), centre="preset", datasets=HERE),
        "trivial": Preset("trainings that are next to nothing", TRIVIAL, trials=0, seeds=50, space=(), factors=(),
                          centre="preset", datasets=HERE),
        "searched": Preset("a search of such trainings, then as many seeds of one", TRIVIAL, trials=100, seeds=100,
                           space=ASBM_SWEEP.presets["default"].space, factors=(), centre="preset", datasets=HERE),
        "speed": Preset("a network of 0.85 M weights on digits", SPEED, trials=0, seeds=2, space=(), factors=(),
                        centre="preset"),
        "curves": Preset("every stage of ASBM, every way to fit of LDSB", CURVES, trials=0, seeds=1, space=(),
                         factors=(), centre="preset", datasets=HERE,
                         arms=tuple(Arm(f"LDSB, {way['kind']}", {**PATH, "method.fit": way}) for way in WAYS)),
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(STUDY, write_report))
