"""Which sampler a setting's paths are of: those of an ODE and of an SDE are different things."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from analysis import formats
from analysis.design import Setting

MEASURES = ("straightness", "trajectory_variance", "transport_cost")
"""What is measured on the sampled paths; the drift of a control is the forward process's."""
ODE, SDE, UNKNOWN = "ODE", "SDE", "unknown"
_OF_SDES = frozenset({"exponential", "exponential_heun", "ancestral", "euler_maruyama"})
APART = (
    "Paths are of the method's ODE where it has one, otherwise of an SDE. The two do not compare: an SDE's paths hold "
    "its noise, which makes both measures larger however good the coupling is"
)


class PathSampler(NamedTuple):
    """What paths were sampled with.

    Attributes:
        kind: ODE, SDE or UNKNOWN.
        words: "Heun (ODE)"; empty where no sampler was recorded.
    """

    kind: str
    words: str


def path_samplers(rows: pd.DataFrame) -> Callable[[Setting], PathSampler]:
    """Of any setting, by the sampler in its rows of MEASURES."""
    recorded = rows[rows["metric"].isin(MEASURES) & rows["sampler"].notna()]
    names = recorded.astype({"sampler": str}).groupby("digest", observed=True)["sampler"].first().to_dict()

    def found(setting: Setting) -> PathSampler:
        name = names.get(setting.digest)
        if name is None:
            return PathSampler(UNKNOWN, "")
        kind = SDE if name in _OF_SDES else ODE  # paths are sampled with eta 0, whatever the evaluation's is
        return PathSampler(kind, f"{formats.sampler(name)} ({kind})")

    return found
