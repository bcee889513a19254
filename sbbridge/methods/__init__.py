"""Algorithms, one file a paper: a method is a generator of stages."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sbbridge.methods.asbm import ASBM
from sbbridge.methods.base import Evaluations, Method, Run, Solution, Stage, TrainedNetwork, Unsupported
from sbbridge.methods.distillation import Distillation
from sbbridge.methods.dsb import DSB, SimplifiedDSB
from sbbridge.methods.dsbm import DSBMIMF, DSBMIPF
from sbbridge.methods.flow import OTCFM, FlowMatching, RectifiedFlow
from sbbridge.methods.score_matching import ScoreMatchingVE, ScoreMatchingVP

MethodConfig: TypeAlias = Annotated[
    ASBM | ScoreMatchingVP | ScoreMatchingVE | FlowMatching | RectifiedFlow | OTCFM | DSB | SimplifiedDSB | DSBMIPF
    | DSBMIMF,
    Field(discriminator="kind"),
]  # fmt: skip
"""Any method, as a configuration `{"kind": asbm | score_matching_vp | …, …}`."""

__all__ = [
    "ASBM",
    "DSB",
    "DSBMIMF",
    "DSBMIPF",
    "OTCFM",
    "Distillation",
    "Evaluations",
    "FlowMatching",
    "Method",
    "MethodConfig",
    "RectifiedFlow",
    "Run",
    "ScoreMatchingVE",
    "ScoreMatchingVP",
    "SimplifiedDSB",
    "Solution",
    "Stage",
    "TrainedNetwork",
    "Unsupported",
]  # fmt: skip
