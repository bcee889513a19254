"""Networks for ratios: their sizes, their splines, and pykan kept from doing what it does to the rest of a process."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from sbbridge.networks import KAN, EfficientKAN, RatioMLP, RatioTable
from sbbridge.networks.kan import EfficientKANLayer

SMALL = (1, 3, 1)
NETWORKS = {
    "kan": KAN(grid_size=4, widths=SMALL), "efficient_kan": EfficientKAN(grid_size=4, widths=SMALL),
    "ratio_mlp": RatioMLP(hidden=(4,)), "plain mlp": RatioMLP(hidden=(4,), squash=False), "table": RatioTable(),
}  # fmt: skip
T, NODES = torch.arange(5, dtype=torch.float64) / 5, torch.arange(5, dtype=torch.float64)[:, None]
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def trainable(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("grid_size", "weights"), [(10, 2040), (20, 3400), (40, 6120)])
@pytest.mark.parametrize("kind", [KAN, EfficientKAN])
def test_kans_have_the_published_numbers_of_weights(kind, grid_size, weights):
    assert trainable(kind(grid_size).build((), 0)) == weights


def test_the_mlp_has_the_published_number_of_weights_and_a_table_one_a_node():
    assert trainable(RatioMLP().build((), 0)) == trainable(RatioMLP(squash=False).build((), 0)) == 6337
    assert trainable(RatioTable().build((7,), 0)) == 7


# -- what every one of them owes


@every_network
def test_they_map_nodes_to_ratios_and_pass_gradients_to_all_that_is_trained(network):
    module = network.build((5,), 3)
    ratios = module(T, NODES)
    assert ratios.shape == (5, 1)
    if network != NETWORKS["plain mlp"]:
        assert ((ratios > 0) & (ratios < 1)).all()
    ratios.square().sum().backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


@every_network
def test_ratios_stay_exact_where_all_else_is_in_bfloat16(network):
    built = network.build((5,), 0)
    exact = built(T, NODES)
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.bfloat16
        assert torch.equal(built(T, NODES), exact)


@every_network
@pytest.mark.usefixtures("global_state_untouched")
def test_equal_seeds_give_equal_weights_and_different_seeds_others(network):
    one, again, other = (network.build((5,), seed) for seed in (3, 3, 4))
    assert same(one, again)
    assert same(one, other) == (network == RatioTable())


@every_network
@pytest.mark.usefixtures("global_state_untouched")
def test_building_touches_nothing_else(network, tmp_path, monkeypatch, capfd):
    """pykan's constructor seeds three generators, changes its argument, prints, and writes into the folder."""
    monkeypatch.chdir(tmp_path)
    widths, python = getattr(network, "widths", None), random.getstate()
    network.build((5,), 3)(T, NODES)
    assert random.getstate() == python
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert getattr(network, "widths", None) == widths in (None, SMALL)


@every_network
def test_they_can_be_averaged_and_their_state_put_back(network):
    from sbbridge.networks import Averaging, averaged

    module = network.build((5,), 3)
    average = averaged(module)
    Averaging(average, module, 0.9).update()
    assert torch.equal(average(T, NODES), module(T, NODES))
    other = network.build((5,), 4)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(T, NODES), module(T, NODES))


def test_a_table_says_what_it_is_told_and_nodes_do_not_share():
    table = RatioTable().build((5,), 0)
    assert table(T, NODES)[:, 0].tolist() == [0.5] * 5
    ratios = torch.tensor([0.9999, 0.5, 0.01, 0.3, 1.0], dtype=torch.float64)
    table.assign(ratios)
    torch.testing.assert_close(table(T, NODES)[:, 0], ratios.float(), atol=2e-7, rtol=2e-7)
    assert table(T[:2], torch.tensor([[4.0], [2.0]]))[:, 0].tolist() == pytest.approx([1.0, 0.01])
    table(T[1:2], NODES[1:2]).sum().backward()
    assert (table.logits.grad != 0).tolist() == [False, True, False, False, False]


@every_network
def test_offsets_make_networks_say_what_they_are_told_at_their_nodes(network):
    """A fixed number a node, not trained, kept with the weights; networks for any number of nodes have none."""
    if network == RatioTable():
        return
    module, ratios = network.build((5,), 3), torch.tensor([0.9999, 0.5, 0.01, 0.3, 0.7], dtype=torch.float64)
    size = trainable(module)
    before = module(T, NODES)
    module.shift(T[1:3], NODES[1:3], ratios[1:3])
    after = module(T, NODES)[:, 0]
    torch.testing.assert_close(after[1:3], ratios[1:3].float(), atol=1e-6, rtol=1e-6)
    assert torch.equal(after[[0, 3, 4]], before[[0, 3, 4], 0])
    module.shift(T, NODES, ratios)
    module.shift(T, NODES, ratios)
    torch.testing.assert_close(module(T, NODES)[:, 0], ratios.float(), atol=1e-6, rtol=1e-6)
    assert trainable(module) == size
    other = network.build((5,), 4)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(T, NODES), module(T, NODES))
    assert "offset" not in network.build((), 3).state_dict()


