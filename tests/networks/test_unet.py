"""The U-Net as a field."""

import pytest
import torch

from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import ScoreMatchingVP
from sbbridge.networks import UNETS, UNet
from sbbridge.problems import BridgeProblem
from sbbridge.sde import VPSDE
from sbbridge.training import Reporter, Trainer, Training

SMALL = UNet(channels=(8, 16), attention=(1,), head_channels=8, layers_per_block=1, dropout=0.0)


@pytest.fixture
def network():
    return SMALL.build((1, 8, 8), 0)


def images(n=3):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_new_network_is_zero_everywhere_and_one_time_is_every_rows_time(network):
    x = images()
    assert network(torch.tensor(0.3), x).shape == x.shape
    assert (network(torch.tensor(0.3), x) == 0).all()
    torch.nn.init.normal_(network.unet.conv_out.weight, generator=torch.Generator().manual_seed(0))
    one = network(torch.tensor(0.37, dtype=torch.float64), x)
    torch.testing.assert_close(one, network(torch.full((3,), 0.37), x), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(one, network(torch.tensor(0.9), x))


@pytest.mark.usefixtures("global_state_untouched")
def test_weights_depend_on_the_seed_alone():
    one, again, other = (SMALL.build((1, 8, 8), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("name", "millions"), [("cifar10_forward", 35.75), ("cifar10_backward", 58.69)])
def test_the_papers_networks_have_the_papers_sizes(name, millions):
    weights = UNETS[name].build((3, 32, 32), 0).parameters()
    assert sum(weight.numel() for weight in weights) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("shape", [(64,), (1, 7, 8), (1, 8, 9), (8, 8)])
def test_states_that_are_no_divisible_images_are_refused(shape):
    with pytest.raises(ValueError, match="needs images divisible by 2"):
        SMALL.build(shape, 0)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"channels": ()}, "channels"),
        ({"layers_per_block": 0}, "layers_per_block"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention": (4,)}, "attention"),
    ],
)
def test_impossible_options_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must"):
        UNet(**options)


def test_training_with_dropout_neither_reads_nor_touches_the_global_random_state():
    network = UNet(channels=(8, 16), attention=(), head_channels=8, layers_per_block=1, dropout=0.5)
    problem = BridgeProblem(TensorData(images()), StandardNormal(images().shape[1:]), VPSDE(beta_max=20.0))
    method, training = ScoreMatchingVP(epochs=1, pairs=8), Training(batch_size=4)
    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        trainer = Trainer(method, problem, network, training, 0, Reporter())
        trainer.train()
        assert torch.equal(before, torch.get_rng_state())
        weights.append(trainer.networks["backward"].online.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(w.values() for w in weights), strict=True))
