"""Variety, on planted sets whose answers can be counted."""

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom
from sklearn.neighbors import NearestNeighbors

from sbbridge.data import Toy2D, eight_gaussians
from sbbridge.metrics import (
    VarietyJudge,
    checkerboard_square,
    class_shares,
    component,
    density_coverage,
    inception_kernel_distance,
    kernel_distance,
    precision_recall,
)
from sbbridge.metrics.kernel import squared_discrepancy
from sbbridge.rng import Stream


def cluster(seed: int, n: int, centre: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3))) + centre


A, B, ELSEWHERE = cluster(0, 40, 0.0), cluster(1, 60, 100.0), cluster(2, 120, -100.0)


def test_precision_and_recall_of_a_dropped_and_an_invented_cluster():
    """40 of 160 generated points are real, 40 of 100 real points are generated."""
    found = precision_recall(torch.cat([A, B]), torch.cat([A, ELSEWHERE]))
    assert found == pytest.approx((0.25, 0.4))


def test_density_and_coverage_of_a_dropped_and_an_invented_cluster():
    """Each of 40 balls holds its centre and 5 neighbours: 240 points over 5 · 160."""
    found = density_coverage(torch.cat([A, B]), torch.cat([A, ELSEWHERE]))
    assert found == pytest.approx((0.3, 0.4))


def test_a_copied_point_has_precision_but_no_recall():
    found = precision_recall(torch.cat([A, B]), A[:1].expand(50, -1))
    assert found == pytest.approx((1.0, 0.01))
    assert density_coverage(torch.cat([A, B]), A[:1].expand(50, -1)).coverage < 0.2


