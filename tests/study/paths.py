"""Plans of the studies that search paths, and points of their spaces drawn at random."""

import random
from functools import cache
from typing import Any

from sbbridge.study.plan import Options, Plan, make_plan
from studies import joint_sweep, ldsb_sweep

STUDIES = {module.STUDY.name: module.STUDY for module in (ldsb_sweep, joint_sweep)}


@cache
def plan(study: str, preset: str = "default") -> Plan:
    """As the command line makes it without a word of the user's."""
    return planned(study, preset)


def planned(study: str, preset: str = "default", assignments: dict[str, Any] | None = None, **fields: Any) -> Plan:
    """With settings of the user's; `--alone` comes without trials."""
    chosen = STUDIES[study].presets[preset]
    options: dict[str, Any] = {
        "dataset": chosen.datasets[0], "preset": preset, "output": "/nowhere", "storage": "/nowhere",
        "trials": 0 if fields.get("alone") else chosen.trials, "seeds": chosen.seeds,
    }  # fmt: skip
    return make_plan(STUDIES[study], Options(**{**options, "assignments": assignments or {}, **fields}))


class Drawing:
    """Optuna's trial, choosing at random, or what it is told."""

    number = 7

    def __init__(self, seed: int = 0, **choices: Any) -> None:
        self._random = random.Random(seed)
        self._choices, self.asked = {name.replace("__", "."): value for name, value in choices.items()}, {}

    def suggest_categorical(self, name: str, values: list[Any]) -> Any:
        self.asked[name] = values
        return self._choices[name] if name in self._choices else self._random.choice(values)
