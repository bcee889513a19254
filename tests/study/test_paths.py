"""The localised coupling and the projected paths, on solutions that are known."""

from types import SimpleNamespace

import pytest
import torch

from sbbridge.methods import Solution
from sbbridge.problems import GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import BrownianMotion
from sbbridge.solvers import Dynamics
from sbbridge.study.tasks import paths
from sbbridge.study.tasks.paths import localised, path_measures


@pytest.fixture
def exact():
    """A Gaussian bridge whose data are wide along (1, 1, 0), less so along (1, −1, 0), flat along the third axis."""
    covariance = torch.tensor([[5.0, 4.0, 0.0], [4.0, 5.0, 0.0], [0.0, 0.0, 0.01]], dtype=torch.float64)
    problem = GaussianBridge(torch.zeros(3), covariance, torch.zeros(3), torch.eye(3), BrownianMotion(sigma=1.0))
    return Solution(problem, "exact", Dynamics(problem.reference, problem.control, problem.backward_score))


class TestLocalised:
    X = torch.randn(4000, 1, 2, 2, generator=torch.Generator().manual_seed(0)) + 3

    @pytest.mark.parametrize(
        ("way", "wanted"), [(lambda x: x, 0.0), (lambda x: x.roll(1, 0), 1.0), (lambda x: 2 * x - x.mean(0), 0.5)]
    )
    def test_of_known_round_trips(self, way, wanted, monkeypatch):
        """The same point is at 0, another point at 1; a point moved by x − E x is at tr C / (2 tr C)."""
        monkeypatch.setattr(paths, "round_trip", lambda solution, x0, *a, **k: way(x0))
        found = list(localised(SimpleNamespace(), self.X, (0.3, 1.0), "exponential", 0))
        assert [t for t, _, _ in found] == [0.3, 1.0]
        assert all(distance == pytest.approx(wanted, abs=0.05) for _, _, distance in found)

    def test_an_exact_bridge_forgets_more_the_further_it_goes(self, exact):
        """At t = 1, x0 and what returns are independent given x1: E |x0hat − x0|² = 2 tr Cov(x0 | x1)."""
        x0 = exact.problem.data.sample(4000, seed=1)
        found = [distance for _, _, distance in localised(exact, x0, (0.1, 0.5, 1.0), "exponential", 2)]
        assert 0 < found[0] < found[1] < found[2] < 1
        wanted = float(exact.problem.conditional_covariance0.trace() / exact.problem.cov0.trace())
        assert found[2] == pytest.approx(wanted, rel=0.1)


def test_paths_are_seen_along_the_widest_directions_of_the_data(exact):
    _, arrays = path_measures(exact, "heun", 100, seed=3)
    shown = arrays["trajectories"]
    whole = sample(exact, 100, 50, sampler="heun", seed=3, trajectory=True).trajectory[:, :64]
    wide, narrow = (whole[..., 0] + whole[..., 1]) / 2**0.5, (whole[..., 0] - whole[..., 1]) / 2**0.5
    assert shown.shape == (51, 64, 2)
    for mine, wanted in ((shown[-1, :, 0], wide[-1]), (shown[-1, :, 1], narrow[-1])):
        assert abs(float(torch.corrcoef(torch.stack([mine, wanted]))[0, 1])) > 0.98
        assert float(mine.std()) == pytest.approx(float(wanted.std()), rel=0.05)
