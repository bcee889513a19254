"""A study of both papers: cells and shared runs, the grid of three factors, recipes, what to use and its commands."""

import json
import math
import shlex
from itertools import pairwise
from pathlib import Path

import fabricated_joint
import numpy as np
import pytest
import yaml
from fabricated_joint import (
    BEST_AT_3,
    BEST_AT_10,
    CENTRE,
    COUPLINGS,
    NOISE,
    PATHS,
    SEEDS,
    cell,
    cells,
    fabricate_joint,
    field,
    mean_of,
    path,
    setting_of,
    study_of_both,
    value,
)
from fabricated_ldsb import fabricate_ldsb, own_tree
from fabricated_study import digest
from scipy import stats

from analysis import facts, summary_study
from analysis.collect import collect
from analysis.comparisons import counted, grid_comparisons
from analysis.effects import analyse, effects_table
from analysis.figures.grid import grid_panel
from analysis.pareto import pareto_table
from analysis.recipes import method_words, recipe
from analysis.results import Results, build_results
from analysis.tables import ablation_tables
from analysis.tables_grid import grid_matrices, matrices
from analysis.what_to_use import command, scalar, uses

FIELD = "ASBM's coupling (noise β_max = 4, flow student)"
BEST = f"{FIELD} with a path of its own, fitted to a teacher (order 2, learned times, KAN with G = 10)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    fabricate_joint(folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return build_results(collect(folder))


def paired_p(tree: dict[str, object], other: dict[str, object], calls: int, other_calls: int) -> float:
    sides = ((tree, calls), (other, other_calls))
    left, right = ([math.log(value(one, seed, n)) for seed in SEEDS] for one, n in sides)
    return float(stats.ttest_rel(left, right).pvalue)


def test_settings_stand_in_the_cells_that_the_design_lists(results: Results) -> None:
    assert results.headline == 5
    assert len(results.settings) == 17  # 2 couplings that see no noise x 3 paths, 3 noises x 3 paths, the search's best
    centre = setting_of(results, cell(*CENTRE))
    assert centre.is_centre and centre.label == "centre"
    assert (centre.level("reference.beta_max"), centre.level("path")) == (4.0, "best")
    blind = setting_of(results, field("independent", 4.0))
    assert [one.levels["reference.beta_max"] for one in blind.cells] == list(NOISE)
    assert blind.label == "coupling = independent, path = none"  # no noise: it does nothing
    assert [place.level("reference.beta_max") for place in blind.places()] == list(NOISE)
    assert setting_of(results, BEST_AT_3).arm == "best of the search at NFE 3"
    assert len({setting.label for setting in results.settings}) == 17


def test_factors_are_levels_around_the_centre(results: Results) -> None:
    noise = results.factor_settings("reference.beta_max")
    assert [setting.digest for setting in noise] == [digest(cell("asbm", level, "best")) for level in NOISE]
    paths = results.factor_settings("path")
    assert [setting.level("path") for setting in paths] == list(PATHS)
    assert "factor_path" in {table.key for table in ablation_tables(results)}


def test_a_factor_that_does_nothing_at_the_centre_has_no_levels(tmp_path: Path) -> None:
    study = study_of_both()
    listed = cells()
    blind = [one for one in listed if one["levels"]["method.coupling"] == "independent"]
    study["design"]["cells"] = [*blind, *(one for one in listed if one not in blind)]
    study["centre"] = {"config": cell("independent", 1.0, "none"), "digest": blind[0]["digest"], "chosen_by": "search"}
    fabricate_joint(tmp_path, design=study["design"], centre=study["centre"])
    found = build_results(collect(tmp_path))
    assert found.factor_settings("reference.beta_max") == []
    assert len(found.factor_settings("method.coupling")) == 3


def test_three_crossed_factors_are_a_matrix_and_a_heat_map_a_level_of_the_third(results: Results) -> None:
    assert len(results.grid_settings()) == 27
    found = matrices(results)
    assert [matrix.facet for matrix in found] == [f"path = {level}" for level in PATHS]
    for matrix, way in zip(grid_matrices(results), PATHS, strict=True):
        assert [column.label for column in matrix.columns[1:]] == ["independent", "minibatch OT", "ASBM"]
        for row, noise in zip(matrix.rows, NOISE, strict=True):
            for coupling, name in zip(COUPLINGS, ("independent", "minibatch OT", "ASBM"), strict=True):
                assert row[f"level_{name}"].mean == pytest.approx(mean_of(cell(coupling, noise, way), 5))
        assert "4 cells show the same runs as another: there noise β_max does nothing." in matrix.caption
    panel = grid_panel(results)
    maps = panel.figure.data
    assert len(maps) == 3 and [one.showscale for one in maps] == [True, False, False]
    means = [mean_of(cell(*place), 5) for place in ((c, n, w) for c in COUPLINGS for n in NOISE for w in PATHS)]
    ends = (math.log10(min(means)), math.log10(max(means)))
    assert all((one.zmin, one.zmax) == pytest.approx(ends) for one in maps)
    assert "12 cells show the same runs as another: there noise β_max does nothing." in panel.caption
    assert len(panel.figure.layout.annotations) == 3


