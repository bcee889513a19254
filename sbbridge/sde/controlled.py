"""Processes made from a reference and learned fields: controlled forward, reversed, and the probability flow."""

from dataclasses import dataclass
from typing import final

from sbbridge.sde.base import AbstractLinearSDE
from sbbridge.types import Field, State, Time, expand_like


@final
@dataclass(frozen=True)
class ControlledSDE:
    """Forward dX = (f + g^2 u) dt + g dW, with u -> ∇log phi_t at the optimum."""

    reference: AbstractLinearSDE
    control: Field

    def drift(self, t: Time, x: State) -> State:
        """f(t) x + g(t)^2 u(t, x)."""
        return self.reference.drift(t, x) + expand_like(self.reference.diffusion(t) ** 2, x) * self.control(t, x)


@final
@dataclass(frozen=True)
class ReverseSDE:
    """Backward dX = (f − g^2 s) dt + g dW with dt < 0, where s = ∇log phihat_t (the score, when memoryless)."""

    reference: AbstractLinearSDE
    backward_score: Field

    def drift(self, t: Time, x: State) -> State:
        """f(t) x − g(t)^2 s(t, x)."""
        return self.reference.drift(t, x) - expand_like(self.reference.diffusion(t) ** 2, x) * self.backward_score(t, x)


@final
@dataclass(frozen=True)
class ProbabilityFlowODE:
    """dx/dt = f + ½ g^2 (∇log phi_t − ∇log phihat_t): the same marginals without noise."""

    reference: AbstractLinearSDE
    control: Field
    backward_score: Field

    def velocity(self, t: Time, x: State) -> State:
        """dx/dt at (t, x)."""
        difference = self.control(t, x) - self.backward_score(t, x)
        return self.reference.drift(t, x) + 0.5 * expand_like(self.reference.diffusion(t) ** 2, x) * difference
