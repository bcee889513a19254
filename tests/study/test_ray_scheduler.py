"""Early stopping among trials that may be compared."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from sbbridge.study.outcome import point
from sbbridge.study.ray_scheduler import LikeWithLike

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
CONTROLLER = SimpleNamespace()


def trial(name, method):
    return SimpleNamespace(trial_id=name, config={"trial": {"jobs": [{"tree": {"method": method}}]}}, stopped=False)


def path(n, kind="teacher"):
    return {"kind": "ldsb", "num_steps": n, "fit": {"kind": kind}}


FIELD = {"kind": "asbm"}


class Search:
    """Trials that report one after the other."""

    def __init__(self, evaluations=1000):
        self.scheduler, self.trials = LikeWithLike(evaluations), 0

    def told(self, method, quality, reports=4, evaluations=1000):
        """What becomes of a trial of this quality at all of its points."""
        self.trials += 1
        mine = trial(str(self.trials), method)
        self.scheduler.on_trial_add(CONTROLLER, mine)
        for number in range(1, reports + 1):
            result = {**point(number * evaluations // reports, quality), "training_iteration": number}
            if self.scheduler.on_trial_result(CONTROLLER, mine, result) == STOP:
                return STOP
        self.scheduler.on_trial_complete(CONTROLLER, mine, {"index": 0})
        self.scheduler.on_trial_remove(CONTROLLER, mine)
        return GO_ON


@pytest.fixture
def search():
    return Search()


def test_it_is_told_by_the_quality_on_the_way_whatever_the_search_minimises(search):
    assert search.scheduler.set_search_properties("log_validation_quality", "min")


@pytest.mark.parametrize("method", [FIELD, path(5), path(5, "ipf")], ids=["field", "teacher", "ipf"])
def test_among_its_like_the_worse_half_is_stopped(method, search):
    assert [search.told(method, quality) for quality in (1.0, 2.0, 3.0, 0.5, 4.0)] == [GO_ON, STOP, STOP, GO_ON, STOP]


def test_paths_of_few_steps_are_not_stopped_for_being_worse_than_those_of_many(search):
    assert [search.told(path(20), quality) for quality in (1.0, 0.9)] == [GO_ON, GO_ON]
    assert search.told(path(3), 50.0) == GO_ON
    assert search.told(path(3), 60.0) == STOP


@pytest.mark.parametrize("other", [path(5, "ipf"), FIELD, path(10)], ids=["another way", "a field", "another N"])
def test_what_is_unlike_is_not_compared(other, search):
    for quality in (1.0, 0.9, 0.8):
        search.told(path(5), quality)
    assert search.told(other, 50.0) == GO_ON


def test_a_field_is_judged_against_network_evaluations_and_not_before_a_quarter_of_them(search):
    """A point before that says nothing yet."""
    for quality in (1.0, 0.9):
        search.told(FIELD, quality)
    early = trial("early", FIELD)
    search.scheduler.on_trial_add(CONTROLLER, early)
    assert search.scheduler.on_trial_result(CONTROLLER, early, {**point(249, 99.0), "training_iteration": 1}) == GO_ON
    assert search.scheduler.on_trial_result(CONTROLLER, early, {**point(250, 99.0), "training_iteration": 2}) == STOP


def test_a_trial_that_is_at_its_end_goes_on_to_its_evaluation(search):
    """However long it was: only its like end it."""
    assert search.told(path(5), 1.0, reports=500) == GO_ON
    assert search.told(FIELD, 1.0, reports=64, evaluations=40_000) == GO_ON
