"""Where batches come from: fresh pairs, or a first-in-first-out buffer."""

from dataclasses import dataclass

import pytest
import torch

from sbbridge.coupling import AbstractCoupling, BufferSource, FreshSource, Workers
from sbbridge.rng import Stream
from sbbridge.types import Pair

STREAM = Stream(0, ("source",))


@dataclass
class Counted(AbstractCoupling):
    """Pairs that say when and where they were drawn: x0 = 1000 step + row, x1 = -x0."""

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        x0 = torch.tensor([[1000.0 * step + row] for row in rows])
        return Pair(x0, -x0)


def held(source):
    return source.state()["x0"][:, 0].tolist()


def one_of(rank, size):
    worker = Workers()
    worker.rank, worker.size = rank, size
    return worker


def test_the_buffer_keeps_the_newest_pairs():
    source = BufferSource(Counted(), new_pairs=4, capacity=10, stream=STREAM, workers=Workers())
    for epoch in range(4):
        source.refresh(epoch)
    assert held(source) == [1002, 1003, 2000, 2001, 2002, 2003, 3000, 3001, 3002, 3003]


def test_a_buffer_smaller_than_its_new_pairs_grows_to_them():
    source = BufferSource(Counted(), new_pairs=4, capacity=2, stream=STREAM, workers=Workers())
    source.refresh(0), source.refresh(1)
    assert held(source) == [1000, 1001, 1002, 1003]


def test_an_epoch_is_one_shuffled_pass():
    source = BufferSource(Counted(), new_pairs=30, capacity=100, stream=STREAM, workers=Workers())
    source.refresh(0)
    assert source.steps(10) == 3
    batches = [source.batch(0, step, 10)[0] for step in range(3)]
    seen = torch.cat([batch["x0"] for batch in batches])[:, 0]
    assert sorted(seen.tolist()) == list(range(30))
    assert seen.tolist() != list(range(30))
    assert all(torch.equal(batch["x1"], -batch["x0"]) for batch in batches), "pairs stay together"
    again = torch.cat([source.batch(1, step, 10)[0]["x0"] for step in range(3)])[:, 0]
    assert again.tolist() != seen.tolist(), "another epoch, another order"


def test_refreshing_every_third_epoch_uses_pairs_three_times():
    source = BufferSource(Counted(), 4, 4, STREAM, Workers(), refresh_every=3)
    firsts = []
    for epoch in range(6):
        source.refresh(epoch)
        firsts.append(held(source)[0])
    assert firsts == [0, 0, 0, 3000, 3000, 3000]


def test_pairs_are_corrected_first_and_annotated_once():
    source = BufferSource(
        Counted(), 4, 8, STREAM, Workers(), annotate=lambda pair: {"adjoint": 2 * pair.x1},
        correct=lambda pair: Pair(pair.x0, pair.x1 + 0.5),
    )  # fmt: skip
    source.refresh(0), source.refresh(1)
    batch, _, total = source.batch(1, 0, 8)
    assert total == 8
    assert set(batch) == {"x0", "x1", "adjoint"}
    assert torch.equal(batch["x1"], 0.5 - batch["x0"])
    assert torch.equal(batch["adjoint"], 2 * batch["x1"])


def test_a_buffer_that_was_stored_and_put_back_continues_equally():
    one, other = (BufferSource(Counted(), 6, 20, STREAM, Workers()) for _ in range(2))
    for epoch in range(3):
        one.refresh(epoch)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    assert all(torch.equal(one.batch(2, 1, 5)[0][name], other.batch(2, 1, 5)[0][name]) for name in ("x0", "x1"))
    one.refresh(3), other.refresh(3)
    assert held(one) == held(other)


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_a_batch_of_the_buffer_without_overlap(size):
    whole = BufferSource(Counted(), 20, 20, STREAM, Workers())
    whole.refresh(0)
    expected, _, total = whole.batch(0, 1, 7)
    shares = []
    for rank in range(size):
        source = BufferSource(Counted(), 20, 20, STREAM, one_of(rank, size))
        source.load_state(whole.state())
        batch, rows, n = source.batch(0, 1, 7)
        assert n == total == 7
        assert len(batch["x0"]) == len(rows)
        shares.append(batch["x0"])
    assert torch.equal(torch.cat(shares), expected["x0"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_fresh_batches_are_new_at_every_step_and_shared_by_row(size):
    sources = [FreshSource(Counted(), 5, STREAM, one_of(rank, size)) for rank in range(size)]
    assert all(source.steps(7) == 5 for source in sources)
    assert all(source.state() == {} for source in sources)
    seen = []
    for epoch, step in ((0, 0), (0, 4), (1, 0)):
        rows = torch.cat([source.batch(epoch, step, 7)[0]["x0"] for source in sources])[:, 0]
        seen.append(rows.tolist())
    assert seen == [[1000 * k + row for row in range(7)] for k in (0, 4, 5)]
