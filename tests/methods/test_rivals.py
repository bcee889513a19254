"""Every rival on a Gaussian, where it must find its own closed form before it is compared with anything."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from sbbridge.coupling import Generation, Simulation
from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import (
    ASBM,
    DSB,
    DSBMIMF,
    DSBMIPF,
    OTCFM,
    FlowMatching,
    RectifiedFlow,
    ScoreMatchingVE,
    ScoreMatchingVP,
    SimplifiedDSB,
    Unsupported,
)
from sbbridge.metrics import straightness
from sbbridge.networks import MLP
from sbbridge.path import node_times
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import VESDE, VPSDE
from sbbridge.training import Training, fit
from tests.checks import Independent, straight_velocity
from tests.oracles import GaussianOracle, moments, random_gaussian

N = 30_000
NETWORK = MLP(width=24, depth=1, time_frequencies=4)
TRAINING = Training(batch_size=512, learning_rate=4e-3)
MATCHING: dict[str, Any] = {
    "iterations": 3, "epochs": 2, "final_epochs": 5, "new_pairs": 6144, "buffer_size": 12288, "reuse": 2,
    "simulation": Simulation("exponential_heun", 5), "generation": Generation("exponential_heun", 6),
}  # fmt: skip
PATHS: dict[str, Any] = {
    "iterations": 3, "epochs": 2, "final_epochs": 4, "num_steps": 16, "paths": 2048, "steps": 40, "reuse": 2,
}  # fmt: skip
BRIDGES = {
    "dsbm_imf": DSBMIMF(**MATCHING), "dsbm_ipf": DSBMIPF(**MATCHING), "dsb": DSB(**PATHS),
    "simplified_dsb": SimplifiedDSB(**PATHS),
}  # fmt: skip
FLOWS = {
    "flow_matching": FlowMatching(epochs=6, pairs=16384), "ot_cfm": OTCFM(epochs=3, pairs=8192),
    "rectified_flow": RectifiedFlow(epochs=6, pairs=16384, reflow_epochs=3),
}  # fmt: skip
# of published discretisations: DSB simulates with 16 Euler–Maruyama steps in either direction
TOLERANCE = {"dsbm_imf": 0.06, "dsbm_ipf": 0.06, "dsb": 0.15, "simplified_dsb": 0.15}


def line_problem(reference=None, prior=1.0):
    return GaussianBridge(0.7, 2.0, 0.0, prior, reference or VPSDE())


@cache
def solved(name):
    """One short training of each."""
    return fit((BRIDGES | FLOWS)[name], line_problem(), network=NETWORK, training=TRAINING)


def covariance(x0, x1):
    return float(torch.cov(torch.cat([x0, x1], 1).double().mT)[0, 1])


@pytest.mark.parametrize("name", BRIDGES)
def test_bridges_sample_the_data_with_the_coupling_of_the_bridge(name):
    """The backward process: mean, variance and covariance with its start; the tolerance is stated by method."""
    solution, bias = solved(name), TOLERANCE[name]
    x1 = solution.problem.prior.sample(N, seed=1)
    x0 = sample(solution, x1=x1, num_steps=40, sampler="exponential_heun", seed=3).x
    assert float(x0.mean()) == pytest.approx(0.7, abs=bias)
    assert float(x0.var()) == pytest.approx(2.0, rel=bias)
    assert covariance(x0, x1) == pytest.approx(float(solution.problem.coupling_covariance), rel=bias)


@pytest.mark.parametrize("name", BRIDGES)
def test_bridges_push_the_data_forward_with_the_same_coupling(name):
    """The forward process, in three iterations: 20 %, where independent pairs would have no covariance at all."""
    pair = solved(name).couple(N)
    assert float(pair.x1.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(pair.x1.var()) == pytest.approx(1.0, rel=0.2)
    assert covariance(pair.x0, pair.x1) == pytest.approx(float(line_problem().coupling_covariance), rel=0.2)


@pytest.mark.parametrize("name", FLOWS)
def test_flows_sample_the_data(name):
    x = sample(solved(name), n=N, num_steps=40).x
    assert float(x.mean()) == pytest.approx(0.7, abs=0.1)
    assert float(x.var()) == pytest.approx(2.0, rel=0.1)
    with pytest.raises(Unsupported, match=f"method {name} has no backward_score"):
        solved(name).backward_score(0.5, [[0.0]])
    with pytest.raises(Unsupported, match=f"method {name} has no forward control"):
        solved(name).couple(3)


def crookedness(solution):
    made = sample(solution, n=4000, num_steps=40, trajectory=True, sampler="heun")
    return straightness(made.trajectory, node_times("trailing_uniform", 40))


def test_reflow_straightens_a_flow_and_optimal_transport_starts_straight():
    """In one dimension every flow has the same map; only its speed along the way differs."""
    bent, straightened, optimal = (crookedness(solved(name)) for name in ("flow_matching", "rectified_flow", "ot_cfm"))
    assert bent > 0.05
    assert straightened < 0.35 * bent
    assert optimal < 0.35 * bent


# -- closed forms before anything is learned: two directions that mix, one step with a vanishing learning rate


def plane_problem(reference, prior=1.0):
    oracle = random_gaussian(31, 2, reference)
    return oracle, GaussianBridge(oracle.mean0, oracle.cov0, np.zeros(2), prior * np.eye(2), reference)


def untrained(method, problem):
    return fit(method, problem, network=MLP(width=4, depth=1), training=Training(batch_size=16, learning_rate=1e-12))


def optimal_velocity(oracle, prior, t, x):
    """x_t = (1 − t) T(x1) + t x1 along the optimal map T(x) = mean + (S0 / p)^½ x: invert it, and go x1 − T(x1)."""
    values, vectors = np.linalg.eigh(oracle.cov0 / prior)
    root = (vectors * np.sqrt(values)) @ vectors.T
    x1 = np.linalg.solve((1 - t) * root + t * np.eye(2), (x - (1 - t) * oracle.mean0).T).T
    return x1 - (oracle.mean0 + x1 @ root.T)


WARM = {"warm_start": "gaussian"}
SHORT: dict[str, Any] = {
    "cycles": 1, "corrector_epochs": 1, "adjoint_epochs": 1, "new_pairs": 16, "buffer_size": 16, "backward_epochs": 1,
    "backward_pairs": 16, "terminal_samples": 16, "student": "flow", "simulation": Simulation(num_steps=1), **WARM,
}  # fmt: skip
X = np.random.default_rng(3).normal(size=(9, 2)) * 2


@pytest.mark.parametrize("prior", [1.0, 2.5])
@pytest.mark.parametrize(
    "method",
    [
        FlowMatching(epochs=1, pairs=16, **WARM), OTCFM(epochs=1, pairs=16, **WARM), ASBM(**SHORT),
        ASBM(**SHORT, coupling="minibatch_ot"), ASBM(**SHORT, coupling="minibatch_sinkhorn"),
        ASBM(**SHORT, coupling="independent"),
    ],
    ids=lambda method: f"{method.kind} {getattr(method, 'coupling', '')}",
)  # fmt: skip
def test_a_gaussian_warm_start_is_the_exact_velocity_of_each_coupling(method, prior):
    reference = VPSDE()
    oracle, problem = plane_problem(reference, prior)
    oracle = GaussianOracle(oracle.mean0, oracle.cov0, np.zeros(2), prior * np.eye(2), reference)
    solution = untrained(method, problem)
    coupling = getattr(method, "coupling", {"flow_matching": "independent", "ot_cfm": "minibatch_ot"}.get(method.kind))
    for t in (0.0, 0.05, 0.5, 0.95, 1.0):
        if coupling == "minibatch_ot":
            wanted = optimal_velocity(oracle, prior, t, X)
        else:
            wanted = straight_velocity(Independent(oracle) if coupling == "independent" else oracle, t, X)
        np.testing.assert_allclose(solution.velocity(t, X), wanted, atol=2e-4)


@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_a_gaussian_warm_start_is_the_exact_score_of_noised_data(kind):
    reference = VPSDE(beta_max=20.0) if kind == "vp" else VESDE(sigma_max=30.0)
    oracle, problem = plane_problem(reference, 1.0 if kind == "vp" else reference.terminal_variance)
    method = (ScoreMatchingVP if kind == "vp" else ScoreMatchingVE)(epochs=1, pairs=16, **WARM)
    solution = untrained(method, problem)
    for t in (0.05, 0.5, 1.0):
        k, v = moments(reference, 0.0, t)
        wanted = -np.linalg.solve(k * k * oracle.cov0 + v * np.eye(2), (X - k * oracle.mean0).T).T
        np.testing.assert_allclose(solution.backward_score(t, X), wanted, atol=1e-4)


def test_a_flow_between_different_spreads_of_the_prior_has_no_gaussian_warm_start():
    problem = GaussianBridge([0.0, 0.0], np.eye(2), [0.0, 0.0], np.diag([1.0, 2.0]), VPSDE())
    with pytest.raises(ValueError, match="needs a prior that is the same in every direction"):
        untrained(FlowMatching(epochs=1, pairs=16, **WARM), problem)


# -- score matching


def test_variance_exploding_score_matching_learns_its_score():
    reference = VESDE(sigma_min=0.05, sigma_max=30.0)
    problem = line_problem(reference, reference.terminal_variance)
    solution = fit(ScoreMatchingVE(epochs=10, pairs=16384), problem, network=NETWORK, training=TRAINING)
    wrong = size = 0.0
    for t in (0.4, 0.6, 0.8, 1.0):
        _, v = moments(reference, 0.0, t)
        x = 0.7 + (2 + v) ** 0.5 * torch.linspace(-2, 2, 21)[:, None]
        wanted = -(x - 0.7) / (2 + v) * v**0.5
        wrong += float((solution.backward_score(t, x) * v**0.5 - wanted).square().sum())
        size += float(wanted.square().sum())
    assert (wrong / size) ** 0.5 < 0.12
    x = sample(solution, n=N, num_steps=30, sampler="edm_heun", grid="trailing_log_snr").x
    assert float(x.mean()) == pytest.approx(0.7, abs=0.25)
    assert float(x.var()) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(
    ("method", "reference", "message"),
    [
        (ScoreMatchingVP(), VPSDE(), r"score_matching_vp needs a memoryless reference .* retains m = 0\.359"),
        (ScoreMatchingVE(), VESDE(sigma_max=2.0), r"score_matching_ve needs a memoryless reference .* retains m = 1"),
        (ScoreMatchingVE(), VPSDE(beta_max=20.0), "score_matching_ve needs reference.kind ve, got VPSDE"),
    ],
)
def test_score_matching_refuses_references_that_are_not_its_own(method, reference, message):
    with pytest.raises(ValueError, match=message):
        fit(method, line_problem(reference))


# -- every rival runs on images, with a pixel that never changes

TINY = {
    "flow_matching": FlowMatching(epochs=1, pairs=32, **WARM), "ot_cfm": OTCFM(epochs=1, pairs=32),
    "rectified_flow": RectifiedFlow(epochs=1, pairs=32, reflow_epochs=1, generation=Generation("euler", 2)),
    "dsb": DSB(iterations=1, epochs=1, final_epochs=1, num_steps=3, paths=16, steps=2),
    "simplified_dsb": SimplifiedDSB(iterations=1, epochs=1, final_epochs=1, num_steps=3, paths=16, steps=2),
    "dsbm_imf": DSBMIMF(iterations=1, epochs=1, final_epochs=1, new_pairs=32, buffer_size=32),
    "dsbm_ipf": DSBMIPF(iterations=1, epochs=1, final_epochs=1, new_pairs=32, buffer_size=32),
    "asbm flow": ASBM(**(SHORT | {"warm_start": "none"}), coupling="minibatch_sinkhorn"),
    "asbm warm flow": ASBM(**SHORT, reflow=1, reflow_epochs=1),
}  # fmt: skip


@pytest.mark.parametrize("method", TINY.values(), ids=TINY.keys())
def test_rivals_run_on_images_with_a_constant_pixel(method):
    x = torch.randn(200, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3
    x[:, 0, 0, 0] = -1.0
    problem = BridgeProblem(TensorData(x), StandardNormal((1, 2, 2)), VPSDE())
    solution = fit(method, problem, network=MLP(width=8, depth=1), training=Training(batch_size=16))
    made = sample(solution, n=8, num_steps=3)
    assert made.x.shape == (8, 1, 2, 2)
    assert torch.isfinite(made.x).all()
