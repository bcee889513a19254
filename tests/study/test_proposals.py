"""What the search asks first: the preset's points, and the best of an earlier study with --from."""

import json
import pickle

import pytest

from sbbridge import config
from sbbridge.study import cli, driver
from sbbridge.study.definition import Factor, Preset
from sbbridge.study.job import trial_row
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.proposals import Proposals, earlier_points, first_points
from sbbridge.study.search import open_study
from sbbridge.study.space import Space, value_at
from sbbridge.study.store import Store
from sbbridge.study.trial import TrialConfig
from studies import asbm_sweep, joint_sweep, ldsb_sweep
from tests.study import tiny
from tests.study.paths import Drawing, plan

COUPLING = Factor("method.coupling", "coupling", ("independent", "asbm"))
CYCLES = Factor("method.cycles", "cycles", (1, 2, 4), only_if=({"method.coupling": ("asbm",)},))
SPACE = Space(TrialConfig, tiny.tree({"method.coupling": "asbm"}), (COUPLING, CYCLES, Factor("nfe", "NFE", (1, 5))))
METRIC = "frechet_distance"


@pytest.mark.parametrize("study", ["ldsb_sweep", "joint_sweep"])
def test_smoke_asks_for_two_kan_grid_sizes_and_two_numbers_of_steps(study):
    """Whatever Optuna draws after them: all of them run within the preset's own trials."""
    mine = plan(study, "smoke")
    assert len(mine.points) <= mine.options.trials
    trees = [mine.space().tree(point) for point in mine.points]
    assert len({point["network.grid_size"] for point in mine.points if "network.grid_size" in point}) >= 2
    assert len({size for tree in trees if (size := value_at(tree, "network.grid_size"))}) >= 2
    assert len({point["method.num_steps"] for point in mine.points}) >= 2


@pytest.mark.parametrize(("study", "preset"), [
    ("ldsb_sweep", "smoke"), ("ldsb_sweep", "default"), ("ldsb_sweep", "thorough"), ("joint_sweep", "smoke"),
    ("joint_sweep", "default"), ("joint_sweep", "thorough"),
])  # fmt: skip
def test_first_points_are_whole_and_none_is_asked_twice(study, preset):
    mine = plan(study, preset)
    assert mine.points[0] == mine.space().complete({})
    assert len(mine.points) == 1 + len(mine.preset.points)
    for number, point in enumerate(mine.points):
        assert mine.space().complete(point) == point
        assert point not in mine.points[:number]


def test_points_with_levels_that_are_no_longer_there_are_left_out():
    preset = Preset("", {}, 1, 1, SPACE.factors, (), points=({"method.cycles": 3}, {"method.cycles": 4}))
    found = first_points(SPACE, preset)
    assert found == [{"method.coupling": "asbm", "method.cycles": n, "nfe": 5} for n in (1, 4)]


def test_the_searched_jobs_pickle_and_carry_their_digests(tmp_path):
    template = tiny.job(tmp_path, tiny.tree(), phase="search").as_dict()
    fields = {"jobs": [template], "nfe": 10, "sampler": None, "metric": METRIC}
    space = pickle.loads(pickle.dumps(Proposals(SPACE, fields)))
    choices = {"method__coupling": "asbm", "method__cycles": 4}
    one, other = (space(Drawing(**choices, nfe=nfe))["trial"] for nfe in (1, 5))
    assert (one["nfe"], other["nfe"], one["optuna_number"]) == (1, 5, 7)
    # the NFE chooses among what one training's evaluation has measured
    wanted = tiny.tree({"method.coupling": "asbm", "method.cycles": 4})
    assert one["jobs"][0]["digest"] == other["jobs"][0]["digest"] == config.digest(wanted)
    assert one["jobs"][0]["tree"] == wanted
    assert one["choices"] == {"method.coupling": "asbm", "method.cycles": 4, "nfe": 1}


# -- those of an earlier study


def recorded(folder, runs, space=(), metric=METRIC, phase="search"):
    """A study's folder: (changes, choices, quality, calls) of every run."""
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps({
        "primary_metric": {"metric": metric}, "config_columns": tiny.COLUMNS, "storage": None,
        "space": [{"path": path} for path in space],
    }))  # fmt: skip
    store = Store(str(folder), tiny.COLUMNS)
    for number, (changes, choices, quality, calls) in enumerate(runs):
        job = tiny.job(folder, tiny.tree(changes), seed=number, phase=phase)
        status = "completed" if quality else "failed"
        store.add_trial(trial_row(job, {"status": status, "attempt": 1}, [number], choices))
        entry = {"metric": metric, "value": quality, "sampler": "heun", "nfe": calls}
        store.finish(job.training_digest, job.digest, number, {"entries": [entry] if quality else []})
    return folder


def asked(coupling, cycles=None, **more):
    """(what it changes, what was chosen) of a run."""
    choices = {"method.coupling": coupling, **({"method.cycles": cycles} if cycles else {})}
    return choices, {**choices, **more}


def test_the_front_comes_first_and_then_the_next_best(tmp_path):
    folder = recorded(tmp_path / "there", [
        (*asked("asbm", 2, nfe=5), 9.0, 5), (*asked("independent", nfe=1), 7.0, 1), (*asked("asbm", 4, nfe=5), 3.0, 5),
    ])  # fmt: skip
    points, dropped = earlier_points(str(folder), SPACE)
    assert points == [
        {"method.coupling": "asbm", "method.cycles": 4, "nfe": 5}, {"method.coupling": "independent", "nfe": 1},
        {"method.coupling": "asbm", "method.cycles": 2, "nfe": 5},
    ]  # fmt: skip
    assert dropped == []


