"""Corrector matching: the regression of ∇log phihat_1 (ASBS, arXiv 2506.22565, Eq. 15)."""

import torch

from sbbridge.objectives.base import Regression
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import State


def corrector_matching(reference: AbstractLinearSDE, x0: State, x1: State) -> Regression:
    """Fit h(x1) to (m x0 − x1) / tau^2 = ∇_{x1} log p(x1 | x0); time is 1 throughout.

    The minimiser over pairs of the current forward process is ∇log phihat_1.
    """
    target = (reference.retained_memory * x0 - x1) / reference.terminal_variance
    return Regression(torch.ones(len(x1), dtype=torch.float64, device=x1.device), x1, target)
