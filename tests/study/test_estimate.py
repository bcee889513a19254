"""What a dry run says that a study will take, against counts by hand."""

import re

import pytest
import torch

from sbbridge import config
from sbbridge.networks import MLP, UNETS
from sbbridge.study import estimate, requirements
from sbbridge.study.estimate import Rate, Work, forward_flops, in_words, work_of
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.requirements import Found
from studies import asbm_sweep, ldsb_sweep

HOUR = 3600.0
CORE = Rate(50e9, 50e9, "core", "given")


def plan_of(preset="default", dataset="digits", study=asbm_sweep, trials=10, seeds=3, assignments=(), **options):
    given = config.parse_assignments(list(assignments))
    return make_plan(study.STUDY, Options(dataset, preset, "/nowhere", "/nowhere", trials, seeds, given, **options))


@pytest.fixture
def a_core(monkeypatch):
    """Of 50 GFLOP/s, so that nothing is timed."""
    monkeypatch.setattr(estimate, "rate_of", lambda *arguments: CORE)


def seconds_of(text):
    """The time that an estimate names."""
    number, unit = re.match(r"(\d+) (minute|hour|day)", text).groups()
    return int(number) * {"minute": 60, "hour": HOUR, "day": 24 * HOUR}[unit]


def test_flops_of_a_perceptron_are_those_counted_by_hand():
    """Two a multiply-accumulate of each of its matrices."""
    width, depth, size = 32, 3, 64
    network = MLP(width=width, depth=depth)
    time = (2 * network.time_frequencies + 1) * width + width * (depth * width + size)
    blocks = 2 * depth * width * width
    ends = 2 * size * width + size * size  # in, out, and past the blocks
    assert forward_flops(network, (1, 8, 8)) == 2 * (time + blocks + ends)


@pytest.mark.parametrize(("name", "gflop"), [("cifar10_forward", 12.444), ("cifar10_backward", 20.547)])
def test_flops_of_the_papers_networks(name, gflop):
    assert forward_flops(UNETS[name], (3, 32, 32)) / 1e9 == pytest.approx(gflop, abs=0.0005)


def test_forty_trainings_of_the_papers_network_on_a_core_take_more_than_minutes(a_core):
    plan = plan_of(dataset="cifar10")
    assert sum(plan.trainings) == 40
    assert seconds_of(estimate.estimate(plan, Found([], 2, []))) > 24 * HOUR


def test_a_training_is_its_evaluations_times_the_networks_flops():
    """Score matching simulates nothing: three passes an evaluation."""
    tree = config.override(plan_of().base, {
        "method.kind": "score_matching_vp", "method.pairs": 1024, "method.epochs": 5, "reference.beta_max": 20.0,
        "network.kind": "mlp", "training.batch_size": 128,
    })  # fmt: skip
    parsed = config.parse(plan_of().type_, tree)
    flops = forward_flops(parsed.network, (1, 8, 8))
    assert work_of(parsed).training == 3 * flops * 5 * 1024


def test_simulated_evaluations_are_forward_passes():
    """Bridge matching on paths of four steps of exponential Heun, made anew each epoch."""
    plan = plan_of(assignments=[
        "method.coupling=bridge_matching", "method.cycles=1", "method.corrector_epochs=1", "method.adjoint_epochs=1",
        "method.new_pairs=256", "method.backward_pairs=512", "method.backward_epochs=6", "method.reuse=1",
        "training.batch_size=256", "method.simulation.num_steps=4", "method.simulation.scheme=exponential_heun",
    ])  # fmt: skip
    parsed = config.parse(plan.type_, plan.base)
    simulated, optimised = 6 * 512 * 8, 6 * 512 + 2 * 256
    assert parsed.method.cost(256) == simulated + optimised
    assert work_of(parsed).training == (simulated + 3 * optimised) * forward_flops(parsed.network, (1, 8, 8))


def test_a_budget_is_what_a_training_takes():
    plan = plan_of(assignments=["training.budget=1000000"])
    parsed = config.parse(plan.type_, plan.base)
    flops = forward_flops(parsed.network, (1, 8, 8))
    assert 1e6 * flops <= work_of(parsed).training / 0.9 <= 3e6 * flops / 0.9


def test_an_evaluation_is_every_sampler_grid_and_call_for_every_image():
    plan = plan_of(assignments=[
        "evaluation.nfe=[2, 8]", "evaluation.samplers=[exponential, heun]", "evaluation.draws=3",
        "evaluation.grids=[trailing_uniform]", "evaluation.paths=100",
    ])  # fmt: skip
    parsed = config.parse(plan.type_, plan.base)
    calls = 2 * (2 + 8) * 3 * (300 + 599) + 2 * 256 * 199 + 100 * 50
    assert work_of(parsed).evaluation == calls * forward_flops(parsed.network, (1, 8, 8))


