"""A run whose samples are not finite says so, and never ranks."""

import json
import math
from dataclasses import replace

import pytest
import torch

from sbbridge import FlowMatching, Training
from sbbridge.config import parse
from sbbridge.coupling import classifier_two_sample, sliced_wasserstein
from sbbridge.coupling.terminal import terminal_test
from sbbridge.sampling import Samples, sample
from sbbridge.study import outcome, trial
from sbbridge.study.job import execute
from sbbridge.study.tasks import base, mixture, open_task, teacher
from sbbridge.study.tasks.latents import LatentTask
from sbbridge.study.tasks.plane import PlaneTask
from sbbridge.study.tasks.teacher import Teacher
from sbbridge.training import Trainer
from tests.study import tiny
from tests.training.recording import SMALL_NETWORK, Recorder, problem

FLOW = {"method.kind": "flow_matching", "method.pairs": 256, "method.epochs": 2}
ONE = {"evaluation.nfe": [3], "evaluation.samplers": ["heun"], "evaluation.localised_times": []}


def spoil(monkeypatch, when, value=math.nan, module=base, share=0.52):
    """From now on, samples of which `when(sampler, num_steps)` holds are not finite in a share of their rows."""

    def spoiled(solution, n=None, num_steps=None, **options):
        made = sample(solution, n, num_steps, **options)
        if n == 1 or not when(options.get("sampler"), num_steps):  # n = 1 counts calls
            return made
        x = made.x.clone()
        x[: round(share * len(x))] = value
        return Samples(x, made.nfe, made.trajectory)

    monkeypatch.setattr(module, "sample", spoiled)


@pytest.fixture(autouse=True)
def few_points(monkeypatch):
    """W2 of a thousand points takes seconds."""
    monkeypatch.setattr(PlaneTask, "N", 128)


@pytest.mark.parametrize(
    ("dataset", "value"),
    [("digits", math.nan), ("digits", math.inf), ("moons", math.inf), ("gaussian64", math.nan),
     ("gaussian64", -math.inf), ("checkerboard", math.nan)],
)
def test_a_run_without_a_finite_entry_fails_and_says_of_what(dataset, value, tmp_path, monkeypatch):
    spoil(monkeypatch, lambda *_: True, value, share=0.5)
    fields = execute(tiny.job(tmp_path, tiny.tree({"dataset": dataset, **ONE}, FLOW)))
    assert fields["status"] == "failed"
    assert fields["error"] == "samples are not finite (50 % of rows at NFE 3, heun)"
    assert fields["optimisation_evaluations"] == 2 * 256  # what it has cost is known all the same
    rows = [row for row in tiny.metrics(tmp_path) if row["stage"] == "evaluation" and row["sampler"] == "heun"]
    rows = [row for row in rows if row["num_steps"] != 50 and row["role"] == "model"]  # 50: paths
    shares = {row["split"]: row["value"] for row in rows if row["metric"] == "not_finite_share"}
    assert shares == {"validation": pytest.approx(0.5, abs=0.01), "test": pytest.approx(0.5, abs=0.01)}
    assert len(rows) > 3
    assert all(math.isnan(row["value"]) for row in rows if row["metric"] != "not_finite_share"), rows


def test_it_fails_again_without_being_trained_again(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda *_: True)
    job = tiny.job(tmp_path, tiny.tree({"dataset": "moons", **ONE}, FLOW))
    first = execute(job)
    monkeypatch.setattr(trial, "run_trial", lambda *a: pytest.fail("it ran again"))
    again = execute(job)
    assert (again["status"], again["error"]) == (first["status"], first["error"]) == ("failed", first["error"])


def test_a_run_with_some_completes_and_names_the_others(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda name, steps: name == "heun" and steps == 1)
    many = {"dataset": "moons", "evaluation.nfe": [2, 4], "evaluation.samplers": ["heun", "euler"]}
    fields = execute(tiny.job(tmp_path, tiny.tree(many, FLOW)))
    assert fields["status"] == "completed"
    (note,) = fields["notes"]
    assert note == "samples are not finite (52 % of rows at NFE 1, heun): these entries are NaN, and rank last"
    told = json.loads(json.dumps(fields))  # as it comes back from a trial's process
    assert math.isnan(outcome.objectives(told, "wasserstein2", 2, "heun")[0])
    for nfe, sampler in ((4, "heun"), (2, "euler"), (2, None)):
        quality, calls, chosen = outcome.objectives(told, "wasserstein2", nfe, sampler)
        assert math.isfinite(quality)
        assert (chosen, calls) != ("heun", 1)


