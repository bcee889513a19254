"""Studies whose records lie on a server of the S3 protocol: whole, resumed, and while the server misbehaves."""

import json
import signal
import time

import pyarrow.fs as pafs
import pytest

from sbbridge import records
from sbbridge.study import cli, requirements
from sbbridge.study.store import Store
from tests.study import s3_server, tiny, tiny_study

LIMIT_S = 20


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    for name, value in s3_server.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def here(monkeypatch):
    """Studies run without Ray; a driver's signal handler is put back."""
    tiny.without_ray(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def server(s3):
    s3.requests.clear()
    s3.made.clear()
    yield s3
    s3.fault = None


def run(output, storage, *arguments):
    """A study of two runs, in this process."""
    given = ["--preset", "together", "--dataset", "gaussian64", "--output", str(output), "--storage", storage]
    return cli.main(tiny_study.STUDY, lambda folder: folder / "report.html", [*given, *arguments])


def stored(store, *address):
    selector = pafs.FileSelector(store._path(*address), recursive=True, allow_not_found=True)
    return sorted(info.path for info in store.filesystem.get_file_info(selector) if info.is_file)


@pytest.mark.usefixtures("here")
class TestStudies:
    def test_records_come_home_and_checkpoints_stay(self, server, tmp_path):
        output, uri = tmp_path / "study", server.uri("home")
        assert run(output, uri) == 0
        store = Store(uri, tiny.COLUMNS)
        for name in ("records/trials", "records/metrics", "artifacts"):
            away = {path.removeprefix(f"{store.root}/") for path in stored(store, name)}
            home = {str(path.relative_to(output)) for path in (output / name).rglob("*") if path.is_file()}
            assert away == home != set()
        assert len(stored(store, "checkpoints")) == 4  # a training's last and its result, twice
        assert not (output / "checkpoints").exists()
        assert [path for path in stored(store) if "/." in path] == []
        assert json.loads((output / "study.json").read_text())["storage"] == uri

    def test_what_is_there_is_not_run_again_and_what_is_not_is(self, server, tmp_path, monkeypatch):
        output, uri = tmp_path / "study", server.uri("again")
        assert run(output, uri) == 0
        before = {row["digest"]: row for row in tiny.trials(output)}
        store = Store(uri, tiny.COLUMNS)
        lost = next(iter(before))
        for path in stored(store):
            if lost in path or f"{before[lost]['training_digest']}-0" in path:
                store.filesystem.delete_file(path)
        ran = []
        from sbbridge.study import trial

        original = trial.run_trial
        monkeypatch.setattr(trial, "run_trial", lambda *a: ran.append(a) or original(*a))
        assert run(output, uri) == 0
        assert len(ran) == 1
        rows = {row["digest"]: row for row in store.trials()}
        assert {row["status"] for row in rows.values()} == {"completed"}
        assert {d: row["attempt"] > before[d]["attempt"] for d, row in rows.items()} == {d: d == lost for d in before}
        ran.clear()
        assert run(output, uri) == 0
        assert ran == []

    def test_another_storage_is_refused(self, server, tmp_path, capsys):
        output, uri = tmp_path / "study", server.uri("first")
        assert run(output, uri) == 0
        capsys.readouterr()
        assert run(output, server.uri("second")) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert f"was begun with --storage {uri}, not {server.uri('second')}" in err
        assert cli.main(tiny_study.STUDY, lambda folder: folder / "report.html",
                        ["--preset", "together", "--dataset", "gaussian64", "--output", str(output)]) == 2  # fmt: skip
        assert f"was begun with --storage {uri}, not {output}" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
class TestFaults:
    def check(self, output, uri):
        """All is there, once."""
        store = Store(uri, tiny.COLUMNS)
        rows = store.trials()
        assert [row["status"] for row in rows] == ["completed"] * 2
        assert tiny.doubled(store.trial_rows(), records.TRIAL_KEY) == []
        assert [path for path in stored(store) if "/." in path] == []
        held = tiny.metrics(uri)
        assert tiny.doubled(held, records.METRIC_KEY) == []
        return {tuple(row[name] for name in records.METRIC_KEY): row["value"] for row in held}

    def test_a_server_that_fails_drops_and_delays_changes_nothing(self, server, tmp_path):
        assert run(tmp_path / "calm", server.uri("calm")) == 0
        calm = self.check(tmp_path / "calm", server.uri("calm"))
        kinds = ("500", "503", "drop", "late", 0.2)
        server.made.clear()
        server.fault = lambda method, path, number: kinds[number // 4 % len(kinds)] if number % 4 == 0 else None
        assert run(tmp_path / "rough", server.uri("rough")) == 0
        server.fault = None
        assert set(server.made) == {"500", "503", "drop", "late", "slow"}
        assert self.check(tmp_path / "rough", server.uri("rough")) == calm
        for path in (tmp_path / "calm" / "artifacts").rglob("*.npz"):
            assert (tmp_path / "rough" / path.relative_to(tmp_path / "calm")).read_bytes() == path.read_bytes()

    def test_a_server_that_goes_away_ends_the_study_in_a_line_and_the_same_command_continues(
        self, server, tmp_path, capsys, monkeypatch
    ):
        output, uri = tmp_path / "study", server.uri("away")
        monkeypatch.setattr(records, "S3_ATTEMPTS", 2)
        # the first trial's row is written, then nothing any more
        rows = [0]

        def fault(method, path, number):
            rows[0] += method == "PUT" and "/records/trials/" in path
            return "503" if rows[0] > 1 else None

        server.fault = fault
        assert run(output, uri) == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        assert "AWS Error SLOW_DOWN" in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("error: OSError: ")
        server.fault = None
        kept = Store(uri, tiny.COLUMNS).trials()
        assert [row["status"] for row in kept] == ["completed"]
        assert run(output, uri) == 0
        self.check(output, uri)
        assert kept[0] in Store(uri, tiny.COLUMNS).trials()


class TestRefused:
    @pytest.fixture(autouse=True)
    def nothing_runs(self, monkeypatch):
        monkeypatch.setattr("sbbridge.study.driver.Driver.__init__", lambda *a: pytest.fail("a driver was made"))
        monkeypatch.setattr(requirements, "open_data", lambda plan: pytest.fail("data were opened"))

    def refused(self, tmp_path, capsys, storage):
        clock = time.monotonic()
        assert run(tmp_path / "study", storage) == 2
        assert time.monotonic() - clock < LIMIT_S
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), err
        assert err.startswith("error: --storage")
        assert not (tmp_path / "study").exists()
        return err

    def test_a_bucket_that_does_not_exist(self, server, tmp_path, capsys):
        uri = server.uri("prefix", bucket="no-such-bucket")
        err = self.refused(tmp_path, capsys, uri)
        assert f"--storage {uri}: cannot write no-such-bucket/prefix/.probe-" in err
        assert "NO_SUCH_BUCKET" in err

    def test_an_end_point_where_nothing_answers(self, tmp_path, capsys):
        err = self.refused(tmp_path, capsys, "s3://bucket/a?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1")
        assert "Could not connect to server" in err

    def test_a_server_that_fails_all_the_time(self, server, tmp_path, capsys):
        server.fault = lambda *a: "503"
        assert "SLOW_DOWN" in self.refused(tmp_path, capsys, server.uri("prefix"))

    def test_no_bucket(self, tmp_path, capsys):
        assert "it names no bucket (s3://BUCKET/PREFIX)" in self.refused(tmp_path, capsys, "s3://")

    def test_credentials_in_the_uri(self, server, tmp_path, capsys):
        err = self.refused(tmp_path, capsys, server.uri("prefix").replace("s3://", "s3://AKIA123:t0p-s3cret@"))
        assert "credentials do not belong in a URI" in err
        assert "AWS_SECRET_ACCESS_KEY" in err
        assert "t0p-s3cret" not in err
        assert "AKIA123" not in err
