"""The suite notices the mistakes that are easy to make: checks pass on the true code and fail on the wrong one."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from sbbridge import objectives
from sbbridge.problems import GaussianBridge
from sbbridge.sde import AbstractLinearSDE, ControlledSDE
from sbbridge.solvers import BACKWARD, FORWARD
from tests import checks
from tests.oracles import REFERENCES

pytestmark = pytest.mark.usefixtures("float64")
VP4 = REFERENCES["vp4"]


def flipped_adjoint(patch: pytest.MonkeyPatch) -> None:
    true = objectives.adjoint_matching

    def flipped(*args):
        regression = true(*args)
        return replace(regression, target=-regression.target)

    patch.setattr(objectives, "adjoint_matching", flipped)


def dropped_m(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AbstractLinearSDE, "retained_memory", property(lambda self: 1.0))


def kappa_from_zero(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AbstractLinearSDE, "adjoint_factor", lambda self, t: self.mean_factor(0.0, t))


def variance_at_half(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AbstractLinearSDE, "terminal_variance", property(lambda self: float(self.variance(0.0, 0.5))))


def wide_bridge(patch: pytest.MonkeyPatch) -> None:
    def bridge(self, t, x0, x1, noise):
        """The reference's own spread instead of the bridge's."""
        a, b, _ = self.bridge_coefficients(t)
        scale = self.variance(0.0, t).sqrt()
        return a[:, None] * x0 + b[:, None] * x1 + scale[:, None] * noise

    patch.setattr(AbstractLinearSDE, "bridge", bridge)


def swapped_bridge(patch: pytest.MonkeyPatch) -> None:
    true = AbstractLinearSDE.bridge_coefficients

    def swapped(self, t, start=0.0, end=1.0):
        a, b, v = true(self, t, start, end)
        return b, a, v

    patch.setattr(AbstractLinearSDE, "bridge_coefficients", swapped)


def flipped_corrector(patch: pytest.MonkeyPatch) -> None:
    true = GaussianBridge.corrector
    patch.setattr(GaussianBridge, "corrector", lambda self, x: -true(self, x))


def forgotten_g_squared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ControlledSDE, "drift", lambda self, t, x: self.reference.drift(t, x) + self.control(t, x))


def noisy_last_step(patch: pytest.MonkeyPatch) -> None:
    true = BACKWARD["ancestral"]
    patch.setitem(
        BACKWARD, "ancestral", lambda dynamics, t, s, x, noise: true(dynamics, t, s, x, noise) + 0.1 * noise()
    )


def frozen_control(patch: pytest.MonkeyPatch) -> None:
    """Holds u over a step instead of the martingale u / kappa(t, 1)."""
    patch.setitem(FORWARD, "exponential", checks.hold_control)


OBJECTIVES: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (flipped_adjoint, lambda: checks.check_adjoint_matching(VP4)),
    (dropped_m, lambda: checks.check_corrector_matching(VP4)),
    (kappa_from_zero, lambda: checks.check_adjoint_matching(VP4)),
    (variance_at_half, lambda: checks.check_corrector_matching(VP4)),
    (wide_bridge, lambda: checks.check_backward_bridge_matching(VP4)),
    (wide_bridge, lambda: checks.check_forward_bridge_matching(VP4)),
    (swapped_bridge, lambda: checks.check_adjoint_matching(VP4)),
    (flipped_corrector, lambda: checks.check_gaussian_corrector(VP4)),
    (forgotten_g_squared, lambda: checks.check_forward_order(VP4, "euler_maruyama", 1)),
    (noisy_last_step, lambda: checks.check_backward_order(VP4, "ancestral", 1)),
    (frozen_control, lambda: checks.check_exact_covariance(VP4, "exponential")),
]


@pytest.mark.parametrize(
    ("mistake", "check"), OBJECTIVES, ids=[f"{m.__name__}-{i}" for i, (m, _) in enumerate(OBJECTIVES)]
)
def test_the_check_fails_on_the_mistake_and_passes_without(mistake, check, monkeypatch):
    check()
    with monkeypatch.context() as patch:
        mistake(patch)
        with pytest.raises(AssertionError):
            check()
    check()
    assert torch.get_default_dtype() == torch.float64
