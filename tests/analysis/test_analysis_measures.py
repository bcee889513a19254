"""Tables and figures of variety, paths, localised coupling and convergence, against the fabricated numbers."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fabricated_comparison import (
    FLOOR,
    PROBLEMS,
    SEEDS,
    ComparisonFabricator,
    expected,
    study,
    tree_of,
    write_artifacts,
)
from fabricated_study import digest
from PIL import Image
from scipy import stats

from analysis.artifacts import Artifacts
from analysis.collect import collect
from analysis.data_sets import build_all
from analysis.figures.convergence import convergence_panel, curve
from analysis.figures.localised import localised_panels
from analysis.figures.overview import overview_panel
from analysis.figures.paths import path_panels
from analysis.figures.style import Panel
from analysis.report import write_report
from analysis.results import Results
from analysis.tables_measures import paths_table, variety_table
from analysis.tables_runs import further_metrics_table


@pytest.fixture
def by_name(parts: list[Results]) -> dict[str, Results]:
    return {results.dataset: results for results in parts}


def half_width(values: list[float]) -> float:
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))


def rows_by_setting(table: Any) -> dict[str, dict[str, Any]]:
    return {row["setting"]: row for row in table.rows}


def test_variety_is_taken_at_the_chosen_sampler_and_the_headline_nfe(by_name: dict[str, Results]) -> None:
    for dataset in FLOOR:
        rows = rows_by_setting(variety_table(by_name[dataset]))
        values = [0.8 + 0.01 * seed for seed in SEEDS]  # any other sampler or NFE would add 7
        found = rows["LDSB"]["precision"]
        assert (found.mean, found.half_width) == (pytest.approx(np.mean(values)), pytest.approx(half_width(values)))
        assert rows["floor (real against real)"]["precision"].mean == pytest.approx(0.4)
        assert rows["LDSB"]["n"] == 3
    table = variety_table(by_name["digits"])
    assert [column.name for column in table.columns[2:]] == [
        "precision", "recall", "density", "coverage", "kernel_distance",
    ]  # fmt: skip
    for word in ("NFE 10", "seeds (0, 1, 2)", "floor", "null", "95 % t interval"):
        assert word in table.caption
    assert variety_table(by_name["gaussian64"]).rows == []


def test_the_table_of_paths_and_what_the_further_metrics_leave_to_it(by_name: dict[str, Results]) -> None:
    rows = rows_by_setting(paths_table(by_name["moons"]))
    for name, value in (("straightness", 0.2), ("trajectory_variance", 0.05), ("transport_cost", 3.0),
                        ("localised_distance_t0.6", 0.6)):  # fmt: skip
        values = [value * (1 + 0.1 * seed) for seed in SEEDS]
        found = rows["flow matching"][name]
        assert (found.mean, found.half_width) == (pytest.approx(np.mean(values)), pytest.approx(half_width(values)))
    heads = [column.label for column in paths_table(by_name["moons"]).columns]
    assert heads[-3:] == [f"localised distance, t = {t:g}" for t in (0.2, 0.6, 1.0)]
    further = [column.name for column in further_metrics_table(by_name["moons"]).columns]
    assert not {"precision", "localised_distance_t0.2"} & set(further)
    assert "frechet_distance" not in further


def test_measurements_during_training_are_no_scores(by_name: dict[str, Results]) -> None:
    # They are thousands of times smaller than any score of the trained networks, and on validation.
    for results in by_name.values():
        for setting in results.settings:
            score = results.score(setting)
            assert score is not None
            assert score.validation_mean > 1e-3
            assert score.sampler[0] == "ddim"


def test_convergence_has_a_line_a_setting_with_a_band_over_seeds(by_name: dict[str, Results]) -> None:
    panel = convergence_panel(by_name["digits"])
    lines = {trace.name: trace for trace in panel.figure.data if trace.name}
    assert {"ASBM (centre)", "flow matching", "LDSB", "FM, best on validation"} <= set(lines)
    assert "FM, best on test only" not in lines
    assert list(lines["LDSB"].x) == [10, 100, 1000, 10000]
    assert list(lines["LDSB"].y) == pytest.approx([1e-4 * (5 - k) * 1.1 for k in range(1, 5)])
    band = next(trace for trace in panel.figure.data if trace.legendgroup == "LDSB" and trace.fill == "toself")
    values = [1e-4 * 4 * (1 + 0.1 * seed) for seed in SEEDS]
    assert max(band.y) == pytest.approx(np.mean(values) + half_width(values))
    assert panel.figure.layout.xaxis.type == "log"
    for word in ("validation split", "DDIM, NFE 10", "n = 3 (seeds 0, 1, 2)", "floor 0.300", "null"):
        assert word in panel.caption


def test_seeds_whose_steps_differ_are_matched_in_order() -> None:
    rows = pd.DataFrame({
        "seed": [0, 0, 1, 1], "step": [100, 200, 110, 220], "value": [4.0, 2.0, 6.0, 4.0],
        "sampler": "ddim", "grid": "trailing_uniform", "nfe": 10,
    })  # fmt: skip
    points = [(x, interval.mean, interval.n) for x, interval in curve(rows)]
    assert points == [(105, 5.0, 2), (210, 3.0, 2)]


def test_figures_of_paths(by_name: dict[str, Results]) -> None:
    for results in by_name.values():
        histograms, accumulated, trajectories = path_panels(results, Artifacts(results.collected))
        assert [panel.missing for panel in (histograms, accumulated, trajectories)] == [False] * 3
        first = histograms.figure.data[0]
        assert sum(first.y[:-1]) == pytest.approx(100, abs=0.01)  # per cent of paths, the last bin included
        assert "divided by the mean of |x_end − x_start|²" in histograms.caption
        assert "512 paths each" in histograms.caption
        assert "seed 0" in histograms.caption
        assert list(accumulated.figure.layout.xaxis.range) == [1, 0]
        assert "relative entropy to the reference" in accumulated.caption
        lines = [trace for trace in trajectories.figure.data if trace.mode == "lines"]
        drawn = sum(np.isnan(np.asarray(trace.x)).sum() for trace in lines)
        assert drawn == 64 * len({trace.name.split(", sector")[0] for trace in lines})
        assert {len(np.asarray(trace.x)) % 52 for trace in lines} == {0}


def test_paths_of_odes_and_sdes_stand_apart(by_name: dict[str, Results]) -> None:
    """An SDE's are a hundred times less straight: shared bins would hold all ODE paths in the first one."""
    results = by_name["digits"]
    table = paths_table(results)
    samplers = {name: row["paths_of"] for name, row in rows_by_setting(table).items()}
    assert samplers["independent coupling (baseline)"] == "exponential (SDE)"
    assert {words for name, words in samplers.items() if "baseline" not in name} == {"Heun (ODE)"}
    histograms = path_panels(results, Artifacts(results.collected))[0]
    layout = histograms.figure.layout
    reach = {}
    for trace in histograms.figure.data:
        kind = layout[trace.xaxis.replace("x", "xaxis")].title.text.rpartition(" of ")[2]
        assert kind == ("an SDE" if trace.name.startswith("independent") else "an ODE")
        reach[trace.xaxis] = max(trace.x)
        assert (np.asarray(trace.y) > 0).sum() > 8  # bins
    assert reach["x3"] > 20 * reach["x"]
    assert reach["x4"] > 20 * reach["x2"]
    assert "do not compare" in table.caption
    assert "do not compare" in histograms.caption


