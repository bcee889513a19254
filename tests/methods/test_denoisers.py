"""Exact denoisers against quadrature, and the same denoiser as other samplers see it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sbbridge.data import GaussianMixture, StandardNormal
from sbbridge.methods import ASBM, DSB, OTCFM, FlowMatching, ScoreMatchingVP, Unsupported, denoiser_of
from sbbridge.methods.denoisers import dynamics_of, exact_denoiser
from sbbridge.networks import MLP
from sbbridge.path import Denoiser
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import DDPM, VPSDE
from sbbridge.solvers import denoise, reference_path
from sbbridge.training import Training, fit

pytestmark = pytest.mark.usefixtures("float64")
WEIGHTS, CENTRES, VARIANCES = (0.4, 0.6), (-1.2, 0.8), (0.05, 0.3)
families = pytest.mark.parametrize("family", ["vp", "flow"])


def mixture(family, reference=None):
    means = torch.tensor(CENTRES)[:, None]
    return exact_denoiser(torch.tensor(WEIGHTS), means, torch.tensor(VARIANCES)[:, None, None], family,
                          reference or DDPM())  # fmt: skip


def quadrature(a, b, x):
    """(E[x0 | x], E[eps | x]) of x = a x0 + b eps, by sums over a fine grid of x0."""
    x0 = np.linspace(-6, 6, 60_001)
    density = sum(w * np.exp(-((x0 - m) ** 2) / (2 * v)) / v**0.5
                  for w, m, v in zip(WEIGHTS, CENTRES, VARIANCES, strict=True))  # fmt: skip
    weight = density * np.exp(-((x - a * x0) ** 2) / (2 * b * b))
    return weight @ x0 / weight.sum(), weight @ ((x - a * x0) / b) / weight.sum()


@families
@pytest.mark.parametrize("t", [0.001, 0.1, 0.35, 0.8, 1.0])
def test_a_mixtures_posterior_means_are_those_of_quadrature(family, t):
    denoiser = mixture(family)
    a, b = (float(part(torch.tensor(t))) for part in (denoiser.path.mean, denoiser.path.scale))
    x = torch.tensor([[-1.7], [-0.3], [0.1], [0.9], [2.5]])
    image, eps = np.array([quadrature(a, b, float(row)) for row in x]).T
    wanted = eps if family == "vp" else eps - image
    for time in (torch.tensor(t), torch.full((5,), t)):
        np.testing.assert_allclose(denoiser.field(time, x)[:, 0], wanted, atol=1e-6)
    if a > 0:
        found = denoiser.estimates(torch.tensor(t), x, torch.tensor(a), torch.tensor(b))
        np.testing.assert_allclose(found[0][:, 0], image, atol=1e-5)
        np.testing.assert_allclose(found[1][:, 0], eps, atol=1e-6)


@families
def test_every_row_has_its_own_time_also_at_the_noise_itself(family):
    denoiser, t = mixture(family), torch.tensor([0.2, 1.0, 0.7])
    x = torch.tensor([[0.4], [0.4], [-1.0]])
    together = denoiser.field(t, x)
    for row in range(3):
        torch.testing.assert_close(together[row], denoiser.field(t[row], x[row : row + 1])[0])
    assert torch.isfinite(together).all()


def test_single_precision_keeps_its_digits_near_the_noise():
    """(E[eps] − x) / (1 − t) would lose them."""
    x = torch.linspace(-2, 2, 9)[:, None]
    for t in (1 - 1e-6, 1 - 1e-3):
        exact = mixture("flow").field(torch.tensor(t), x)
        torch.testing.assert_close(mixture("flow").field(torch.tensor(t), x.float()), exact.float(), atol=1e-5, rtol=0)


@families
def test_a_gaussians_posterior_mean_is_that_of_conditioning(family):
    """Correlated, on images: E[x0 | x] = m + a S (a² S + b²)⁻¹ (x − a m)."""
    root = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    cov, mean = root @ root.T, torch.tensor([0.5, -1.0, 0.0, 2.0])
    denoiser = exact_denoiser(torch.ones(1), mean[None], cov[None], family, DDPM())
    x = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    t = torch.tensor(0.3)
    a, b = denoiser.path.mean(t), denoiser.path.scale(t)
    gain = torch.linalg.solve(a**2 * cov + b**2 * torch.eye(4), a * cov).T
    wanted = mean + (x.flatten(1) - a * mean) @ gain.T
    torch.testing.assert_close(denoiser.estimates(t, x, a, b)[0].flatten(1), wanted)


# -- as other samplers see it


@families
def test_other_samplers_draw_the_data_with_it(family):
    data = GaussianMixture(WEIGHTS, torch.tensor(CENTRES)[:, None], VARIANCES)
    solution = fit(FlowMatching(epochs=1, pairs=16), BridgeProblem(data, StandardNormal((1,)), DDPM()),
                   network=MLP(4, 1), training=Training(batch_size=16))  # fmt: skip
    solution = replace(solution, dynamics=dynamics_of(mixture(family), DDPM()))
    x = sample(solution, 20_000, 40, sampler="heun", grid="trailing_quadratic").x
    real = data.sample(20_000, seed=7)
    assert float((x.sort(0).values - real.sort(0).values).abs().mean()) < 0.03


@pytest.mark.parametrize("prediction", ["noise", "image"])
def test_the_score_is_that_of_either_prediction(prediction):
    reference = VPSDE(beta_max=20.0)
    exact = mixture("vp", reference)

    def image(t, x):
        return exact.estimates(t, x, exact.path.mean(t), exact.path.scale(t))[0]

    denoiser = exact if prediction == "noise" else Denoiser(exact.path, "image", image)
    x, t = torch.linspace(-2, 2, 9)[:, None], torch.tensor(0.3)
    torch.testing.assert_close(denoise(dynamics_of(denoiser, reference), t, x), image(t, x))


def solved(method, reference):
    problem = GaussianBridge([0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], torch.eye(2), reference)
    return fit(method, problem, network=MLP(8, 1), training=Training(batch_size=64, learning_rate=1e-12))


WARM = {"epochs": 1, "pairs": 64, "warm_start": "gaussian"}


@pytest.mark.parametrize("reference", [DDPM(), VPSDE(beta_max=20.0)], ids=["chain", "smooth"])
def test_a_matched_score_is_a_noise_predictor(reference):
    """The warm start is exact, so it must be the exact denoiser of these data."""
    solution = solved(ScoreMatchingVP(**WARM), reference)
    denoiser = denoiser_of(solution, "abc")
    assert (denoiser.prediction, denoiser.digest) == ("noise", "abc")
    assert denoiser.chain == (1000 if isinstance(reference, DDPM) else None)
    problem = solution.problem
    exact = exact_denoiser(torch.ones(1), problem.mean0[None], problem.cov0[None], "vp", reference)
    x = problem.data.sample(9) * 1.5
    for t in (0.05, 0.4, 1.0):
        time = torch.tensor(t)
        torch.testing.assert_close(denoiser.field(time, x), exact.field(time, x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(denoiser.path.mean(time), reference_path(reference).mean(time))
        theirs = dynamics_of(denoiser, reference).backward_score(time, x)
        torch.testing.assert_close(theirs, solution.backward_score(t, x))


@pytest.mark.parametrize("method", [FlowMatching(**WARM), OTCFM(**WARM)], ids=["independent", "optimal"])
def test_a_flow_is_a_velocity_predictor(method):
    solution = solved(method, VPSDE())
    denoiser = denoiser_of(solution)
    assert (denoiser.prediction, denoiser.chain) == ("velocity", None)
    x, t = solution.problem.data.sample(9), torch.tensor(0.4)
    torch.testing.assert_close(denoiser.field(t, x), solution.velocity(0.4, x))
    assert dynamics_of(denoiser, VPSDE()).velocity is denoiser.field
    if method.kind == "flow_matching":
        exact = exact_denoiser(torch.ones(1), solution.problem.mean0[None], solution.problem.cov0[None], "flow", DDPM())
        torch.testing.assert_close(denoiser.field(t, x), exact.field(t, x), atol=1e-4, rtol=1e-4)


def test_what_leaves_no_denoiser_is_refused():
    short = {"coupling": "minibatch_ot", "backward_epochs": 1, "backward_pairs": 16}
    for method in (ASBM(**short), DSB(iterations=1, epochs=1, final_epochs=1, num_steps=3, paths=16, steps=2)):
        with pytest.raises(Unsupported, match=f"method {method.kind} leaves no denoiser"):
            denoiser_of(solved(method, VPSDE()))
    assert denoiser_of(solved(ASBM(**short, student="flow"), VPSDE())).prediction == "velocity"
