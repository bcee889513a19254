"""LDSB's subspace: the original path at the nodes, products of ratios, and what the boundaries hold."""

from dataclasses import replace

import pytest
import torch

from sbbridge.path import LINEAR, NODE_GRIDS, RatioPath, node_times, ratio_nodes
from sbbridge.path.ratio import FIRST_NODE
from sbbridge.sde import DDPM, VPSDE
from sbbridge.solvers import reference_path

CHAIN = reference_path(DDPM())
SMOOTH = reference_path(VPSDE(beta_max=20.0))
# LDSB, Tab. 6, columns "Origin": 1000 t, a, b; the rows of N = 5 and N = 10 are among those of N = 20
ORIGIN = """
0 0.99995 0.01000   50 0.98486 0.17335   100 0.94612 0.32382   150 0.88650 0.46272   200 0.81015 0.58622
250 0.72210 0.69179   300 0.62770 0.77845   350 0.53215 0.84665   400 0.43997 0.89801   450 0.35474 0.93497
500 0.27892 0.96031   550 0.21386 0.97686   600 0.15990 0.98713   650 0.11658 0.99318   700 0.08288 0.99656
750 0.05745 0.99835   800 0.03883 0.99925   850 0.02559 0.99967   900 0.01644 0.99986   950 0.01030 0.99995
"""
PRINTED = 5.1e-6
FIXED = {
    "chain": (CHAIN, "leading_uniform", 5, {"chain": 1000}), "smooth": (SMOOTH, "leading_uniform", 7, {}),
    "smooth, trailing": (SMOOTH, "trailing_quadratic", 5, {}), "linear": (LINEAR, "trailing_uniform", 5, {}),
    "linear, leading": (LINEAR, "leading_uniform", 4, {}), "linear, summing": (LINEAR, "trailing_uniform", 6,
                                                                             {"sum_to_one": True}),
}  # fmt: skip
every_kind = pytest.mark.parametrize("kind", FIXED)
every_boundary = pytest.mark.parametrize("boundary", ["paper", "code", "corrected"])


def nodes_of(kind, boundary="corrected"):
    path, grid, steps, options = FIXED[kind]
    return ratio_nodes(path, grid, steps, boundary, **options)


def random_ratios(nodes, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, len(nodes), generator=generator, dtype=torch.float64) ** (1 + 3 * (seed % 3)) * 0.98 + 0.01


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