def test_neighbourhoods_agree_with_scikit_learn_over_several_blocks_of_rows():
    generator = np.random.default_rng(3)
    real, generated = generator.normal(size=(1500, 4)), generator.normal(size=(1100, 4)) * 0.8 + 0.2

    def radii(points: np.ndarray, k: int) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k).fit(points).kneighbors()[0][:, -1]

    def inside(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
        return np.linalg.norm(points[:, None] - centres, axis=2) <= radii(centres, k)

    tensors = torch.from_numpy(real), torch.from_numpy(generated)
    wanted = inside(generated, real, 3).any(1).mean(), inside(real, generated, 3).any(1).mean()
    assert precision_recall(*tensors) == pytest.approx(wanted, abs=2e-3)
    balls = inside(generated, real, 5)
    assert density_coverage(*tensors) == pytest.approx((balls.sum() / 5 / 1100, balls.any(0).mean()), abs=2e-3)


@pytest.mark.parametrize(("n", "m"), [(150, 150), (200, 60)])
def test_expectations_for_equal_laws(n, m):
    """The neighbours of a real point are n − 1 real and m generated ones in random order; 60 repetitions, 4 errors."""
    generator = torch.Generator().manual_seed(4)
    draws = [torch.randn(n + m, 5, generator=generator, dtype=torch.float64) for _ in range(60)]
    values = np.array([density_coverage(x[:n], x[n:]) for x in draws])
    wanted = 1.0, 1 - hypergeom.pmf(0, n - 1 + m, m, 5)
    errors = values.std(0, ddof=1) / 60**0.5
    assert (np.abs(values.mean(0) - wanted) < 4 * errors).all()
    assert errors.max() < 0.02


def test_neighbourhoods_need_points():
    with pytest.raises(ValueError, match="need more than 3 points, got 3"):
        precision_recall(A[:3], A)
    with pytest.raises(ValueError, match="need more than 5 points, got 5"):
        density_coverage(A[:5], A)
    with pytest.raises(ValueError, match="at least 1 generated point, got 0"):
        density_coverage(A, A[:0])


class TestClassShares:
    REAL = torch.tensor([0] * 50 + [1] * 50)

    @pytest.mark.parametrize(("kept", "covered"), [(4, 1), (5, 2)])
    def test_a_tenth_of_the_real_share_counts_as_covered(self, kept, covered):
        found = class_shares(self.REAL, torch.tensor([0] * (100 - kept) + [1] * kept), 3)
        assert found.distance == pytest.approx(0.5 - kept / 100)
        assert found.covered == covered

    def test_classes_that_do_not_exist_count_as_distance_only(self):
        assert class_shares(self.REAL, torch.full((7,), 2), 3) == (1.0, 0)

    def test_sizes_do_not_matter(self):
        assert class_shares(self.REAL, torch.tensor([0, 1]), 2) == (0.0, 2)

    def test_nothing_is_refused(self):
        with pytest.raises(ValueError, match="at least 1 point"):
            class_shares(self.REAL, self.REAL[:0], 2)


def test_every_square_of_the_checkerboard_is_a_class_and_the_rest_is_outside():
    labels = checkerboard_square(Toy2D("checkerboard").sample(8000, seed=1))
    counts = torch.bincount(labels, minlength=9)
    assert counts[8] == 0
    assert (counts[:8] - 1000).abs().max() < 5 * 1000**0.5
    outside = torch.tensor([[-3.0, -1.0], [3.0, 5.0], [-4.1, -3.0], [0.5, -0.5]])
    assert checkerboard_square(outside).tolist() == [8] * 4
    centres = torch.tensor([[-3.0, -3.0], [-3.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [3.0, 3.0]])
    assert len(set(checkerboard_square(centres).tolist())) == 5


def test_the_most_responsible_of_eight_equal_gaussians_is_the_nearest():
    mixture = eight_gaussians()
    x = 4 * torch.randn(500, 2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(component(mixture, x), torch.cdist(x.double(), mixture.means).argmin(1))


def test_a_judge_sees_dropped_modes():
    mixture = eight_gaussians()
    judge = VarietyJudge(mixture.sample(800, seed=1), lambda x: component(mixture, x), 8)
    whole = mixture.sample(800, seed=2)
    half = whole[component(mixture, whole) < 4]
    good, bad = judge(whole), judge(half)
    assert good["classes_covered"] == 8
    assert bad["classes_covered"] == 4
    assert good["class_histogram_distance"] < 0.1 < 0.4 < bad["class_histogram_distance"]
    assert good["recall"] > 0.9 > 0.6 > bad["recall"]
    assert bad["precision"] > 0.9
    assert set(VarietyJudge(whole)(half)) == {"precision", "recall", "density", "coverage"}


class TestKernelDistance:
    def draws(self, n: int, d: int, shift: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, n, d)))
        return x, y + shift

    def test_a_subset_is_judged_as_clean_fid_judges_it(self):
        from cleanfid.fid import kernel_distance as theirs

        x, y = self.draws(90, 5, 0.3)
        wanted = theirs(x.numpy(), y.numpy(), num_subsets=1)  # all rows, in a random order
        assert float(squared_discrepancy(x, y)) == pytest.approx(wanted, rel=1e-9)

    def test_on_inceptions_features_it_is_clean_fids(self):
        """Raw features away from 0, of a scale that standardising would change much; the subsets are drawn anew."""
        from cleanfid.fid import kernel_distance as theirs

        x, y = (0.4 * z + 0.45 for z in self.draws(2100, 8, 0.2))
        state = np.random.get_state()  # noqa: NPY002
        np.random.seed(0)  # noqa: NPY002
        wanted = theirs(x.numpy(), y.numpy())
        np.random.set_state(state)  # noqa: NPY002
        found = inception_kernel_distance(x, y)
        assert found.value == pytest.approx(wanted, abs=found.standard_error)  # the rows are the same
        assert wanted > 5 * found.standard_error
        assert abs(kernel_distance(x, y, subset_size=1000).value - wanted) > 20 * found.standard_error

    def test_the_subsets_of_a_raw_distance_are_judged_as_clean_fid_judges_them(self, monkeypatch):
        from cleanfid.fid import kernel_distance as theirs

        x, y = (0.4 * z + 0.45 for z in self.draws(400, 5, 0.2))
        stream = Stream(3, ("kernel distance",))
        orders = iter([
            stream.child(side).permutation(index, 400).numpy()[:100] for index in range(7) for side in ("y", "x")
        ])  # fmt: skip
        monkeypatch.setattr(np.random, "choice", lambda n, m, replace: next(orders))
        wanted = theirs(x.numpy(), y.numpy(), num_subsets=7, max_subset_size=100)
        found = kernel_distance(x, y, standardise=False, subsets=7, subset_size=100, seed=3)
        assert found.value == pytest.approx(wanted, rel=1e-9)

    @pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
    def test_a_shifted_gaussian_has_the_moments_of_a_cubic_kernel(self, shift):
        """E (s/d + 1)^3 with s = x·y; moments of s for N(0, I) and N(δ, I), m = |δ|^2."""
        n, d = 4000, 8
        m = d * shift**2
        within = 1 + 3 / d
        moved = 1 + 3 * m / d + 3 * (m**2 + 2 * m + d) / d**2 + (m**3 + 3 * m * (2 * m + d) + 6 * m) / d**3
        between = 1 + 3 * (m + d) / d**2
        found = kernel_distance(*self.draws(n, d, shift), subsets=20, subset_size=1000)
        assert found.value == pytest.approx(within + moved - 2 * between, abs=5 * found.standard_error + 0.02 * m)

    def test_the_standard_error_is_the_scatter_of_repetitions(self):
        found = [kernel_distance(*self.draws(400, 16, 0.2, seed), seed=seed) for seed in range(40)]
        scatter = np.std([one.value for one in found])
        assert 0.5 * scatter < np.mean([one.standard_error for one in found]) < 2 * scatter

    def test_scale_and_origin_of_the_features_do_not_matter(self):
        x, y = self.draws(200, 6, 0.4)
        plain = kernel_distance(x, y)
        assert kernel_distance(1000 * x + 7, 1000 * y + 7) == pytest.approx(plain)

    def test_the_reference_sets_the_scale(self):
        x, y = self.draws(400, 6, 0.0)
        assert kernel_distance(x, 3 * y).value > 5 * kernel_distance(3 * y, x).value > 0

    @pytest.mark.usefixtures("global_state_untouched")
    def test_it_is_repeatable_and_leaves_the_global_random_state_alone(self):
        x, y = self.draws(300, 6, 0.1)
        assert kernel_distance(x, y, seed=1) == kernel_distance(x, y, seed=1)
        assert kernel_distance(x, y, seed=1) != kernel_distance(x, y, seed=2)

    def test_constant_features_are_no_matter_and_few_rows_are_refused(self):
        x, y = self.draws(40, 3, 0.0)
        assert np.isfinite(kernel_distance(x * torch.tensor([1, 1, 0]), y * torch.tensor([1, 1, 0]))).all()
        with pytest.raises(ValueError, match="at least 4 rows on either side, got 3"):
            kernel_distance(x[:3], y)
