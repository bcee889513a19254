"""The parts of the benchmarks that decide what their tables say."""

import math
import sys

import pytest
import torch

from benchmarks import dsbm_gaussian, mixture_pairs, plane_transport, training_speed, unet_speed
from benchmarks.clocks import Clocks, line, window
from benchmarks.disturbed import Judged, Kill
from benchmarks.faults import KINDS, shares, summary
from benchmarks.overhead import accounted
from benchmarks.processes import Process, descendants
from benchmarks.study_state import Rows, relative, temporary
from benchmarks.workers import compared
from sbbridge import records


def trial(digest="a", seed=0, phase="ablation", status="completed", attempt=1):
    return {"phase": phase, "digest": digest, "seed": seed, "status": status, "attempt": attempt}


def metric(step=0, **fields):
    return dict.fromkeys(records.METRIC_KEY) | {"digest": "a", "step": step} | fields


@pytest.mark.parametrize("total", [0, 6, 50, 53])
def test_kinds_of_kills_have_equal_shares(total):
    held = shares(total, KINDS)
    assert sum(held.values()) == total
    assert max(held.values()) - min(held.values()) <= 1


def test_descendants_are_those_below_and_alive():
    table = [(1, 0, "S"), (2, 1, "S"), (3, 2, "Z"), (4, 3, "S"), (5, 2, "R"), (6, 1, "S"), (7, 0, "S")]
    processes = {pid: Process(pid, parent, state, "") for pid, parent, state in table}
    assert [process.pid for process in descendants(2, processes)] == [5, 4]
    assert {process.pid for process in descendants(1, processes)} == {2, 4, 5, 6}


def test_a_row_that_is_there_twice_is_doubled_and_one_that_is_gone_is_lost():
    before = Rows.of([trial(), trial(seed=1)], [metric(), metric(step=1)])
    assert before.doubled == 0
    after = Rows.of([trial(), trial()], [metric(), metric(), metric()])
    assert after.doubled == 2
    assert before.keys - after.keys == Rows.of([trial(seed=1)], [metric(step=1)]).keys


def test_only_a_finished_run_can_be_run_again():
    before = Rows.of([trial(), trial("b"), trial("c", status="failed"), trial("d", phase="search")], [])
    later = [trial(attempt=2), trial("b"), trial("c", attempt=2), trial("d", phase="search", attempt=2)]
    assert before.run_again(Rows.of(later, [])) == 1
    assert before.run_again(before) == 0


def test_relative_differences():
    assert relative(1.0, 1.0) == relative(math.nan, math.nan) == relative(0.0, 0.0) == 0
    assert relative(2.0, 1.0) == relative(-1.0, -2.0) == 0.5
    assert relative(math.nan, 1.0) == math.inf


def test_the_lock_is_not_left_behind_but_a_torn_part_is(tmp_path):
    (tmp_path / "records").mkdir()
    for name in (".lock", "study.json", "records/.part.tmp", "records/part.parquet"):
        (tmp_path / name).touch()
    assert temporary(tmp_path) == ["records/.part.tmp"]


def test_a_summary_counts_by_what_was_hit():
    nothing = Rows.of([], [])
    kills = [Kill("node", "node", 0, 0.0, nothing, set(), seconds=2.0), Kill("driver", "driver", 1, 0.0, nothing, set(),
             "ended -9", lost=3), Kill("node", "node", 1, 0.0, nothing, set(), seconds=4.0)]  # fmt: skip
    studies = [Judged("cluster", difference=1e-7), Judged("cluster", doubled=1, difference=1e-5)]
    driver, node = summary(kills, studies)
    assert (driver["killed"], driver["driver"]) == ("driver", {"ended -9": 1})
    assert (driver["lost"], driver["seconds"]) == (3, None)
    assert (node["times"], node["seconds"], node["longest"]) == (2, 3.0, 4.0)
    assert (node["doubled"], node["difference"]) == (1, 1e-5)


@pytest.mark.parametrize("total", [10, 60, 1000])
def test_windows_are_within_the_trials_and_the_last_ends_with_them(total):
    for share in (0.1, 0.3, 1.0):
        first, last = window(total, share)
        assert 1 <= first < last <= total
    assert window(total, 1.0)[1] == total


