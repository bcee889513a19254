"""Whole studies through Ray, as a user runs them. Tests of one class share an output folder, in their order."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from benchmarks import processes
from sbbridge.records import METRIC_KEY, TRIAL_KEY
from sbbridge.study import cli
from studies.asbm_sweep import STUDY, write_report
from tests.study import tiny

ROOT = Path(__file__).parents[2]
SMOKE = ("studies/asbm_sweep.py", "--preset", "smoke")
TINY = ("-m", "tests.study.tiny_study")
LIMIT_S = 400


def start(*arguments, **environment):
    """A study script as its own process; Ray's address of this shell is not the test's."""
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | environment
    return subprocess.Popen([sys.executable, *map(str, arguments)], cwd=ROOT, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def run(*arguments, **environment):
    process = start(*arguments, **environment)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def optuna_states(folder, name):
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{folder / 'optuna.db'}")
    return [trial.state.name for trial in study.trials]


def study_json(folder):
    return json.loads((folder / "study.json").read_text())


def ablation_metrics(folder, digest):
    """{(seed, what): value} of one configuration's evaluation."""
    names = [name for name in METRIC_KEY if name not in ("digest", "phase")]
    return {
        tuple(row[name] for name in names): row["value"]
        for row in tiny.collected(folder, "metrics")
        if row["digest"] == digest and row["phase"] == "ablation" and row["stage"] == "evaluation"
    }


@pytest.fixture
def no_ray(monkeypatch):
    """Fails when Ray is started in this process; puts the signal handler of a driver back."""
    import ray

    monkeypatch.setattr(ray, "init", lambda *a, **k: pytest.fail("Ray was started"))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smoke") / "study"
    return folder, run(*SMOKE, "--output", folder)


