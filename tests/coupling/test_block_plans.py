"""Pairs of blocks: optimal transport against POT, Sinkhorn against the closed-form bridge."""

import numpy as np
import ot
import pytest
import torch

from sbbridge.coupling import IndependentCoupling, MinibatchOTCoupling, MinibatchSinkhornCoupling
from sbbridge.data import GaussianMixture, StandardNormal
from sbbridge.problems import GaussianBridge
from sbbridge.rng import BLOCK, Stream
from sbbridge.sde import VPSDE, BrownianMotion
from tests.oracles import moments

STREAM = Stream(3, ("pairs",))


def far_from_normal(d=2):
    return IndependentCoupling(GaussianMixture([1, 1], [[-2.0] * d, [1.0] * d], [0.3, 0.6]), StandardNormal((d,)))


@pytest.mark.parametrize("d", [1, 2, 8])
def test_minibatch_transport_costs_what_pots_exact_solver_says(d):
    pair = MinibatchOTCoupling(far_from_normal(d)).draw(0, range(BLOCK), STREAM)
    cost = ot.dist(pair.x0.double().numpy(), pair.x1.double().numpy())
    wanted = ot.emd2([], [], cost)
    assert float((pair.x0 - pair.x1).double().square().sum(1).mean()) == pytest.approx(wanted, rel=1e-6)


def gaussian(d, reference):
    spread = [2.0, 0.5][:d]
    return GaussianBridge([0.7] * d, np.diag(spread), [0.0] * d, np.eye(d), reference)


def blocks(problem, n):
    coupling = MinibatchSinkhornCoupling(IndependentCoupling(problem.data, problem.prior), problem.reference)
    return coupling.draw(0, range(n * BLOCK), STREAM)


@pytest.mark.parametrize(
    "reference", [VPSDE(), VPSDE(beta_max=2.0), BrownianMotion(sigma=1.0)], ids=["vp4", "vp2", "brownian"]
)
@pytest.mark.parametrize("d", [1, 2])
def test_sinkhorns_pairs_have_the_covariance_of_the_bridge(d, reference):
    """12 blocks, 3072 pairs: 5 standard errors of about 1.5 / sqrt(3072), and 6 % for the blocks' bias."""
    problem = gaussian(d, reference)
    pair = blocks(problem, 12)
    made = torch.cov(torch.cat([pair.x0, pair.x1], 1).double().mT)[:d, d:]
    size = float(problem.coupling_covariance.abs().max())
    assert (made - problem.coupling_covariance).abs().max() < 5 * 1.5 / 3072**0.5 + 0.06 * size
    assert size > 0.5, "the coupling is far from independent"


def test_sinkhorns_pairs_keep_the_marginals():
    """x0 is as it was drawn, x1 is drawn anew from the block's points: each about once, so moments are the prior's."""
    problem = gaussian(2, VPSDE())
    apart = IndependentCoupling(problem.data, problem.prior).draw(0, range(8 * BLOCK), STREAM)
    pair = blocks(problem, 8)
    assert torch.equal(pair.x0, apart.x0)
    for block in range(8):
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        assert set(map(tuple, pair.x1[rows].tolist())) <= set(map(tuple, apart.x1[rows].tolist()))
    assert (pair.x1.mean(0)).abs().max() < 5 * 2**0.5 / (8 * BLOCK) ** 0.5
    assert (torch.cov(pair.x1.mT) - torch.eye(2)).abs().max() < 5 * 2 / (8 * BLOCK) ** 0.5


def test_the_plan_of_a_block_has_uniform_marginals_and_the_references_kernel(monkeypatch):
    """Spied on: marginals, and a log-plan that is the kernel's plus a function of the row plus one of the column."""
    plans, true = [], ot.sinkhorn

    def spy(*args, **kwargs):
        plans.append(true(*args, **kwargs))
        return plans[-1]

    monkeypatch.setattr(ot, "sinkhorn", spy)
    reference = VPSDE(beta_max=2.0)
    problem = gaussian(2, reference)
    blocks(problem, 1)
    plan = torch.as_tensor(plans[0])
    torch.testing.assert_close(plan.sum(0), torch.full((BLOCK,), 1 / BLOCK, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(1), torch.full((BLOCK,), 1 / BLOCK, dtype=torch.float64), atol=1e-6, rtol=0)
    apart = IndependentCoupling(problem.data, problem.prior).draw(0, range(BLOCK), STREAM)
    m, tau2 = moments(reference, 0.0, 1.0)
    rest = plan.log() + torch.cdist(m * apart.x0.double(), apart.x1.double()) ** 2 / (2 * tau2)
    cross = rest - rest.mean(0, keepdim=True) - rest.mean(1, keepdim=True) + rest.mean()
    assert cross.abs().max() < 1e-5


def test_with_little_noise_sinkhorn_is_optimal_transport():
    independent = far_from_normal(1)
    sharp = MinibatchSinkhornCoupling(independent, BrownianMotion(sigma=0.2)).draw(0, range(BLOCK), STREAM)
    exact = MinibatchOTCoupling(independent).draw(0, range(BLOCK), STREAM)
    cost, least = (float((pair.x0 - pair.x1).square().mean()) for pair in (sharp, exact))
    assert least <= cost < least + 3 * 0.2**2


def test_a_memoryless_reference_leaves_the_pairs_independent():
    problem = gaussian(1, VPSDE(beta_max=20.0))
    pair = blocks(problem, 8)
    assert abs(np.corrcoef(pair.x0[:, 0], pair.x1[:, 0])[0, 1]) < 5 / (8 * BLOCK) ** 0.5 + 0.01


def test_sinkhorn_couples_images_of_any_shape():
    problem = IndependentCoupling(StandardNormal((1, 2, 2)), StandardNormal((1, 2, 2)))
    pair = MinibatchSinkhornCoupling(problem, VPSDE()).draw(0, range(10), STREAM)
    assert pair.x0.shape == pair.x1.shape == (10, 1, 2, 2)
    assert pair.x1.dtype == torch.float32


def test_where_the_kernel_would_underflow_sinkhorn_goes_on_in_the_log_domain(monkeypatch):
    """Warm blocks give the same pairs either way; in cold ones, hardly any noise, each x0 finds an x1 near it."""
    warm = blocks(gaussian(2, BrownianMotion(sigma=1.0)), 2)
    cold = blocks(gaussian(2, BrownianMotion(sigma=0.05)), 1)
    monkeypatch.setattr("sbbridge.coupling.sinkhorn.SAFE_EXPONENT", 0.0)
    assert torch.equal(blocks(gaussian(2, BrownianMotion(sigma=1.0)), 2).x1, warm.x1)
    plain = IndependentCoupling(*[getattr(gaussian(2, BrownianMotion()), end) for end in ("data", "prior")])
    apart = plain.draw(0, range(BLOCK), STREAM)
    assert (cold.x0 - cold.x1).square().mean() < 0.5 * (apart.x0 - apart.x1).square().mean()
    # nearly one to one: the plan of little noise is nearly the assignment
    assert len(set(map(tuple, cold.x1.tolist()))) > 0.8 * BLOCK
