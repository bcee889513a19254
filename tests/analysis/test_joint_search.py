"""Conditional parameters and three objectives in the search; figures over NFE; KAN grid sizes; several data sets."""

import math
from pathlib import Path
from typing import Any

import fabricated_joint
import numpy as np
import pytest
from fabricated_comparison import ComparisonFabricator, tree_of
from fabricated_comparison import study as study_of_comparison
from fabricated_joint import SEEDS, fabricate_joint, path, searched, study_of_both
from fabricated_study import digest
from scipy import stats

from analysis import summary_study
from analysis.collect import collect
from analysis.data_sets import build_all
from analysis.figures.parallel import parallel_panel
from analysis.figures.quality import nfe_panels
from analysis.figures.search import proposals_panel
from analysis.importances import Searched, importances, importances_table
from analysis.ldsb.grid_sizes import grid_size_sentences, grid_size_tables
from analysis.levels import Parameter, parameters
from analysis.results import Results, build_results
from analysis.statistics import holm
from analysis.tables_grid import grid_matrices
from analysis.tables_runs import search_table
from sbbridge.records import flatten_config, metric_row


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("joint_search")
    fabricate_joint(folder)
    return build_results(collect(folder))


@pytest.mark.parametrize(("tree", "said"), searched())
def test_levels_of_a_configuration_are_what_was_proposed(tree: dict[str, Any], said: dict[str, Any]) -> None:
    leaves = flatten_config(tree)
    known = parameters(study_of_both())
    found = {name: level for name, item in known.items() if (level := item.level(leaves)) is not None}
    # The steps of a field without a path are those of its sampler: no part of its configuration.
    expected = dict(said) if "method.fit.kind" in said else {k: v for k, v in said.items() if k != "method.num_steps"}
    assert found == expected


def test_a_multiple_is_rounded_up() -> None:
    size = Parameter("network.grid_size", "size", (0.5, 1, 2), (), "method.num_steps")
    assert size.level({"network.grid_size": 3, "method.num_steps": 5}) == 0.5
    assert size.level({"network.grid_size": 8, "method.num_steps": 5}) == 1.6


def test_conditional_parameters_are_compared_among_the_runs_that_have_them() -> None:
    generator = np.random.default_rng(0)
    runs = []
    for number in range(60):
        with_path = number % 2 == 0
        coupling, order = int(generator.integers(3)), int(generator.integers(1, 3))
        parameters = {"coupling": coupling, "path": with_path, **({"order": order} if with_path else {})}
        # The path hardly matters; within the runs that have one nothing matters but the order.
        score = (5.0 * order if with_path else 1.0 * coupling + 7) + 0.01 * generator.normal()
        runs.append(Searched(parameters, score))
    found = {(item.evaluator, item.path): item for item in importances(runs)}
    for evaluator, least in (("PED-ANOVA", 0.5), ("fANOVA", 0.9)):
        order_share = found[evaluator, "order"]
        assert (order_share.share.n, order_share.runs) == (30, 60)
        assert order_share.share.mean > least
        assert found[evaluator, "coupling"].share.n == 60
        whole = sum(item.share.mean for (name, _), item in found.items() if name == evaluator and item.share.n == 60)
        assert whole == pytest.approx(1)


def test_the_table_of_importances_says_in_how_many_runs_a_parameter_was_active(results: Results) -> None:
    rows = {row["parameter"]: row for row in importances_table(results).rows if row["evaluator"] == "fANOVA"}
    assert rows["coupling"]["active"] == "active in 18 of 18 runs"
    assert (rows["noise β_max"]["n"], rows["noise β_max"]["active"]) == (15, "active in 15 of 18 runs")
    assert (rows["way of fitting"]["n"], rows["KAN grid size / N"]["n"]) == (8, 8)
    assert "nfe" not in rows and "order" not in rows  # one level of it was tried
    assert "a parameter that is active in some of them alone is compared within" in importances_table(results).caption


def test_the_table_of_the_search_has_what_was_proposed(results: Results) -> None:
    table = search_table(results)
    best = table.rows[0]
    assert (best["network.grid_size"], best["method.kind"], best["method.fit.order"]) == ("2", "yes", "2")
    without = next(row for row in table.rows if row["method.kind"] == "no")
    assert (without["network.grid_size"], without["method.num_steps"]) == ("–", "5")
    assert "at the number of steps that each chose" in table.columns[0].label
    assert len([row for row in table.rows if row["value"] is not None]) == 18  # also those of three steps


def test_parallel_coordinates_show_conditional_parameters_as_absent(results: Results) -> None:
    figure = parallel_panel(results, "search").figure
    labels = list(figure.layout.xaxis.ticktext)
    assert "KAN grid size / N" in labels and "way of fitting" in labels and "method" not in labels
    (ticks,) = [trace for trace in figure.data if trace.name == "ticks"]
    place = labels.index("KAN grid size / N")
    assert [text.strip() for x, text in zip(ticks.x, ticks.text, strict=True) if x == place] == ["1", "2", "absent"]


def test_a_third_objective_is_the_size_of_a_proposal(results: Results) -> None:
    panel = proposals_panel(results)
    trials = panel.figure.data[0]
    assert list(trials.marker.size) == sorted(trials.marker.size) and trials.marker.size[0] == pytest.approx(7)
    assert "size: training evaluations" in panel.caption
    assert "training evaluations: 100 k" in trials.hovertext[0] and "path of its own = " in trials.hovertext[1]
    assert panel.figure.layout.yaxis.title.text == "validation FD (digits-CNN)"


