"""DPM-Solver++ and UniPC, driven through diffusers on our paths and nodes, against the flow's closed-form map."""

import numpy as np
import pytest
import torch

from sbbridge.integrations.multistep import MULTISTEP, multistep
from sbbridge.path import NODE_GRIDS, node_times
from sbbridge.rng import Stream
from sbbridge.sde import VESDE, VPSDE
from sbbridge.solvers import BACKWARD, Dynamics, integrate
from tests.checks import order_of
from tests.oracles import moments

MEAN, VARIANCE = 0.7, 0.5
KINDS = {"vp": VPSDE(beta_max=20.0), "ve": VESDE(sigma_max=30.0), "flow": None}
# diffusers and numpy 2 disagree about __array__
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_scheme = pytest.mark.parametrize("scheme", MULTISTEP)
STANDARD = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]


def coefficients(kind, t):
    """(a, b) of x_t = a x0 + b eps, from the moments' ODE."""
    if kind == "flow":
        return 1 - t, t
    k, v = moments(KINDS[kind], 0.0, t)
    return k, v**0.5


def exact(kind):
    """The exact field of N(0.7, 0.5) with independent noise."""

    def velocity(t, x):
        a, b = (1 - t), t
        return -MEAN + (b - a * VARIANCE) / (a * a * VARIANCE + b * b) * (x - a * MEAN)

    def score(t, x):
        a, v = KINDS[kind].mean_factor(0.0, t), KINDS[kind].variance(0.0, t)
        return -(x - a * MEAN) / (a * a * VARIANCE + v)

    return Dynamics(VPSDE(), velocity=velocity) if kind == "flow" else Dynamics(KINDS[kind], None, score)


def at(kind, t):
    """Where the flow has carried points of N(0, 1) quantiles: mean plus spread times quantile."""
    a, b = coefficients(kind, float(t))
    return a * MEAN + (a * a * VARIANCE + b * b) ** 0.5 * STANDARD


def error(kind, scheme, times, last=-1):
    """Largest distance from the exact map after a step of the integration, the last unless told."""
    dynamics = exact(kind)
    step = multistep(scheme, dynamics, times) if scheme in MULTISTEP else BACKWARD[scheme]
    _, path = integrate(step, dynamics, times, at(kind, times[0]), range(9), Stream(0), keep=True)
    return float((path[last] - at(kind, times[last])).abs().max())


@every_kind
@every_scheme
def test_multistep_schemes_are_of_second_order_between_interior_times(kind, scheme):
    """Evenly spaced in log-SNR from t = 0.9 to 0.1; the step to 0 that the schedulers add is left out.

    The first step is of first order for all of them, once; it keeps the third-order scheme at two.
    """
    steps, errors, dynamics = [12, 24, 48], [], exact(kind)
    dense = torch.linspace(0.9, 0.1, 4001, dtype=torch.float64)
    log_snr = dynamics.log_snr(dense).numpy()
    for n in steps:
        nodes = np.interp(np.linspace(log_snr[0], log_snr[-1], n + 1), log_snr, dense.numpy())
        times = torch.cat([torch.from_numpy(nodes), torch.zeros(1, dtype=torch.float64)])
        errors.append(error(kind, scheme, times, last=-2))
    assert order_of(errors, steps) > 1.75, errors
    assert errors[-1] < 5e-3


@every_kind
@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize(("scheme", "few"), [("dpm_solver_pp", 10), ("dpm_solver_pp_3", 20), ("unipc", 10)])
def test_multistep_schemes_beat_ddim_at_few_steps_and_get_better(kind, grid, scheme, few):
    """At ten steps; that of third order at twenty."""
    log_snr = exact(kind).log_snr
    one, many = (node_times(grid, n, log_snr) for n in (few, 40))
    assert error(kind, scheme, one) < error(kind, "ddim", one)
    assert error(kind, scheme, many) < 0.2 * error(kind, "ddim", one)
    assert error(kind, scheme, many) < error(kind, "ddim", many)


@every_scheme
def test_one_step_is_the_denoised_image(scheme):
    times = node_times("trailing_uniform", 1)
    dynamics = exact("flow")
    made, _ = integrate(multistep(scheme, dynamics, times), dynamics, times, STANDARD, range(9), Stream(0))
    torch.testing.assert_close(made, torch.full_like(made, MEAN), atol=1e-4, rtol=0)


@every_scheme
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_keep_type_and_shape(scheme, dtype):
    times = node_times("trailing_quadratic", 6)
    dynamics = exact("vp")
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    made, _ = integrate(multistep(scheme, dynamics, times), dynamics, times, x, range(3), Stream(0))
    assert made.dtype == dtype
    assert made.shape == x.shape


@every_scheme
@pytest.mark.usefixtures("float64")
def test_double_precision_as_default_type_is_no_obstacle(scheme):
    times = node_times("trailing_uniform", 6)
    assert error("vp", scheme, times) < 0.5


@every_scheme
def test_a_reference_with_memory_is_refused(scheme):
    dynamics = Dynamics(VPSDE(), lambda t, x: x, lambda t, x: x)
    with pytest.raises(ValueError, match=rf"{scheme} needs a memoryless reference, this one retains m = 0\.359"):
        multistep(scheme, dynamics, node_times("trailing_uniform", 4))