def test_no_picture_is_made_of_them(tmp_path, monkeypatch):
    import numpy as np

    spoil(monkeypatch, lambda name, steps: steps < 4, module=base)
    spoil(monkeypatch, lambda name, steps: steps < 4, module=mixture)
    for dataset in ("digits", "mixture2"):
        options = {"dataset": dataset, "evaluation.nfe": [2, 4], "evaluation.samplers": ["euler"]}
        job = tiny.job(tmp_path, tiny.tree(options, FLOW))
        fields = execute(job)
        assert fields["status"] == "completed", fields
        with np.load(tmp_path / "artifacts" / f"{job.digest}-0" / "samples.npz") as held:
            assert set(held.files) == {"real", "nfe_4"}


def test_mixtures_fail_too(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda *_: True, module=mixture)
    fields = execute(tiny.job(tmp_path, tiny.tree({"dataset": "mixture2", **ONE}, FLOW)))
    assert fields["error"] == "samples are not finite (52 % of rows at NFE 3, heun)"


def test_a_training_that_ran_away_is_judged_so(tmp_path):
    """Its loss stays finite, its flow does not: the folder's case."""
    options = {"dataset": "digits", **ONE, "training.learning_rate": 2.0, "evaluation.nfe": [100],
               "method.kind": "flow_matching", "method.epochs": 20, "method.pairs": 1024}  # fmt: skip
    fields = execute(tiny.job(tmp_path, tiny.tree(options, {})))
    values = [e["value"] for e in fields["entries"] if e["metric"] == "frechet_distance"]
    shares = [e["value"] for e in fields["entries"] if e["metric"] == "not_finite_share"]
    assert math.isnan(values[0]) == bool(shares) == (fields["status"] == "failed")


# -- ranks


def entry(value, nfe=5, sampler="heun", metric="fd"):
    return {"metric": metric, "value": value, "sampler": sampler, "grid": "g", "nfe": nfe}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_objectives_never_choose_it(value):
    fields = {"entries": [entry(value), entry(2.0, 3), entry(3.0, 5, "ddim"), entry(1.0, 9)]}
    assert outcome.objectives(fields, "fd", 5, "heun") == (math.log(2), 3.0, "heun")
    assert outcome.objectives(fields, "fd", 5, None) == (math.log(2), 3.0, "heun")
    # no other sampler and no other number of calls stands for it
    alone = {"entries": [entry(value), entry(3.0, 5, "ddim"), entry(1.0, 9)]}
    quality, nfe, sampler = outcome.objectives(alone, "fd", 5, "heun")
    assert (math.isnan(quality), math.isnan(nfe), sampler) == (True, True, "")


def test_a_sampler_that_cannot_run_still_stands_for_any():
    assert outcome.objectives({"entries": [entry(2.0)]}, "fd", 5, "unipc") == (math.log(2), 5.0, "heun")


def test_a_note_names_a_few_of_many():
    entries = [entry(math.nan, nfe) for nfe in range(1, 21)] + [entry(1.0, 50)]
    entries += [entry(nfe / 20, nfe, metric="not_finite_share") for nfe in range(1, 21)]
    failure, note = outcome.not_finite(entries)
    assert failure is None
    assert note.startswith("samples are not finite (100 % of rows at NFE 20, heun; 95 % of rows at NFE 19, heun")
    assert "and 12 more" in note


def test_asha_holds_it_back():
    """Two finite curves and one that is not: it is stopped, whoever comes first."""

    from sbbridge.study.ray_scheduler import LikeWithLike

    class Runner:
        pass

    tree = {"method": {"kind": "asbm"}}
    for order in ((math.inf, 1.0, 2.0, math.inf), (1.0, math.inf, math.inf)):
        scheduler, decisions = LikeWithLike(100), []
        for number, quality in enumerate(order):
            one = Runner()
            one.trial_id, one.config = str(number), {"trial": {"jobs": [{"tree": tree}]}}
            scheduler.on_trial_add(None, one)
            seen = outcome.point(25, quality) | {"training_iteration": 1}
            decisions.append(scheduler.on_trial_result(None, one, seen))
        assert decisions[-1] == "STOP"
        assert outcome.point(25, math.inf)["quality"] > 1e200


