"""Where the ablation stands: what the search has found at so many calls, and its best path."""

import pytest

from sbbridge.study import design
from sbbridge.study.centre import best_trial, find_centre
from sbbridge.study.job import trial_row
from sbbridge.study.store import Store
from tests.study import tiny
from tests.study.paths import plan

METRIC = "frechet_distance"
FIELD = {"method.student": "flow", "method.coupling": "asbm"}
PATH = {**FIELD, "method.kind": "ldsb", "method.fit.kind": "teacher"}


@pytest.fixture
def searched(tmp_path):
    """Records joint_sweep's trials: (levels, {calls: quality})."""
    space = plan("joint_sweep").space()
    store = Store(str(tmp_path), tiny.COLUMNS)

    def record(levels, found, status="completed"):
        number = len(store.trial_rows())
        point = space.complete(levels)
        job = tiny.job(tmp_path, space.tree(point), seed=design.SEARCH_SEED, phase="search")
        costs = {"simulation_evaluations": 1000, "optimisation_evaluations": 234}
        store.add_trial(trial_row(job, {"status": status, "attempt": number + 1, **costs}, [number], point))
        entries = [{"metric": METRIC, "value": q, "sampler": "heun", "nfe": n} for n, q in found.items()]
        store.finish(job.training_digest, job.digest, job.seed, {"entries": entries})
        return point

    return store, record


def test_the_winner_is_the_best_at_no_more_than_the_presets_calls(searched):
    store, record = searched
    record({**PATH, "method.num_steps": 10}, {10: 1.0})
    best = record({**FIELD, "method.num_steps": 20}, {3: 9.0, 5: 4.0, 20: 0.5})
    record({**PATH, "method.num_steps": 3}, {3: 5.0})
    record({**PATH, "method.num_steps": 5}, {5: 0.1}, status="failed")
    centre = find_centre(plan("joint_sweep"), "digits", store, METRIC)
    assert centre.point == best
    assert centre.tree == plan("joint_sweep").space().tree(best)
    assert centre.evaluations == 1234
    assert design.Centre.read(centre.as_json(), plan("joint_sweep").space()) == centre


def test_finalists_are_the_best_at_each_number_of_calls_and_the_path_is_the_best_of_paths(searched):
    store, record = searched
    field = record({**FIELD, "method.num_steps": 20}, {3: 9.0, 5: 4.0, 10: 3.0})
    short = record({**PATH, "method.num_steps": 3, "network.grid_size": 4}, {3: 5.0})
    long = record({**PATH, "method.num_steps": 10}, {10: 1.0})
    centre = find_centre(plan("joint_sweep"), "digits", store, METRIC)
    assert centre.finalists == ((3, short), (5, field), (10, long))
    assert (centre.best_path["network.grid_size"], centre.best_path["method.kind"]) == (4, "ldsb")
    assert not {"method.student", "method.coupling", "method.num_steps"} & set(centre.best_path)


def test_where_all_need_more_calls_the_best_of_them_wins_and_is_no_finalist(searched):
    store, record = searched
    best = record({**PATH, "method.num_steps": 20}, {20: 1.0})
    centre = find_centre(plan("joint_sweep"), "digits", store, METRIC)
    assert (centre.point, centre.finalists, centre.best_path) == (best, (), {})


def test_without_a_completed_trial_there_is_none(searched):
    store, record = searched
    record(FIELD, {5: float("nan")})
    record({**FIELD, "method.coupling": "independent"}, {5: 1.0}, status="pruned")
    assert best_trial(store, METRIC, 5) is None
    assert find_centre(plan("joint_sweep"), "digits", store, METRIC) is None
    assert find_centre(plan("ldsb_sweep", "grid_size"), "digits", store, METRIC).point == {}