def test_shared_runs_are_one_comparison(results: Results) -> None:
    found = grid_comparisons(results)
    # 9 + 3 + 0: of ASBM every cell, of optimal transport one a path, independent pairs are the baseline.
    assert len(found) == 18 and counted(found) == 12
    of_cell = {item.setting.place: item for item in found}
    centre = next(place for place in results.grid_settings() if place.is_centre)
    reference = of_cell[centre.place].reference
    assert reference.digest == digest(path("independent", 4.0, "best"))
    raw = paired_p(cell(*CENTRE), path("independent", 4.0, "best"), 5, 5)
    assert of_cell[centre.place].paired.p_value == pytest.approx(raw)
    pairs = {(item.setting.digest, item.reference.digest): item.paired.p_value for item in found}
    rank = sorted(pairs.values()).index(of_cell[centre.place].paired.p_value)
    assert of_cell[centre.place].corrected >= min(1.0, (12 - rank) * raw) * (1 - 1e-9)


def test_effects_leave_out_levels_beside_which_a_factor_does_nothing(results: Results) -> None:
    found = analyse(results)
    assert [term.factors for term in found] == [
        ("reference.beta_max",), ("path",), ("reference.beta_max", "path"),
    ]  # fmt: skip
    assert {term.runs for term in found} == {27}
    note = "without coupling = independent, coupling = minibatch OT, where another factor does nothing"
    assert {term.note for term in found} == {note}
    assert "all three" not in effects_table(results).caption


def test_three_factors_have_all_interactions_by_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabricated_joint, "BLIND", ())
    fabricate_joint(tmp_path)
    results = build_results(collect(tmp_path))
    found = {term.factors: term for term in analyse(results)}
    noise, coupling, way = "reference.beta_max", "method.coupling", "path"
    assert list(found) == [(noise,), (coupling,), (way,), (noise, coupling), (noise, way), (coupling, way)]
    logs = np.array([
        [[np.mean([math.log(value(cell(c, n, w), seed, 5)) for seed in SEEDS]) for w in PATHS] for c in COUPLINGS]
        for n in NOISE
    ])  # fmt: skip
    assert found[coupling,].effects.estimate == pytest.approx(logs.mean(axis=(0, 2)) - logs.mean())
    crossed = logs.mean(axis=1) - logs.mean(axis=(1, 2))[:, None] - logs.mean(axis=(0, 1))[None] + logs.mean()
    assert found[noise, way].effects.estimate == pytest.approx(crossed.ravel())
    assert found[way,].degrees == 81 - 3 - 6 - 12  # runs, seeds, main effects, interactions
    assert "The interaction of all three counts as residual." in effects_table(results).caption


def test_recipes_in_words(results: Results) -> None:
    centre, plain = setting_of(results, cell(*CENTRE)), setting_of(results, field("asbm", 20.0))
    design = results.design
    assert recipe(design, centre, results.score(centre)) == (
        f"{BEST}, sampled along its own path of 5 nodes from the trailing uniform grid at NFE 5"
    )
    assert recipe(design, plain, results.score(plain, 10)) == (
        "ASBM's coupling (noise β_max = 20, flow student), Heun sampler at NFE 9 (5 steps) on the trailing uniform grid"
    )
    words = {
        "independent pairs (flow student)": field("independent", 4.0),
        "pairs by mini-batch optimal transport (flow student) with a path of its own, fitted by LDSB's alternating "
        "halves (KAN with G = 10)": path("minibatch_ot", 4.0, "as published"),
        "ASBM's coupling (noise β_max = 1, bridge student)": BEST_AT_10,
    }  # fmt: skip
    for text, tree in words.items():
        assert method_words(design, setting_of(results, tree)) == text
    assert method_words(design, centre, size=False).endswith("(order 2, learned times, KAN)")