@pytest.mark.slow  # .ci/run runs the same study beside the tests
class TestSmoke:
    def test_it_finishes_with_a_report(self, smoke):
        folder, (rc, out, err) = smoke
        assert rc == 0, err
        assert out.strip() == f"report: {folder / 'report.html'}"
        assert (folder / "report.html").stat().st_size > 10_000
        assert "search 2/2" in err
        assert "ablation 8/8" in err
        assert "Traceback" not in err

    def test_every_run_has_one_row_and_is_complete(self, smoke):
        rows = tiny.collected(smoke[0])
        assert tiny.doubled(rows, TRIAL_KEY) == []
        assert {row["status"] for row in rows} == {"completed"}
        assert sum(row["phase"] == "ablation" for row in rows) == 8
        assert {row["seed"] for row in rows if row["phase"] == "ablation"} == {0, 1}
        assert {row["method"] for row in rows} == {"asbm", "score_matching_vp"}
        assert tiny.doubled(tiny.collected(smoke[0], "metrics"), METRIC_KEY) == []

    def test_both_launchers_ran(self, smoke):
        rows = tiny.collected(smoke[0])
        trained = [row for row in rows if row["launcher"] == "train"]
        assert len(trained) == 1
        assert trained[0]["num_workers"] == min(2, os.cpu_count() or 1)
        assert {row["num_workers"] for row in rows if row["launcher"] == "inline"} == {1}

    def test_optuna_is_consistent_and_its_numbers_are_in_the_rows(self, smoke):
        folder, _ = smoke
        assert optuna_states(folder, "asbm_sweep") == ["COMPLETE"] * 2
        searched = [row for row in tiny.collected(folder) if row["phase"] == "search"]
        assert sorted(number for row in searched for number in row["optuna_numbers"]) == [0, 1]

    def test_the_centre_is_the_presets(self, smoke):
        held = study_json(smoke[0])
        assert held["centre"]["chosen_by"] == "preset"
        assert held["centre"]["config"] == held["base"]
        assert len(held["sessions"]) == 1
        assert held["sessions"][0]["seconds"] > 0
        assert held["sessions"][0]["outcome"] == "complete"

    def test_nothing_temporary_is_left(self, smoke):
        left = [path.name for path in smoke[0].rglob(".*")]
        assert left == [".lock"]

    def test_the_same_command_again_starts_no_ray(self, smoke, no_ray, capsys):
        folder, _ = smoke
        before = {name: data for name, data in tiny.files(folder).items() if name.startswith(("records", "study.json"))}
        clock = time.monotonic()
        assert cli.main(STUDY, write_report, [*SMOKE[1:], "--output", str(folder)]) == 0
        assert time.monotonic() - clock < 15
        assert capsys.readouterr().out.strip() == f"report: {folder / 'report.html'}"
        after = {name: data for name, data in tiny.files(folder).items() if name.startswith(("records", "study.json"))}
        assert after == before

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--set", "reference.beta_max=8"], "reference.beta_max is 4.0 there and 8.0 here"),
            (["--set", "evaluation.nfe=[1]"], "evaluation.nfe is [1, 5] there and [1] here"),
            (["--dataset", "gaussian64"], "holds dataset 'digits', not 'gaussian64'"),
            (["--preset", "default"], "holds preset 'smoke', not 'default'"),
        ],
    )
    def test_another_configuration_is_refused_and_nothing_overwritten(self, smoke, no_ray, capsys, arguments, words):
        folder, _ = smoke
        before = tiny.files(folder)
        assert cli.main(STUDY, write_report, [*SMOKE[1:], "--output", str(folder), *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert words in err
        assert "--fresh" in err
        assert tiny.files(folder) == before


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A study with one cell that cannot be trained; its records lie apart, behind a URI."""
    folder = tmp_path_factory.mktemp("failing")
    command = (*TINY, "--preset", "failing", "--output", folder / "study", "--storage", (folder / "far").as_uri())
    return folder / "study", command, run(*command)


def ablation(folder):
    return [row for row in tiny.collected(folder) if row["phase"] == "ablation"]


class TestAFailingCell:
    def test_the_study_says_so(self, failing):
        _, _, (rc, out, err) = failing
        assert rc == 1, err
        assert out.startswith("report: ")
        assert "some runs failed or are missing" in err.splitlines()[-1]
        assert "Traceback" not in err
        assert "failed 1" in err

    def test_the_failure_is_recorded_with_its_error(self, failing):
        (failed,) = [row for row in ablation(failing[0]) if row["status"] == "failed"]
        assert failed["error"].startswith("DivergenceError: the loss of stage")
        assert failed["config.training.learning_rate"] == 1e20
        assert failed["host"]

    def test_the_other_cells_are_complete(self, failing):
        assert [row["status"] for row in ablation(failing[0])].count("completed") == 2
        assert tiny.doubled(tiny.collected(failing[0]), TRIAL_KEY) == []

    def test_the_report_names_it(self, failing):
        text = (failing[0] / "report.html").read_text()
        assert "DivergenceError" in text
        assert next(row["digest"] for row in ablation(failing[0]) if row["status"] == "failed") in text

    def test_the_centre_is_the_searchs_best_on_validation(self, failing):
        centre = study_json(failing[0])["centre"]
        assert centre["chosen_by"] == "search"
        best = min(
            (row["value"], row["digest"])
            for row in tiny.collected(failing[0], "metrics")
            if row["phase"] == "search" and row["split"] == "validation" and row["role"] == "model"
            and row["metric"] == "covariance_error"
        )  # fmt: skip
        assert best[1] == centre["digest"]

    def test_what_lies_apart_is_brought_home(self, failing):
        study, *_ = failing
        assert list((study.parent / "far" / "records" / "trials").glob("*.parquet"))
        assert list(study.glob("artifacts/*/samples.npz"))
        assert not list(study.parent.rglob(".ray"))

    def test_more_seeds_and_trials_run_only_what_is_missing_or_failed(self, failing):
        """The last of this class: it extends the study."""
        study, command, _ = failing
        before = {tuple(row[name] for name in TRIAL_KEY): row for row in tiny.collected(study)}
        centre = study_json(study)["centre"]
        rc, _, err = run(*command, "--seeds", "2", "--trials", "3")
        assert rc == 1, err
        assert "ablation 4/6" in err
        assert "failed 2" in err
        rows = tiny.collected(study)
        assert tiny.doubled(rows, TRIAL_KEY) == []
        assert sorted(row["seed"] for row in ablation(study)) == [0, 0, 0, 1, 1, 1]
        assert study_json(study)["centre"] == centre
        assert study_json(study)["seeds"] == [0, 1]
        for row in ablation(study):
            held = before.get(tuple(row[name] for name in TRIAL_KEY))
            if held is not None:  # what was complete has not been run again, what had failed has
                assert (row["attempt"] == held["attempt"]) == (held["status"] == "completed")
        assert sorted(number for row in rows for number in row["optuna_numbers"]) == [0, 1, 2]
        assert optuna_states(study, "tiny") == ["COMPLETE"] * 3
        assert not list(study.parent.rglob(".ray"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["search", "ablation", "worker group"])
def test_a_killed_driver_is_continued_by_the_same_command(smoke, tmp_path, moment):
    """SIGKILL in the search, among the ablation's runs, and while a Ray Train group works."""
    folder = tmp_path / "study"
    process = start(*SMOKE, "--output", folder)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None and not reached(folder, moment):
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    left = tiny.trials(folder)
    rc, _, err = run(*SMOKE, "--output", folder)
    assert rc == 0, err
    rows = tiny.collected(folder)
    assert tiny.doubled(rows, TRIAL_KEY) == []
    keys = {tuple(row[name] for name in TRIAL_KEY) for row in rows}
    assert {tuple(row[name] for name in TRIAL_KEY) for row in left} <= keys
    assert {row["status"] for row in rows if row["phase"] == "ablation"} == {"completed"}
    states = optuna_states(folder, "asbm_sweep")
    assert "RUNNING" not in states
    assert states.count("COMPLETE") == 2
    centre = study_json(folder)["centre"]["digest"]
    whole = ablation_metrics(smoke[0], centre)
    assert ablation_metrics(folder, centre) == pytest.approx(whole, rel=1e-3)
    assert {row["digest"] for row in rows if row["phase"] == "ablation"} == {
        row["digest"] for row in tiny.collected(smoke[0]) if row["phase"] == "ablation"
    }
    assert not (folder / ".ray").exists()


def reached(folder, moment):
    """Whether a study stands where it shall be killed."""
    if not (folder / "study.json").exists():
        return False
    if moment == "worker group":
        return study_json(folder)["centre"] is not None and any((folder / ".ray").glob("*-0-*"))
    phases = [row["phase"] for row in tiny.trials(folder)]
    return phases.count("search") >= 1 if moment == "search" else phases.count("ablation") >= 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_leaves_a_folder_that_resumes(tmp_path, number):
    """Ctrl-C and kill: one line, status 130; the same command goes on."""
    folder = tmp_path / "study"
    process = start(*TINY, "--output", folder)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None and not reached(folder, "search"):
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; the same command continues"
    assert "Traceback" not in err
    assert "received" not in err  # Ray's own handler
    assert not (folder / ".ray").exists()
    rc, _, err = run(*TINY, "--output", folder)
    assert rc == 0, err
    assert [session["outcome"] for session in study_json(folder)["sessions"]] == ["stopped", "complete"]
    assert "RUNNING" not in optuna_states(folder, "tiny")
    assert tiny.doubled(tiny.collected(folder), TRIAL_KEY) == []


@pytest.mark.slow
def test_a_driver_whose_raylet_is_killed_ends_in_a_line_and_resumes(tmp_path):
    """A local Ray has one: nothing could ever be started again."""
    folder = tmp_path / "study"
    process = start(*TINY, "--output", folder)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None and not reached(folder, "search"):
        time.sleep(0.05)
    (raylet,) = [child.pid for child in processes.below(process.pid) if "/raylet/raylet " in child.title]
    os.kill(raylet, signal.SIGKILL)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == "error: ClusterDied: no node of Ray is alive any more; the same command continues"
    assert "Traceback" not in err
    assert not (folder / ".ray").exists()
    rc, _, err = run(*TINY, "--output", folder)
    assert rc == 0, err
    assert "RUNNING" not in optuna_states(folder, "tiny")
    assert tiny.doubled(tiny.collected(folder), TRIAL_KEY) == []