def test_without_a_control_only_the_length_is_drawn(tmp_path: Path) -> None:
    maker = ComparisonFabricator(tmp_path, study())
    maker.add("digits", "flow matching", 0)
    write_artifacts(tmp_path, "digits", "flow matching")
    place = next((tmp_path / "artifacts").iterdir()) / "paths.npz"
    with np.load(place) as held:
        arrays = {name: held[name] for name in held.files if "drift" not in name}
    np.savez(place, **arrays)
    results = build_all(collect(tmp_path))[0]
    accumulated = path_panels(results, Artifacts(results.collected))[1]
    assert len(accumulated.figure.data) == 1
    assert "No run recorded the drift" in accumulated.caption


def test_localised_distances_have_intervals_and_the_null(by_name: dict[str, Results]) -> None:
    results = by_name["digits"]
    distances, _ = localised_panels(results, Artifacts(results.collected))
    trace = next(trace for trace in distances.figure.data if trace.name == "LDSB")
    assert list(trace.x) == [0.2, 0.6, 1.0]
    values = [0.6 * (1 + 0.1 * seed) for seed in SEEDS]
    assert trace.y[1] == pytest.approx(np.mean(values))
    assert trace.error_y.array[1] == pytest.approx(half_width(values))
    assert [shape.y0 for shape in distances.figure.layout.shapes] == [1]
    assert "n = 3 (seeds 0, 1, 2)" in distances.caption


