"""Pairs that a backward process makes, and whole paths as a source of batches."""

import math

import numpy as np
import pytest
import torch

from sbbridge.coupling import (
    GeneratedCoupling,
    Generation,
    SimulatedCoupling,
    Simulation,
    TrajectorySource,
    Workers,
    step_pair,
)
from sbbridge.path import NODE_GRIDS
from sbbridge.problems import GaussianBridge
from sbbridge.rng import Stream
from sbbridge.sde import VPSDE, BrownianMotion, LinearSDE
from sbbridge.solvers import BACKWARD, Dynamics

STREAM = Stream(3, ("pairs",))
REFERENCES = {"vp4": VPSDE(), "brownian": BrownianMotion(), "linear": LinearSDE()}


def bridge(reference):
    return GaussianBridge([0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], [[1.0, 0.2], [0.2, 0.8]], reference)


def generated(problem, *args, **options):
    dynamics = Dynamics(problem.reference, problem.control, problem.backward_score)
    return GeneratedCoupling(problem.prior, dynamics, Generation(*args, **options))


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
@pytest.mark.parametrize(
    ("scheme", "num_steps", "bias"),
    [
        ("exponential_heun", 12, 0.01),
        ("exponential", 60, 0.02),
        ("ancestral", 100, 0.03),
        ("euler_maruyama", 100, 0.03),
    ],
)
def test_generated_pairs_have_the_covariance_of_the_bridge(reference, scheme, num_steps, bias):
    """Exact score, n = 20,000: 5 standard errors of about 1.6 / sqrt(n), and the scheme's bias."""
    problem, n = bridge(reference), 20_000
    pair = generated(problem, scheme, num_steps).draw(0, range(n), STREAM)
    joint = torch.cov(torch.cat([pair.x0, pair.x1], 1).double().mT)
    tolerance = 5 * 1.6 / n**0.5
    assert (joint[:2, 2:] - problem.coupling_covariance).abs().max() < tolerance + bias
    assert (joint[:2, :2] - problem.cov0).abs().max() < 5 * 2.9 / n**0.5 + 2 * bias
    assert (pair.x0.double().mean(0) - problem.mean0).abs().max() < tolerance + bias


def test_forward_and_backward_pairs_of_one_bridge_agree():
    """The same joint law from either end."""
    problem, n = bridge(VPSDE()), 20_000
    dynamics = Dynamics(problem.reference, problem.control)
    forward = SimulatedCoupling(problem.data, dynamics, Simulation()).draw(0, range(n), STREAM)
    backward = generated(problem, "exponential_heun", 12).draw(0, range(n), STREAM)
    one, other = (torch.cov(torch.cat([pair.x0, pair.x1], 1).double().mT) for pair in (forward, backward))
    assert (one - other).abs().max() < 0.12


def test_the_last_noise_can_be_kept_or_left_out():
    """Denoising at the end narrows the law by what the last step's noise would have added."""
    problem, n = bridge(BrownianMotion()), 20_000
    kept, left = (
        generated(problem, "exponential", 10, "trailing_uniform", final_noise=keep)
        .draw(0, range(n), STREAM)
        .x0.double()
        for keep in (True, False)
    )
    assert float((kept.var(0) - left.var(0)).mean()) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("final_noise", [True, False])
@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize("scheme", [name for name in BACKWARD if name != "one_step"])
def test_every_generation_that_can_be_configured_is_finite(scheme, grid, final_noise):
    problem = bridge(VPSDE(beta_max=20.0))
    for num_steps in (1, 3):
        pair = generated(problem, scheme, num_steps, grid, final_noise=final_noise).draw(0, range(8), STREAM)
        assert torch.isfinite(pair.x0).all()


def test_batches_of_simulation_do_not_change_the_pairs():
    problem = bridge(VPSDE())
    whole, parts = (
        generated(problem, "exponential", 4, batch_size=size).draw(2, range(50, 700), STREAM) for size in (4096, 99)
    )
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_trajectories_run_from_prior_to_data():
    coupling = generated(bridge(VPSDE()), "exponential", 4)
    path, pair = coupling.trajectories(1, range(20), STREAM), coupling.draw(1, range(20), STREAM)
    assert path.shape == (5, 20, 2)
    assert torch.equal(path[0], pair.x1)
    assert torch.equal(path[-1], pair.x0)


