"""ASHA in the search: what is stopped is recorded as pruned, told to Optuna, and counts."""

from pathlib import Path

import pytest

from sbbridge.records import TRIAL_KEY
from sbbridge.study.plan import make_plan
from tests.study import tiny, tiny_study
from tests.study.test_design import options
from tests.study.test_end_to_end import TINY, optuna_states, run

COMMAND = (*TINY, "--preset", "rates", "--search-algorithm", "random")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[Path, tuple]:
    folder = tmp_path_factory.mktemp("asha") / "study"
    return folder, run(*COMMAND, "--output", folder, "--scheduler", "asha")


def test_it_finishes_with_as_many_trials_as_were_asked_for(study):
    folder, (rc, _, err) = study
    assert rc == 0, err
    states = optuna_states(folder, "tiny")
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert len(states) == 8
    assert "Traceback" not in err


def test_some_were_stopped_and_say_so(study):
    folder, _ = study
    pruned = [row for row in tiny.collected(folder) if row["status"] == "pruned"]
    assert pruned
    assert {row["phase"] for row in pruned} == {"search"}
    numbers = sorted(number for row in tiny.collected(folder) for number in row["optuna_numbers"])
    assert numbers == list(range(8))
    assert tiny.doubled(tiny.collected(folder), TRIAL_KEY) == []


def test_a_stopped_trial_keeps_its_curve_and_has_no_evaluation(study):
    folder, _ = study
    pruned = {row["digest"] for row in tiny.collected(folder) if row["status"] == "pruned"}
    rows = [row for row in tiny.collected(folder, "metrics") if row["digest"] in pruned and row["phase"] == "search"]
    assert {row["digest"] for row in rows if row["stage"] == "training"} == pruned
    assert not [row for row in rows if row["stage"] == "evaluation"]


def test_the_report_lists_them(study):
    folder, _ = study
    assert "pruned" in (folder / "report.html").read_text()


def test_the_scheduler_is_part_of_the_study(study):
    folder, _ = study
    rc, out, err = run(*COMMAND, "--output", folder, "--set", "evaluation.curve=8")
    assert (rc, out) == (2, "")
    assert "scheduler is 'asha' there and 'none' here" in err


def test_curves_are_watched_where_nobody_said_how_often(tmp_path):
    plan = make_plan(tiny_study.STUDY, options(tmp_path, dataset="gaussian64", scheduler="asha"))
    assert plan.base["evaluation"]["curve"] == 8
    assert plan.evaluations > 1000
