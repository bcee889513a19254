"""Names of training stages: "cycle 2: adjoint" is of cycle 2 and of the kind "adjoint"."""

import re

_CYCLE = re.compile(r"cycle (\d+)")


def cycle_of(name: object) -> int:
    """The cycle that a stage ("cycle 2: adjoint") or an array ("cycle_2") belongs to, 0 for neither."""
    found = _CYCLE.search(str(name).replace("_", " "))
    return int(found.group(1)) if found else 0


def kind_of(stage: object) -> str:
    """The stage without its cycle."""
    return str(stage).split(": ", 1)[-1]


def stage_order(stage: object) -> tuple[int, str]:
    """The order in time: stages outside the cycles come after them, a method ends with its backward network."""
    return (cycle_of(stage) or 10**6, str(stage))