def test_parameters_and_levels_that_are_not_here_are_dropped_by_name(tmp_path):
    folder = recorded(tmp_path / "there", [(*asked("asbm", 8, **{"method.reuse": 3, "nfe": 5}), 3.0, 5)],
                      space=("method.coupling", "reference.beta_max"))  # fmt: skip
    points, dropped = earlier_points(str(folder), SPACE)
    assert points == [{"method.coupling": "asbm", "method.cycles": 1, "nfe": 5}]
    said = {line.removeprefix(f"--from {folder}: ") for line in dropped}
    assert said == {
        "method.cycles is left out: 8 is none of its levels here (1, 2, 4)",
        "method.reuse is left out: it is no parameter here",
        "reference.beta_max is left out: it is no parameter here",
    }


def test_a_failed_run_gives_nothing_and_an_ablation_stands_for_a_search_that_was_not(tmp_path):
    runs = [(*asked("asbm", 4), 3.0, 5), (*asked("asbm", 2), None, 5)]
    folder = recorded(tmp_path / "there", [(changes, None, quality, calls) for changes, _, quality, calls in runs],
                      phase="ablation")  # fmt: skip
    points, _ = earlier_points(str(folder), SPACE)
    assert points == [{"method.coupling": "asbm", "method.cycles": 4, "nfe": 5}]


def test_no_more_are_taken_than_a_search_can_bear(tmp_path):
    space = Space(TrialConfig, tiny.tree({"method.coupling": "asbm"}), (
        COUPLING, Factor("method.cycles", "cycles", tuple(range(1, 20))),
    ))  # fmt: skip
    folder = recorded(tmp_path / "there", [(*asked("asbm", n), float(n), 5) for n in range(1, 16)])
    points, _ = earlier_points(str(folder), space)
    assert [point["method.cycles"] for point in points] == list(range(1, 11))


@pytest.fixture
def no_ray(monkeypatch):
    monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def refused(capsys, study, *arguments):
    assert cli.main(study, lambda folder: folder, [str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1), err
    return err


@pytest.mark.usefixtures("no_ray")
class TestTheCommandLine:
    @pytest.mark.parametrize(
        ("study_json", "words"),
        [
            (None, "not a study's folder (No such file"), ("", "not a study's folder"),
            ('{"study": "asb', "not a study's folder"),
            ("{}", "not a study's folder ('primary_metric')"), ("[]", "not a study's folder"),
        ],
    )  # fmt: skip
    def test_what_is_no_study_is_refused(self, study_json, words, tmp_path, capsys):
        there = tmp_path / "there"
        there.mkdir()
        if study_json is not None:
            (there / "study.json").write_text(study_json)
        err = refused(capsys, asbm_sweep.STUDY, "--from", there, "--output", tmp_path / "study")
        assert f"--from {there}: {words}" in err
        assert not (tmp_path / "study").exists()

    def test_one_without_a_completed_run_or_with_nothing_in_common_is_refused(self, tmp_path, capsys):
        empty = recorded(tmp_path / "empty", [])
        output = ("--output", tmp_path / "study")
        assert "no run of it is completed" in refused(capsys, asbm_sweep.STUDY, "--from", empty, *output)
        other = recorded(tmp_path / "other", [({"reference.kind": "brownian"}, None, 3.0, 5)])
        err = refused(capsys, ldsb_sweep.STUDY, "--preset", "smoke", "--from", other, *output)
        assert "nothing of what it varied is searched here (searched here: method.fit.kind, " in err
        assert not (tmp_path / "study").exists()

    def test_what_is_left_out_is_said_before_anything_runs(self, tmp_path, capsys):
        there = recorded(tmp_path / "there", [(*asked("bridge_matching", sampler="ddim"), 3.0, 5)])
        arguments = ["--preset", "smoke", "--from", str(there), "--dry-run"]
        assert cli.main(joint_sweep.STUDY, lambda folder: folder, arguments) == 0
        assert f"--from {there}: sampler is left out: it is no parameter here" in capsys.readouterr().err


def test_they_are_asked_after_the_presets_own_and_once_however_often_a_study_is_resumed(tmp_path):
    from optuna.storages import RDBStorage

    from sbbridge.study.ray_search import StudySearch

    there = recorded(tmp_path / "there", [(*asked("bridge_matching", nfe=5), 3.0, 5)])
    options = Options("digits", "smoke", tmp_path, str(tmp_path), 2, 1, {}, start_from=str(there))
    mine = make_plan(asbm_sweep.STUDY, options)
    assert len(mine.points) == 2
    assert mine.points[1]["method.coupling"] == "bridge_matching"
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    for _ in range(3):
        open_study(url, "test", mine.objectives)
        StudySearch(space=mine.space().suggest, metric=list(mine.objectives), mode=["min", "min"], study_name="test",
                    storage=RDBStorage(url), points_to_evaluate=[dict(point) for point in mine.points])  # fmt: skip
    fixed = [trial.system_attrs["fixed_params"] for trial in open_study(url, "test", mine.objectives).trials]
    assert fixed == list(mine.points)
