"""No credentials in what a study writes and says; no code in what it reads."""

import ast
import json
import os
import pickle
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from analysis.report import write_report
from sbbridge.records import without_credentials
from sbbridge.study import cli
from sbbridge.study.environment import worker_environment
from sbbridge.study.folder import StudyFile
from sbbridge.study.job import execute
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.store import Store
from tests.study import tiny, tiny_study

ROOT = Path(__file__).parents[2]
SECRETS = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG", "WANDB_API_KEY": "0123456789abcdef-wandb",
           "HF_TOKEN": "hf_abcdefghijk", "PGPASSWORD": "postgres-passw0rd"}  # fmt: skip


@pytest.fixture
def here(monkeypatch):
    """Studies run without Ray; a driver's signal handler is put back."""
    tiny.without_ray(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def study(output, *arguments):
    given = ["--preset", "together", "--dataset", "gaussian64", "--output", str(output), *map(str, arguments)]
    return cli.main(tiny_study.STUDY, write_report, given)


class TestCredentials:
    @pytest.mark.parametrize(
        ("text", "without"),
        [
            ("postgresql://someone:s3cr3t@host:5432/db", "postgresql://host:5432/db"),
            ("postgresql+psycopg://someone@host/db", "postgresql+psycopg://host/db"),
            ("postgresql://a:with/slash?and#all@host/db", "postgresql://host/db"),
            ("postgresql://a:p@ss@host/db", "postgresql://host/db"),
            ("postgresql://host/db?user=a&password=b&sslmode=require",
             "postgresql://host/db?user=&password=&sslmode=require"),
            ("postgresql://host/db?sslpassword=b&PASSWORD=c", "postgresql://host/db?sslpassword=&PASSWORD="),
            ("cannot open 's3://KEY:SECRET@bucket/a' and x://u:v@w", "cannot open 's3://bucket/a' and x://w"),
            ("sqlite:////shared/a.db", "sqlite:////shared/a.db"),
            ("s3://bucket/p?endpoint_override=127.0.0.1:9000&scheme=http",
             "s3://bucket/p?endpoint_override=127.0.0.1:9000&scheme=http"),
            ("an error at 12:30, someone@example.org", "an error at 12:30, someone@example.org"),
        ],
    )  # fmt: skip
    def test_urls_lose_user_and_password(self, text, without):
        assert without_credentials(text) == without

    def test_study_json_names_the_database_without_them(self, tmp_path):
        url = "postgresql+psycopg://someone:s3cr3t@db.example.org:5432/studies"
        options = Options("gaussian64", "default", tmp_path, str(tmp_path), 2, 1, {}, optuna_storage=url)
        StudyFile(make_plan(tiny_study.STUDY, options), tiny.COLUMNS)
        text = (tmp_path / "study.json").read_text()
        assert json.loads(text)["optuna"]["storage"] == "postgresql+psycopg://db.example.org:5432/studies"
        assert "s3cr3t" not in text
        assert "someone" not in text
        StudyFile(make_plan(tiny_study.STUDY, options), tiny.COLUMNS)  # the same command finds its own

    def test_no_line_of_an_error_has_them(self, tmp_path, monkeypatch, capsys):
        def fail(self):
            raise OSError("lost postgresql://someone:s3cr3t@host/db at 127.0.0.1")

        monkeypatch.setattr("sbbridge.study.driver.Driver.run", fail)
        assert study(tmp_path / "study") == 1
        assert capsys.readouterr().err == "error: OSError: lost postgresql://host/db at 127.0.0.1\n"

    @pytest.mark.usefixtures("here")
    def test_the_environments_are_nowhere(self, tmp_path, monkeypatch, capfd):
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        assert study(tmp_path / "study", "--debug") == 0
        patterns = [word for value in SECRETS.values() for word in ("-e", value)]
        found = subprocess.run(["grep", "-rlaF", *patterns, str(tmp_path)], capture_output=True, text=True, check=False)
        assert found.stdout == ""
        # Parquet compresses: its values are looked at as they are
        rows = tiny.collected(tmp_path / "study") + tiny.collected(tmp_path / "study", "metrics")
        said = "".join(map(str, rows)) + "".join(capfd.readouterr())
        assert [name for name, value in SECRETS.items() if value in said] == []

    def test_workers_elsewhere_are_told_what_is_listed_and_nothing_else(self, monkeypatch):
        for name, value in {**SECRETS, "SB_CACHE": "/shared/cache"}.items():
            monkeypatch.setenv(name, value)
        told = worker_environment()
        assert told["SB_CACHE"] == "/shared/cache"
        assert set(told) & set(SECRETS) == set()
        assert not any(word in name for name in told for word in ("TOKEN", "SECRET", "PASSWORD", "KEY"))


class Canary:
    """A pickle of it, read, leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestPickles:
    """What unpickles executes; a study and its user bring files that anybody may have written."""

    @pytest.fixture
    def canary(self, tmp_path):
        poison = pickle.dumps(Canary(tmp_path / "unpickled"))
        with pytest.raises(FileNotFoundError):
            pickle.loads(pickle.dumps(Canary(tmp_path / "no" / "folder")))
        yield poison
        assert not (tmp_path / "unpickled").exists()

    def test_of_a_killed_drivers_ray(self, canary, here, tmp_path):
        run = tmp_path / "study" / ".ray" / "run-1-2"
        run.mkdir(parents=True)
        for name in ("tuner.pkl", "searcher-state-1.pkl", "search_gen_state-1.json", "experiment_state-1.json"):
            (run / name).write_bytes(canary)
        assert study(tmp_path / "study") == 0
        assert not run.exists()

    def test_as_a_checkpoint(self, canary, tmp_path):
        job = tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64"}))
        Store(str(tmp_path), tiny.COLUMNS).save_checkpoint(job.training_digest, 0, 5, canary)
        fields = execute(job)
        assert fields["status"] == "completed", fields
        assert "not a usable checkpoint" in fields["notes"][0]

    @pytest.mark.parametrize("kind", ["pickle", "object array"])
    def test_as_an_artefact(self, canary, tmp_path, kind, here):
        output = tmp_path / "study"
        assert study(output) == 0
        for path in output.glob("artifacts/*/samples.npz"):
            if kind == "pickle":
                path.write_bytes(canary)
            else:
                held = np.empty(1, dtype=object)
                held[0] = Canary(tmp_path / "unpickled")
                np.savez(path, real=held, nfe_1=held)
        write_report(output)

    def test_as_records_results_study_and_database(self, canary, tmp_path, here, capsys):
        output = tmp_path / "study"
        assert study(output) == 0
        paths = [next((output / "records" / name).iterdir()) for name in ("trials", "metrics")]
        for path in [*paths, output / "optuna.db"]:
            path.write_bytes(canary)
        assert study(output) == 0, capsys.readouterr().err
        (output / "study.json").write_bytes(canary)
        assert study(output) == 2

    def test_no_module_can(self):
        """Neither pickle's kin, nor torch's and numpy's with their guards off, nor code from text."""
        problems = []
        packages = (ROOT / name for name in ("sbbridge", "analysis", "studies"))
        for path in sorted(file for package in packages for file in package.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                found = _dangerous(node)
                if found:
                    problems.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}: {found}")
        assert problems == []

    @pytest.mark.parametrize(
        "code",
        ["pickle.loads(x)", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
         "eval(x)", "exec(x)", "yaml.load(x)", "pd.read_pickle(x)", "Tuner.restore(x)", "import joblib",
         "from pickle import loads", "import cloudpickle as c"],
    )  # fmt: skip
    def test_the_test_before_sees(self, code):
        assert any(_dangerous(node) for node in ast.walk(ast.parse(code)))


KIN = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {("yaml", "load"), ("yaml", "full_load"), ("yaml", "unsafe_load"), ("pd", "read_pickle"),
           ("Tuner", "restore"), ("tune", "restore")}  # fmt: skip


def _dangerous(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import) and {alias.name.partition(".")[0] for alias in node.names} & KIN:
        return "import"
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {*KIN, "pickle"}:
        return "import"
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = node.value.id, node.attr
        if (name[0] == "pickle" and name[1] != "UnpicklingError") or name in METHODS:
            return ".".join(name)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in CALLS:
            return called
        if called == "torch.load" and options.get("weights_only") != "True":
            return called
        if options.get("allow_pickle", "False") != "False":
            return called
    return None
