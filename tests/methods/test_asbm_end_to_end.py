"""ASBM on Gaussians, where every number that it should find is known; and every option of it, run once."""

import pytest
import torch

from sbbridge.coupling import Simulation
from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import ASBM, ScoreMatchingVP, Unsupported
from sbbridge.networks import MLP
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import VPSDE
from sbbridge.training import Training, fit
from tests.training.recording import Recorder, tiny

MEAN, VARIANCE = 0.7, 2.0


def gaussian_problem(reference=None):
    return GaussianBridge(MEAN, VARIANCE, 0.0, 1.0, reference or VPSDE())


@pytest.fixture(scope="module")
def trained():
    """One run of about ten seconds, for several questions."""
    method = ASBM(
        cycles=4,
        corrector_epochs=3,
        adjoint_epochs=4,
        new_pairs=4096,
        buffer_size=16384,
        backward_epochs=8,
        backward_pairs=16384,
        reuse=1,
    )
    recorder = Recorder()
    problem = gaussian_problem()
    return (
        problem,
        fit(method, problem, network=MLP(width=32, depth=1), training=Training(batch_size=512), reporter=recorder),
        recorder,
    )


def relative_error(field, exact, problem):
    """L2 over t in (0.1 ... 0.9) and x from the exact marginal, relative to the exact field."""
    wrong, size = 0.0, 0.0
    for t in torch.linspace(0.1, 0.9, 9).tolist():
        law = problem.marginal(t)
        x = law.sample(2000, seed=1)
        wanted = exact(torch.tensor(t), x)
        wrong += float((field(t, x) - wanted).square().mean())
        size += float(wanted.square().mean())
    return (wrong / size) ** 0.5


def test_learned_coupling_has_the_exact_covariance_and_ends_in_the_prior(trained):
    """n = 100,000 pairs: sampling adds about 0.7 % to the covariance's error and 0.4 % to the variance's."""
    problem, solution, _ = trained
    pair = solution.couple(100_000, seed=5)
    covariance = float(torch.cov(torch.cat([pair.x0, pair.x1], 1).mT)[0, 1])
    assert covariance == pytest.approx(float(problem.coupling_covariance), rel=0.04)
    assert float(pair.x1.var()) == pytest.approx(1.0, rel=0.05)
    assert abs(float(pair.x1.mean())) < 0.05
    cost = float((pair.x1 - pair.x0).square().mean())
    assert cost == pytest.approx(problem.transport_cost, rel=0.05)


def test_learned_fields_are_near_the_closed_form(trained):
    problem, solution, _ = trained
    assert relative_error(solution.control, problem.control, problem) < 0.1
    assert relative_error(solution.backward_score, problem.backward_score, problem) < 0.15
    x = problem.prior.sample(2000, seed=2)
    corrector_error = (solution.corrector(x) - problem.corrector(x)).square().mean()
    assert float(corrector_error / problem.corrector(x).square().mean()) ** 0.5 < 0.04


@pytest.mark.parametrize("sampler", ["ancestral", "exponential", "euler_maruyama", "heun"])
def test_every_sampler_brings_the_prior_back_to_the_data(trained, sampler):
    problem, solution, _ = trained
    x = sample(solution, n=20_000, num_steps=60, sampler=sampler, seed=3).x
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.1)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.1)
    # the SDE's pairs keep the coupling, too; the deterministic flow makes another one
    if sampler != "heun":
        x1 = problem.prior.sample(20_000, seed=4)
        x0 = sample(solution, x1=x1, num_steps=60, sampler=sampler, seed=3).x
        covariance = float(torch.cov(torch.cat([x0, x1], 1).mT)[0, 1])
        assert covariance == pytest.approx(float(problem.coupling_covariance), rel=0.1)


def test_terminal_tests_see_the_cycles_converge(trained):
    _, _, recorder = trained
    errors = [values["terminal_covariance_error"] for _, _, values, _ in recorder.told if "terminal_passed" in values]
    assert len(errors) == 4
    assert errors[-1] < 0.07


