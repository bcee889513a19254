"""Two-sample tests: closed forms, false alarms under the null, and planted violations."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from sbbridge.coupling import classifier_two_sample, sliced_wasserstein, terminal_test

TRIALS = 60


def normal(seed: int, n: int, *shape: int) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def two_humps(seed: int, n: int, d: int, a: float = 0.95) -> torch.Tensor:
    """Mean 0 and covariance I, but ±a + sqrt(1 − a²) noise along one direction, which is no axis."""
    x, direction = normal(seed, n, d), torch.nn.functional.normalize(normal(seed + 1, 1, d))[0]
    sign, noise = normal(seed + 2, 2, n)
    along = a * sign.sign() + (1 - a * a) ** 0.5 * noise
    return x + (along - x @ direction)[:, None] * direction


class TestSlicedWasserstein:
    @pytest.mark.parametrize(("d", "projections"), [(64, 64), (4, 64), (4, 3)])
    def test_of_two_gaussians(self, d, projections):
        """W2² of N(0, 1) and N(v·δ, s²) is (v·δ)² + (s − 1)²; orthogonal directions share |δ|² out evenly."""
        x, y = normal(1, 20_000, d), 1.5 * normal(2, 20_000, d) + 0.4
        found = sliced_wasserstein(x, y, projections)
        assert found.distance**2 == pytest.approx(0.16 + 0.25, rel=0.03 if projections >= d else 0.5)
        assert found.distance > 10 * found.limit

    def test_of_a_sample_with_itself(self):
        x = normal(3, 500, 1, 4, 4)
        found = sliced_wasserstein(x, x.flip(0))
        assert found.distance == pytest.approx(0, abs=1e-6)
        assert found.limit >= found.null > 0.01

    def test_the_null_is_what_independent_samples_of_one_law_show(self):
        found = [sliced_wasserstein(normal(s, 500, 8), normal(1000 + s, 500, 8), seed=s) for s in range(30)]
        assert np.mean([one.null for one in found]) == pytest.approx(np.mean([one.distance for one in found]), rel=0.05)

    @pytest.mark.parametrize("d", [1, 16])
    def test_false_alarms(self, d):
        """1 in 20, in any dimension; more than this many would happen to an honest test with probability 1e-4."""
        alarms = 0
        for s in range(TRIALS):
            found = sliced_wasserstein(normal(s, 200, d), normal(1000 + s, 200, d), 16, seed=s)
            alarms += found.distance > found.limit
        assert alarms <= binom.isf(1e-4, TRIALS, 0.05)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="equal size and not be empty, got 3 and 4"):
            sliced_wasserstein(torch.zeros(3, 1), torch.zeros(4, 1))
        with pytest.raises(ValueError, match="projections must be >= 1, got 0"):
            sliced_wasserstein(torch.zeros(3, 1), torch.zeros(3, 1), 0)


class TestClassifier:
    def test_false_alarms_and_the_standard_error(self):
        found = [classifier_two_sample(normal(s, 400, 8), normal(1000 + s, 400, 8), s) for s in range(TRIALS)]
        scores = np.array([(one.accuracy - 0.5) / one.standard_error for one in found])
        assert abs(scores.mean()) < 4 / TRIALS**0.5
        assert 0.7 < scores.std() < 1.3
        assert sum(not one.indistinguishable for one in found) <= binom.isf(1e-4, TRIALS, 0.046)

    def test_a_shift_is_told_as_often_as_it_can_be(self):
        """N(0, I) against N(δ, I): no classifier is right more often than Φ(|δ|/2)."""
        x, y = normal(1, 8000, 4), normal(2, 8000, 4) + 0.5
        found = classifier_two_sample(x, y)
        assert found.accuracy == pytest.approx(0.6915, abs=4 * found.standard_error)

    def test_a_correlation_is_seen(self):
        """Every coordinate is N(0, 1) and the norm's mean is right: only the covariance differs."""
        x = normal(3, 4000, 16)
        x[:, 0] = 0.7 * x[:, 1] + 0.51**0.5 * x[:, 0]
        assert classifier_two_sample(x, normal(4, 4000, 16)).accuracy > 0.6

    @pytest.mark.parametrize("seed", [10, 20, 30])
    def test_two_humps_along_a_hidden_direction_are_seen(self, seed):
        found = classifier_two_sample(two_humps(seed, 8192, 64), normal(seed + 5, 8192, 64), seed)
        assert found.accuracy > 0.55
        assert not found.indistinguishable

    def test_units_do_not_matter(self):
        x, y = normal(5, 1000, 4), 2 * normal(6, 1000, 4)
        plain = classifier_two_sample(x, y).accuracy
        assert classifier_two_sample(1e12 * x, 1e12 * y).accuracy == pytest.approx(plain, abs=0.01)

    def test_too_few_rows_tell_nothing(self):
        assert classifier_two_sample(normal(7, 3, 2), 9 + normal(8, 3, 2)).indistinguishable

    def test_unequal_sizes_are_refused(self):
        with pytest.raises(ValueError, match="equal size, got 8 and 9"):
            classifier_two_sample(normal(0, 8, 2), normal(0, 9, 2))


@pytest.mark.usefixtures("global_state_untouched")
def test_both_are_repeatable_and_leave_the_global_random_state_alone():
    x, y = normal(1, 300, 4), normal(2, 300, 4)
    assert sliced_wasserstein(x, y, seed=1) == sliced_wasserstein(x, y, seed=1)
    assert sliced_wasserstein(x, y, seed=1).null != sliced_wasserstein(x, y, seed=2).null
    assert classifier_two_sample(x, y, 1) == classifier_two_sample(x, y, 1)


class TestTerminalTest:
    N, D = 8192, 64

    def test_the_prior_passes(self):
        """The paper's own criterion lets one of two orders through: the smaller top eigenvalue first."""
        one, other = normal(1, self.N, self.D), normal(2, self.N, self.D)
        tests = [terminal_test(a, b) for a, b in ((one, other), (other, one))]
        assert all(test.passed_strict for test in tests)
        assert sum(test.passed for test in tests) == 1

    def caught(self, test) -> bool:
        """By what the paper's criterion does not look at."""
        unsure = abs(test.classifier_accuracy - 0.5) <= 2 * test.classifier_standard_error
        return not unsure or test.sliced_wasserstein > test.sliced_wasserstein_limit

    def test_too_little_spread_passes_the_papers_criterion_alone(self):
        """E |x1|²/d = 0.975."""
        tests = [
            terminal_test(0.975**0.5 * normal(s, self.N, self.D), normal(s + 5, self.N, self.D)) for s in (10, 20, 30)
        ]
        assert any(test.passed for test in tests)
        assert not any(test.passed_strict for test in tests)
        assert all(self.caught(test) for test in tests)

    def test_two_humps_pass_the_papers_criterion_alone(self):
        tests = [terminal_test(two_humps(s, self.N, self.D), normal(s + 5, self.N, self.D)) for s in (10, 20, 30, 40)]
        assert any(test.passed for test in tests)
        assert not any(test.passed_strict for test in tests)
        assert all(self.caught(test) for test in tests)

    def test_it_works_on_two_rows(self):
        test = terminal_test(normal(1, 2, 1, 2, 2), normal(2, 2, 1, 2, 2))
        assert np.isfinite(
            [test.sliced_wasserstein, test.sliced_wasserstein_prior, test.classifier_accuracy, test.top_eigenvalue]
        ).all()
