"""Optuna through StudySearch, without Tune: nothing stays RUNNING, nothing is asked twice."""

import io
import math
from functools import partial

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from sbbridge import config
from sbbridge.study import search
from sbbridge.study.definition import SEARCH_ALGORITHMS, Factor
from sbbridge.study.outcome import COST, NFE, QUALITY, objectives, reported
from sbbridge.study.progress import Progress
from sbbridge.study.ray_search import InOrder, StudySearch
from sbbridge.study.search import completed, open_study, stalled
from sbbridge.study.space import Space
from sbbridge.study.trial import TrialConfig


def space_of(*factors):
    return Space(TrialConfig, config.dump(TrialConfig()), factors)


def suggested(space, trial):
    """As Ray carries what is asked, without the job."""
    return {"choices": space.suggest(trial), "optuna_number": trial.number}


SPACE = partial(suggested, space_of(Factor("a", "A", (1, 2, 3)), Factor("nfe", "NFE", (1, 5))))
OBJECTIVES = (QUALITY, NFE)
FIRST = {"a": 2, "nfe": 5}
GOOD = {OBJECTIVES[0]: 1.5, OBJECTIVES[1]: 5.0}


@pytest.fixture
def url(tmp_path):
    address = f"sqlite:///{tmp_path / 'optuna.db'}"
    open_study(address, "test", OBJECTIVES)
    return address


def searcher(url):
    return StudySearch(
        space=SPACE, metric=list(OBJECTIVES), mode=["min", "min"], study_name="test", storage=RDBStorage(url),
        sampler=optuna.samplers.TPESampler(seed=0), points_to_evaluate=[FIRST],
    )  # fmt: skip


def states(url):
    return [trial.state.name for trial in open_study(url, "test", OBJECTIVES).trials]


def test_the_first_point_is_the_presets(url):
    asked = searcher(url).suggest("one")
    assert asked["choices"] == FIRST
    assert asked["optuna_number"] == 0


def test_a_good_result_is_told(url):
    mine = searcher(url)
    mine.suggest("one")
    mine.on_trial_complete("one", dict(GOOD))
    (trial,) = open_study(url, "test", OBJECTIVES).trials
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [1.5, 5.0])
    assert completed(open_study(url, "test", OBJECTIVES)) == 1


@pytest.mark.parametrize(
    "result",
    [
        {OBJECTIVES[0]: math.nan, OBJECTIVES[1]: math.nan}, {OBJECTIVES[0]: math.nan, OBJECTIVES[1]: 5.0},
        {OBJECTIVES[0]: math.inf, OBJECTIVES[1]: 5.0}, {OBJECTIVES[0]: None, OBJECTIVES[1]: 5.0}, {OBJECTIVES[0]: 1.0},
    ],
)  # fmt: skip
def test_a_result_that_is_no_number_is_a_failure(url, result):
    mine = searcher(url)
    mine.suggest("one")
    mine.on_trial_complete("one", {**result, "config": {}})
    assert states(url) == ["FAIL"]
    mine.on_trial_complete("one", {**result, "config": {}})  # told twice, which Tune may do
    assert states(url) == ["FAIL"]
    mine.suggest("two")
    mine.on_trial_complete("two", dict(GOOD))
    assert states(url) == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    ("result", "error", "state"), [(None, True, "FAIL"), ({}, True, "FAIL"), (None, False, "PRUNED")]
)
def test_a_trial_that_reported_nothing_is_told_so(url, result, error, state):
    """It died, or it was stopped."""
    mine = searcher(url)
    mine.suggest("one")
    mine.on_trial_complete("one", result, error=error)
    assert states(url) == [state]


def test_reopening_fails_what_a_killed_driver_left_running(url):
    mine = searcher(url)
    for name in ("one", "two", "three"):
        mine.suggest(name)
    mine.on_trial_complete("two", dict(GOOD))
    assert states(url) == ["RUNNING", "COMPLETE", "RUNNING"]
    searcher(url)
    assert states(url) == ["FAIL", "COMPLETE", "FAIL"]


@pytest.mark.parametrize("ask", [0, 1, 2])
def test_points_are_enqueued_once_however_often_a_study_is_opened(url, ask):
    """Whether the first point still waits, or has run."""
    for _ in range(3):
        mine = searcher(url)
        for number in range(ask):
            mine.suggest(f"t{number}")
            mine.on_trial_complete(f"t{number}", dict(GOOD))
    enqueued = [trial for trial in open_study(url, "test", OBJECTIVES).trials if "fixed_params" in trial.system_attrs]
    assert len(enqueued) == 1


def test_reopening_does_not_touch_what_is_finished(url):
    mine = searcher(url)
    for name in ("one", "two"):
        mine.suggest(name)
    mine.on_trial_complete("one", dict(GOOD))
    mine.on_trial_complete("two", {**GOOD, OBJECTIVES[0]: math.nan})
    again = searcher(url)
    assert states(url)[:2] == ["COMPLETE", "FAIL"]
    assert again.suggest("three")["optuna_number"] == 2


