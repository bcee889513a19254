"""Names of training stages: "cycle 2: adjoint" is of cycle 2 and of the kind "adjoint"; "reverse 2" is half of one."""

import re

_CYCLE = re.compile(r"cycle (\d+)")
_TURN = re.compile(r"(?:cycle|iteration|candidate|reverse|forward) (\d+)")
_FIRST = ("prefit", "original", "forward bridge")
_SECOND = re.compile(r"cycle \d+: adjoint|iteration \d+: forward|forward \d+")


def cycle_of(name: object) -> int:
    """The cycle that a stage ("cycle 2: adjoint") or an array ("cycle_2") belongs to, 0 for neither."""
    found = _CYCLE.search(str(name).replace("_", " "))
    return int(found.group(1)) if found else 0


def kind_of(stage: object) -> str:
    """The stage without its cycle."""
    return str(stage).split(": ", 1)[-1]


def stage_order(stage: object) -> tuple[int, bool, str]:
    """The order in time, where steps do not tell: what prepares, the turns by number, then what ends a method."""
    name = str(stage)
    if name in _FIRST:
        return (0, bool(_FIRST.index(name)), name)
    turn = _TURN.match(name)
    return (int(turn[1]) if turn else 10**6, bool(_SECOND.fullmatch(name)), name)
