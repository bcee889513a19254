"""One pair of networks that says rates, for several numbers of steps at once."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from sbbridge.config import ConfigurationError
from sbbridge.coupling import Generation
from sbbridge.methods import LDSB, NoFit, TeacherFit
from sbbridge.methods.ldsb_paths import PathSampler, path_of
from sbbridge.methods.ldsb_stages import RATE_INPUTS
from sbbridge.networks import KAN, EfficientKAN
from sbbridge.sampling import sample
from sbbridge.solvers.ratio_path import carry
from sbbridge.training import Reporter, Trainer, Training, fit
from tests.methods.denoising import SHORT, SMALL_KAN, TABLE, method, problem, trainer
from tests.training.recording import differing, weights

TWO = TeacherFit(epochs=2, pairs=64, generation=SHORT, shared=(3, 5))


class Says(torch.nn.Module):
    """A ratio network of a given function of its input."""

    def __init__(self, function):
        super().__init__()
        self.none, self.function = torch.nn.Parameter(torch.zeros(())), function

    def forward(self, t, node):
        return self.function(t.double())[:, None]


def nodes_of(num_steps, family="vp", **options):
    return method(TWO, family, num_steps=num_steps, **options).nodes(problem(family))


@pytest.mark.parametrize("family", ["vp", "flow"])
@pytest.mark.parametrize("num_steps", [2, 5, 8])
def test_one_half_is_the_original_path_of_every_number_of_steps(family, num_steps):
    nodes = nodes_of(num_steps, family)
    half = Says(lambda t: torch.full_like(t, 0.5))
    path = path_of(nodes, half, half)
    torch.testing.assert_close(path.image, nodes.original.image, atol=1e-12, rtol=0)
    torch.testing.assert_close(path.noise, nodes.original.noise, atol=2e-5, rtol=0)


def test_a_constant_rate_is_a_power_of_the_original_path_whatever_the_steps():
    """v = 2/3 is twice as fast: a_k^2; v = 1/3 half as fast: b_k^½."""
    image, noise = (Says(lambda t, v=v: torch.full_like(t, v)) for v in (2 / 3, 1 / 3))
    for num_steps in (4, 5, 10, 20):
        nodes = nodes_of(num_steps)
        path = path_of(nodes, image, noise)
        torch.testing.assert_close(path.image, nodes.original.image**2, atol=1e-12, rtol=0)
        end = nodes.top_noise
        torch.testing.assert_close(path.noise, end * (nodes.original.noise / end).sqrt(), atol=1e-12, rtol=0)


def test_rates_of_time_make_paths_that_agree_in_the_limit_of_many_steps():
    """At the times that both have, log a is a Riemann sum of one integral: its error halves with the steps."""
    rate = Says(lambda t: 0.4 + 0.2 * t)
    coarse, fine, finest = (path_of(nodes_of(n, "flow"), rate, rate).image[:-1].log() for n in (20, 40, 80))
    first, second = (coarse - fine[1::2]).abs().max(), (fine - finest[1::2]).abs().max()
    assert 1.5 < float(first / second) < 2.5


def test_rows_go_along_the_path_of_their_number():
    on = problem()
    networks = [SMALL_KAN.build((), seed) for seed in (1, 2)]
    shared = [nodes_of(n) for n in (3, 5, 4)]
    sampler = PathSampler(on.denoiser, shared, *networks, learn_times=False, momentum=False)
    z, numbers = on.prior.sample(17, seed=0), torch.arange(17) * 7 % 3
    found = sampler(numbers, z)
    for number, nodes in enumerate(shared):
        mine = numbers == number
        torch.testing.assert_close(found[mine], carry(on.denoiser, path_of(nodes, *networks), z[mine]))


def test_every_number_of_steps_is_trained_and_its_calls_are_counted(monkeypatch):
    seen, true = [], PathSampler.forward

    def forward(self, t, z):
        seen.append(t)
        return true(self, t, z)

    monkeypatch.setattr(PathSampler, "forward", forward)
    run = trainer(method(TWO), network=SMALL_KAN)
    run.train()
    assert all(torch.equal(t, torch.arange(16) % 2) for t in seen)
    assert len(seen) == 2 * 64 // 16
    assert run.position.optimisation == 4 * RATE_INPUTS * 2 + 2 * 64 * 4  # the prefit; 3 and 5 calls in turn
    half = trainer(method(replace(TWO, shared=(3, 4))), network=SMALL_KAN)
    half.train()
    assert run.position.optimisation - half.position.optimisation == 64


@pytest.mark.parametrize("network", [EfficientKAN(20), KAN(20)], ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_kans_learn_the_original_path_of_any_number_of_steps_to_the_tolerance_that_is_asserted(network, seed):
    """As it stands by default; 7, 20 and 40 are in no loss, and between and beyond the nodes of those that are."""
    way = TeacherFit(1, 16, SHORT, learning_rate=1e-12, shared=(5, 10))
    run = Trainer(LDSB(fit=way), problem(), network, Training(batch_size=16, ema_decay=0.0), seed, Reporter())
    run.train()
    for num_steps in (5, 7, 10, 20, 40):
        nodes = nodes_of(num_steps)
        with torch.no_grad():
            path = path_of(nodes, *(run.networks[name].online for name in ("image", "noise")))
        torch.testing.assert_close(path.image, nodes.original.image, atol=3e-4, rtol=0)
        torch.testing.assert_close(path.noise, nodes.original.noise, atol=3e-4, rtol=0)


GENERATION = Generation("heun", 30, "trailing_quadratic")


@cache
def distance(num_steps, shared):
    """From the flow's ends, on noise that no fit has seen; one training for all."""
    way = TeacherFit(10, 768, GENERATION, 5e-3, shared=shared) if shared else NoFit()
    chosen = method(way, num_steps=num_steps, prefit_steps=300, prefit_tolerance=1e-3)
    training = Training(batch_size=128, ema_decay=0.0)
    solution = fit(chosen, problem(), network=EfficientKAN(grid_size=10), training=training)
    ends = sample(solution, 2000, 100, sampler="heun", grid="trailing_quadratic", seed=77).x
    return float((sample(solution, 2000, seed=77).x - ends).square().mean().sqrt())


@pytest.mark.parametrize("num_steps", [4, 5, 8])
def test_one_network_serves_numbers_of_steps_that_it_was_and_was_not_fitted_for(num_steps):
    """5 is none of those that the loss knows."""
    assert distance(num_steps, (4, 8)) < 0.85 * distance(num_steps, None)


def test_the_fit_is_the_same_whichever_number_of_steps_is_asked_for():
    one, other = (trainer(method(TWO, num_steps=n, select="last"), network=SMALL_KAN) for n in (4, 7))
    for run in (one, other):
        run.train()
    assert differing(weights(one), weights(other)) == []


def test_a_table_cannot_be_shared():
    with pytest.raises(ConfigurationError, match=r"fit.shared: a table holds the ratios of one number of steps"):
        trainer(method(TWO), network=TABLE)


def test_rates_of_a_forced_first_ratio():
    nodes = nodes_of(5, boundary="code")
    assert nodes.rates
    fast = Says(lambda t: torch.full_like(t, 2 / 3))
    assert path_of(nodes, fast, fast).image[0] == 1
    plain = replace(nodes, rates=False)
    torch.testing.assert_close(plain.compose(plain.image_ratio, plain.noise_ratio).image[1:], nodes.original.image[1:])
