"""Studies of seconds, run as a script: Gaussian ends; a rival that cannot be trained; two data sets together."""

import sys

from sbbridge.study.cli import main
from sbbridge.study.definition import Arm, Definition, Factor, Preset
from studies.asbm_sweep import COUPLING, write_report
from tests.study import tiny

BASE = {**tiny.TRAINING, **tiny.EVALUATION, **tiny.ASBM}
SHORT = {"evaluation.localised_times": [], "evaluation.samplers": ["exponential"]}
SPACE = (Factor("method.cycles", "cycles", (1, 2)), Factor("nfe", "NFE", (1, 4)))
RATES = Factor("training.learning_rate", "learning rate", (2e-3, 1e-6, 2e-6, 3e-6, 4e-6, 5e-6))
FACTORS = (Factor(COUPLING.path, COUPLING.label, ("independent", "asbm")),)
INDEPENDENT = Arm("independent", {"method.coupling": "independent"}, family="independent")
DIVERGES = Arm("diverges", {"training.learning_rate": 1e20})

STUDY = Definition(
    name="tiny",
    question="Does everything work?",
    baseline={"method.coupling": "independent"},
    presets={
        "default": Preset("all cells can be trained", BASE, trials=2, seeds=1, space=SPACE, factors=FACTORS,
                          datasets=("gaussian64",)),
        "rates": Preset("most searched rates learn nothing", {**BASE, "method.backward_epochs": 16}, trials=8, seeds=1,
                        space=(RATES, *SPACE), factors=(), datasets=("gaussian64",)),
        "failing": Preset("one cell cannot", BASE, trials=2, seeds=1, space=SPACE, factors=FACTORS, arms=(DIVERGES,),
                          datasets=("gaussian64",)),
        "together": Preset("two data sets, two arms", {**BASE, **SHORT}, trials=0, seeds=1,
                           space=(), factors=(), arms=(INDEPENDENT,), centre="preset", centre_name="ASBM",
                           datasets=("gaussian64", "mixture2"), by_dataset={"mixture2": {"network.width": 16}},
                           together=True),
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(STUDY, write_report))
