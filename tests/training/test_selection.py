"""The best of a training's candidates: which is kept, on which split, and that it survives."""

import math

import pytest
import torch

from sbbridge.methods import IPF, FlowMatching, NoFit, RandomPaths, TeacherFit
from sbbridge.networks import MLP
from sbbridge.training import Trainer, Training, fit, selected, solution_of
from sbbridge.training.checkpoint import from_bytes
from tests.methods.denoising import SHORT, SMALL_KAN, TABLE, method, problem, trainer
from tests.training.recording import Killed, Recorder
from tests.training.recording import problem as line

CANDIDATES = method(RandomPaths(candidates=5))
"""The original and five others."""


class Judge:
    """Gives these scores in turn, and remembers what it saw."""

    def __init__(self, *scores):
        self.scores, self.splits, self.paths = list(scores), [], []

    def of(self, run):
        def judge(split):
            self.splits.append(split)
            self.paths.append(solution_of(run).path)
            return self.scores[len(self.splits) - 1]

        run.judge = judge
        return run


def judged(scores, chosen=CANDIDATES, reporter=None):
    judge = Judge(*scores)
    run = judge.of(trainer(chosen, reporter or Recorder()))
    run.train()
    return run, judge


def same(one, other):
    return torch.equal(one.image, other.image) and torch.equal(one.noise, other.noise)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((5, 4, 1, 3, 2, 6), 2),
        ((1, 2, 3, 4, 5, 6), 0),
        ((6, 5, 4, 3, 2, 1), 5),
        ((2, 1, 1, 1, 2, 1), 1),
        ((math.nan, 3, math.nan, 2, 4, math.nan), 3),
        ((math.inf, math.inf, 7, math.inf, 8, 9), 2),
    ],
)
def test_the_least_score_wins_and_the_first_of_equals(scores, best):
    run, judge = judged(scores)
    assert len(judge.paths) == 6
    assert len({tuple(path.image.tolist()) for path in judge.paths}) == 6
    assert run.position.best == scores[best]
    assert same(selected(run).path, judge.paths[best])


def test_scores_that_are_no_numbers_choose_nothing_and_the_last_stays():
    run, judge = judged([math.nan] * 6)
    assert run.best == {}
    assert same(selected(run).path, judge.paths[5])


@pytest.mark.parametrize(
    ("select", "split"), [("validation", "validation"), ("reported", "test"), ("teacher", "teacher")]
)
def test_the_judge_is_asked_for_the_split_that_the_method_selects_on(select, split):
    recorder = Recorder()
    run, judge = judged((3, 2, 1, 2, 3, 4), method(RandomPaths(candidates=5), select=select), recorder)
    assert judge.splits == [split] * 6
    assert same(selected(run).path, judge.paths[2])
    told = [values[f"selection_{split}"] for _, _, values, _ in recorder.told if f"selection_{split}" in values]
    assert told == [3, 2, 1, 2, 3, 4]


def test_last_asks_nobody_and_takes_the_last():
    last = method(RandomPaths(candidates=5), select="last")
    run, judge = judged((), last)
    assert judge.splits == []
    assert same(selected(run).path, solution_of(run).path)
    _, all_of_them = judged((6, 5, 4, 3, 2, 1))
    assert same(selected(run).path, all_of_them.paths[5])


def test_a_method_that_leaves_no_choice_asks_nobody():
    assert method(NoFit()).selects is None
    _, judge = judged((), method(NoFit()))
    assert judge.splits == []
    asked = []
    fit(FlowMatching(epochs=2, pairs=16), line(), network=MLP(4, 1), training=Training(batch_size=16),
        judge=lambda solution, split: asked.append(split) or 1.0)  # fmt: skip
    assert asked == []


@pytest.mark.parametrize(
    ("way", "candidates"),
    [
        (IPF(iterations=2, epochs=3, batches=1), 1 + 2 * 2 * 3),
        (IPF(iterations=2, epochs=3, batches=1, halves="forward"), 1 + 2 * 3),
        (TeacherFit(epochs=4, pairs=32, generation=SHORT), 1 + 4),
        (RandomPaths(candidates=7), 1 + 7),
    ],
)
def test_there_are_as_many_candidates_as_the_options_say(way, candidates):
    _, judge = judged([1.0] * 99, method(way))
    assert len(judge.splits) == candidates


