"""Tables of LDSB: planted numbers come back, published ones stay apart, chance and failures are counted."""

import math
from pathlib import Path

import numpy as np
import pytest
from fabricated_ldsb import (
    SEEDS,
    STEPS,
    WAYS,
    LDSBFabricator,
    base_tree,
    changed,
    csv_rows,
    digest,
    distance,
    own_tree,
    sampled,
    tree_of,
)
from ldsb_checks import built, by_way, paired, scores, tables_of
from scipy import stats

from analysis.ldsb.tables import ldsb_tables
from analysis.ldsb.ways import read_denoisers
from analysis.ldsb.words import ldsb_sentences
from analysis.report import write_report
from analysis.results import Results
from analysis.statistics import deviation, reduction


def test_a_reduction_is_that_of_the_mean_log_ratio() -> None:
    found = reduction({0: 1.0, 1: 2.5, 5: 9.0}, {0: 2.0, 1: 4.0, 6: 1.0})
    logs = np.log([0.5, 0.625])
    assert found.n == 2 and found.mean == pytest.approx(100 * (1 - math.exp(logs.mean())))
    assert found.low < found.mean < found.high < 100
    alone = reduction({3: 1.0}, {3: 4.0})
    assert (alone.n, alone.mean) == (1, pytest.approx(75)) and math.isnan(alone.low)
    assert reduction({0: 1.0}, {1: 1.0}).n == 0 and reduction({0: -1.0}, {0: 1.0}).n == 0
    spread = deviation([1.0, 2.0, 3.0])
    assert (spread.n, spread.mean, spread.half_width) == (3, 2.0, pytest.approx(1.0))


@pytest.mark.parametrize("family", ["DDIM", "flow"])
@pytest.mark.parametrize("n", STEPS)
def test_reductions_and_intervals_are_those_that_were_planted(ldsb_study: Path, family: str, n: int) -> None:
    rows = {row["way"]: row for row in csv_rows(ldsb_study, f"ldsb_against_{family.lower()}")}
    for name in WAYS:
        row, values = rows[name], scores(family, name, n)
        assert float(row[f"nfe_{n}"]) == pytest.approx(np.mean(values))
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        assert float(row[f"nfe_{n}_high"]) - float(row[f"nfe_{n}"]) == pytest.approx(half)
        assert row[f"nfe_{n}_n"] == row["n"] == "3"
        assert float(row[f"teacher_{n}"]) == pytest.approx(np.mean([distance(name, n, seed) for seed in SEEDS]))
        assert float(row["floor"]) == pytest.approx(0.3)
        quadratic = "quadratic" in name or "times" in name
        for column, against in (("reduction", "original, quadratic" if quadratic else "original"),
                                ("best", "original, quadratic")):  # fmt: skip
            cells = [row[f"{column}_{n}{part}"] for part in ("", "_low", "_high")]
            if name == against:
                assert cells == ["", "", ""]  # nothing is compared with itself
            else:
                expected = paired(values, scores(family, against, n))
                assert [float(cell) for cell in cells] == pytest.approx(expected)
    # The spread of seeds (1, 1.2, 1.4) cancels in pairs.
    low, high = (float(rows["LDSB"][f"reduction_{n}{part}"]) for part in ("_low", "_high"))
    assert 0 < high - low < 10


def test_a_path_is_compared_with_the_original_on_its_own_grid(ldsb_results: Results) -> None:
    denoiser = read_denoisers(ldsb_results)[0]
    ways = {way.label: way for way in denoiser.ways}
    assert list(ways)[:2] == ["original", "original, quadratic"]
    original = denoiser.original(ways["teacher, order 2, times"], 10)
    assert original is not None and original.recorded
    assert original.setting.digest == digest(tree_of("DDIM", "original, quadratic", 10))
    best = denoiser.best_original(10)
    assert best is not None and best.setting.digest == original.setting.digest  # on validation


def test_other_samplers_take_the_grid_that_validation_chose(ldsb_results: Results) -> None:
    rows = by_way(tables_of(ldsb_results)["ldsb_against_ddim"])
    row = rows["other sampler: UniPC"]
    assert row["grid"] == "leading uniform"  # on test the other one looks better
    for n in STEPS:
        values = [sampled("DDIM", "unipc", "leading_uniform", n, seed, "test") for seed in SEEDS]
        assert row[f"nfe_{n}"].mean == pytest.approx(np.mean(values))
        assert row[f"best_{n}"].mean == pytest.approx(paired(values, scores("DDIM", "original, quadratic", n))[0])
        assert f"reduction_{n}" not in row
        far = [distance("unipcleading_uniform", n, seed) for seed in SEEDS]
        assert row[f"teacher_{n}"].mean == pytest.approx(np.mean(far))
    assert rows["other sampler: DDIM"]["grid"] == "trailing quadratic"
    assert "other sampler: Heun" not in rows  # 49 calls are more than any N


