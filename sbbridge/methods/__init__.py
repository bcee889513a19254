"""Algorithms, one file a paper: a method is a generator of stages."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sbbridge.methods.asbm import ASBM
from sbbridge.methods.base import Evaluations, Method, Run, Solution, Stage, TrainedNetwork, Unsupported
from sbbridge.methods.denoisers import denoiser_of
from sbbridge.methods.distillation import Distillation
from sbbridge.methods.dsb import DSB, SimplifiedDSB
from sbbridge.methods.dsbm import DSBMIMF, DSBMIPF
from sbbridge.methods.flow import OTCFM, FlowMatching, RectifiedFlow
from sbbridge.methods.ldsb import LDSB
from sbbridge.methods.ldsb_fits import IPF, ExactIPF, NoFit, RandomPaths, TeacherFit
from sbbridge.methods.score_matching import ScoreMatchingVE, ScoreMatchingVP

MethodConfig: TypeAlias = Annotated[
    ASBM | ScoreMatchingVP | ScoreMatchingVE | FlowMatching | RectifiedFlow | OTCFM | DSB | SimplifiedDSB | DSBMIPF
    | DSBMIMF | LDSB,
    Field(discriminator="kind"),
]  # fmt: skip
"""Any method, as a configuration `{"kind": asbm | score_matching_vp | …, …}`."""

__all__ = [
    "ASBM",
    "DSB",
    "DSBMIMF",
    "DSBMIPF",
    "IPF",
    "LDSB",
    "OTCFM",
    "Distillation",
    "Evaluations",
    "ExactIPF",
    "FlowMatching",
    "Method",
    "MethodConfig",
    "NoFit",
    "RandomPaths",
    "RectifiedFlow",
    "Run",
    "ScoreMatchingVE",
    "ScoreMatchingVP",
    "SimplifiedDSB",
    "Solution",
    "Stage",
    "TeacherFit",
    "TrainedNetwork",
    "Unsupported",
    "denoiser_of",
]  # fmt: skip
