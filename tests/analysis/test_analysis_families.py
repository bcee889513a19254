"""Groups of arms and families: the choice is made on validation, the cost is matched."""

from pathlib import Path

import numpy as np
import pytest
from fabricated_comparison import (
    ARMS,
    CENTRE,
    NFE,
    PUBLISHED,
    SEEDS,
    TUNED,
    ComparisonFabricator,
    expected,
    mean_and_half_width,
    rows_of,
    setting_of,
    study,
    tree_of,
)

from analysis.collect import collect
from analysis.data_sets import build_all
from analysis.families import best_of_families, best_of_family_table, group_tables, headliners
from analysis.overview import overview_tables
from analysis.results import Results
from analysis.tables import ablation_tables


def test_the_family_is_chosen_on_validation_and_shown_on_test(comparison: Path, parts: list[Results]) -> None:
    for results in parts:
        chosen = {best.family: best for best in best_of_families(results)}
        assert {family: best.name for family, best in chosen.items()} == {
            "ASBM": "ASBM, noise 8", "flow matching": "FM, best on validation",
        }  # fmt: skip
        assert {family: best.candidates for family, best in chosen.items()} == {"ASBM": 2, "flow matching": 3}
    rows = rows_of(comparison, "best_of_family_moons")
    assert [(row["family"], int(row["budget"])) for row in rows] == [
        (family, nfe) for family in ("ASBM", "flow matching") for nfe in NFE
    ]
    row = rows[2]
    assert float(row["value"]) == pytest.approx(mean_and_half_width("moons", "ASBM, noise 8")[0])
    validation = np.mean([expected("moons", "ASBM, noise 8", seed, 10, "validation") for seed in SEEDS])
    assert float(row["validation"]) == pytest.approx(validation)
    assert (float(row["simulation"]), float(row["optimisation"]), float(row["evaluations"])) == (1.5e6, 3.5e6, 5e6)
    assert "FM, best on test only" not in {row["setting"] for row in rows}
    shown = {setting.label for setting in headliners(parts[0])}
    assert "FM, best on test only" not in shown
    assert {"ASBM (centre)", "flow matching", "LDSB", "FM, best on validation"} <= shown


def test_a_candidate_that_failed_on_a_seed_does_not_win_by_leaving_it_out(tmp_path: Path) -> None:
    maker = ComparisonFabricator(tmp_path, study())
    for seed in SEEDS:
        maker.add("digits", "ASBM, noise 1", seed)
        if seed < 2:
            maker.add("digits", "ASBM, noise 8", seed)
    maker.write_trials(maker.trial(tree_of("digits", "ASBM, noise 8"), 2, status="failed", error="boom"))
    results = build_all(collect(tmp_path))[0]
    assert [best.name for best in best_of_families(results)] == ["ASBM, noise 1"]
    assert best_of_family_table(results).rows[0]["candidates"] == 2


def test_arms_stand_in_the_tables_that_they_name(parts: list[Results]) -> None:
    tables = {table.key: [row["setting"] for row in table.rows] for table in group_tables(parts[0])}
    assert tables["arms_as_published"] == ["ASBM (centre)", "independent coupling (baseline)", "flow matching"]
    assert tables["arms_tuned"] == [name for name, arm in ARMS.items() if arm[2] == TUNED]
    ungrouped = next(table for table in ablation_tables(parts[0]) if table.key == "arms")
    assert [row["setting"] for row in ungrouped.rows][-1] == "LDSB"
    shared = setting_of(parts[0], "flow matching")
    assert {arm.table for arm in shared.arms} == {PUBLISHED, TUNED}


def test_without_digests_arms_are_matched_by_their_overrides(tmp_path: Path) -> None:
    content = study()
    for problem in content["problems"].values():
        for arm in problem["design"]["arms"]:
            del arm["digest"]
    maker = ComparisonFabricator(tmp_path, content)
    for name in (None, "ASBM, noise 8", "FM, best on validation"):
        maker.add("digits", name, 0)
    results = build_all(collect(tmp_path))[0]
    assert {setting.label for setting in results.settings} == {
        "ASBM (centre)", "ASBM, noise 8", "FM, best on validation",
    }  # fmt: skip


def test_captions_say_how_well_the_cost_is_matched(parts: list[Results]) -> None:
    published = next(table for table in group_tables(parts[0]) if table.key == "arms_as_published")
    spent = [sum(CENTRE[2:]), *(sum(arm[5:]) for arm in ARMS.values() if arm[2] == PUBLISHED)]
    deviation = 100 * (max(spent) / min(spent) - 1)
    assert f"a largest deviation of {deviation:.1f} % between settings" in published.caption
    assert [row["evaluations"] for row in published.rows] == spent
    cost = overview_tables(parts)[2]
    assert "digits 4.1 %" in cost.caption  # 5.1 M against LDSB's 4.9 M
    assert next(row for row in cost.rows if row["method"] == "LDSB")["moons"] == 4_900_000


def test_an_arm_that_repeats_a_value_of_the_centre_takes_no_other_arms_runs(tmp_path: Path) -> None:
    content = study()
    for problem in content["problems"].values():
        repeated = {"name": "ASBM, noise 4", "overrides": {"reference.beta_max": 4.0}, "family": "ASBM", "table": TUNED}
        arms = [{**arm, "digest": None} for arm in problem["design"]["arms"]]
        problem["design"]["arms"] = [repeated, *arms]
    maker = ComparisonFabricator(tmp_path, content)
    for name in (None, "LDSB"):
        maker.add("digits", name, 0)
    results = build_all(collect(tmp_path))[0]
    assert [setting.label for setting in results.settings] == ["ASBM (centre)", "LDSB"]
    # The centre has two names: it is published, and a candidate of its family.
    assert [setting.label for setting in results.in_table(TUNED)] == ["ASBM (centre)"]
    assert [(best.name, best.candidates) for best in best_of_families(results)] == [("ASBM, noise 4", 1)]