def test_published_rows_stand_beside_ldsb_and_enter_nothing(ldsb_results: Results) -> None:
    found = tables_of(ldsb_results)
    labels = [row["way"] for row in found["ldsb_against_ddim"].rows]
    at = labels.index("LDSB")
    assert labels[at + 1 : at + 3] == ["published: CIFAR-10, Tab. 4", "published: CelebA, Tab. 4"]
    assert sum(label.startswith("published") for label in labels) == 2
    row = by_way(found["ldsb_against_ddim"])["published: CIFAR-10, Tab. 4"]
    assert (row["reduction_5"].mean, row["reduction_10"].mean) == (39.34, 48.50)
    assert not {"nfe_5", "best_5", "teacher_5", "floor", "failed"} & set(row) and row["reduction_5"].n == 1
    flow = [row["way"] for row in found["ldsb_against_flow"].rows if row["way"].startswith("published")]
    assert flow == ["published: CIFAR-10, Tab. 5", "published: CelebA-HQ, Tab. 5"]
    own = by_way(found["ldsb_against_ddim"])["LDSB"]
    assert own["reduction_10"].mean == pytest.approx(
        paired(scores("DDIM", "LDSB", 10), scores("DDIM", "original", 10))[0]
    )


def test_a_data_set_of_the_paper_shows_its_own_published_row_alone(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path, dataset="cifar10")
    for name in ("original", "LDSB"):
        maker.way("DDIM", name, 10, 0)
    labels = [row["way"] for row in tables_of(built(maker))["ldsb_against_ddim"].rows]
    assert labels == ["original", "LDSB", "published: CIFAR-10, Tab. 4"]


def test_nothing_is_published_where_the_procedure_was_not_run(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for name in ("original", "teacher, order 2, times"):
        maker.way("DDIM", name, 10, 0)
    table = tables_of(built(maker))["ldsb_against_ddim"]
    assert [row["way"] for row in table.rows] == ["original", "teacher, order 2, times"]
    assert "published" not in table.caption


def test_missing_cells_are_dashes_and_failed_runs_are_counted(ldsb_study: Path, ldsb_results: Results) -> None:
    rows = by_way(tables_of(ldsb_results)["ldsb_against_ddim"])
    assert rows["LDSB, table"]["failed"] == 1 and rows["LDSB"]["failed"] == 0
    text = (ldsb_study / "tables" / "ldsb_against_ddim.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| LDSB, MLP |"))
    assert [cell.strip() for cell in line.split("|")[4:8]] == ["–"] * 4  # it was run at N = 10 alone
    published = next(line for line in text.splitlines() if "CIFAR-10, Tab. 4" in line)
    assert "| 39.3 |" in published and "48.5" in published
    network = next(row for row in tables_of(ldsb_results)["ldsb_parameterisations"].rows if row["network"] == "table")
    assert network["failed"] == 1


