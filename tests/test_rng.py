"""Random numbers addressed by (seed, names, step, row)."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from sbbridge.rng import BLOCK, Stream, isolated

DRAWS = {
    "normal": lambda stream, step, rows: stream.normal(step, rows, (2,)),
    "uniform": lambda stream, step, rows: stream.uniform(step, rows),
    "integers": lambda stream, step, rows: stream.integers(step, rows, 1000),
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())


@every_draw
def test_numbers_of_a_row_do_not_depend_on_which_rows_are_drawn_with_it(draw):
    stream = Stream(0, ("a",))
    whole = draw(stream, 3, range(3 * BLOCK))
    for start, stop in (
        (0, 1),
        (5, 9),
        (BLOCK - 1, BLOCK + 1),
        (BLOCK, 2 * BLOCK),
        (100, 3 * BLOCK),
        (3 * BLOCK - 1, 3 * BLOCK),
    ):
        assert torch.equal(draw(stream, 3, range(start, stop)), whole[start:stop])


@every_draw
def test_equal_addresses_give_equal_numbers_and_different_ones_do_not(draw):
    rows, first = range(300), draw(Stream(0, ("a",)), 0, range(300))
    assert torch.equal(draw(Stream(0).child("a"), 0, rows), first)
    for stream, step in (
        (Stream(1, ("a",)), 0),
        (Stream(0, ("b",)), 0),
        (Stream(0, ("a", "a")), 0),
        (Stream(0), 0),
        (Stream(0, ("a",)), 1),
    ):
        assert not torch.equal(draw(stream, step, rows), first)


def test_names_and_numbers_are_not_run_together():
    """("a", "b1") is not ("a", "b") at 1, and ("ab",) not ("a", "b")."""
    firsts = {
        Stream(0, names).generator(*address).initial_seed()
        for names, address in (
            (("ab",), ()),
            (("a", "b"), ()),
            (("a",), (1,)),
            (("a1",), ()),
            (("a", "b1"), ()),
            (("a", "b"), (1, 2)),
            (("a", "b"), (12,)),
        )
    }
    assert len(firsts) == 7


def test_streams_steps_and_blocks_are_uncorrelated():
    """n = 65,536 pairs each: 5 / sqrt(n) bounds 28 correlations with a false-alarm rate of 2e-5."""
    n = 65_536
    rows = range(n)
    draws = [
        Stream(0, ("a",)).normal(0, rows, ()),
        Stream(0, ("a",)).normal(1, rows, ()),
        Stream(1, ("a",)).normal(0, rows, ()),
        Stream(0, ("b",)).normal(0, rows, ()),
        Stream(0, ("a", "b")).normal(0, rows, ()),
        Stream(0).normal(0, rows, ()),
        Stream(0, ("a",)).normal(0, range(BLOCK, n + BLOCK), ()),
        Stream(0, ("a",)).normal(2, rows, ()),
    ]
    correlations = np.corrcoef(torch.stack(draws).double().numpy())
    assert np.abs(correlations - np.eye(len(draws))).max() < 5 / n**0.5


def test_blocks_of_one_draw_are_uncorrelated():
    blocks = Stream(7).normal(0, range(256 * BLOCK), ()).reshape(256, BLOCK).double()
    off = np.corrcoef(blocks.numpy()) - np.eye(256)
    assert np.abs(off).max() < 6.2 / BLOCK**0.5  # 32,640 correlations, about 2e-5


def test_numbers_have_their_laws():
    """KS at a false-alarm rate of 1e-5 each, and the counts of the integers within 5 standard errors."""
    rows = range(50_000)
    assert kstest(Stream(11).normal(0, rows, ()).numpy(), "norm").pvalue > 1e-5
    uniform = Stream(11).uniform(0, rows)
    assert uniform.dtype == torch.float64
    assert 0 <= float(uniform.min()) <= float(uniform.max()) < 1
    assert kstest(uniform.numpy(), "uniform").pvalue > 1e-5
    counts = torch.bincount(Stream(11).integers(0, rows, 10), minlength=10).double()
    assert len(counts) == 10
    assert ((counts - 5000).abs() < 5 * (50_000 * 0.1 * 0.9) ** 0.5).all()


def test_the_steps_of_one_row_are_normal_too():
    """The first row over 20,000 steps: what one path sees."""
    stream = Stream(5, ("path",))
    numbers = torch.stack([stream.normal(step, range(1), ())[0] for step in range(5000)])
    assert kstest(numbers.numpy(), "norm").pvalue > 1e-5


def test_permutations_hold_everything_once_and_differ_by_step():
    stream = Stream(2)
    order = stream.permutation(0, 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, stream.permutation(0, 1000))
    assert not torch.equal(order, stream.permutation(1, 1000))


@pytest.mark.usefixtures("global_state_untouched")
def test_drawing_leaves_the_global_random_state_alone():
    stream = Stream(0)
    (
        stream.normal(0, range(10), (3,)),
        stream.uniform(0, range(10)),
        stream.integers(0, range(10), 5),
        stream.permutation(0, 9),
    )


def test_numbers_do_not_depend_on_the_global_random_state():
    first = Stream(0).normal(0, range(10), ())
    with torch.random.fork_rng(devices=[]):
        torch.rand(17)
        assert torch.equal(Stream(0).normal(0, range(10), ()), first)


@pytest.mark.parametrize("rows", [range(0), range(5, 5), range(0, 10, 2), range(5, 0, -1)])
def test_rows_that_are_no_interval_are_refused(rows):
    with pytest.raises(ValueError, match="rows must be a non-empty range of step 1"):
        Stream(0).uniform(0, rows)


@pytest.mark.usefixtures("global_state_untouched")
def test_isolated_seeds_inside_and_restores_after_even_when_it_fails():
    with isolated(5):
        first = torch.rand(3)
    with isolated(5):
        assert torch.equal(torch.rand(3), first)
    with isolated(6):
        assert not torch.equal(torch.rand(3), first)
    with pytest.raises(RuntimeError, match="inside"), isolated(5):
        torch.rand(1)
        raise RuntimeError("inside")