@every_boundary
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_the_original_path_is_that_of_the_papers_table(steps, boundary):
    rows = tensor(*map(float, ORIGIN.split())).reshape(20, 3)[:: 20 // steps]
    nodes = ratio_nodes(CHAIN, "leading_uniform", steps, boundary, chain=1000)
    torch.testing.assert_close(nodes.original.image, rows[:, 1], atol=PRINTED, rtol=0)
    torch.testing.assert_close(nodes.original.noise, rows[:, 2], atol=PRINTED, rtol=0)
    torch.testing.assert_close(DDPM().index(nodes.times), rows[:, 0], atol=1e-9, rtol=0)
    torch.testing.assert_close(nodes.inputs, rows[:, 0] / 1000)


# -- ratios and their products


@every_kind
def test_the_original_ratios_compose_to_the_original_path(kind):
    nodes = nodes_of(kind)
    path = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
    torch.testing.assert_close(path.image, nodes.original.image, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(path.noise, nodes.original.noise, atol=1e-12, rtol=1e-12)
    assert torch.equal(path.times, nodes.times)


@pytest.mark.parametrize("seed", range(8))
@every_boundary
@every_kind
def test_any_ratios_make_a_monotone_path_and_come_back_from_it(kind, boundary, seed):
    nodes = nodes_of(kind, boundary)
    alpha, beta = random_ratios(nodes, seed)
    path = nodes.compose(alpha, beta).checked()
    assert (path.image.diff() < 0).all()
    assert (path.noise.diff() > 0).all()
    assert ((path.image >= 0) & (path.image <= 1)).all()
    assert ((path.noise > 0) & (path.noise <= 1)).all()
    if not nodes.sum_to_one:
        torch.testing.assert_close(path.image_ratio[nodes.free_image], alpha[nodes.free_image])
        torch.testing.assert_close(path.noise_ratio(nodes.top_noise)[nodes.free_noise], beta[nodes.free_noise])
    again = nodes.compose(path.image_ratio, path.noise_ratio(nodes.top_noise))
    torch.testing.assert_close(again.image, path.image)
    torch.testing.assert_close(again.noise, path.noise)


def test_products_run_from_the_data_for_the_image_and_from_the_noise_for_the_noise():
    nodes = ratio_nodes(CHAIN, "leading_uniform", 2, "code", chain=1000)
    path = nodes.compose(tensor(0.3, 0.5), tensor(0.25, 0.8))
    assert path.image.tolist() == pytest.approx([1.0, 0.5])
    assert path.noise.tolist() == pytest.approx([0.2, 0.8])
    kept = ratio_nodes(CHAIN, "leading_uniform", 2, chain=1000).compose(tensor(0.3, 0.5), tensor(0.25, 0.8))
    assert kept.image.tolist() == pytest.approx([0.3, 0.15])
    started = ratio_nodes(LINEAR, "trailing_uniform", 3).compose(tensor(0.9, 0.5, 0.7), tensor(0.25, 0.8, 0.1))
    assert started.image.tolist() == pytest.approx([0.9, 0.45, 0.0])
    assert started.noise.tolist() == pytest.approx([0.2, 0.8, 1.0])


def test_forced_ratios_are_not_learned():
    assert nodes_of("chain").free_image == nodes_of("chain").free_noise == [0, 1, 2, 3, 4]
    assert nodes_of("chain", "code").free_image == [1, 2, 3, 4]
    assert nodes_of("linear").free_image == nodes_of("linear").free_noise == [0, 1, 2, 3]
    for kind in FIXED:
        for boundary in ("paper", "code", "corrected"):
            nodes = nodes_of(kind, boundary)
            alpha, beta = random_ratios(nodes, 3)
            whole = nodes.compose(alpha, beta)
            for name, free in (("image", nodes.free_image), ("noise", nodes.free_noise)):
                for k in range(len(nodes)):
                    changed = {"image": alpha.clone(), "noise": beta.clone()}
                    changed[name][k] *= 0.9
                    moved = not torch.equal(nodes.compose(changed["image"], changed["noise"]).log_snr, whole.log_snr)
                    assert moved == (k in free), (kind, boundary, name, k)


# -- boundaries


def test_the_boundaries_are_as_they_say():
    """(alpha_0, a_N / a_{N−1}, b_N) of a grid below t = 1, where the schedule keeps a = 0.00635."""
    end, last = 0.0063530, float(CHAIN.mean(tensor(0.801)))
    for boundary, first, ratio, noise, index in (
        ("code", 1.0, 0.02, 1.0, 1000), ("paper", 1.0, end / last, 1.0, 999),
        ("corrected", None, end / last, 1 - end**2 / 2, 999),
    ):  # fmt: skip
        nodes = nodes_of("chain", boundary)
        assert nodes.first_image_ratio == first
        assert nodes.top_image_ratio == pytest.approx(ratio, rel=1e-4)
        assert nodes.top_noise == pytest.approx(noise, abs=1e-8)
        path = nodes.compose(*random_ratios(nodes, 1))
        time, a, b = nodes.top(path)
        assert float(DDPM().index(time)) == pytest.approx(index)
        assert float(b) == nodes.top_noise
        assert float(a / path.image[-1]) == pytest.approx(ratio, rel=1e-4)
        assert float(path.image[0]) == (1.0 if first else pytest.approx(float(random_ratios(nodes, 1)[0, 0])))


def test_a_forced_first_ratio_changes_the_first_node_alone():
    nodes = nodes_of("chain", "code")
    path = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
    assert path.image[0] == 1
    torch.testing.assert_close(path.image[1:], nodes.original.image[1:])


@every_boundary
@pytest.mark.parametrize("kind", ["linear", "linear, summing", "smooth, trailing"])
def test_the_first_node_of_a_trailing_grid_keeps_its_noise(kind, boundary):
    """There t_0 > 0: no boundary may put a_0 = 1."""
    nodes = nodes_of(kind, boundary)
    path = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
    torch.testing.assert_close(path.image, nodes.original.image)
    torch.testing.assert_close(path.noise, nodes.original.noise, atol=3e-5, rtol=0)
    assert nodes.top_time is None
    assert path.times[-1] == 1


def test_the_start_of_a_path_without_signal_stays():
    nodes = nodes_of("linear")
    for seed in range(3):
        path = nodes.compose(*random_ratios(nodes, seed))
        assert (float(path.image[-1]), float(path.noise[-1])) == (0.0, 1.0)
    assert nodes.start
    assert not nodes_of("smooth, trailing").start
    assert not nodes_of("linear, leading").start


# -- sums to one


@pytest.mark.parametrize("seed", range(5))
def test_scaled_paths_sum_to_one_and_keep_their_signal_to_noise(seed):
    scaled, plain = nodes_of("linear, summing"), ratio_nodes(LINEAR, "trailing_uniform", 6)
    alpha, beta = random_ratios(scaled, seed)
    path, other = scaled.compose(alpha, beta), plain.compose(alpha, beta)
    torch.testing.assert_close(path.image + path.noise, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(path.log_snr, other.log_snr)
    assert not torch.allclose(other.image + other.noise, torch.ones(6, dtype=torch.float64))


def test_the_papers_scaled_path_is_one():
    """LDSB, Tab. 7, CelebA-HQ, N = 5, of whose nodes it prints those below t = 1."""
    a, b = tensor(0.80200, 0.61247, 0.42058, 0.08983), tensor(0.19800, 0.38753, 0.57942, 0.91017)
    path = RatioPath(tensor(0.2, 0.4, 0.6, 0.8), a, b).checked()
    torch.testing.assert_close(path.summing_to_one().image, a, atol=PRINTED, rtol=0)


# -- nodes


def test_inputs_are_evenly_spaced_on_every_grid():
    for grid in NODE_GRIDS:
        first = 0 if grid.startswith("leading") else 1
        inputs = ratio_nodes(SMOOTH, grid, 4).inputs
        assert inputs.tolist() == [(k + first) / 4 for k in range(4)]


@pytest.mark.parametrize("grid", NODE_GRIDS)
def test_nodes_of_a_discrete_schedule_are_its_indices_rounded_down(grid):
    times = ratio_nodes(CHAIN, grid, 5, chain=1000).times
    indices = DDPM().index(times)
    torch.testing.assert_close(indices, indices.round(), atol=1e-9, rtol=0)
    assert indices.max() <= 999
    w = node_times(grid, 5, CHAIN.log_snr)[:-1].flip(0)
    assert ((1000 * w - indices < 1.001) & (1000 * w - indices > -0.001)).all()


@pytest.mark.parametrize(
    ("grid", "n", "indices"),
    [("leading_uniform", 3, (0, 333, 666)), ("leading_uniform", 6, (0, 166, 333, 500, 666, 833)),
     ("trailing_uniform", 3, (333, 666, 999)), ("leading_uniform", 4, (0, 250, 500, 750))],
)  # fmt: skip
def test_steps_that_do_not_divide_the_chain_are_rounded_down_to_it(grid, n, indices):
    times = ratio_nodes(CHAIN, grid, n, chain=1000).times
    torch.testing.assert_close(times, (torch.tensor(indices, dtype=torch.float64) + 1) / 1000)


def test_no_node_is_at_the_data_itself():
    assert ratio_nodes(SMOOTH, "leading_uniform", 5).times[0] == FIRST_NODE == 1e-3
    assert ratio_nodes(CHAIN, "leading_uniform", 5, chain=1000).times[0] == FIRST_NODE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SMOOTH, "leading_uniform", 1), "num_steps must be >= 2, got 1"),
        ((SMOOTH, "even", 5), "unknown grid 'even' .allowed: trailing_uniform,"),
        ((SMOOTH, "leading_uniform", 5, "corrected", True), "sum_to_one is for flow matching"),
        ((LINEAR, "trailing_quadratic", 64), "grid trailing_quadratic with 64 steps puts two nodes at one time"),
        ((CHAIN, "leading_quadratic", 100, "code", False, 1000), "puts two nodes at one time"),
    ],
)
def test_impossible_nodes_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        ratio_nodes(*arguments)
    assert "\n" not in str(caught.value)


