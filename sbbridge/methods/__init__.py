"""Algorithms, one file a paper: a method is a generator of stages."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sbbridge.methods.asbm import ASBM
from sbbridge.methods.base import Evaluations, Method, Run, Solution, Stage, TrainedNetwork, Unsupported
from sbbridge.methods.score_matching import ScoreMatchingVP

MethodConfig: TypeAlias = Annotated[ASBM | ScoreMatchingVP, Field(discriminator="kind")]
"""Any method, as a configuration `{"kind": asbm | score_matching_vp, …}`."""

__all__ = [
    "ASBM", "Evaluations", "Method", "MethodConfig", "Run", "ScoreMatchingVP", "Solution", "Stage", "TrainedNetwork",
    "Unsupported",
]  # fmt: skip