def test_no_recipe_has_levels_of_another_methods_configuration(tmp_path: Path) -> None:
    design = {
        "factors": [{"path": "network.kind", "label": "parameterisation", "values": ["efficient_kan", "table"]},
                    {"path": "method.boundary", "label": "boundary", "values": ["corrected", "code"]}],
        "grid": None, "baseline": {"method.fit.kind": "none"},
        "arms": [{"name": "DDIM denoiser, other samplers", "overrides": {}, "digest": digest(own_tree("DDIM"))}],
    }  # fmt: skip
    maker = fabricate_ldsb(tmp_path, seeds=(), families=("DDIM",), design=design)
    for seed in SEEDS:
        maker.denoiser("DDIM", seed)
        maker.way("DDIM", "LDSB", 10, seed)
    results = build_results(collect(tmp_path))
    own = next(setting for setting in results.settings if setting.digest == digest(own_tree("DDIM")))
    assert recipe(results.design, own, results.score(own)) == (
        "score matching VP, UniPC sampler at NFE 10 on the leading uniform grid"
    )
    text = summary_study.study_sentences([results])[0]
    assert text == (
        "Use “DDIM denoiser, other samplers”: score matching VP, UniPC sampler at NFE 10 on the leading uniform grid."
    )
    way = next(setting for setting in results.settings if setting.method == "ldsb")
    assert "boundary = code" in recipe(results.design, way, results.score(way))


def test_what_to_use_at_three_five_and_ten_calls(results: Results) -> None:
    three, five, ten = uses(results)
    assert (three.nfe, five.nfe, ten.nfe) == (3, 5, 10)
    assert three.recipe.endswith("KAN with G = 6), sampled along its own path of 3 nodes from the trailing uniform "
                                 "grid at NFE 3")  # fmt: skip
    assert three.value.mean == pytest.approx(mean_of(BEST_AT_3, 3))
    p = paired_p(field("asbm", 4.0), BEST_AT_3, 3, 3)
    assert three.sure.startswith("The runner-up, “path = none”, has ") and three.sure.endswith(
        "more than chance (p < 0.001)." if p < 0.001 else f"more than chance (p = {p:.2g})."
    )
    # Nothing within 10 calls is better than the path of 5.
    assert five.recipe == ten.recipe and ten.value.mean == pytest.approx(mean_of(cell(*CENTRE), 5))
    assert five.command == (
        "python studies/joint_sweep.py --dataset digits --preset default --alone --seeds 3 --set method.coupling=asbm "
        "--set reference.beta_max=4.0 --set method.kind=ldsb --set method.fit.kind=teacher"
    )


def test_commands_are_read_back_by_the_shell_and_by_yaml(results: Results) -> None:
    held = {
        "a": 1e-05, "b": "it's one", "c": True, "d": None, "e": "1", "f": {"kind": "ipf", "x": [1, 2]}, "g": "yes",
        "h": 2e20, "i": 0.5, "j": "", "k": "a: b", "l": "ratio_mlp",
    }  # fmt: skip
    words = shlex.split(command(results, held))
    said = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "--set")
    assert {name: yaml.safe_load(text) for name, text in said.items()} == held
    assert scalar("ldsb") == "ldsb"
    assert command(results, {}).endswith("--alone --seeds 3")
    assert command(results, None) == ""


def test_a_study_that_does_not_say_how_to_run_one_alone_has_no_commands(tmp_path: Path) -> None:
    design = study_of_both()["design"]
    for item in (*design["cells"], *design["arms"]):
        del item["set"]
    centre = {key: held for key, held in study_of_both()["centre"].items() if key != "set"}
    fabricate_joint(tmp_path, seeds=(0,), design=design, centre=centre)
    assert uses(build_results(collect(tmp_path))) == []


def test_the_front_tells_recipes(results: Results) -> None:
    rows = pareto_table(results).rows
    assert [row["counted"] for row in rows] == [3, 5]
    assert rows[1]["recipe"].startswith(BEST)


def test_trainings_are_a_fact(results: Results) -> None:
    text = dict(facts.facts([results]))["Trainings"]
    assert "search: 44 trainings of a field asked for, 14 done, 30 shared" in text
    assert "ablation: 63 trainings of a field asked for, 15 done, 48 shared" in text


def test_the_answer_names_what_has_to_be_set(results: Results) -> None:
    answer = summary_study.study_answer([results])
    along = "sampled along its own path of 5 nodes from the trailing uniform grid at NFE 5"
    assert answer[0] == f"Use the centre: {BEST}, {along}."
    assert answer[1].startswith("It is the best of 17 settings at NFE 5 on validation: FD (digits-CNN) ")
    card = summary_study.study_cards([results])[0]
    assert card.note.startswith(BEST)


def test_headline_nfe_of_none_of_the_budgets_is_ignored(tmp_path: Path) -> None:
    fabricate_joint(tmp_path, seeds=(0,), headline_nfe=7)
    assert build_results(collect(tmp_path)).headline == 10
    assert json.loads((tmp_path / "study.json").read_text())["headline_nfe"] == 7
