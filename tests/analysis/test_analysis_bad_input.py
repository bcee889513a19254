"""What every command says to folders and records that are not as they should be: one line, never a silent drop."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fabricated_study import Fabricator, config, study_json

from analysis.__main__ import main
from analysis.collect import collect
from analysis.watch import Watched

READERS: dict[str, Callable[[Path], list[str]]] = {
    "report": lambda folder: ["report", str(folder)],
    "table": lambda folder: ["table", str(folder), "--rows", "beta_max"],
    "effects": lambda folder: ["effects", str(folder)],
    "compare": lambda folder: ["compare", str(folder), str(folder), "--all"],
    "figures": lambda folder: ["figures", str(folder), "--format", "svg"],
}


def small(folder: Path, seeds: tuple[int, ...] = (0, 1), **changes: object) -> Fabricator:
    """Three noise levels, no more."""
    maker = Fabricator(folder, study_json(**changes))
    for seed in seeds:
        for noise in (1.0, 4.0, 8.0):
            maker.run(config(noise), seed)
    return maker


def ran(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[str]]:
    status = main(READERS[command](folder))
    captured = capsys.readouterr()
    return status, captured.out, captured.err.splitlines()


@pytest.mark.parametrize("command", [*READERS, "collect", "watch"])
def test_an_empty_folder_and_none(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "holds no study.json"), ("absent", "no such folder")):
        arguments = READERS[command](tmp_path / name) if command in READERS else [command, str(tmp_path / name)]
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize(("command", "status", "said"), [
    ("report", 0, "report.html"), ("collect", 0, "no run has been recorded yet"),
    ("table", 2, "no run of the ablation has been recorded"), ("effects", 2, "no run has been recorded yet"),
    ("figures", 2, "no run has been recorded yet"), ("compare", 2, "have no setting in common"),
])  # fmt: skip
def test_a_study_that_has_no_record(command: str, status: int, said: str, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    Fabricator(tmp_path)
    arguments = READERS[command](tmp_path) if command in READERS else [command, str(tmp_path)]
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert said in (captured.err if status else captured.out)
    assert len(captured.err.splitlines()) == (1 if status else 0)


@pytest.mark.parametrize("command", READERS)
def test_a_study_that_is_running(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = small(tmp_path)
    maker.write_trials(maker.trial(config(4.0), 2, status="running"))
    status, out, said = ran(command, tmp_path, capsys)
    assert (status, said) == (0, [])
    if command == "table":
        assert "1 run not finished yet" in out
    if command == "report":
        assert "running" in (tmp_path / "report.html").read_text().lower()


@pytest.mark.parametrize(("command", "sentence"), [
    ("table", "one seed: no interval"), ("effects", "one seed: no interval"), ("compare", "One seed: no interval"),
])  # fmt: skip
def test_one_seed(command: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(tmp_path, (0,))
    status, out, said = ran(command, tmp_path, capsys)
    assert (status, said) == (0, [])
    assert sentence.lower() in out.lower()
    assert not any("±" in line for line in out.splitlines() if line.startswith("|"))


@pytest.mark.parametrize("command", READERS)
def test_parts_of_an_older_schema_without_a_column(command: str, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    small(tmp_path)
    for kind, dropped in (("trials", ["optuna_choices", "retained_memory"]), ("metrics", ["n", "attempt"])):
        for path in (tmp_path / "records" / kind).glob("*.parquet"):
            pq.write_table(pq.ParquetFile(path).read().drop_columns(dropped), path)
    status, _, said = ran(command, tmp_path, capsys)
    assert (status, said) == (0, [])
    collected = collect(tmp_path)
    assert collected.trials["retained_memory"].isna().all()
    assert collected.metrics["n"].isna().all() and len(collected.metrics) > 100


@pytest.mark.parametrize("command", [*READERS, "watch"])
def test_a_torn_part_is_named_by_every_command(command: str, tmp_path: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    small(tmp_path)
    whole = next((tmp_path / "records/metrics").glob("*.parquet"))
    torn = whole.with_name("torn.parquet")
    torn.write_bytes(whole.read_bytes()[:-200])
    if command == "watch":
        (line,) = Watched(tmp_path).look()
    else:
        status, _, (line, *others) = ran(command, tmp_path, capsys)
        assert status == 1
        assert others == []
    assert f"cannot read {torn}: " in line


@pytest.mark.parametrize(("arguments", "nearest"), [
    (["table", "--metric", "frechet_distnce"], "nearest: frechet_distance"),
    (["table", "--rows", "bta_max"], "nearest: "), (["table", "--columns", "samplr"], "nearest: sampler"),
    (["compare", "--metric", "straightnes"], "nearest: straightness"), (["effects", "--nfe", "7"], "there are 1, 2, 3"),
])  # fmt: skip
def test_a_name_that_does_not_exist(arguments: list[str], nearest: str, study: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    command, *options = arguments
    folders = [str(study)] * (2 if command == "compare" else 1)
    assert main([command, *folders, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert nearest in line


@pytest.mark.parametrize("command", ["table", "effects", "compare"])
def test_names_are_escaped_in_html(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design = study_json()["design"]
    design["factors"][0]["label"] = "<script>alert(1)</script>"
    for name in ("a", "b"):
        small(tmp_path / name, design=design, study=f"<b>{name}</b>")
    arguments = [*READERS[command](tmp_path / "a"), "--format", "html"]
    if command == "compare":
        arguments[2] = str(tmp_path / "b")
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "<script>" not in out and "<b>a" not in out
    assert "&lt;" in out


def test_two_configurations_of_one_name_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, preset in (("here", 4.0), ("there", 8.0)):
        small(tmp_path / place / "asbm", (0,), base=config(preset))
    folders = [str(tmp_path / place / "asbm") for place in ("here", "there")]
    assert main(["collect", *folders, "--out", str(tmp_path / "all")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "two studies are called “asbm”" in line and "beta_max" in line
    assert not (tmp_path / "all").exists()


def test_a_torn_study_json_is_one_line_for_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(tmp_path, (0,))
    (tmp_path / "study.json").write_text(json.dumps(study_json())[:-40])
    for command in READERS:
        status, _, said = ran(command, tmp_path, capsys)
        assert status == 2
        assert len(said) == 1 and "study.json: cannot be read" in said[0]