@every_network
def test_only_the_table_knows_the_number_of_a_node(network):
    module = network.build((5,), 3)
    module.load_state_dict({k: v + 0.1 * torch.arange(5.0) if k == "logits" else v
                            for k, v in module.state_dict().items()})  # fmt: skip
    by_time = torch.equal(module(T, NODES), module(T, NODES.flip(0)))
    assert by_time == (network != RatioTable())


# -- splines


def scipy_bases(grid_size, x):
    """Every cubic B-spline on uniform knots over [0, 1] and three beyond either end; 0 outside of its support."""
    knots = np.arange(-3, grid_size + 4) / grid_size
    elements = [BSpline.basis_element(knots[m : m + 5], extrapolate=False) for m in range(grid_size + 3)]
    return np.stack([np.nan_to_num(element(x)) for element in elements], -1)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("grid_size", [1, 5, 10, 40])
def test_the_bases_are_scipys_inside_of_the_unit_interval_and_outside(grid_size):
    layer = EfficientKANLayer(2, 1, grid_size)
    x = torch.cat([torch.linspace(-5, 6, 401), torch.arange(grid_size + 1) / grid_size, torch.tensor([-1e3, 1e3])])
    bases = layer.bases(torch.stack([x, x.flip(0)], 1)).detach().numpy()
    np.testing.assert_allclose(bases[:, 0], scipy_bases(grid_size, x.numpy()), atol=1e-12)
    np.testing.assert_allclose(bases[:, 1], scipy_bases(grid_size, x.numpy()[::-1]), atol=1e-12)
    inside = (x >= 0) & (x <= 1)
    np.testing.assert_allclose(bases[inside, 0].sum(-1), 1.0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_layer_sums_its_edges():
    layer = EfficientKANLayer(2, 3, 4)
    x = torch.tensor([[0.3, -0.2], [1.4, 0.77]])
    bases, silu = scipy_bases(4, x.numpy()), (x * torch.sigmoid(x)).numpy()
    base, spline, scale = (w.detach().numpy() for w in (layer.base_weight, layer.spline_weight, layer.spline_scaler))
    wanted = np.zeros((2, 3))
    for row in range(2):
        for out in range(3):
            for i in range(2):
                curve = sum(spline[out, i, m] * bases[row, i, m] for m in range(7))
                wanted[row, out] += base[out, i] * silu[row, i] + scale[out, i] * curve
    np.testing.assert_allclose(layer(x).detach().numpy(), wanted, atol=1e-12)


def test_the_layout_is_that_of_the_released_files():
    state = EfficientKAN(grid_size=10).build((), 0).state_dict()
    shapes = {name.removeprefix("inner."): tuple(value.shape) for name, value in state.items()}
    widths = (1, 4, 16, 4, 1)
    wanted = {}
    for n, (a, b) in enumerate(pairwise(widths)):
        wanted |= {f"layers.{n}.base_weight": (b, a), f"layers.{n}.spline_scaler": (b, a),
                   f"layers.{n}.spline_weight": (b, a, 13), f"layers.{n}.grid": (a, 17)}  # fmt: skip
    assert shapes == wanted


def test_splines_begin_all_but_flat():
    state = EfficientKAN(grid_size=10).build((), 0).state_dict()
    assert all(value.abs().max() <= 0.005 for name, value in state.items() if "spline_weight" in name)


def test_pykan_keeps_its_knots_on_the_unit_interval():
    module = NETWORKS["kan"].build((), 0)
    grids = [value for name, value in module.named_parameters() if name.endswith("grid")]
    assert grids and not any(grid.requires_grad for grid in grids)
    for grid in grids:
        torch.testing.assert_close(grid, (torch.arange(-3.0, 8) / 4).expand_as(grid))


# -- what cannot be built


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KAN(grid_size=0), "grid_size must be >= 1, got 0"),
        (lambda: EfficientKAN(grid_size=0), "grid_size must be >= 1, got 0"),
        (lambda: KAN(widths=(1,)), r"widths must lead from 1 to 1 through widths >= 1, got \[1\]"),
        (lambda: KAN(widths=(2, 3, 1)), r"got \[2, 3, 1\]"),
        (lambda: EfficientKAN(widths=(1, 0, 1)), r"got \[1, 0, 1\]"),
        (lambda: RatioMLP(hidden=()), r"hidden must be widths >= 1, got \[\]"),
        (lambda: RatioMLP(hidden=(4, 0)), r"hidden must be widths >= 1, got \[4, 0\]"),
    ],
)
def test_impossible_networks_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