@pytest.mark.parametrize(("options", "field"), [({"num_steps": 0}, "num_steps"), ({"batch_size": 0}, "batch_size")])
def test_impossible_generations_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Generation(**options)


# -- whole paths


def counted(step, rows, stream):
    """Paths of four states that say when and where they were made: 1000 step + row, + 0.1 a state."""
    start = torch.tensor([1000.0 * step + row for row in rows])
    return (start + 0.1 * torch.arange(4.0)[:, None])[:, :, None]


def one_of(rank, size):
    worker = Workers()
    worker.rank, worker.size = rank, size
    return worker


def shared(size):
    """Sources of so many workers, which hold the whole cache, as if they had gathered it."""
    whole = TrajectorySource(counted, 20, 5, STREAM, Workers(), refresh_every=2)
    whole.refresh(0)
    sources = [TrajectorySource(counted, 20, 5, STREAM, one_of(rank, size), refresh_every=2) for rank in range(size)]
    for source in sources:
        source.load_state({name: tensor.clone() for name, tensor in whole.state().items()})
    return sources


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_batches_of_paths_without_changing_them(size):
    one = shared(1)[0]
    for epoch, step in ((0, 0), (0, 4), (1, 0)):
        whole, rows, total = one.batch(epoch, step, 7)
        assert (rows, total) == (range(7), 7)
        shares = [source.batch(epoch, step, 7) for source in shared(size)]
        assert torch.equal(torch.cat([share["path"] for share, _, _ in shares]), whole["path"])
        assert [row for _, mine, _ in shares for row in mine] == list(range(7))


@pytest.mark.parametrize("size", [2, 3])
def test_workers_simulate_their_own_paths(size):
    seen = []

    def simulate(step, rows, stream):
        seen.append(rows)
        return counted(step, rows, stream)

    class Lonely(Workers):
        def gather(self, x, n):
            return torch.cat([x, x.new_full((n - len(x), *x.shape[1:]), math.nan)])

    for rank in range(size):
        worker = Lonely()
        worker.rank, worker.size = rank, size
        TrajectorySource(simulate, 20, 5, STREAM, worker).refresh(0)
    assert [row for rows in seen for row in rows] == list(range(20))


def test_batches_hold_whole_paths_that_were_simulated_and_differ_by_step():
    source = shared(1)[0]
    first = source.batch(0, 0, 64)[0]["path"]
    assert first.shape == (64, 4, 1)
    torch.testing.assert_close(first[:, :, 0].diff(dim=1), torch.full((64, 3), 0.1), atol=1e-4, rtol=0)
    assert set(first[:, 0, 0].tolist()) <= set(range(20))
    assert len(set(first[:, 0, 0].tolist())) > 15, "rows are drawn from all paths"
    assert torch.equal(first, source.batch(0, 0, 64)[0]["path"])
    for epoch, step in ((0, 1), (1, 0)):
        assert not torch.equal(first, source.batch(epoch, step, 64)[0]["path"])
    assert source.steps(64) == 5


def test_the_cache_is_renewed_when_it_is_due():
    source = TrajectorySource(counted, 20, 5, STREAM, Workers(), refresh_every=2)
    firsts = []
    for epoch in range(4):
        source.refresh(epoch)
        firsts.append(float(source.state()["path"][0, 0, 0]))
    assert firsts == [0, 0, 2000, 2000]


def test_a_step_pair_is_a_state_and_the_next():
    path = counted(0, range(5), STREAM).transpose(0, 1)
    x, x_next = step_pair(path, torch.tensor([0, 1, 2, 0, 2]))
    np.testing.assert_allclose(x[:, 0], [0.0, 1.1, 2.2, 3.0, 4.2], atol=1e-6)
    np.testing.assert_allclose(x_next - x, np.full((5, 1), 0.1), atol=1e-6)
