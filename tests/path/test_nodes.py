"""Where a sampler calls its network."""

import numpy as np
import pytest
import torch

from sbbridge.path import LINEAR, NODE_GRIDS, node_times
from tests.oracles import REFERENCES, moments


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
@pytest.mark.parametrize("grid", NODE_GRIDS)
def test_nodes_fall_to_zero_and_their_side_says_where_they_start(grid, reference):
    for num_steps in (1, 2, 10):
        times = node_times(grid, num_steps, reference.log_snr)
        assert times.shape == (num_steps + 1,)
        assert times.dtype == torch.float64
        assert times[-1] == 0
        assert (times.diff() <= 0).all()
        assert ((times >= 0) & (times <= 1)).all()
        if grid.startswith("trailing"):
            assert times[0] == pytest.approx(1.0, abs=1e-12)
            assert times[-2] > 0
        elif num_steps > 1:
            assert times[0] < 1


def test_the_eight_grids_have_these_names():
    assert sorted(NODE_GRIDS) == [
        "leading_karras",
        "leading_log_snr",
        "leading_quadratic",
        "leading_uniform",
        "trailing_karras",
        "trailing_log_snr",
        "trailing_quadratic",
        "trailing_uniform",
    ]


def test_uniform_and_quadratic_nodes_are_these():
    assert node_times("trailing_uniform", 4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert node_times("leading_uniform", 4).tolist() == [0.75, 0.5, 0.25, 0.0, 0.0]
    assert node_times("trailing_quadratic", 4).tolist() == [1.0, 0.5625, 0.25, 0.0625, 0.0]
    assert node_times("leading_quadratic", 4).tolist() == [0.5625, 0.25, 0.0625, 0.0, 0.0]


@pytest.mark.parametrize("name", ["vp4", "vp20", "brownian", "ve", "linear"])
@pytest.mark.parametrize("side", ["leading", "trailing"])
def test_log_snr_nodes_are_evenly_spaced_in_log_snr(side, name):
    reference = REFERENCES[name]
    times = node_times(f"{side}_log_snr", 12, reference.log_snr)
    spacing = reference.log_snr(times[:-1]).diff()
    assert spacing.std() < 0.02 * spacing.mean().abs()


@pytest.mark.parametrize("name", ["vp4", "vp20", "brownian", "ve", "linear"])
def test_karras_nodes_are_those_of_the_paper(name):
    """(s_max^(1/7) + i / (n − 1) (s_min^(1/7) − s_max^(1/7)))^7, i < n (EDM, Eq. 5); n = N + 1, less an end."""
    reference = REFERENCES[name]

    def sigma(t):
        k, v = moments(reference, 0.0, float(t))
        return v**0.5 / k

    largest, smallest = sigma(1.0), sigma(1e-3)
    for num_steps in (5, 12):
        i = np.arange(num_steps + 1)
        paper = (largest ** (1 / 7) + i / num_steps * (smallest ** (1 / 7) - largest ** (1 / 7))) ** 7
        trailing, leading = (
            node_times(f"{side}_karras", num_steps, reference.log_snr) for side in ("trailing", "leading")
        )
        np.testing.assert_allclose([sigma(t) for t in trailing[:-1]], paper[:-1], rtol=2e-3)
        np.testing.assert_allclose([sigma(t) for t in leading[:-1]], paper[1:], rtol=2e-3)


def test_grids_on_straight_lines_begin_at_one_though_the_signal_is_lost_there():
    for grid in ("trailing_log_snr", "trailing_karras"):
        times = node_times(grid, 10, LINEAR.log_snr)
        assert times[0] == 1
        assert torch.isfinite(times).all()
        assert (times.diff() < 0).all()


@pytest.mark.parametrize(
    ("grid", "num_steps", "message"),
    [
        ("uniform", 4, "unknown grid 'uniform'.*allowed.*leading_uniform"),
        ("trailing_uniform", 0, "num_steps must be >= 1"),
        ("trailing_log_snr", 4, "needs log_snr"),
        ("leading_karras", 4, "needs log_snr"),
    ],
)
def test_impossible_grids_are_refused_by_name(grid, num_steps, message):
    with pytest.raises(ValueError, match=message):
        node_times(grid, num_steps)