def test_only_failed_runs(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    maker.way("DDIM", "original", 10, 0)
    maker.write_trials(maker.trial(tree_of("DDIM", "LDSB"), 0, status="failed", error="PathError: too far"))
    row = by_way(tables_of(built(maker))["ldsb_against_ddim"])["LDSB"]
    assert (row["n"], row["failed"], row["nfe_10"].n, row["reduction_10"]) == ("0", 1, 0, None)
    write_report(tmp_path)


def test_seeds_that_differ_between_nfe_are_listed(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for n, seeds in ((5, (0, 1)), (10, SEEDS)):
        for seed in seeds:
            maker.way("DDIM", "original", n, seed)
    row = by_way(tables_of(built(maker))["ldsb_against_ddim"])["original"]
    assert row["n"] == "2, 3"


def test_without_a_run_of_the_original_ddim_on_the_same_grid_stands_in(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for seed in SEEDS:
        maker.denoiser("DDIM", seed)
        maker.way("DDIM", "LDSB", 5, seed)
    table = tables_of(built(maker))["ldsb_against_ddim"]
    row = by_way(table)["LDSB"]
    original = [sampled("DDIM", "ddim", "leading_uniform", 5, seed, "test") for seed in SEEDS]
    assert row["reduction_5"].mean == pytest.approx(paired(scores("DDIM", "LDSB", 5), original)[0])
    quadratic = [sampled("DDIM", "ddim", "trailing_quadratic", 5, seed, "test") for seed in SEEDS]
    assert row["best_5"].mean == pytest.approx(paired(scores("DDIM", "LDSB", 5), quadratic)[0])
    assert "leading uniform at NFE 5, trailing quadratic at NFE 5), DDIM on the same grid" in table.caption


def test_levels_of_factors_are_named_by_what_they_do(tmp_path: Path) -> None:
    factors = [
        {"path": "method.num_steps", "label": "NFE", "values": [5, 10]},
        {"path": "network.grid_size", "label": "KAN grid size", "values": [5, 20]},
        {"path": "network.kind", "label": "parameterisation", "values": ["efficient_kan", "table"]},
    ]
    centre = base_tree()
    maker = LDSBFabricator(tmp_path, design={"factors": factors, "grid": None, "arms": [], "baseline": {}})
    trees = {
        10: [centre, changed(centre, {"network.grid_size": 5}), changed(centre, {"network": {"kind": "table"}})],
        5: [changed(centre, {"method.num_steps": 5})],
    }
    for n, every in trees.items():
        for tree in every:
            maker.way("DDIM", "LDSB", n, 0, tree)
    rows = by_way(tables_of(built(maker))["ldsb_against_ddim"])
    assert [label for label in rows if not label.startswith("published")] == [
        "LDSB, KAN", "LDSB, KAN, KAN grid size 5", "LDSB, table",
    ]  # fmt: skip
    assert {"nfe_5", "nfe_10"} <= set(rows["LDSB, KAN"])  # one row for both N


def test_denoisers_of_one_family_are_told_apart(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for width in (192, 256):
        tree = changed(tree_of("DDIM", "LDSB"), {"method.denoiser.network.width": width})
        maker.way("DDIM", "LDSB", 10, 0, tree)
    assert {denoiser.label for denoiser in read_denoisers(built(maker))} == {"DDIM, width 192", "DDIM, width 256"}
    assert set(tables_of(built(maker))) >= {"ldsb_against_ddim_width_192", "ldsb_against_ddim_width_256"}


def test_a_study_without_ldsb_has_none_of_its_tables(results: Results) -> None:
    assert ldsb_tables(results) == [] and ldsb_sentences(results) == []


def test_the_search_never_enters(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    maker.way("DDIM", "original", 10, 0)
    maker.write_trials(maker.trial(tree_of("DDIM", "LDSB"), 0, "search"))
    assert list(by_way(tables_of(built(maker))["ldsb_against_ddim"])) == ["original"]


def test_the_baseline_of_an_arm_is_the_original_of_its_own_table(ldsb_results: Results) -> None:
    by_digest = {setting.digest: setting for setting in ldsb_results.settings}
    for family in ("DDIM", "flow"):
        for n in STEPS:
            own = by_digest[digest(tree_of(family, "LDSB", n))]
            fitted = by_digest[digest(tree_of(family, "teacher, order 2, times", n))]
            for setting, original in ((own, "original"), (fitted, "original, quadratic")):
                baseline = ldsb_results.baseline(setting)
                assert baseline is not None and baseline.digest == digest(tree_of(family, original, n))
                assert baseline.is_baseline and ldsb_results.baseline(baseline) is baseline


def test_the_denoisers_own_run_is_no_level_of_a_factor(tmp_path: Path) -> None:
    factors = [{"path": "network.kind", "label": "parameterisation", "values": ["efficient_kan", "table"]}]
    own = {"name": "DDIM denoiser", "overrides": {}, "digest": digest(own_tree("DDIM"))}
    maker = LDSBFabricator(tmp_path, design={"factors": factors, "grid": None, "arms": [own], "baseline": {}})
    maker.way("DDIM", "LDSB", 10, 0, base_tree())
    maker.denoiser("DDIM", 0)
    results = built(maker)
    named = {setting.label: setting for setting in results.settings}
    assert set(named) == {"centre", "DDIM denoiser"} and not named["DDIM denoiser"].is_centre
    assert [setting.label for setting in results.factor_settings("network.kind")] == ["centre"]


def test_an_arm_that_moves_a_factor_alone_is_its_level_and_keeps_its_name_in_tables(tmp_path: Path) -> None:
    factors = [{"path": "method.boundary", "label": "boundary", "values": ["code", "corrected"]}]
    tree = tree_of("DDIM", "LDSB")
    overrides = {"method.num_steps": 10, "method.boundary": "code"}
    arm = {"name": "DDIM, LDSB, N = 10", "overrides": overrides, "family": "DDIM", "table": "DDIM, N = 10",
           "digest": digest(tree)}  # fmt: skip
    maker = LDSBFabricator(tmp_path, design={"factors": factors, "grid": None, "arms": [arm], "baseline": {}})
    for one in (base_tree(), tree):
        maker.way("DDIM", "LDSB", 10, 0, one)
    results = built(maker)
    assert [setting.label for setting in results.factor_settings("method.boundary")] == ["boundary = code", "centre"]
    assert [setting.name_in("DDIM, N = 10") for setting in results.in_table("DDIM, N = 10")] == ["DDIM, LDSB, N = 10"]
    assert "LDSB" in by_way(tables_of(results)["ldsb_against_ddim"])