def test_inceptions_own_work_is_counted():
    plan = plan_of(dataset="cifar10")
    parsed = config.parse(plan.type_, plan.base)
    inception = work_of(parsed).evaluation % forward_flops(parsed.network, (3, 32, 32))
    assert inception > 0


@pytest.mark.usefixtures("a_core")
class TestTheWhole:
    def test_more_trainings_take_longer(self):
        found = Found([], 2, [])
        given = [seconds_of(estimate.estimate(plan_of("thorough", seeds=seeds), found)) for seeds in (1, 3, 9)]
        assert given == sorted(given)
        assert given[2] > 2 * given[0]

    def test_more_at_once_take_less_but_no_less_than_the_longest(self):
        plan = plan_of("thorough")
        given = [seconds_of(estimate.estimate(plan, Found([], n, []))) for n in (1, 2, 4, 100_000)]
        assert given == sorted(given, reverse=True)
        longest = max(CORE.seconds(work) for _, work, _ in estimate.trainings(plan))
        assert given[-1] >= longest

    def test_worker_groups_cost_what_they_take_to_start(self):
        inline, train = (
            seconds_of(estimate.estimate(plan_of("smoke", trials=10, launcher=launcher), Found([], 1, [])))
            for launcher in ("inline", "train")
        )
        assert train - inline >= 10 * estimate.GROUP_S - 60

    def test_a_field_that_paths_share_is_trained_once(self):
        """The tiny denoiser of the ablation's one seed, and nothing of it in its fits."""
        plan = plan_of("smoke", study=ldsb_sweep, trials=0, seeds=1)
        runs = list(estimate.trainings(plan))
        trained = [(parsed, n) for parsed, _, n in runs if parsed.method.kind == "score_matching_vp"]
        assert [n for _, n in trained] == [1]
        field = max(work.training for _, work, _ in runs)
        assert sum(work.training * n for _, work, n in runs) < 3 * field

    def test_a_fit_costs_more_with_more_steps(self):
        plan = plan_of("default", study=ldsb_sweep, trials=0, seeds=1)
        works = [work_of(config.parse(plan.type_, plan.space().tree(plan.space().complete({"method.num_steps": n}))))
                 for n in (3, 5, 10)]  # fmt: skip
        assert works[0].flops < works[1].flops < works[2].flops
        assert all(work.seconds > 0 for work in works)


class TestRates:
    def test_a_gpu_that_is_not_here_is_assumed_and_said_so(self):
        half = ["training.precision=bfloat16"]
        plan = plan_of(dataset="cifar10", use_gpu=True, address="auto", num_workers=4, assignments=half)
        text = estimate.estimate(plan, Found([], 2, ["H100"]))
        assert "on 8 x H100 (assumed 10 % of 989 TFLOP/s bf16 and 494 TFLOP/s TF32), " in text
        assert re.search(r", [\d,]+ GPU hours$", text)

    def test_of_a_cluster_without_nodes_yet_it_is_the_cluster_files(self):
        plan = plan_of(dataset="cifar10", use_gpu=True, address="auto")
        assert "8 x A10G (assumed 10 % of 35 TFLOP/s TF32)" in estimate.estimate(plan, Found([], 8, []))

    def test_one_that_no_table_knows_is_taken_for_another_and_that_is_said(self):
        plan = plan_of(dataset="cifar10", use_gpu=True, address="auto")
        text = estimate.estimate(plan, Found([], 1, ["T4"]))
        assert "1 x T4 (assumed 10 % of 35 TFLOP/s TF32, as of A10G)" in text

    def test_gpu_hours_are_the_time_of_all_gpus(self):
        plan = plan_of(dataset="cifar10", use_gpu=True, address="auto")
        one, eight = (estimate.estimate(plan, Found([], n, ["H100"])) for n in (1, 8))
        hours = [int(text.split(", ")[-1].split()[0].replace(",", "")) for text in (one, eight)]
        assert hours[0] == hours[1]
        assert 0 <= seconds_of(one) / HOUR - hours[0] <= 24.5, "days are rounded up"

    def test_a_core_is_timed_within_two_seconds_and_left_with_its_threads(self):
        threads = torch.get_num_threads()
        plan = plan_of("smoke")
        rate = estimate.rate_of(plan, Found([], 2, []), config.parse(plan.type_, plan.base))
        assert 1e8 < rate.training < 1e13
        assert rate.source.startswith("measured ")
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 minute"), (61, "2 minutes"), (2 * HOUR, "2 hours"), (41 * HOUR, "41 hours"), (49 * HOUR, "3 days")],
)
def test_words(seconds, words):
    assert in_words(seconds) == words


def test_work_adds_up():
    assert sum([Work(1, 2, 3) * 2, Work(1, 1, 1)], Work()) == Work(3, 5, 7)


def test_groups_are_asked_as_the_driver_does():
    assert requirements.launcher(plan_of(use_gpu=True).options) == "train"
    assert requirements.launcher(plan_of().options) == "inline"
    assert requirements.launcher(plan_of(launcher="inline", use_gpu=True).options) == "inline"
