"""The distance of states in the layers of a denoiser's network."""

import pytest
import torch
from torch import nn

from sbbridge.networks import MLP, UNet
from sbbridge.objectives.base import mean_square
from sbbridge.objectives.features import FeatureDistance
from sbbridge.path import LINEAR, Denoiser

TIME = 0.25
X, Y, IMAGES = (torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (5, 5, 40))
Y = Y + 1


class Two(nn.Module):
    """Two layers, one of the time between them, and one more for the time of every row."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 3)
        self.clock = nn.Linear(1, 4)

    def forward(self, t, x):
        hidden = torch.tanh(self.first(x) + self.clock(t.float().reshape(1, 1)))
        return self.second(hidden + self.clock(t.float().expand(len(x), 1)))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Two()


def distance(field, time=TIME):
    return FeatureDistance(Denoiser(LINEAR, "noise", field), time, IMAGES)


def test_it_is_the_mean_over_layers_of_what_their_outputs_differ_by_in_standard_deviations():
    """By hand: the layers' own weights, at 1 − t times the state; the clock says the same for all."""
    field = network()

    def layers(x):
        first = (1 - TIME) * x @ field.first.weight.T + field.first.bias
        clock = TIME * field.clock.weight[:, 0] + field.clock.bias
        second = (torch.tanh(first + clock) + clock) @ field.second.weight.T + field.second.bias
        return first, second

    parts = [
        ((mine - other) ** 2).mean(1) / images.var(0).mean()
        for mine, other, images in zip(layers(X), layers(Y), layers(IMAGES), strict=True)
    ]
    torch.testing.assert_close(distance(field)(X, Y), (parts[0] + parts[1]) / 2)


def test_rows_are_apart_and_a_state_is_no_distance_from_itself():
    measure = distance(network())
    assert measure(X, X).abs().max() == 0
    torch.testing.assert_close(measure(X[[3, 1]], Y[[3, 1]]), measure(X, Y)[[3, 1]])
    torch.testing.assert_close(measure(X[:1], Y[:1]), measure(X, Y)[:1])  # where a time has as many rows
    torch.testing.assert_close(measure(X, Y), measure(Y, X))


def test_a_rotation_that_is_the_only_layer_measures_pixels():
    rotation = nn.Linear(3, 3, bias=False)
    nn.init.orthogonal_(rotation.weight)
    measure = distance(lambda t, x: rotation(x))
    torch.testing.assert_close(measure(X, Y), mean_square(X, Y) / IMAGES.var(0).mean())


@pytest.mark.parametrize("wrapped", [False, True])
def test_networks_are_found_wherever_they_are_and_left_as_they_were(wrapped):
    field = MLP(width=6, depth=1).build((3,), seed=1)
    measure = distance((lambda t, x: -field(t, x)) if wrapped else field)
    x = X.clone().requires_grad_()
    measure(x, Y).sum().backward()
    assert float(x.grad.abs().min()) > 0
    assert nn.modules.module._global_forward_hooks == {}
    assert all(not module._forward_hooks for module in field.modules())


def test_the_target_gets_no_gradient():
    y = Y.clone().requires_grad_()
    assert torch.autograd.grad(distance(network())(X, y).sum(), y, allow_unused=True) == (None,)


def test_a_formula_has_no_layers():
    with pytest.raises(ValueError, match=r"no linear layer or convolution .* at t = 0.25: is it a network"):
        distance(lambda t, x: x)


def test_where_nothing_of_the_image_is_left_nothing_varies():
    with pytest.raises(ValueError, match="varies over images at t = 1"):
        distance(network(), 1.0)


def test_a_unet_counts_all_layers_but_those_of_its_time():
    field = UNet(channels=(8, 16), layers_per_block=1, attention=(), head_channels=8).build((1, 8, 8), seed=0).eval()
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    measure = FeatureDistance(Denoiser(LINEAR, "noise", field), TIME, images)
    counted = [variance is not None for variance in measure._variances]
    of_time = [name for name, layer in field.named_modules() if isinstance(layer, nn.Linear) and "time" in name]
    assert len(of_time) > 2
    # conv_out is zero when new
    assert counted.count(False) == len(of_time) + 1
    far = measure(images[:3], images[3:6]).detach()
    assert far.shape == (3,)
    assert 0.5 < float(far.mean()) < 4  # two images differ by two variances in the mean
    torch.testing.assert_close(measure(images[:1], images[3:4]), far[:1], atol=1e-4, rtol=1e-4)


def test_in_bfloat16_it_is_about_the_same():
    field = network()
    rough = FeatureDistance(
        Denoiser(LINEAR, "noise", field), TIME, IMAGES, lambda: torch.autocast("cpu", torch.bfloat16)
    )
    seen = rough(X, Y)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, distance(field)(X, Y), atol=0.02, rtol=0.05)
    assert not torch.equal(seen, distance(field)(X, Y))
