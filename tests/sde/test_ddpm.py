"""DDPM's chain in continuous time: the chain at its own times, a process between them."""

import numpy as np
import pytest
import torch

from sbbridge.sde import DDPM
from tests.oracles import moments

SHORT = DDPM(num_steps=7, first_beta=0.02, last_beta=0.5)


def products(chain):
    """prod_{j <= i} (1 − beta_j), one factor after the other."""
    kept, found = 1.0, []
    for i in range(chain.num_steps):
        kept *= 1 - (chain.first_beta + i * (chain.last_beta - chain.first_beta) / (chain.num_steps - 1))
        found.append(kept)
    return np.array(found)


@pytest.mark.parametrize("chain", [DDPM(), SHORT, DDPM(num_steps=2)], ids=str)
def test_it_passes_through_the_chain(chain):
    t = (torch.arange(chain.num_steps, dtype=torch.float64) + 1) / chain.num_steps
    np.testing.assert_allclose(chain.mean_factor(0.0, t) ** 2, products(chain), rtol=1e-9)
    np.testing.assert_allclose(chain.variance(0.0, t), 1 - products(chain), rtol=1e-9)
    np.testing.assert_allclose(chain.index(t), np.arange(chain.num_steps), atol=1e-9)


def test_the_chain_is_that_of_other_libraries():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler()
    t = (torch.arange(1000, dtype=torch.float64) + 1) / 1000
    np.testing.assert_allclose(DDPM().mean_factor(0.0, t) ** 2, scheduler.alphas_cumprod, rtol=2e-5)
    assert DDPM().retained_memory == pytest.approx(0.00635, abs=1e-5)
    assert DDPM().is_memoryless()


def test_a_step_of_the_process_is_a_step_of_the_chain():
    """Its transition from index i − 1 to i keeps sqrt(1 − beta_i) and adds beta_i."""
    for i, beta in enumerate(np.linspace(0.02, 0.5, 7)):
        assert float(SHORT.mean_factor(i / 7, (i + 1) / 7)) == pytest.approx((1 - beta) ** 0.5, rel=1e-12)
        assert float(SHORT.variance(i / 7, (i + 1) / 7)) == pytest.approx(beta, rel=1e-12)


@pytest.mark.parametrize(("s", "t"), [(0.0, 0.03), (0.05, 0.11), (0.15, 0.9), (0.0, 1.0), (3 / 7, 4 / 7)])
def test_drift_and_diffusion_make_these_moments(s, t):
    """Integrated between the kinks, where the rate jumps."""
    inside = [k / 7 for k in range(1, 7) if s < k / 7 < t]
    k, v = 1.0, 0.0
    for start, end in zip([s, *inside], [*inside, t], strict=True):
        factor, variance = moments(SHORT, start + 1e-12, end - 1e-12)
        k, v = factor * k, factor**2 * v + variance
    assert float(SHORT.mean_factor(s, t)) == pytest.approx(k, rel=1e-7)
    assert float(SHORT.variance(s, t)) == pytest.approx(v, rel=1e-7)


def test_transitions_compose_and_variance_is_preserved():
    s, u, t = (torch.tensor(x, dtype=torch.float64) for x in (0.13, 0.4711, 0.88))
    for chain in (DDPM(), SHORT):
        first, second, whole = (chain.mean_factor(*pair) for pair in ((s, u), (u, t), (s, t)))
        torch.testing.assert_close(first * second, whole)
        composed = second**2 * chain.variance(s, u) + chain.variance(u, t)
        torch.testing.assert_close(composed, chain.variance(s, t))
        torch.testing.assert_close(whole**2 + chain.variance(s, t), torch.ones_like(s))


def test_it_begins_at_the_data_and_is_continuous():
    t = torch.linspace(0, 1, 9001, dtype=torch.float64)
    a = DDPM().mean_factor(0.0, t)
    assert a[0] == 1
    assert (a.diff() < 0).all()
    assert a.diff().abs().max() < 3e-4
    assert DDPM().variance(0.0, 0.0) == 0


def test_times_of_the_chain_carry_gradients_between_its_nodes():
    t = torch.tensor(0.4567, dtype=torch.float64, requires_grad=True)
    DDPM().mean_factor(0.0, t).backward()
    near = [float(DDPM().mean_factor(0.0, 0.4567 + h)) for h in (1e-6, -1e-6)]
    assert float(t.grad) == pytest.approx((near[0] - near[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 1}, "num_steps must be >= 2, got 1"),
        ({"first_beta": 0.0}, r"first_beta must be in \(0, 1\), got 0.0"),
        ({"last_beta": 1.0}, r"last_beta must be in \[first_beta = 0.0001, 1\), got 1.0"),
        ({"first_beta": 0.03}, r"last_beta must be in \[first_beta = 0.03, 1\), got 0.02"),
        ({"last_beta": float("nan")}, "last_beta must be finite, got nan"),
    ],
)
def test_impossible_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        DDPM(**options)