def test_originals_stand_above_what_came_back(by_name: dict[str, Results]) -> None:
    results = by_name["digits"]
    examples = localised_panels(results, Artifacts(results.collected))[1]
    (strip,) = examples.strips
    assert [label for label, _, _ in strip.pictures] == [
        "t = 0.2, distance 0.200", "t = 0.6, distance 0.600", "t = 1, distance 1.00",
    ]  # fmt: skip
    arrays = Artifacts(results.collected).arrays(digest(tree_of("digits", None)), 0, "localised.npz")
    for index, (_, png, width) in enumerate(strip.pictures):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        assert picture.shape == (2 * 9 - 1, 8 * 9 - 1)
        assert width == 71
        assert (picture[:8, 9:17] == arrays["originals"][1]).all()
        assert (picture[9:, 9:17] == arrays["returned"][index, 1]).all()


def test_points_of_the_plane_are_joined_with_what_came_back(by_name: dict[str, Results]) -> None:
    results = by_name["moons"]
    examples = localised_panels(results, Artifacts(results.collected))[1]
    arrays = Artifacts(results.collected).arrays(digest(tree_of("moons", None)), 0, "localised.npz")
    assert len(examples.figure.data) == 3 * 8
    last = examples.figure.data[-1]
    assert (last.x[0], last.x[1]) == pytest.approx((arrays["originals"][7, 0], arrays["returned"][2, 7, 0]))


def test_artefacts_of_wrong_shapes_and_torn_files_are_no_crash(tmp_path: Path) -> None:
    maker = ComparisonFabricator(tmp_path, study())
    for name in (None, "LDSB"):
        maker.add("digits", name, 0)
    place = tmp_path / "artifacts" / f"{digest(tree_of('digits', None))}-0"
    place.mkdir(parents=True)
    np.savez(place / "paths.npz", straightness=np.full(4, np.nan), trajectory_variance=np.zeros(4),
             trajectories=np.zeros((3, 4, 5)))  # fmt: skip
    np.savez(place / "localised.npz", t=np.array([0.5]), originals=np.zeros((8, 3, 3)), returned=np.zeros((1, 7, 3, 3)))
    torn = tmp_path / "artifacts" / f"{digest(tree_of('digits', 'LDSB'))}-0"
    torn.mkdir()
    (torn / "paths.npz").write_bytes(b"PK torn")
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "No run of the ablation kept trajectories in the plane." in html
    assert "No run kept samples that were carried to t and back." in html
    assert "paths.npz</code>" in html


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    maker = ComparisonFabricator(tmp_path, study())
    maker.write_trials(maker.trial(tree_of("digits", None), 0))
    results = build_all(collect(tmp_path))[0]
    artifacts = Artifacts(results.collected)
    panels: list[Panel] = [
        *path_panels(results, artifacts), *localised_panels(results, artifacts), convergence_panel(results),
        overview_panel([results]),
    ]  # fmt: skip
    assert all(panel.missing and panel.caption.startswith("No run") for panel in panels)


def test_the_overview_figure_has_a_dot_for_every_method_and_data_set(by_name: dict[str, Results]) -> None:
    panel = overview_panel(list(by_name.values()))
    assert len(panel.figure.data) == 6 * len(PROBLEMS)
    assert {trace.meta["data set"] for trace in panel.figure.data} == set(PROBLEMS)
    dot = next(
        trace for trace in panel.figure.data if trace.name == "ASBM, tuned" and trace.meta["data set"] == "moons"
    )
    values = [expected("moons", "ASBM, noise 8", seed, 10, "test") for seed in SEEDS]
    assert dot.x[0] == pytest.approx(np.mean(values))
    assert dot.error_x.array[0] == pytest.approx(half_width(values))
    assert "ASBM, noise 8, best of 2 on validation" in dot.hovertext
    lines = sorted(shape.x0 for shape in panel.figure.layout.shapes)
    assert lines == pytest.approx(sorted([
        *FLOOR.values(),
        *(np.mean([expected(name, "independent coupling", seed, 10, "test") for seed in SEEDS]) for name in PROBLEMS),
    ]))  # fmt: skip
