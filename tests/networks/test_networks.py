"""Networks and their averages."""

import pytest
import torch
from torch import nn

from sbbridge.networks import MLP, Averaging, Part, ResidualField, averaged


def woken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The same network with every weight random, so that it is zero nowhere."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def states(shape, n=5):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [(2,), (1,), (1, 8, 8), (3, 2, 4)])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_new_network_is_zero_everywhere_and_trains_from_there(shape, depth):
    network, x = MLP(width=16, depth=depth).build(shape, 0), states(shape)
    out = network(torch.tensor(0.3), x)
    assert out.shape == x.shape
    assert (out == 0).all()
    (out - 1).square().mean().backward()
    assert network.outer.weight.grad.abs().max() > 0
    assert network.skip.weight.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)])
def test_one_time_for_all_rows_is_that_time_in_every_row(shape):
    network, x = woken(MLP(width=16).build(shape, 0)), states(shape)
    one = network(torch.tensor(0.37, dtype=torch.float64), x)
    torch.testing.assert_close(one, network(torch.full((len(x),), 0.37, dtype=torch.float64), x))
    times = torch.linspace(0, 1, len(x))
    together = network(times, x)
    alone = torch.cat([network(t, row[None]) for t, row in zip(times, x, strict=True)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, one)


def test_states_keep_their_shape_and_order():
    """An image is its flattened vector, put back."""
    flat, image = woken(MLP(width=16).build((12,), 0)), woken(MLP(width=16).build((3, 2, 2), 0))
    x, t = states((3, 2, 2)), torch.tensor(0.5)
    torch.testing.assert_close(image(t, x), flat(t, x.flatten(1)).reshape(x.shape))


def test_weights_depend_on_the_seed_alone():
    one = MLP(width=8).build((2,), 3).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.rand(5)
        again = MLP(width=8).build((2,), 3).state_dict()
    other = MLP(width=8).build((2,), 4).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["inner.weight"], other["inner.weight"])


@pytest.mark.usefixtures("global_state_untouched")
def test_building_leaves_the_global_random_state_alone():
    MLP(width=8).build((2,), 3)


def test_a_known_part_is_added():
    network, x, t = woken(MLP(width=8).build((2,), 0)), states((2,)), torch.tensor(0.4)
    torch.testing.assert_close(ResidualField(network, Part(lambda t, x: 3 * x + t))(t, x), network(t, x) + 3 * x + 0.4)
    assert torch.equal(ResidualField(network, Part())(t, x), network(t, x))


def scalar(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_the_average_warms_up_as_counted_by_hand():
    """First the weights themselves, then a share of 2/11 of the old average, then 3/12, then 4/13."""
    module = scalar(5.0)
    average = averaged(module)
    averaging = Averaging(average, module, 0.995)
    values = []
    for value in (1.0, 2.0, 4.0, -3.0):
        nn.init.constant_(module.weight, value)
        averaging.update()
        values.append(float(average.module.weight))
    second = 2 / 11 * 1 + 9 / 11 * 2
    third = 3 / 12 * second + 9 / 12 * 4
    fourth = 4 / 13 * third + 9 / 13 * -3
    assert values == pytest.approx([1.0, second, third, fourth], rel=1e-6)


def test_late_averages_use_the_decay():
    module = scalar(0.0)
    average = averaged(module)
    averaging = Averaging(average, module, 0.5)
    for _ in range(50):
        averaging.update()
    nn.init.constant_(module.weight, 1.0)
    averaging.update()
    assert float(average.module.weight) == pytest.approx(0.5, rel=1e-6)
    averaging.update()
    assert float(average.module.weight) == pytest.approx(0.75, rel=1e-6)


def test_the_average_of_constant_weights_does_not_drift():
    module = woken(MLP(width=8).build((2,), 0))
    average = averaged(module)
    averaging = Averaging(average, module, 0.999)
    for _ in range(2000):
        averaging.update()
    for mine, theirs in zip(average.module.parameters(), module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_average_has_no_gradients_and_does_not_share_memory():
    module = MLP(width=8).build((2,), 0)
    average = averaged(module)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    woken(module)
    assert (average(torch.tensor(0.5), states((2,))) == 0).all()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"width": 0}, "width"),
        ({"depth": 0}, "depth"),
        ({"time_frequencies": 0}, "time_frequencies"),
        ({"max_frequency": 1.0}, "max_frequency"),
    ],
)
def test_impossible_options_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        MLP(**options)