def test_a_candidate_in_the_middle_of_a_fit_is_kept_whole():
    """Later steps move the networks, not what was kept of them; times and momentum belong to it."""
    way = TeacherFit(epochs=4, pairs=64, generation=SHORT, learn_times=True, order=2)
    run, judge = judged((5, 4, 1, 2, 3), method(way))
    kept, last = judge.paths[2], judge.paths[4]
    assert not same(kept, last)
    found = selected(run).path
    for name in ("times", "image", "noise", "momentum"):
        assert torch.equal(getattr(found, name), getattr(kept, name))


def test_fit_gives_the_judge_solutions_and_returns_the_best():
    seen = []

    def judge(solution, split):
        assert split == "validation"
        seen.append(solution)
        return abs(len(seen) - 4)

    best = fit(CANDIDATES, problem(), network=TABLE, training=Training(batch_size=16), judge=judge)
    assert same(best.path, seen[3].path)
    without = fit(CANDIDATES, problem(), network=TABLE, training=Training(batch_size=16))
    assert same(without.path, seen[5].path)


# -- resuming


@pytest.mark.parametrize("death", [2, 3, 4, 5, 6, 7])
def test_the_best_so_far_survives_a_death(death):
    """A checkpoint stands at the end of every stage; scores of the candidates before it are not asked for again."""
    scores = (5, 4, 1, 3, 2, 6)
    whole, exact = judged(scores)
    dying = Recorder(die_after=death)
    first = Judge(*scores)
    run = first.of(trainer(CANDIDATES, dying))
    with pytest.raises(Killed):
        run.train()
    tensors, position = from_bytes(dying.saved[-1])
    assert position["best"] == min(scores[: death - 1])
    assert any(name.startswith("best/image/") for name in tensors)
    later = Judge(*scores[death - 1 :], 0.5)
    resumed = later.of(trainer(CANDIDATES, Recorder(start=dying.saved[-1])))
    resumed.train()
    assert len(later.splits) == 6 - len(first.splits)
    assert same(selected(resumed).path, exact.paths[2])
    assert same(selected(resumed).path, selected(whole).path)
    assert resumed.position.best == 1


def test_a_finished_training_still_knows_its_best():
    recorder = Recorder()
    run, judge = judged((5, 4, 1, 3, 2, 6), reporter=recorder)
    again = Judge().of(trainer(CANDIDATES, Recorder(start=recorder.saved[-1])))
    again.train()
    assert again.best.keys() == {"image", "noise"}
    assert same(selected(again).path, judge.paths[2])
    assert same(selected(run).path, judge.paths[2])


def test_without_a_judged_candidate_a_checkpoint_holds_none():
    recorder = Recorder()
    trainer(CANDIDATES, recorder).train()
    assert not any(name.startswith("best/") for data in recorder.saved for name in from_bytes(data)[0])


def test_judging_does_not_change_the_training():
    for network in (TABLE, SMALL_KAN):
        runs = []
        for judge in (None, Judge(*[1.0] * 9)):
            run = trainer(method(IPF(1, "both", "code", 2, 1)), network=network)
            run = judge.of(run) if judge else run
            run.train()
            runs.append(solution_of(run).path)
        assert same(*runs)


def test_networks_trained_further_are_still_there_after_a_choice():
    """`selected` puts the best averages into place; the weights in training stay where they are."""
    run, _ = judged((1, 2, 3, 4, 5, 6))
    online = run.networks["image"].online.logits.clone()
    selected(run)
    assert torch.equal(run.networks["image"].online.logits, online)
    assert not torch.equal(run.networks["image"].average.module.logits, online)


def test_the_trainer_takes_a_judge_when_it_is_made():
    asked = []
    run = Trainer(CANDIDATES, problem(), TABLE, Training(batch_size=16), 3, Recorder(),
                  judge=lambda split: asked.append(split) or 1.0)  # fmt: skip
    run.train()
    assert asked == ["validation"] * 6
