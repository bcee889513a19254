"""Optuna's database on a real PostgreSQL: shared by studies, restarted under one, away, and its password nobody's."""

import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from sbbridge.records import TRIAL_KEY
from sbbridge.study import cli, database, requirements, search
from sbbridge.study.driver import Driver
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.ray_search import StudySearch
from tests.study import tiny, tiny_study
from tests.study.postgres_server import PASSWORD, QUOTED, USER, postgres_server
from tests.study.test_end_to_end import LIMIT_S, TINY, run, start
from tests.study.test_search import FIRST, GOOD, OBJECTIVES, SPACE

REFUSED_S = 20


@pytest.fixture(scope="module")
def server():
    with postgres_server() as running:
        yield running


@pytest.fixture
def url(server):
    """Whatever a test did to it, the next one finds it up."""
    if server.stopped:
        server.start()
    return server.url()


def driver(output, url):
    output.mkdir(exist_ok=True)
    options = Options("gaussian64", "default", output, str(output), 2, 1, {}, optuna_storage=url)
    return Driver(make_plan(tiny_study.STUDY, options))


class TestTogether:
    def test_studies_of_one_name_in_one_database_do_not_meet(self, url, tmp_path):
        one, other = (driver(tmp_path / name, url)._open_search() for name in ("one", "other"))
        one.tell(one.ask(), [1.0, 1.0])
        assert (len(one.trials), len(other.trials)) == (1, 0)
        again = driver(tmp_path / "one", url)._open_search()
        assert [trial.state for trial in again.trials] == [TrialState.COMPLETE]
        names = [json.loads((tmp_path / name / "study.json").read_text())["optuna"]["study_name"]
                 for name in ("one", "other")]  # fmt: skip
        assert all(name.startswith("tiny-gaussian64-default-") for name in names)
        assert set(names) <= set(optuna.get_all_study_names(url))

    def test_a_database_that_was_lost_gets_the_searchs_trials_back(self, url, tmp_path):
        """Tested with SQLite in full; here, that it is PostgreSQL's studies that are looked at."""
        name = driver(tmp_path / "study", url)._open_search().study_name
        optuna.delete_study(study_name=name, storage=url)
        assert driver(tmp_path / "study", url)._open_search().trials == []

    def test_a_killed_drivers_trials_are_failed(self, url):
        def searcher():
            return StudySearch(space=SPACE, metric=list(OBJECTIVES), mode=["min", "min"], study_name="killed",
                               storage=database.open_database(url), points_to_evaluate=[FIRST])  # fmt: skip

        first = searcher()
        assert first.suggest("one")["choices"] == FIRST
        first.suggest("two")
        first.on_trial_complete("one", dict(GOOD))
        searcher()
        states = [trial.state.name for trial in search.open_study(url, "killed", OBJECTIVES).trials]
        assert states == ["COMPLETE", "FAIL"]


