"""ASBM's first stage ends when the terminal test passes, and a resumed run knows that it did."""

import pytest

from sbbridge.config import ConfigurationError
from sbbridge.data import EnergyPrior, Toy2D, double_well
from sbbridge.methods import asbm_stages
from sbbridge.problems import BridgeProblem
from sbbridge.sde import VPSDE
from sbbridge.training.checkpoint import from_bytes
from tests.training.recording import Recorder, differing, problem, tiny, trainer, weights


@pytest.fixture
def passes_at(monkeypatch):
    """The terminal test, replaced by one that passes from a cycle on."""

    def install(cycle, key="terminal_passed"):
        true = asbm_stages.terminal

        def terminal(method, run, at):
            findings = true(method, run, at)
            findings.metrics |= {"terminal_passed": 0.0, "terminal_passed_strict": 0.0, key: float(at >= cycle)}
            return findings

        monkeypatch.setattr(asbm_stages, "terminal", terminal)

    return install


def stages_of(method):
    recorder = Recorder()
    run = trainer(method, recorder)
    run.train()
    return list(dict.fromkeys(stage for stage, _, values, _ in recorder.told if "loss" in values)), recorder, run


def cycles(n):
    return [f"cycle {i}: {half}" for i in range(1, n + 1) for half in ("corrector", "adjoint")] + ["backward"]


@pytest.mark.parametrize(("stop", "key"), [("paper", "terminal_passed"), ("strict", "terminal_passed_strict")])
def test_stage_one_ends_with_the_first_cycle_that_passes(passes_at, stop, key):
    passes_at(2, key)
    assert stages_of(tiny(cycles=4, stop=stop))[0] == cycles(2)
    assert stages_of(tiny(cycles=4, stop="never"))[0] == cycles(4)


def test_each_criterion_reads_its_own_test(passes_at):
    passes_at(1, "terminal_passed_strict")
    assert stages_of(tiny(cycles=2, stop="paper"))[0] == cycles(2)


def test_it_does_not_end_before_the_least_number_of_cycles(passes_at):
    passes_at(1)
    assert stages_of(tiny(cycles=4, stop="paper", least_cycles=3))[0] == cycles(3)


def test_it_ends_with_the_last_cycle_where_none_passes(passes_at):
    passes_at(99)
    assert stages_of(tiny(cycles=2, stop="strict"))[0] == cycles(2)


@pytest.mark.parametrize("stop", ["paper", "strict"])
def test_a_run_that_must_pass_ends_before_stage_2_where_no_cycle_does(passes_at, stop):
    passes_at(99)
    recorder = Recorder()
    said = rf"stop {stop}\) within 2 cycles: norm_mean_error .*classifier_accuracy 0\.\d+; more cycles"
    with pytest.raises(asbm_stages.TerminalTestError, match=said) as why:
        trainer(tiny(cycles=2, stop=stop, must_pass=True), recorder).train()
    assert "\n" not in str(why.value)
    assert {stage for stage, *_ in recorder.told} == set(cycles(2)[:-1])


def test_a_run_that_must_pass_and_does_goes_on(passes_at):
    passes_at(2)
    assert stages_of(tiny(cycles=2, stop="paper", must_pass=True))[0] == cycles(2)


def test_a_last_cycle_that_passes_is_enough_though_it_comes_before_the_least_number(passes_at):
    passes_at(2)
    assert stages_of(tiny(cycles=2, stop="paper", least_cycles=5, must_pass=True))[0] == cycles(2)


def test_a_prior_without_samples_cannot_be_demanded_to_be_reached():
    on = BridgeProblem(problem().data, EnergyPrior(lambda x: x.square().sum(1) / 2, (1,)), VPSDE())
    with pytest.raises(ConfigurationError, match="must_pass: a prior known by its energy alone has no samples"):
        tiny(stop="paper", must_pass=True).parts(on)
    sampled = BridgeProblem(Toy2D("moons"), double_well(), VPSDE())
    assert "control" in tiny(stop="paper", must_pass=True).parts(sampled)


def test_to_demand_a_test_there_must_be_one():
    with pytest.raises(ValueError, match=r"must_pass needs a test: stop paper or strict, got never"):
        tiny(must_pass=True)


def test_a_run_that_stopped_early_is_reproduced_from_any_checkpoint(passes_at, monkeypatch):
    """Also when the terminal test itself can no longer be run: what it found is in the checkpoint."""
    passes_at(2)
    method = tiny(cycles=3, stop="paper")
    _, recorder, whole = stages_of(method)
    exact = weights(whole)
    for data in recorder.saved[:: max(1, len(recorder.saved) // 6)]:
        resumed = trainer(method, Recorder(start=data))
        resumed.train()
        assert differing(weights(resumed), exact) == []
        assert resumed.position.stage == whole.position.stage
        assert resumed.position.simulation == whole.position.simulation
        assert resumed.run.findings.keys() == whole.run.findings.keys()
    positions = [from_bytes(data)[1] for data in recorder.saved]
    late = next(data for data, position in zip(recorder.saved, positions, strict=True) if position["stage"] == 4)
    monkeypatch.setattr(asbm_stages, "terminal", None)
    resumed = trainer(method, Recorder(start=late))
    resumed.train()
    assert differing(weights(resumed), exact) == []


def test_a_warm_start_that_already_ends_in_the_prior_stops_after_one_cycle():
    """No stand-in: the exact bridge passes the paper's norms; its top eigenvalue is below the prior sample's or not."""
    method = tiny(warm_start="gaussian", cycles=6, stop="paper", terminal_samples=4096)
    seen, _, run = stages_of(method)
    found = run.run.findings
    passed = [found[f"cycle {i}: adjoint"]["terminal_passed"] for i in range(1, 7) if f"cycle {i}: adjoint" in found]
    assert sum(passed[:-1]) == 0, "it goes on only while the test fails"
    assert passed[-1] == 1.0 or len(passed) == 6
    assert seen == cycles(len(passed))
    assert found["cycle 1: adjoint"]["terminal_norm_mean_error"] < 0.1