@pytest.mark.parametrize("result", [{"quality": 0.5, "evaluations": 100}])
def test_one_that_the_scheduler_stopped_is_pruned_and_counts_as_done(url, result):
    mine = searcher(url)
    mine.suggest("one")
    mine.on_trial_complete("one", result)
    mine.on_trial_complete("one", result)
    assert states(url) == ["PRUNED"]
    assert completed(open_study(url, "test", OBJECTIVES)) == 1


class TestAlgorithms:
    """Every sampler searches a conditional space of categories for two objectives, and repeats itself by its seed."""

    SPACE = space_of(
        Factor("kind", "kind", ("a", "b")), Factor("depth", "depth", (1, 2, 4), only_if=({"kind": ("b",)},)),
        Factor("width", "width", tuple(range(8))), Factor("nfe", "NFE", (1, 5)),
    )  # fmt: skip

    def asked(self, algorithm, seed, trials=14):
        study = optuna.create_study(directions=["minimize"] * 2, sampler=search.sampler(algorithm, seed))
        seen = []
        for _ in range(trials):
            trial = study.ask()
            choices = self.SPACE.suggest(trial)
            assert ("depth" in choices) == (choices["kind"] == "b")
            seen.append(choices)
            study.tell(trial, [choices["width"] + choices["nfe"] / 10, choices["nfe"]])
        return seen

    @pytest.mark.parametrize("algorithm", SEARCH_ALGORITHMS)
    def test_it_searches_and_repeats_itself(self, algorithm):
        first = self.asked(algorithm, 0)
        assert first == self.asked(algorithm, 0)
        assert len({choices["width"] for choices in first}) > 3

    @pytest.mark.parametrize(("algorithm", "seeds", "most"), [("tpe", 8, 3.0), ("gp", 3, 2.5)])
    def test_those_that_learn_find_the_better_half(self, algorithm, seeds, most):
        """Widths are uniform at first, 3.5 +- 0.26 of 8 seeds; what is asked late has the smaller ones.

        TPE models parameters together, which costs it here, where each acts for itself (2.5 in place of 1.4).
        """
        late = [choices["width"] for seed in range(seeds) for choices in self.asked(algorithm, seed, 30)[-10:]]
        assert sum(late) / len(late) < most


class TestObjectives:
    def entry(self, value, nfe, sampler="exponential", metric="fd"):
        return {"metric": metric, "value": value, "nfe": nfe, "sampler": sampler}

    @pytest.fixture
    def fields(self):
        rows = [(90.0, 1), (40.0, 5), (44.0, 9)]
        heun = [(70.0, 3, "heun"), (30.0, 9, "heun"), (20.0, 19, "heun")]
        return {"entries": [self.entry(*row) for row in (*rows, *heun)] + [self.entry(1e-3, 1, metric="other")]}

    @pytest.mark.parametrize(
        ("nfe", "sampler", "value", "calls", "taken"),
        [
            (5, "exponential", 40.0, 5, "exponential"),
            (4, "exponential", 90.0, 1, "exponential"),
            (10, "exponential", 40.0, 5, "exponential"),  # more calls were worse: the best within the budget
            (10, "heun", 30.0, 9, "heun"),
            (10, None, 30.0, 9, "heun"),  # no sampler chosen: the best of all
            (5, None, 40.0, 5, "exponential"),
            (5, "ddim", 40.0, 5, "exponential"),  # one that the method cannot run stands for any
            (1, "heun", 70.0, 3, "heun"),  # fewer calls than its least: its least, and its true number of calls
            (100, "heun", 20.0, 19, "heun"),
        ],
    )
    def test_the_trials_choice_picks_the_entry(self, fields, nfe, sampler, value, calls, taken):
        assert objectives(fields, "fd", nfe, sampler) == (pytest.approx(math.log(value)), calls, taken)

    @pytest.mark.parametrize("fields", [{}, {"entries": []}, {"entries": [{"metric": "x", "value": 1.0, "nfe": 1,
                                                                          "sampler": "heun"}]}])  # fmt: skip
    def test_nothing_measured_is_nan(self, fields):
        quality, calls, taken = objectives(fields, "fd", 10, None)
        assert math.isnan(quality)
        assert math.isnan(calls)
        assert taken == ""

    def test_values_that_are_no_numbers_are_passed_over(self):
        fields = {"entries": [self.entry(math.nan, 1), self.entry(0.0, 2), self.entry(7.0, 3)]}
        assert objectives(fields, "fd", 10, None) == (pytest.approx(math.log(7)), 3, "exponential")

    def test_a_trainings_cost_counts_simulation_optimisation_and_the_denoisers(self, fields):
        spent = {"simulation_evaluations": 100, "optimisation_evaluations": 20}
        path, field = ({**fields, **spent, "denoiser_evaluations": of} for of in (3000, None))
        assert reported(path, "fd", 5, None)[0] == {
            QUALITY: pytest.approx(math.log(40.0)), NFE: 5, COST: pytest.approx(math.log(3120)),
        }  # fmt: skip
        assert reported(field, "fd", 5, None)[0][COST] == pytest.approx(math.log(120))

    @pytest.mark.parametrize("spent", [{}, {"simulation_evaluations": 5}, dict.fromkeys(
        ("simulation_evaluations", "optimisation_evaluations"), 0)])  # fmt: skip
    def test_what_was_not_counted_has_no_cost(self, fields, spent):
        values, taken = reported({**fields, **spent}, "fd", 5, None)
        assert math.isnan(values[COST])
        assert (values[NFE], taken) == (5, "exponential")