class TestOutages:
    def test_a_server_that_restarts_is_waited_for(self, server, url):
        study = search.open_study(url, "restarted", OBJECTIVES)
        trial = study.ask()
        server.stop()
        threading.Timer(2.0, server.start).start()
        study.tell(trial, [1.0, 2.0])
        assert [t.values for t in study.trials] == [[1.0, 2.0]]

    def test_one_that_stays_away_is_said_in_a_line(self, server, url, monkeypatch):
        study = search.open_study(url, "away", OBJECTIVES)
        trial = study.ask()
        server.stop()
        monkeypatch.setattr(database, "OUTAGE_S", 1.0)
        line = rf"^--optuna-storage postgresql\+psycopg://127.0.0.1:{server.port}/postgres: .*Connection refused$"
        with pytest.raises(database.DatabaseError, match=line), database.in_one_line(url):
            study.tell(trial, [1.0, 2.0])
        server.start()
        study.tell(trial, [1.0, 2.0])
        assert [t.state for t in study.trials] == [TrialState.COMPLETE]


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_runs(self, monkeypatch):
        monkeypatch.setattr(Driver, "__init__", lambda *a: pytest.fail("a driver was made"))
        monkeypatch.setattr(requirements, "open_data", lambda plan: pytest.fail("data were opened"))

    def refused(self, tmp_path, capsys, url):
        clock = time.monotonic()
        assert cli.main(tiny_study.STUDY, lambda folder: folder,
                        ["--output", str(tmp_path / "study"), "--optuna-storage", url]) == 2  # fmt: skip
        assert time.monotonic() - clock < REFUSED_S
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert err.startswith("error: --optuna-storage")
        assert not (tmp_path / "study").exists()
        for secret in (PASSWORD, QUOTED, "s3cr3t", USER + ":"):
            assert secret not in err
        return err

    def test_nothing_answers(self, tmp_path, capsys):
        err = self.refused(tmp_path, capsys, f"postgresql+psycopg://{USER}:{QUOTED}@127.0.0.1:1/studies")
        assert "postgresql+psycopg://127.0.0.1:1/studies: " in err
        assert "Connection refused" in err

    def test_somebody_listens_and_says_nothing(self, tmp_path, capsys):
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            port = silent.getsockname()[1]
            err = self.refused(tmp_path, capsys, f"postgresql+psycopg://{USER}:{QUOTED}@127.0.0.1:{port}/studies")
        assert "timeout expired" in err

    def test_a_wrong_password(self, server, url, tmp_path, capsys):
        assert f'password authentication failed for user "{USER}"' in self.refused(
            tmp_path, capsys, server.url("s3cr3t-but-wrong")
        )

    def test_no_such_database(self, url, tmp_path, capsys):
        err = self.refused(tmp_path, capsys, url.replace("/postgres", "/studies"))
        assert 'database "studies" does not exist' in err

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("postgresql+psycopg2://someone:s3cr3t@127.0.0.1/x", "'.[postgresql]'"),
            ("oracle9://someone:s3cr3t@127.0.0.1/x", "Can't load plugin"),
            ("postgresql://someone:s3cr3t@127.0.0.1:port/x", "invalid literal"),
            ("postgresql://127.0.0.1:1/x?user=someone&password=s3cr3t", "Connection refused"),
            ("someone:s3cr3t@127.0.0.1/x", "expected a URL"),
        ],
    )
    def test_what_is_no_usable_address(self, url, words, tmp_path, capsys):
        assert words in self.refused(tmp_path, capsys, url)


def secrets_in(folder: Path) -> list[str]:
    """Files below a folder that hold the password, as it is or as URLs quote it."""
    command = ["grep", "-rlaF", "-e", PASSWORD, "-e", QUOTED, "-e", "s3cr3t", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


@pytest.mark.slow
class TestAWholeStudy:
    """Killed in the search, continued while the server restarts."""

    @pytest.fixture(scope="class")
    @staticmethod
    def study(server, tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole")
        ray = folder / "ray"
        ray.mkdir()
        if server.stopped:
            server.start()
        command = (*TINY, "--trials", "3", "--output", folder / "study", "--optuna-storage", server.url(), "--debug")
        process = start(*command, RAY_TMPDIR=str(ray))
        wait(lambda: process.poll() is not None or len(tiny.trials(folder / "study")) >= 1, folder / "study")
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, err
        left = secrets_in(folder)
        again = start(*command, RAY_TMPDIR=str(ray))
        wait(lambda: again.poll() is not None or len(tiny.trials(folder / "study")) >= 2, folder / "study")
        server.stop()
        time.sleep(3)
        server.start()
        out2, err2 = again.communicate(timeout=LIMIT_S)
        assert again.returncode == 0, err2
        return folder, left, (out, err, out2, err2), command

    def test_all_is_there_once(self, server, study):
        folder, *_ = study
        rows = tiny.collected(folder / "study")
        assert tiny.doubled(rows, TRIAL_KEY) == []
        assert {row["status"] for row in rows if row["phase"] == "ablation"} == {"completed"}
        name = json.loads((folder / "study" / "study.json").read_text())["optuna"]["study_name"]
        states = [trial.state.name for trial in optuna.load_study(study_name=name, storage=server.url()).trials]
        assert states.count("COMPLETE") == 3
        assert "RUNNING" not in states

    def test_the_password_is_nowhere(self, study):
        """Not in what a killed driver leaves of its own and of Ray, not in the folder, the log or the report."""
        folder, left, texts, _ = study
        assert left == []
        assert secrets_in(folder) == []
        assert not any("s3cr3t" in text for text in texts)
        held = json.loads((folder / "study" / "study.json").read_text())["optuna"]["storage"]
        assert held.startswith("postgresql+psycopg://127.0.0.1:")

    def test_it_returns_at_once_when_it_is_done(self, study):
        *_, command = study
        rc, out, _ = run(*command)
        assert rc == 0
        assert out.startswith("report: ")

    def test_another_database_is_refused(self, study):
        *_, command = study
        rc, _, err = run(*command[:-3])
        assert rc == 2
        assert "was begun with --optuna-storage postgresql+psycopg://127.0.0.1:" in err
        assert "not sqlite:///optuna.db" in err


def wait(reached, folder):
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and not ((folder / "study.json").exists() and reached()):
        time.sleep(0.1)