def test_gaussian_warm_start_is_exact_before_anything_is_learned():
    """One step of each stage with a vanishing learning rate: the fields are the closed form's."""
    problem = gaussian_problem()
    method = ASBM(
        warm_start="gaussian",
        cycles=1,
        corrector_epochs=1,
        adjoint_epochs=1,
        new_pairs=64,
        buffer_size=64,
        backward_epochs=1,
        backward_pairs=64,
        terminal_samples=64,
    )
    solution = fit(
        method, problem, network=MLP(width=8, depth=1), training=Training(batch_size=64, learning_rate=1e-12)
    )
    x = torch.linspace(-2, 2, 9)[:, None]
    for t in (0.05, 0.5, 1.0):
        torch.testing.assert_close(solution.control(t, x), problem.control(torch.tensor(t), x), atol=1e-5, rtol=1e-5)
        exact = problem.backward_score(torch.tensor(t), x)
        torch.testing.assert_close(solution.backward_score(t, x), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(solution.corrector(x), problem.corrector(x), atol=1e-5, rtol=1e-5)
    pair = solution.couple(50_000)
    covariance = float(torch.cov(torch.cat([pair.x0, pair.x1], 1).mT)[0, 1])
    assert covariance == pytest.approx(float(problem.coupling_covariance), rel=0.03)


@pytest.mark.parametrize("warm_start", ["none", "bridge_matching", "gaussian"])
@pytest.mark.parametrize("coupling", ["asbm", "bridge_matching", "minibatch_ot", "independent"])
def test_every_coupling_and_warm_start_runs_on_images(coupling, warm_start):
    """States of shape [1, 2, 2] with a constant pixel: finite samples, and what the coupling can do."""
    x = torch.randn(200, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3
    x[:, 0, 0, 0] = -1.0
    problem = BridgeProblem(TensorData(x), StandardNormal((1, 2, 2)), VPSDE())
    method = tiny(coupling=coupling, warm_start=warm_start, simulation=Simulation("exponential", 2))
    solution = fit(method, problem, network=MLP(width=8, depth=1), training=Training(batch_size=32))
    made = sample(solution, n=8, num_steps=3)
    assert made.x.shape == (8, 1, 2, 2)
    assert torch.isfinite(made.x).all()
    if method.has_control:
        assert torch.isfinite(solution.couple(8).x1).all()
        assert solution.control(0.5, x[:3]).shape == (3, 1, 2, 2)
    else:
        with pytest.raises(Unsupported, match="method asbm has no forward control"):
            solution.couple(8)
        with pytest.raises(Unsupported, match="method asbm has no control"):
            solution.control(0.5, x[:3])
    if coupling != "asbm":
        with pytest.raises(Unsupported, match="method asbm has no corrector"):
            solution.corrector(x[:3])


def test_score_matching_learns_the_memoryless_score():
    problem = gaussian_problem(VPSDE(beta_max=20.0))
    solution = fit(ScoreMatchingVP(epochs=12, pairs=16384), problem, network=MLP(width=32, depth=1))
    assert relative_error(solution.backward_score, problem.backward_score, problem) < 0.15
    x = sample(solution, n=20_000, num_steps=60, sampler="ddim", grid="trailing_log_snr").x
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.12)
    assert float(x.var()) == pytest.approx(VARIANCE, rel=0.12)


def test_score_matching_refuses_a_reference_with_memory():
    with pytest.raises(ValueError, match=r"needs a memoryless reference .*beta_max.*retains m = 0\.359"):
        fit(ScoreMatchingVP(), gaussian_problem())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({name: 0}, name)
        for name in (
            "cycles",
            "corrector_epochs",
            "adjoint_epochs",
            "new_pairs",
            "buffer_size",
            "backward_epochs",
            "backward_pairs",
            "reuse",
        )
    ]
    + [({"damping": 0.0}, "damping"), ({"damping": 1.1}, "damping"), ({"terminal_samples": 1}, "terminal_samples")],
)
def test_impossible_options_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        ASBM(**options)