# -- paths that are none

GOOD = RatioPath(tensor(0.1, 0.5, 0.9), tensor(0.9, 0.5, 0.2), tensor(0.1, 0.6, 0.9), tensor(0.1, -0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": tensor(0.5, 0.9, 0.2)}, "a must be positive, finite and falling with k, got .0.5, 0.9, 0.2."),
        ({"image": tensor(0.9, 0.0, 0.0)}, "a must be positive"),
        ({"image": tensor(0.9, 0.5, -0.1)}, "a must be positive"),
        ({"image": tensor(0.9, float("nan"), 0.1)}, "a must be positive, finite"),
        ({"image": tensor(float("inf"), 0.5, 0.1)}, "a must be positive, finite"),
        ({"noise": tensor(0.1, 0.9, 0.6)}, "b must be positive, finite and rising with k, got .0.1, 0.9, 0.6."),
        ({"noise": tensor(0.0, 0.0, 0.6)}, "b must be positive"),
        ({"noise": tensor(-0.1, 0.3, 0.6)}, "b must be positive"),
        ({"times": tensor(0.1, 0.9, 0.5)}, r"times must rise with k within \[0, 1\], got .0.1, 0.9, 0.5."),
        ({"times": tensor(0.1, 0.5, 0.5)}, "times must rise"),
        ({"times": tensor(0.1, 0.5, 1.1)}, "times must rise"),
        ({"times": tensor(0.1, float("nan"), 0.9)}, "times must rise"),
        ({"momentum": tensor(0.1, float("nan"))}, "momentum must be finite"),
    ],
)
def test_what_is_no_path_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        replace(GOOD, **change).checked()
    assert "\n" not in str(caught.value)


def test_a_path_may_end_in_pure_image_and_pure_noise():
    ends = RatioPath(tensor(0.0, 0.5, 1.0), tensor(1.0, 0.5, 0.0), tensor(0.0, 0.5, 1.0))
    assert torch.equal(ends.checked().image, ends.image)


def test_sizes_must_agree():
    for wrong in ({"image": tensor(0.9, 0.5)}, {"noise": tensor(0.1, 0.2)}, {"momentum": tensor(0.1, 0.1, 0.1)}):
        with pytest.raises(ValueError, match="a path of 3 nodes needs as many a and b, and one c less"):
            replace(GOOD, **wrong)


def test_a_checked_path_has_no_gradients():
    alpha = tensor(0.9, 0.5, 0.4).requires_grad_()
    nodes = ratio_nodes(SMOOTH, "leading_uniform", 3)
    path = nodes.compose(alpha, tensor(0.1, 0.5, 0.4), momentum=tensor(0.1, 0.2).requires_grad_())
    assert path.image.requires_grad
    assert not any(part.requires_grad for part in vars(path.checked()).values())