def test_a_curve_tells_that_it_is_the_last(tmp_path, monkeypatch):
    spoil(monkeypatch, lambda *_: True)
    tree = tiny.tree({"dataset": "moons", **ONE, "evaluation.curve": 2, "evaluation.curve_nfe": 3}, FLOW)
    seen = []
    execute(tiny.job(tmp_path, tree), progress=lambda *point: seen.append(point))
    assert [quality for _, quality in seen] == [math.inf]
    curve = [row for row in tiny.metrics(tmp_path) if row["stage"] == "training"]
    assert curve
    assert all(math.isnan(row["value"]) for row in curve)


def test_a_trainer_never_selects_it():
    class Selects(FlowMatching):
        selects = "validation"

    scores = iter([math.nan, 3.0, math.nan, 4.0, math.inf])
    method = Selects(epochs=5, pairs=16)
    trainer = Trainer(method, problem(), SMALL_NETWORK, Training(batch_size=16), 0, Recorder())
    kept = []
    trainer.judge = lambda criterion: (kept.append(trainer.position.best), next(scores))[1]
    trainer.train()
    assert kept == [math.inf, math.inf, 3.0, 3.0, 3.0]
    assert trainer.position.best == 3.0


def test_a_selector_says_nan(monkeypatch):
    config = parse(trial.TrialConfig, tiny.tree({"dataset": "moons"}))
    task = open_task(config)
    spoil(monkeypatch, lambda *_: True)
    fitted = trainer_solution(task)
    assert math.isnan(task.selector(config.evaluation, 0)(fitted, "validation"))


def trainer_solution(task):
    from sbbridge import fit

    return fit(FlowMatching(epochs=1, pairs=16), task.problem, network=SMALL_NETWORK, training=Training(batch_size=16))


# -- the teacher, latents, the terminal test


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_distance_to_a_teacher_is_of_no_clipped_infinity(value, monkeypatch):
    made = Samples(torch.zeros(8, 1, 8, 8), 4)
    made.x[3, 0, 0, 0] = value
    judge = Teacher(None, lambda x: x.clamp(-1, 1))
    judge._ends[0] = torch.zeros(8, 1, 8, 8)
    (row,) = judge.distance(made, "heun", 0)
    assert math.isnan(row["value"])
    (row,) = judge.distance(replace(made, x=torch.ones(8, 1, 8, 8)), "heun", 0)
    assert row["value"] == 1
    judge._ends[0] = made.x
    assert math.isnan(next(judge.distance(Samples(torch.zeros(8, 1, 8, 8), 4), "heun", 0))["value"])
    assert teacher.N == 256


def test_latents_that_decode_to_nan_have_no_features():
    class Autoencoder:
        def decode(self, latents):
            return torch.where(latents[:, :1] > 2, math.nan, latents[:, :1])

    task = object.__new__(LatentTask)
    task._autoencoder = Autoencoder()
    task._features = lambda images: images.flatten(1).double().numpy()
    x = torch.zeros(20, 4, 2, 2)
    x[5], x[17, 3, 0, 0] = 3.0, math.inf  # what decodes to NaN, and what nobody sees when it is decoded
    found = torch.from_numpy(task.features(x))
    assert torch.isnan(found).all(1).nonzero().flatten().tolist() == [5, 17]
    assert torch.isfinite(found).all(1).sum() == 18


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_terminal_test_of_what_is_not_finite_has_not_passed(value):
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    y = x.clone()
    y[3, 0] = value
    for pair in ((x, y), (y, x)):
        test = terminal_test(*pair)
        assert not test.passed
        assert not test.passed_strict
        assert math.isnan(test.sliced_wasserstein)
        assert math.isnan(sliced_wasserstein(*pair).distance)
        assert not classifier_two_sample(*pair).indistinguishable
    hidden = replace(terminal_test(x, x.flip(0)), norm_mean_error=0.01, norm_variance_error=math.nan)
    assert not hidden.passed  # max(0.01, nan) is 0.01