@pytest.mark.parametrize("names", [(QUALITY,), (QUALITY, NFE, COST)], ids=len)
class TestOtherObjectives:
    def test_as_many_values_are_told_as_are_asked_for(self, names, tmp_path):
        address = f"sqlite:///{tmp_path / 'optuna.db'}"
        open_study(address, "test", names)
        mine = StudySearch(space=SPACE, metric=list(names), mode=["min"] * len(names), study_name="test",
                           storage=RDBStorage(address))  # fmt: skip
        result = {QUALITY: 1.5, NFE: 5.0, COST: 9.0}
        mine.suggest("one")
        mine.on_trial_complete("one", dict(result))
        mine.suggest("two")
        mine.on_trial_complete("two", {**result, names[-1]: math.nan})
        mine.suggest("three")
        mine.on_trial_complete("three", {"quality": 0.5, "evaluations": 100})
        told = open_study(address, "test", names).trials
        assert [trial.state.name for trial in told] == ["COMPLETE", "FAIL", "PRUNED"]
        assert told[0].values == [result[name] for name in names]


class TestStalled:
    def study(self, values):
        study = optuna.create_study(directions=["minimize", "minimize"])
        for pair in values:
            study.tell(study.ask(), pair) if pair else study.tell(study.ask(), state=TrialState.FAIL)
        return study

    def test_patience_counts_the_trials_since_the_front_last_moved(self):
        study = self.study([(1.0, 1), (2.0, 2), (3.0, 3)])
        assert stalled(study, 2)
        assert not stalled(study, 3)

    def test_a_new_point_of_the_front_begins_anew(self):
        study = self.study([(5.0, 5), (6.0, 6), (7.0, 7), (9.0, 1)])
        assert not stalled(study, 1)

    def test_failures_do_not_count(self):
        assert not stalled(self.study([(1.0, 1), None, None, None]), 1)

    def test_without_patience_it_never_ends(self):
        assert not stalled(self.study([(1.0, 1)] + [(2.0, 2)] * 30), None)

    def test_an_empty_study_goes_on(self):
        assert not stalled(self.study([]), 1)


class TestProgress:
    def test_elsewhere_than_on_a_terminal_lines_are_plain_and_few(self):
        stream = io.StringIO()
        progress = Progress("search", 4, done=1, stream=stream)
        for _ in range(20):
            progress.show()
        progress.done, progress.running = 2, 1
        progress.better(3.0, "fd 20 at NFE 5", "digits")
        progress.better(4.0, "worse", "digits")
        progress.show(final=True)
        first, last = stream.getvalue().splitlines()
        assert first.startswith("search 1/4 · running 0 · failed 0")
        assert "search 2/4 · running 1" in last
        assert "best fd 20 at NFE 5" in last
        assert "left" in last
        assert "\x1b" not in stream.getvalue()

    def test_each_data_set_has_a_best_of_its_own_and_the_line_shows_the_last_that_was_bettered(self):
        progress = Progress("ablation", 4, stream=io.StringIO())
        progress.better(3.0, "fd 20", "digits")
        assert "best fd 20 ·" in progress.line()  # one data set needs no name
        progress.better(9.0, "w2 0.9", "moons")
        assert "best on moons w2 0.9" in progress.line()
        progress.better(10.0, "w2 1.0", "moons")
        progress.better(4.0, "fd 50", "digits")
        assert "best on moons w2 0.9" in progress.line()
        progress.better(2.0, "fd 10", "digits")
        assert "best on digits fd 10" in progress.line()

    def test_on_a_terminal_the_line_rewrites_itself(self):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        stream = Terminal()
        progress = Progress("ablation", 2, stream=stream)
        progress.show()
        progress.show(final=True)
        assert stream.getvalue().count("\r") == 2
        assert stream.getvalue().count("\n") == 1


def test_optuna_says_nothing(url, capfd):
    search.open_study(url, "another", OBJECTIVES)
    assert capfd.readouterr() == ("", "")


def test_a_list_is_asked_in_its_order_and_ends():
    configs = [{"trial": number} for number in range(3)]
    listed = InOrder(configs)
    assert [listed.suggest(str(number)) for number in range(4)] == [*configs, InOrder.FINISHED]