def test_clocks_see_what_grows_with_the_trials(monkeypatch):
    """A row a trial, whose writing takes as many milliseconds as there are rows."""
    clock = [0.0]
    for name in ("perf_counter", "thread_time", "process_time"):
        monkeypatch.setattr(f"time.{name}", lambda: clock[0])

    class Store:
        rows = 0

        def add(self) -> None:
            clock[0] += 1e-3 * self.rows
            self.rows += 1

    clocks, store = Clocks(), Store()
    clocks.around(Store, "add", "write row")
    clocks.at_end(Store, "add")
    for _ in range(100):
        clock[0] += 0.5
        store.add()
    early, late = clocks.at("search", 0.1), clocks.at("search", 1.0)
    assert early["write row"] == pytest.approx(0.0095)
    assert late["write row"] == pytest.approx(0.097)
    assert late["wall"] == pytest.approx(0.597)
    assert late["rest"] == pytest.approx(0.5)
    assert late["serial"] == late["wall"]


def test_a_line_goes_on():
    assert line([100, 300, 1000], [2.0, 4.0, 11.0], 10_000) == pytest.approx(101.0)
    assert line([100, 300, 1000], [1.0, 0.8, 0.1], 10_000) == 0


def test_where_wall_time_went_adds_up():
    runs = [{"began": 4.0, "written": 15.0, "seconds": 10.0, "training": 9.0},
            {"began": 4.0, "written": 14.0, "seconds": 10.0, "training": 9.0},
            {"began": 16.0, "written": 26.0, "seconds": 10.0, "training": 9.0}]  # fmt: skip
    found = accounted({"began": 0.0, "ended": 30.0, "runs": runs}, slots=2)
    assert found["ratio"] == pytest.approx(30 / 13.5)
    assert found["before"] + found["after"] + found["evaluation"] + found["idle"] + 13.5 == pytest.approx(30.0)


def test_curves_that_differ_and_points_of_one_alone_are_named():
    one = {("backward", "loss", 1): 1.0, ("backward", "loss", 2): 2.0, ("cycle", "loss", 1): 1.0}
    other = {("backward", "loss", 1): 1.0, ("backward", "loss", 2): 1.0, ("cycle", "loss", 2): 1.0}
    backward, cycle = compared(one, other)
    assert (backward["difference"], backward["points"], backward["alone"]) == (0.5, 2, 0)
    assert (cycle["difference"], cycle["points"], cycle["alone"]) == (0.0, 0, 2)


@pytest.mark.parametrize(("network", "gflop"), [("cifar10_forward", 12.44), ("cifar10_backward", 20.55)])
def test_the_papers_u_nets_take_as_many_flops_as_is_known(network, gflop):
    """Two FLOP a multiply-accumulate, one 32 x 32 image forward."""
    config, shape = unet_speed.NETWORKS[network]
    assert unet_speed.forward_flops(unet_speed.on_meta(config, shape), shape) / 1e9 == pytest.approx(gflop, abs=0.005)


def test_flops_of_a_convolution_are_counted_by_hand():
    class Convolution(torch.nn.Conv2d):
        def forward(self, t, x):
            return super().forward(x)

    flops = unet_speed.forward_flops(Convolution(3, 7, 3, padding=1, device="meta"), (3, 8, 8))
    assert flops == 2 * 8 * 8 * 7 * 3 * 9


def test_a_training_step_is_timed_on_any_processor(capsys, monkeypatch):
    arguments = ["--network", "tiny", "--batch", "2", "--steps", "2", "--channels-last", "--peak-tflops", "1"]
    monkeypatch.setattr(sys, "argv", ["unet_speed", *arguments])
    unet_speed.main()
    assert "'steps_per_second': " in capsys.readouterr().out


def test_the_plain_loop_keeps_everything_where_its_data_are(monkeypatch):
    """On the meta device, which refuses to be mixed with another as a GPU does."""
    monkeypatch.setattr(training_speed, "DataLoader", lambda data, **_: [tuple(x[:2] for x in data.tensors)])
    plain = training_speed.Plain("meta")
    assert (plain.steps(1), plain.cycle((1, 1))) == (1, 2)


@pytest.mark.parametrize(("module", "arguments", "words"), [
    (mixture_pairs, ["--epsilons", "-1"], "expected a number > 0, got '-1'"),
    (mixture_pairs, ["--dimensions", "0"], "expected a whole number >= 2, got '0'"),
    (mixture_pairs, ["--steps", "0"], "expected a whole number >= 1, got '0'"),
    (dsbm_gaussian, ["--dimensions", "0"], "expected a whole number >= 1, got '0'"),
    (plane_transport, ["--budget", "10"], "training.budget = 10"),
    (training_speed, ["--device", "cuda"], "no GPU is here that torch can use"),
    (unet_speed, ["--device", "tpu"], "expected cpu or cuda, got 'tpu'"),
])  # fmt: skip
def test_numbers_that_cannot_be_used_are_one_line(module, arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as caught:
        module.main()
    assert caught.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
