"""The suite notices the mistakes that are easy to make: checks pass on the true code and fail on the wrong one."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from sbbridge import objectives
from sbbridge.methods import Distillation
from sbbridge.path import GaussianPath
from sbbridge.problems import GaussianBridge
from sbbridge.sde import AbstractLinearSDE, ControlledSDE
from sbbridge.solvers import BACKWARD, FORWARD, ddim
from tests import checks
from tests.oracles import REFERENCES

pytestmark = pytest.mark.usefixtures("float64")
VP4, VP20 = REFERENCES["vp4"], REFERENCES["vp20"]


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


def flipped_flow(patch: pytest.MonkeyPatch) -> None:
    true = objectives.flow_matching

    def flipped(*args):
        regression = true(*args)
        return replace(regression, target=-regression.target)

    patch.setattr(objectives, "flow_matching", flipped)


def mean_matching_without_g_squared(patch: pytest.MonkeyPatch) -> None:
    """The displacement over dt alone, where g² dt belongs."""

    def without(true):
        def plain(reference, *args):
            regression = true(reference, *args)
            return replace(regression, target=reference.diffusion(regression.t)[:, None] ** 2 * regression.target)

        return plain

    for name in ("backward_mean_matching", "forward_mean_matching"):
        patch.setattr(objectives, name, without(getattr(objectives, name)))


def other_drift_without_g_squared(patch: pytest.MonkeyPatch) -> None:
    """f x + u where f x + g² u belongs."""
    true = objectives.backward_mean_matching

    def plain(reference, t, t_next, x, x_next, control):
        weak = None if control is None else lambda s, y: control(s, y) / reference.diffusion(t)[:, None] ** 2
        return true(reference, t, t_next, x, x_next, weak)

    patch.setattr(objectives, "backward_mean_matching", plain)


def ddim_at_the_wrong_time(patch: pytest.MonkeyPatch) -> None:
    """The noise is put back at the scale of the time where it was taken out."""
    true = GaussianPath.at
    patch.setattr(
        GaussianPath, "at", lambda self, t, x0, eps: true(self, t, x0, eps * self.scale(t + 0.05) / self.scale(t))
    )


def deterministic_share_kept(patch: pytest.MonkeyPatch) -> None:
    """Noise is added without taking its share from epshat."""
    true = ddim.backward

    def noisy(dynamics, t, t_next, x, noise, eta=0.0):
        return true(dynamics, t, t_next, x, noise) + (true(dynamics, t, t_next, x, noise, eta) - true(
            dynamics, t, t_next, x, lambda: torch.zeros_like(x), eta))  # fmt: skip

    patch.setattr(ddim, "backward", noisy)


def distilled_away(patch: pytest.MonkeyPatch) -> None:
    true = Distillation._direction
    patch.setattr(Distillation, "_direction", lambda *args: -true(*args))


def heun_holds_the_first_score(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(BACKWARD, "exponential_heun", BACKWARD["exponential"])


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
    (flipped_flow, checks.check_flow_matching),
    (mean_matching_without_g_squared, lambda: checks.check_mean_matching(VP4, "backward", False)),
    (mean_matching_without_g_squared, lambda: checks.check_mean_matching(VP4, "forward", True)),
    (other_drift_without_g_squared, lambda: checks.check_full_target(VP4)),
    (ddim_at_the_wrong_time, lambda: checks.check_ddim_keeps_the_noise(VP20)),
    (deterministic_share_kept, lambda: checks.check_ddim_keeps_the_noise(VP20, 0.7)),
    (distilled_away, checks.check_distillation_direction),
    (heun_holds_the_first_score, lambda: checks.check_second_order_backward(VP4)),
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
