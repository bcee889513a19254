"""ASBM towards a prior of which only the energy is known: a double well, against Sinkhorn on a grid."""

import numpy as np
import pytest
import torch

from sbbridge import ASBM, MLP, BridgeProblem, BrownianMotion, EnergyPrior, Gaussian, Simulation, Training, fit, sample
from sbbridge.metrics import cross_covariance
from tests.oracles import grid_sinkhorn

STEEPNESS, MEAN, VARIANCE = 1.5, 0.4, 0.25


def wells(x):
    return STEEPNESS * ((x.flatten(1) ** 2 - 1) ** 2).sum(1)


@pytest.fixture(scope="module")
def solution():
    method = ASBM(
        cycles=8, corrector_epochs=3, adjoint_epochs=6, new_pairs=4096, buffer_size=12288, damping=0.7,
        simulation=Simulation(num_steps=10), backward_epochs=8, backward_pairs=8192, reuse=4,
    )  # fmt: skip
    problem = BridgeProblem(Gaussian(MEAN, VARIANCE), EnergyPrior(wells, (1,)), BrownianMotion(1.0))
    return fit(method, problem, network=MLP(width=32, depth=2), training=Training(batch_size=512, learning_rate=3e-3))


@pytest.fixture(scope="module")
def exact():
    def log_data(x):
        return -((x - MEAN) ** 2) / (2 * VARIANCE)

    return grid_sinkhorn(BrownianMotion(1.0), log_data, lambda x: -STEEPNESS * (x * x - 1) ** 2)


def test_the_forward_process_ends_in_both_wells(solution):
    grid = np.linspace(-3, 3, 6001)
    weight = np.exp(-STEEPNESS * (grid**2 - 1) ** 2)
    weight /= weight.sum()
    x1 = solution.couple(40_000, seed=1).x1.double()
    for power in (2, 4):
        assert float((x1**power).mean()) == pytest.approx((weight * grid**power).sum(), rel=0.08)
    assert float((x1 > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert float((x1.abs() < 0.3).double().mean()) == pytest.approx(weight[abs(grid) < 0.3].sum(), abs=0.03)


def test_the_coupling_is_that_of_the_bridge(solution, exact):
    pair = solution.couple(40_000, seed=2)
    assert float(cross_covariance(*pair)) == pytest.approx(exact.covariance(), rel=0.06)


def test_samples_need_prior_points_because_the_prior_cannot_be_drawn(solution, exact):
    with pytest.raises(TypeError, match="cannot be sampled"):
        sample(solution, 10)
    started = sample(solution, num_steps=25, x1=torch.full((20_000, 1), 0.9), sampler="exponential_heun")
    assert float(started.x.mean()) == pytest.approx(exact.x0_given_x1(0.9), abs=0.06)
