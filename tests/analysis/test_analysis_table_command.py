"""`python -m analysis table` against loops over the formula that fabricated the records."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from fabricated_comparison import ARMS, expected
from fabricated_study import (
    COUPLINGS,
    FLOOR,
    NFE,
    NOISE,
    Fabricator,
    config,
    digest,
    evaluation_rows,
    fabricate,
    frechet,
    study_json,
    values_of,
)
from scipy import stats

from analysis import export
from analysis.__main__ import main
from analysis.collect import collect
from analysis.statistics import Interval
from analysis.table_command import Request, asked_tables
from analysis.tables import Table
from sbbridge.records import metric_row

SEEDS = (0, 1, 2)


def table_of(folder: Path, **request: object) -> Table:
    (table,) = asked_tables(collect(folder), Request(**request))  # type: ignore[arg-type]
    return table


def cell(table: Table, name: str, **levels: str) -> object:
    (row,) = [row for row in table.rows if all(row[key] == level for key, level in levels.items())]
    return row[name]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_means_and_intervals_by_noise_and_coupling(study: Path, split: str) -> None:
    where = ["method.kind=asbm", "cycles=6,–"]
    table = table_of(study, rows=["beta_max"], columns=["coupling", "nfe"], where=where, split=split)
    for noise in NOISE:
        for coupling, level in zip(COUPLINGS, ("independent", "bridge matching", "ASBM"), strict=True):
            for nfe in NFE:
                values = values_of(config(noise, coupling), nfe, split)
                found = cell(table, f"value_{level}_{nfe}", **{"reference.beta_max": f"{noise:g}"})
                assert isinstance(found, Interval)
                half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
                assert (found.n, found.mean) == (3, pytest.approx(np.mean(values)))
                assert found.half_width == pytest.approx(half)
    assert ("optimistic" in table.caption) == (split == "validation")


def test_differences_from_a_baseline_are_paired_and_corrected_over_the_table(study: Path) -> None:
    where = ["method.kind=asbm", "cycles=6,–", "nfe=10"]
    table = table_of(study, rows=["coupling"], columns=["beta_max"], baseline="coupling=independent", where=where)
    tests = {}
    for noise in NOISE:
        baseline = np.log(values_of(config(noise, "independent"), 10))
        for coupling, level in (("bridge_matching", "bridge matching"), ("asbm", "ASBM")):
            values = np.log(values_of(config(noise, coupling), 10))
            tests[f"{noise:g}", level] = (stats.ttest_rel(values, baseline).pvalue, np.exp((values - baseline).mean()))
    ordered = sorted(p for p, _ in tests.values())
    holm = np.maximum.accumulate([min(1.0, (6 - rank) * p) for rank, p in enumerate(ordered)])
    for (noise, level), (p, ratio) in tests.items():
        place = {"method.coupling": level}
        assert cell(table, f"p_{noise}", **place) == pytest.approx(holm[ordered.index(p)])
        found = cell(table, f"ratio_{noise}", **place)
        assert isinstance(found, Interval)
        assert found.mean == pytest.approx(ratio)
    assert table.rows[0]["method.coupling"] == "independent"
    assert "difference_4" not in table.rows[0]
    assert "Holm-corrected over 6 comparisons" in table.caption


def test_what_stands_beside_every_row(study: Path) -> None:
    table = table_of(study)
    row = next(row for row in table.rows if row["setting"] == "centre")
    assert row["floor"] == pytest.approx(FLOOR * 1.02)
    assert row["null"] == pytest.approx(np.mean(values_of(config(coupling="independent"), 10)))
    assert row["evaluations"] == pytest.approx(3_500_000)
    assert (row["n"], row["configurations"], row["failed"]) == ("3", 1, 0)
    failed = next(row for row in table.rows if row["setting"] == "noise β_max = 8")
    assert failed["failed"] == 1


def test_a_cell_of_several_configurations_is_the_mean_over_seeds_that_have_all(study: Path) -> None:
    table = table_of(study, rows=["coupling"], columns=[], where=["method.kind=asbm", "cycles=6,–", "nfe=10"])
    values = np.mean([values_of(config(noise, "asbm"), 10) for noise in NOISE], axis=0)
    found = cell(table, "value", **{"method.coupling": "ASBM"})
    assert isinstance(found, Interval)
    assert found.mean == pytest.approx(values.mean())
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) / math.sqrt(3)
    assert found.half_width == pytest.approx(half)
    assert "several configurations (up to 3)" in table.caption


def test_samplers_may_be_a_column_and_then_nothing_is_chosen(study: Path) -> None:
    table = table_of(study, columns=["sampler"], where=["nfe=10", "setting=centre"])
    for sampler, level in (("ancestral", "ancestral"), ("ddim", "DDIM")):
        found = cell(table, f"value_{level}", setting="centre")
        assert isinstance(found, Interval)
        expectation = np.mean([frechet(config(), seed, 10, sampler, "test") for seed in SEEDS])
        assert found.mean == pytest.approx(expectation)
    assert "chose" not in table.caption


def test_another_metric_is_measured_on_the_samples_of_the_first(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    tree = config()
    chosen = {}
    for seed in SEEDS:
        maker.run(tree, seed)
        place = {"digest": digest(tree), "seed": seed, "phase": "ablation", "stage": "evaluation", "attempt": 1000}
        maker.write_metrics(*[
            metric_row("recall", value, sampler=sampler, grid="trailing_uniform", num_steps=10, nfe=10, split="test",
                       weights="ema", **place)
            for sampler, value in (("ancestral", 0.2), ("ddim", 0.9))
        ])  # fmt: skip
        chosen[seed] = frechet(tree, seed, 10, "ancestral", "validation")
    found = cell(table_of(tmp_path, metric="recall"), "value_10", setting="centre")
    assert isinstance(found, Interval)
    assert found.mean == pytest.approx(0.2)  # validation prefers ancestral sampling by the Fréchet distance


def test_the_best_is_bold_where_it_is_better_than_all_others(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    levels = {1.0: 9.0, 4.0: 3.0, 8.0: 9.2}

    def value(tree: dict, seed: int, nfe: int, *_: object) -> float:  # type: ignore[type-arg]
        noise = tree["reference"]["beta_max"]
        spread = 0.02 if nfe == 10 else 0.9
        return float(levels[noise] * np.exp(spread * np.random.default_rng([seed, int(noise), nfe]).normal()))

    for seed in range(4):
        for noise in NOISE:
            maker.run(config(noise), seed, value=value)
    table = table_of(tmp_path, rows=["beta_max"])
    assert table.bold == {(1, "value_10")}
    assert "**3" in export.to_markdown(table)
    assert r"\textbf{3" in export.to_latex(table)
    assert "<strong>3" in export.to_html(table)


def test_one_seed_has_no_interval_and_says_so(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for noise in NOISE:
        maker.run(config(noise), 0)
    table = table_of(tmp_path, rows=["beta_max"])
    assert "One seed: no interval" in table.caption
    assert not table.bold
    assert "±" not in export.to_markdown(table).split("\n\n")[1]


def test_the_bootstrap_takes_over_from_twenty_seeds(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    tree = config()
    for seed in range(21):
        maker.write_trials(maker.trial(tree, seed))
        maker.write_metrics(*evaluation_rows(tree, seed, "ablation", frechet))
    for seed in range(3):
        maker.run(config(1.0), seed)
    table = table_of(tmp_path, rows=["beta_max"], bootstrap=True)
    found = {row["reference.beta_max"]: row["value_10"] for row in table.rows}
    assert (found["4"].method, found["1"].method) == ("bootstrap", "t")
    assert table_of(tmp_path, rows=["beta_max"]).rows[0]["value_10"].method == "t"


def test_the_search_is_a_table_of_its_own_and_called_optimistic(study: Path) -> None:
    table = table_of(study, phase="search", rows=["beta_max"], columns=["coupling"])
    assert {row["reference.beta_max"] for row in table.rows} == {"0.5", "1", "4", "20"}
    assert "optimistic" in table.caption


def test_a_study_that_is_running_says_what_is_not_finished(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    maker.write_trials(maker.trial(config(), 1, status="running"))
    assert "1 run not finished yet" in table_of(tmp_path).caption


def test_each_data_set_has_a_table(comparison: Path) -> None:
    tables = asked_tables(collect(comparison), Request(where=["nfe=5"]))
    assert [table.title.split(", ")[-1] for table in tables] == ["digits", "moons", "gaussian64"]
    (moons,) = asked_tables(collect(comparison), Request(where=["nfe=5", "dataset=moons"]))
    found = cell(moons, "value_5", setting="flow matching")
    assert isinstance(found, Interval)
    assert found.mean == pytest.approx(np.mean([expected("moons", "flow matching", seed, 5, "test") for seed in SEEDS]))
    assert len(moons.rows) <= len(ARMS) + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "frechet"], "no metric is called 'frechet'; nearest: frechet_distance"),
        (["--rows", "coupilng"], "no column is called 'coupilng'; nearest: coupling"),
        (["--rows", "kind"], "may be any of method.kind"),
        (["--rows", "nfe"], "nfe cannot be both rows and columns"),
        (["--baseline", "centrre"], "no row or column is called 'centrre'; nearest: centre"),
        (["--rows", "beta_max", "--baseline", "coupling=asbm"], "neither among the rows nor among the columns"),
        (["--rows", "coupling", "--baseline", "coupling=asb"], "nearest: ASBM"),
        (["--features", "inception"], "no kind of features is called 'inception'"),
        (["--nfe", "0"], "was not measured"),
        (["--where", "coupling"], "expected FIELD=LEVEL"),
        (["--where", "beta_max=3"], "was not measured"),
        (["--where", "dataset=photos"], "no data set is called 'photos'"),
        (["--preset", "ldsb-9"], "no preset is called 'ldsb-9'; nearest: ldsb-"),
        (["--preset", "ldsb-4"], "fitted no path"),
        (["--preset", "asbm-distillation"], "no run was distilled"),
    ],
)
def test_wrong_input_is_one_line(
    study: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(study), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_formats_hold_the_same_numbers(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["table", str(study), "--rows", "noise β_max", "--columns", "coupling", "--nfe", "10"]
    assert main([*command, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    mean = float(next(row for row in rows if row["reference.beta_max"] == "1")["value_ASBM"])
    assert mean == pytest.approx(np.mean(values_of(config(1.0, "asbm"), 10)))
    for name in ("markdown", "latex", "html"):
        path = tmp_path / f"made/table.{name}"
        assert main([*command, "--format", name, "--out", str(path)]) == 0
        assert capsys.readouterr().out.strip() == str(path)
        assert f"{mean:.2f}" in path.read_text()


def test_names_from_the_records_are_escaped_in_html(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    design = {**study_json()["design"], "arms": [{"name": evil, "overrides": {"method.kind": "score_matching_vp"}}]}
    maker = Fabricator(tmp_path, study_json(design=design))
    maker.run(config(coupling=None, kind="score_matching_vp"), 0)
    text = export.to_html(table_of(tmp_path))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_file_that_cannot_be_read_is_named_and_the_table_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False)
    torn = tmp_path / "records/metrics/torn.parquet"
    torn.write_bytes(b"PAR1")
    assert main(["table", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert str(torn) in captured.err
    assert "centre" in captured.out
