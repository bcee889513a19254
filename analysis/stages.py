"""Names of training stages: "cycle 2: adjoint" is of cycle 2 and of the kind "adjoint"; "reverse 2" is half of one."""

import re

_CYCLE = re.compile(r"cycle (\d+)")
_HALF = re.compile(r"(reverse|forward) (\d+)")


def cycle_of(name: object) -> int:
    """The cycle that a stage ("cycle 2: adjoint") or an array ("cycle_2") belongs to, 0 for neither."""
    found = _CYCLE.search(str(name).replace("_", " "))
    return int(found.group(1)) if found else 0


def kind_of(stage: object) -> str:
    """The stage without its cycle."""
    return str(stage).split(": ", 1)[-1]


def stage_order(stage: object) -> tuple[int, bool, str]:
    """The order in time: stages outside the cycles come after them, a method ends with its backward network."""
    half = _HALF.fullmatch(str(stage))
    if half:
        return (int(half[2]), half[1] == "forward", "")
    return (cycle_of(stage) or 10**6, False, str(stage))