def test_where_most_settings_have_one_nfe_the_front_is_the_main_figure(results: Results) -> None:
    front, lines = nfe_panels(results)
    assert front.key == "pareto"
    drawn = [trace for trace in lines.figure.data if trace.mode == "lines+markers"]
    assert drawn and all(len(trace.x) > 1 for trace in drawn)
    own = next(trace for trace in drawn if "path of its own" in trace.name)
    assert list(own.x) == [3, 5]  # the path of three nodes and that of five are one recipe
    assert "9 recipes with one NFE stand in the front alone" in lines.caption


def sizes_of(tree: dict[str, Any], seed: int, calls: int, split: str = "test", sampler: str = "heun") -> float:
    """Half and two N alike, four N twice as bad."""
    steps, grid = tree["method"].get("num_steps"), tree["network"].get("grid_size")
    factor = 1.0 if steps is None or grid < 4 * steps else 2.0
    generator = np.random.default_rng([int(digest(tree)[:6], 16), seed, len(split)])
    return float(10 / calls * factor * (1 + 0.2 * (seed % 1000)) * np.exp(0.01 * generator.normal()))


def test_sizes_of_a_kan_are_compared_at_each_number_of_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fabricated_joint, "value", sizes_of)
    steps, sizes = (3, 5), (0.5, 2, 4)
    trees = {(size, n): path("asbm", 4.0, "best", n, size) for size in sizes for n in steps}
    order = [(2, 5), *(place for place in trees if place != (2, 5))]
    listed = [
        {"digest": digest(trees[place]), "set": {"network.grid_size": trees[place]["network"]["grid_size"]},
         "levels": {"network.grid_size": place[0], "method.num_steps": place[1]}} for place in order
    ]  # fmt: skip
    design = {
        "factors": [{"path": "network.grid_size", "label": "KAN grid size / N", "values": list(sizes),
                     "multiple_of": "method.num_steps"},
                    {"path": "method.num_steps", "label": "N", "values": list(steps)}],
        "grid": ["network.grid_size", "method.num_steps"], "cells": listed, "arms": [], "baseline": {},
    }  # fmt: skip
    centre = {"config": trees[2, 5], "digest": digest(trees[2, 5]), "chosen_by": "search"}
    maker = fabricated_joint.JointFabricator(tmp_path, study_of_both(design=design, centre=centre))
    for tree in trees.values():
        for seed in SEEDS:
            maker.add(tree, seed)
    found = build_results(collect(tmp_path))
    (matrix,) = grid_matrices(found)
    assert "at its own NFE" in matrix.title
    assert matrix.rows[1]["level_3"].mean == pytest.approx(np.mean([sizes_of(trees[2, 3], s, 3) for s in SEEDS]))
    (table,) = grid_size_tables(found)
    rows = {(row["size"], row["steps"]): row for row in table.rows}
    assert {key: row["grid"] for key, row in rows.items()} == {
        ("0.5 N", 3): 2, ("2 N", 3): 6, ("4 N", 3): 12, ("0.5 N", 5): 3, ("2 N", 5): 10, ("4 N", 5): 20,
    }  # fmt: skip
    for n in steps:
        checked = {s: np.mean([sizes_of(trees[s, n], seed, n, "validation") for seed in SEEDS]) for s in sizes}
        best = min(checked, key=lambda size: checked[size])
        others = [size for size in sizes if size != best]
        logs = {s: [math.log(sizes_of(trees[s, n], seed, n)) for seed in SEEDS] for s in sizes}
        expected = holm([float(stats.ttest_rel(logs[s], logs[best]).pvalue) for s in others])
        assert [rows[f"{s:g} N", n]["p"] for s in others] == pytest.approx(expected)
        assert rows[f"{best:g} N", n]["ratio"] is None
    first, second = grid_size_sentences(found)
    assert first.startswith("KAN grid size, N = 3: best on validation is ") and "(G = " in first
    for text in (first, second):
        assert "it is better than 4 N (G = " in text and "it cannot be told from " in text
        assert "(paired by seed, Holm over 2)" in text


def test_across_data_sets_verdicts_are_paired_tests_and_not_overlaps(tmp_path: Path) -> None:
    """Intervals over seeds overlap widely; paired by seed the rival is worse beyond doubt."""
    study = study_of_comparison()
    design = {"factors": [], "grid": None, "baseline": {"method.coupling": "independent"}, "arms": [
        {"name": name, "overrides": {}, "digest": digest(tree_of("digits", name))} for name in ("LDSB", "flow matching")
    ]}  # fmt: skip
    for problem in study["problems"].values():
        problem["design"] = design
    maker = ComparisonFabricator(tmp_path, study)
    means = {"LDSB": 1.0, "flow matching": 1.1, None: 1.001}
    for name, mean in means.items():
        tree = tree_of("digits", name)
        for seed in range(5):
            own = np.random.default_rng([seed, int(1000 * mean)]).normal()
            held = mean * (1 + 0.5 * seed) * math.exp(0.005 * own)
            place = {"digest": digest(tree), "seed": seed, "phase": "ablation", "attempt": 1000, "stage": "evaluation"}
            maker.write_trials(maker.trial(tree, seed))
            maker.write_metrics(*[
                metric_row("frechet_distance", held, features="digits-CNN", split=split, sampler="ddim", weights="ema",
                           grid="trailing_uniform", num_steps=10, nfe=10, **place) for split in ("validation", "test")
            ])  # fmt: skip
    text = summary_study.study_answer(build_all(collect(tmp_path)))[0]
    assert text.startswith("On digits use “")
    assert "1 of 2 other methods worse by more than chance, 1 (" in text
    assert "cannot be told from it (paired by seed, Holm over 2)" in text
