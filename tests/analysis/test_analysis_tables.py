"""Tables against a calculation of its own: plain loops over the formula that fabricated the records."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_study import (
    COUPLINGS,
    FEATURES,
    FLOOR,
    NFE,
    NOISE,
    Fabricator,
    config,
    digest,
    fabricate,
    frechet,
    study_json,
)
from scipy import stats

from analysis import export
from analysis.collect import collect
from analysis.design import Setting
from analysis.pareto import candidates, pareto_front, pareto_table
from analysis.results import Results, build_results
from analysis.table_command import Request, asked_tables
from analysis.tables import (
    Column,
    Table,
    ablation_tables,
    factor_table,
    scores_table,
)
from analysis.tables_grid import grid_matrices
from analysis.tables_runs import failures_table, further_metrics_table, search_table
from sbbridge.records import metric_row

SEEDS = (0, 1, 2)


def expected_test_values(tree: dict[str, Any], nfe: int) -> list[float]:
    means = {
        sampler: np.mean([frechet(tree, seed, nfe, sampler, "validation") for seed in SEEDS])
        for sampler in ("ancestral", "ddim")
    }
    best = min(means, key=lambda sampler: means[sampler])
    return [frechet(tree, seed, nfe, best, "test") for seed in SEEDS]


def setting_of(results: Results, tree: dict[str, Any]) -> Setting:
    return next(setting for setting in results.settings if setting.digest == digest(tree))


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_means_and_intervals_of_the_grid_at_every_nfe(results: Results, noise: float, coupling: str) -> None:
    tree = config(noise, coupling)
    for nfe in NFE:
        interval = results.interval(setting_of(results, tree), nfe)
        values = expected_test_values(tree, nfe)
        half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / math.sqrt(3)
        assert interval.n == 3
        assert (interval.mean, interval.half_width) == (pytest.approx(np.mean(values)), pytest.approx(half))


def test_the_coupling_table(results: Results) -> None:
    table = factor_table(results, "method.coupling")
    assert [row["setting"] for row in table.rows] == ["independent (baseline)", "bridge matching", "ASBM (centre)"]
    null = expected_test_values(config(coupling="independent"), 10)
    tests = []
    for row, coupling in zip(table.rows, COUPLINGS, strict=True):
        own = expected_test_values(config(coupling=coupling), 10)
        assert row["nfe_10"].mean == pytest.approx(np.mean(own))
        assert row["null"] == pytest.approx(np.mean(null))
        assert row["floor"] == pytest.approx(np.mean([FLOOR * (1 + 0.02 * seed) for seed in SEEDS]))
        assert row["simulation"] == (0 if coupling == "independent" else 1_500_000)
        assert row["optimisation"] == 2_000_000
        assert row["n"] == 3
        if coupling != "independent":
            tests.append(stats.ttest_rel(np.log(own), np.log(null)).pvalue)
            assert row["difference"].mean == pytest.approx(np.mean(np.subtract(own, null)))
            assert row["ratio"].mean == pytest.approx(np.exp(np.mean(np.log(own) - np.log(null))))
    corrected = [min(1, 2 * min(tests)), max(min(1, 2 * min(tests)), max(tests))]
    assert sorted(row["p"] for row in table.rows if "p" in row) == pytest.approx(corrected)
    assert "p" not in table.rows[0]


def test_the_noise_table_compares_with_the_centre_and_counts_the_failed_run(results: Results) -> None:
    table = factor_table(results, "reference.beta_max")
    assert [row["setting"] for row in table.rows] == ["1", "4 (centre)", "8"]
    assert [row["failed"] for row in table.rows] == [0, 0, 1]
    own, centre = expected_test_values(config(8.0), 10), expected_test_values(config(), 10)
    assert table.rows[2]["difference"].mean == pytest.approx(np.mean(np.subtract(own, centre)))
    assert "“centre”" in table.caption
    assert "n = 3" in table.caption
    assert "floor" in table.caption
    assert "null" in table.caption


def test_each_cell_of_the_grid_is_compared_with_the_baseline_at_its_own_noise(results: Results) -> None:
    table = next(table for table in ablation_tables(results) if table.key == "grid")
    assert len(table.rows) == 9
    row = next(row for row in table.rows if row["setting"] == "noise β_max = 8, coupling = ASBM")
    own, null = expected_test_values(config(8.0), 10), expected_test_values(config(8.0, "independent"), 10)
    assert row["difference"].mean == pytest.approx(np.mean(np.subtract(own, null)))
    assert row["null"] == pytest.approx(np.mean(null))
    (matrix,) = grid_matrices(results)
    assert matrix is not None
    assert [row["level"] for row in matrix.rows] == ["1", "4", "8"]
    assert matrix.rows[2]["level_ASBM"].mean == pytest.approx(np.mean(own))


def test_the_arm_stands_beside_the_centre_and_its_baseline(results: Results) -> None:
    table = next(table for table in ablation_tables(results) if table.key == "arms")
    assert [row["setting"] for row in table.rows] == [
        "centre",
        "coupling = independent (baseline)",
        "score matching VP",
    ]
    own = expected_test_values(config(coupling=None, kind="score_matching_vp"), 10)
    null = expected_test_values(config(coupling="independent"), 10)
    assert table.rows[2]["difference"].mean == pytest.approx(np.mean(np.subtract(own, null)))
    assert "score matching VP" not in str([table.rows for table in ablation_tables(results) if table.key != "arms"])


def one_setting(folder: Path, rows: list[dict[str, Any]]) -> Results:
    """A study of one run whose scores are given: (sampler, grid, steps, calls, split, value)."""
    maker = Fabricator(folder)
    maker.write_trials(maker.trial(config(), 0))
    shared = {"digest": digest(config()), "seed": 0, "phase": "ablation", "stage": "evaluation", "attempt": 1}
    maker.write_metrics(*(metric_row("frechet_distance", row.pop("value"), **shared, features=FEATURES, weights="ema",
    **row)
                          for row in rows))  # fmt: skip
    return build_results(collect(folder))


def score_row(sampler: str, steps: int, calls: int, split: str, value: float) -> dict[str, Any]:
    return {
        "sampler": sampler,
        "grid": "trailing_uniform",
        "num_steps": steps,
        "nfe": calls,
        "split": split,
        "value": value,
    }


def test_the_sampler_is_chosen_on_validation_even_where_test_would_choose_another(tmp_path: Path) -> None:
    results = one_setting(tmp_path, [
        score_row("ddim", 10, 10, "validation", 1.0), score_row("ddim", 10, 10, "test", 3.0),
        score_row("ancestral", 10, 10, "validation", 1.1), score_row("ancestral", 10, 10, "test", 0.5),
    ])  # fmt: skip
    score = results.score(results.settings[0], 10)
    assert score is not None
    assert (score.sampler[0], score.test, score.chosen_by) == ("ddim", {0: 3.0}, "validation")


def test_at_an_nfe_means_the_most_steps_whose_counted_calls_fit(tmp_path: Path) -> None:
    results = one_setting(tmp_path, [
        score_row("heun", 5, 9, "validation", 1.0), score_row("heun", 5, 9, "test", 1.5),
        score_row("heun", 10, 19, "validation", 0.1), score_row("heun", 10, 19, "test", 0.2),
    ])  # fmt: skip
    at = {nfe: results.score(results.settings[0], nfe) for nfe in (5, 10, 20, 50)}
    assert at[5] is None
    assert at[10] is not None
    assert (at[10].counted, at[10].num_steps, at[10].test) == (9, 5, {0: 1.5})
    assert at[20] is not None
    assert at[20].counted == 19
    assert at[50] == at[20]


def test_a_sampler_that_diverges_is_not_chosen_and_a_diverged_run_is_counted(tmp_path: Path) -> None:
    results = one_setting(tmp_path, [
        score_row("ddim", 10, 10, "validation", math.nan), score_row("ddim", 10, 10, "test", 0.1),
        score_row("ancestral", 10, 10, "validation", 2.0), score_row("ancestral", 10, 10, "test", math.inf),
    ])  # fmt: skip
    score = results.score(results.settings[0], 10)
    assert score is not None
    assert (score.sampler[0], score.test, score.not_finite) == ("ancestral", {}, 1)
    assert results.failed(results.settings[0]) == 1


def test_without_validation_the_first_named_sampler_is_used_and_said(tmp_path: Path) -> None:
    results = one_setting(
        tmp_path, [score_row("ddim", 10, 10, "test", 0.1), score_row("ancestral", 10, 10, "test", 2.0)]
    )
    score = results.score(results.settings[0], 10)
    assert score is not None
    assert (score.sampler[0], score.chosen_by) == ("ancestral", "first named")
    assert "optimistic" in pareto_table(results).caption


def test_the_search_never_enters_the_ablation(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0, value=lambda *_: 2.0)
    maker.run(config(), 0, "search", value=lambda *_: 0.001)
    maker.run(config(), 1, "search", value=lambda *_: 0.001)
    results = build_results(collect(tmp_path))
    assert results.interval(results.settings[0]).n == 1
    assert results.interval(results.settings[0]).mean == 2.0
    assert [row["value"] for row in search_table(results).rows] == [0.001, 0.001]
    assert "Optimistic" in search_table(results).caption


def test_runs_that_failed_bring_no_scores(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    maker.run(config(), 1, status="failed", error="boom", value=lambda *_: 99.0)
    results = build_results(collect(tmp_path))
    assert results.interval(results.settings[0]).n == 1
    assert results.failed(results.settings[0]) == 1
    assert failures_table(results).rows[0]["error"] == "boom"


def test_recorded_nulls_take_the_place_of_the_baseline(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path, study_json(design={}))
    maker.run(config(), 0)
    place = {"digest": digest(config()), "seed": 0, "phase": "ablation", "stage": "evaluation", "attempt": 1}
    maker.write_metrics(metric_row("frechet_distance", 7.0, role="null", features=FEATURES, split="test",
    sampler="ddim",
                                   grid="trailing_uniform", num_steps=10, nfe=10, **place))  # fmt: skip
    results = build_results(collect(tmp_path))
    assert results.null(results.settings[0], 10).mean == 7.0


def test_the_pareto_front_is_that_of_all_pairs(results: Results) -> None:
    points = [
        (score.counted, score.validation_mean, setting.digest, nfe)
        for setting in results.settings for nfe in results.budgets if (score := results.score(setting, nfe)) is not None
    ]  # fmt: skip
    kept = {
        (point[2], point[3]) for point in points
        if not any(other[0] <= point[0] and other[1] <= point[1] and other[:2] != point[:2] for other in points)
    }  # fmt: skip
    assert {(one.setting.digest, one.budget) for one in pareto_front(results)} == kept


def test_a_path_of_its_own_is_in_the_front_once_whatever_was_asked_for(ldsb_results: Results) -> None:
    """It takes as many calls as it has nodes, also where a study asks for more."""
    found = [(one.setting.digest, one.score.counted) for one in candidates(ldsb_results)]
    asked = [
        score.counted
        for setting in ldsb_results.settings
        for budget in ldsb_results.budgets
        if (score := ldsb_results.score(setting, budget)) is not None
    ]
    assert len(set(found)) == len(found) < len(asked)


def test_failures_name_setting_seed_and_error(results: Results) -> None:
    rows = failures_table(results).rows
    assert sorted((row["status"], row["seed"]) for row in rows) == [("failed", 7), ("pruned", 0), ("running", 0)]
    assert (rows[0]["setting"], rows[0]["phase"]) == ("noise β_max = 8", "ablation")
    assert "not finite" in rows[0]["error"]


def test_further_metrics_are_means_over_seeds(results: Results) -> None:
    table = further_metrics_table(results)
    row = next(row for row in table.rows if row["setting"] == "coupling = independent")
    assert row["transport_cost"].mean == pytest.approx(1.0 + 0.01)
    assert row["transport_cost"].n == 3
    assert "step_seconds" not in row
    assert "loss" not in row


def test_further_metrics_are_those_of_the_scores_sampler_and_of_the_last_half(tmp_path: Path) -> None:
    maker, tree = Fabricator(tmp_path), config()
    for seed in (0, 1):
        maker.run(tree, seed, value=lambda tree, seed, nfe, sampler, split: 1.0 if sampler == "ddim" else 2.0)
        shared = {"digest": digest(tree), "seed": seed, "phase": "ablation", "attempt": 1000}
        ways = [("ancestral", "trailing_uniform", 10, 7.0), ("ddim", "trailing_uniform", 5, 8.0),
                ("ddim", "trailing_uniform", 10, 3.0), ("ddim", "trailing_uniform", 20, 9.0)]  # fmt: skip
        maker.write_metrics(
            *(metric_row("closeness", value, sampler=sampler, grid=grid, nfe=nfe, num_steps=nfe, split="test", **shared)
              for sampler, grid, nfe, value in ways),
            metric_row("elsewhere", 4.0, sampler="heun", grid="karras", nfe=9, num_steps=5, split="test", **shared),
            *(metric_row("doubt", value, stage=stage, step=0, **shared)
              for stage, value in (("forward 1", 2.0), ("forward 2", 6.0), ("reverse 1", 1.0), ("reverse 2", 5.0))),
        )  # fmt: skip
    (row,) = further_metrics_table(build_results(collect(tmp_path))).rows
    assert (row["closeness"].mean, row["closeness"].n) == (3.0, 2)
    assert row["elsewhere"].mean == 4.0  # measured with another sampler only
    assert row["doubt"].mean == 6.0


def test_csv_markdown_and_latex_hold_the_same_rows(results: Results, tmp_path: Path) -> None:
    tables = [*ablation_tables(results), scores_table(results)]
    (tmp_path / "grid_matrix.csv").write_text("an earlier report's")
    (tmp_path / "notes.md").write_text("the user's own")
    export.write_tables(tables, tmp_path)
    assert not (tmp_path / "grid_matrix.csv").exists()
    assert (tmp_path / "notes.md").exists()
    rows = list(csv.DictReader((tmp_path / "factor_method.coupling.csv").open()))
    assert float(rows[1]["nfe_10"]) == pytest.approx(
        np.mean(expected_test_values(config(coupling="bridge_matching"), 10))
    )
    assert rows[1]["nfe_10_n"] == "3"
    markdown = (tmp_path / "factor_method.coupling.md").read_text()
    latex = (tmp_path / "factor_method.coupling.tex").read_text()
    for text in (markdown, latex):
        assert "bridge matching" in text
        assert "n = 3" in text
    assert r"\toprule" in latex
    assert latex.count(r"\\") == 4
    assert "β" not in (tmp_path / "factor_reference.beta_max.tex").read_text()


def test_latex_and_markdown_escape_what_users_wrote() -> None:
    table = Table("t", "50 % of $x_1$ & more", "", [Column("a", "a|b")], [{"a": "x_y | z\nnext"}], [{}])
    assert r"50 \% of \$x\_1\$ \& more" in export.to_latex(table)
    assert r"| x_y \| z next |" in export.to_markdown(table)


def test_inactive_factors_do_not_move_a_setting_from_the_centre(results: Results) -> None:
    setting = setting_of(results, config(coupling="independent"))
    assert "method.cycles" not in setting.leaves
    assert setting.changed == {"method.coupling"}
    assert setting.is_baseline


def test_a_single_seed_has_no_interval_and_no_p_value(tmp_path: Path) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    table = factor_table(build_results(collect(tmp_path)), "method.coupling")
    assert [row["n"] for row in table.rows] == [1, 1, 1]
    assert math.isnan(table.rows[1]["p"])
    assert "±" not in export.cell_text(table.columns[2], table.rows[0]["nfe_1"])


def test_a_run_costs_its_whole_training_whoever_has_done_it(tmp_path: Path) -> None:
    """An attempt that continues, or finds another setting's fit, spends few seconds of its own."""
    maker = fabricate(tmp_path)
    late = {"seconds": 6.0, "training_seconds": 100.0, "evaluation_seconds": 5.0}
    tree = config(NOISE[0], COUPLINGS[0])
    maker.write_trials(*(maker.trial(tree, seed, attempt=2000, **late) for seed in SEEDS))
    collected = collect(tmp_path)
    results = build_results(collected)
    setting = setting_of(results, tree)
    assert results.cost(setting).seconds == pytest.approx(105.0)
    (asked,) = asked_tables(collected, Request())
    (row,) = [row for row in asked.rows if row["setting"] == setting.label]
    assert row["seconds"] == pytest.approx(105.0)
