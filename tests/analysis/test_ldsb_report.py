"""Figures of LDSB, and its section in the report."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_comparison import PROBLEMS
from fabricated_ldsb import (
    CANDIDATES,
    FAMILIES,
    ONCE,
    SEEDS,
    STEPS,
    WAYS,
    LDSBFabricator,
    base_tree,
    changed,
    digest,
    distance,
    path_arrays,
    shared,
    study_of_ldsb,
    tree_of,
    value,
)
from fabricated_study import fabricate

from analysis import summary
from analysis.artifacts import Artifacts
from analysis.collect import collect
from analysis.figures.ldsb import ldsb_panels
from analysis.figures.style import Panel
from analysis.ldsb.ways import read_denoisers
from analysis.ldsb.words import ldsb_sentences
from analysis.report import write_report
from analysis.results import Results, build_results
from analysis.statistics import Interval

SECTION = 'id="ldsb"'


def panels_of(results: Results) -> dict[str, Panel]:
    found = ldsb_panels(read_denoisers(results), Artifacts(results.collected))
    return {panel.key: panel for panel in found}


def traces(panel: Panel) -> dict[str, list[Any]]:
    assert panel.figure is not None
    found: dict[str, list[Any]] = {}
    for trace in panel.figure.data:
        found.setdefault(str(trace.name), []).append(trace)
    return found


@pytest.fixture(scope="module")
def panels(ldsb_results: Results) -> dict[str, Panel]:
    return panels_of(ldsb_results)


def test_each_denoiser_has_its_figures(panels: dict[str, Panel]) -> None:
    expected = {f"ldsb_{kind}_{family.lower()}" for kind in ("nfe", "teacher", "path") for family in FAMILIES}
    assert set(panels) == expected | {"ldsb_random"}
    assert not any(panel.missing for panel in panels.values())
    for panel in panels.values():
        assert "n = 3 (seeds 0, 1, 2)" in panel.caption and "floor" in panel.caption and "the null is" in panel.caption


def test_quality_against_nfe_has_intervals_floor_and_the_converged_flow(panels: dict[str, Panel]) -> None:
    lines = traces(panels["ldsb_nfe_ddim"])
    assert set(lines) == {
        *WAYS, "other sampler: DDIM", "other sampler: UniPC", "floor (real against real)", "teacher: Heun, 49 calls",
    }  # fmt: skip
    (own,) = lines["LDSB"]
    assert list(own.x) == list(STEPS)
    means = [np.mean([value("DDIM", "LDSB", n, seed, "test") for seed in SEEDS]) for n in STEPS]
    assert list(own.y) == pytest.approx(means)
    assert all(size > 0 for size in own.error_y.array)
    assert list(lines["teacher: Heun, 49 calls"][0].y) == pytest.approx(
        [0.5 * float(np.mean([shared(seed) for seed in SEEDS]))] * 2
    )
    assert list(lines["floor (real against real)"][0].y) == pytest.approx([0.3, 0.3])
    assert f"only in the table: {len(ONCE)} ways." in panels["ldsb_nfe_ddim"].caption


def test_every_way_is_placed_by_its_teacher_distance(panels: dict[str, Panel]) -> None:
    points = traces(panels["ldsb_teacher_ddim"])
    assert set(points) == {*WAYS, *ONCE, "other sampler: DDIM", "other sampler: UniPC"}
    (own,) = points["LDSB"]
    assert list(own.x) == pytest.approx([np.mean([distance("LDSB", n, seed) for seed in SEEDS]) for n in STEPS])
    assert list(own.text) == ["5", "10"]
    assert list(points["LDSB, MLP"][0].text) == ["10"]


def test_learned_paths_stand_beside_the_original(panels: dict[str, Panel]) -> None:
    lines = traces(panels["ldsb_path_ddim"])
    assert {"original", "LDSB", "teacher, order 2, times"} <= set(lines)
    assert not {"best of 4 random paths", "LDSB, reverse only", "original, quadratic"} & set(lines)
    assert len(lines["LDSB"]) == 3 * len(STEPS)  # a, b, log-SNR
    assert len(lines["original"]) == 2 * 2 * len(STEPS)  # a and b on either grid
    a, b, change = lines["LDSB"][:3]
    paths = [path_arrays(tree_of("DDIM", "LDSB", 5), seed) for seed in SEEDS]
    assert list(a.x) == pytest.approx(paths[0]["times"])
    assert list(a.y) == pytest.approx(np.mean([path["image"] for path in paths], axis=0))
    assert list(a.error_y.array) == pytest.approx(np.std([path["image"] for path in paths], axis=0, ddof=1))
    assert list(b.y) == pytest.approx(paths[0]["noise"])
    wanted = np.mean([path["log_snr"] - path["original_log_snr"] for path in paths], axis=0)
    assert list(change.y) == pytest.approx(wanted)
    figure = panels["ldsb_path_ddim"].figure
    assert figure is not None
    assert [trace.showlegend for trace in lines["LDSB"]].count(True) == 1
    assert {text.text for text in figure.layout.annotations} >= {"a, N = 5", "log-SNR − original's, N = 10"}


def test_infinite_log_snr_leaves_a_gap(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    tree = tree_of("DDIM", "LDSB", 5)
    maker.way("DDIM", "LDSB", 5, 0)
    arrays = path_arrays(tree, 0)
    arrays["image"][-1] = arrays["original_image"][-1] = 0.0
    arrays["log_snr"][-1] = arrays["original_log_snr"][-1] = -np.inf
    np.savez(tmp_path / "artifacts" / f"{digest(tree)}-0" / "ratio_path.npz", **arrays)
    results = build_results(collect(tmp_path))
    change = traces(panels_of(results)["ldsb_path_ddim"])["LDSB"][2]
    assert np.isnan(change.y[-1]) and np.isfinite(change.y[:-1]).all()


def test_random_paths_by_scale(panels: dict[str, Panel]) -> None:
    shares, *dots = traces(panels["ldsb_random"])["DDIM, NFE 10"]
    assert list(shares.x) == list(CANDIDATES)
    assert list(shares.y) == pytest.approx([100 * np.mean(np.array(r) < 1) for r in CANDIDATES.values()])
    for trace, (scale, ratios) in zip(dots, CANDIDATES.items(), strict=True):
        assert set(trace.x) == {scale}
        assert sorted(trace.y) == pytest.approx(sorted(list(ratios) * len(SEEDS)))


def test_without_kept_paths_a_sentence_says_so_and_the_rest_stays(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for name in ("original", "LDSB"):
        maker.way("DDIM", name, 10, 0)
    for kept in tmp_path.glob("artifacts/*/ratio_path.npz"):
        kept.unlink()
    found = panels_of(build_results(collect(tmp_path)))
    assert set(found) == {"ldsb_nfe_ddim", "ldsb_teacher_ddim", "ldsb_path_ddim"}  # nothing random was tried
    assert found["ldsb_path_ddim"].missing
    html = write_report(tmp_path).read_text()
    assert "No run with the DDIM denoiser kept its path" in html and SECTION in html
    assert not (tmp_path / "tables" / "ldsb_paths.csv").exists()


def test_the_report_has_the_section_and_stays_offline(ldsb_study: Path) -> None:
    html = (ldsb_study / "report.html").read_text()
    assert SECTION in html and "LDSB: a path of its own for a denoiser" in html
    for title in ("LDSB against its denoiser: DDIM", "LDSB against its denoiser: flow", "LDSB: parameterisations",
                  "LDSB: controls", "LDSB: paths", "Random paths: how many help"):  # fmt: skip
        assert title in html
    assert "Reduction of FD by LDSB as published (DDIM denoiser)" in html
    names = {path.name for path in (ldsb_study / "tables").iterdir()}
    for key in ("against_ddim", "against_flow", "parameterisations", "controls", "paths"):
        assert {f"ldsb_{key}{suffix}" for suffix in (".csv", ".md", ".tex")} <= names
    # plotly's own source mentions addresses; what is loaded from outside would be in a tag
    assert not re.search(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["']https?:""", html)
    section = html[html.index(SECTION) : html.index('<section id="samples"')]
    assert not re.findall(r"https?://[^\"'\s<>\\]+", re.sub(r"<script.*?</script>", "", section, flags=re.DOTALL))


def test_a_study_without_ldsb_has_no_section(tmp_path: Path, results: Results) -> None:
    assert panels_of(results) == {}
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False)
    html = write_report(tmp_path).read_text()
    assert SECTION not in html and "LDSB" not in html[html.index("</head>") :]
    assert not list((tmp_path / "tables").glob("ldsb_*"))


def test_tables_of_an_earlier_report_go_and_the_users_own_stay(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    maker.way("DDIM", "original", 10, 0)
    folder = tmp_path / "tables"
    folder.mkdir()
    for name in ("ldsb_against_flow.csv", "ldsb_controls.md", "ldsb_mine.csv"):
        (folder / name).write_text("old")
    write_report(tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert "ldsb_mine.csv" in names and not {"ldsb_against_flow.csv", "ldsb_controls.md"} & names


def test_several_data_sets_have_a_section_each(tmp_path: Path) -> None:
    content = study_of_ldsb()
    problems = {
        dataset: {
            "primary_metric": PROBLEMS["digits"], "base": content["base"],
            "centre": {"config": changed(base_tree(), {"dataset": dataset}), "chosen_by": "preset", "digest": dataset},
            "design": {"factors": [], "grid": None, "arms": [], "baseline": {"method.fit.kind": "none"}},
        }
        for dataset in ("digits", "photos")
    }  # fmt: skip
    maker = LDSBFabricator(tmp_path, problems=problems)
    for dataset in problems:
        for seed in SEEDS:
            for name in ("original", "LDSB"):
                maker.way("DDIM", name, 10, seed, changed(tree_of("DDIM", name), {"dataset": dataset}))
    html = write_report(tmp_path).read_text()
    for dataset in problems:
        assert f'id="{dataset}-ldsb"' in html
        assert (tmp_path / "tables" / f"ldsb_against_ddim_{dataset}.csv").exists()
    assert SECTION not in html


def test_the_summary_leaves_paths_of_other_nfe_to_the_sentences_of_ldsb(ldsb_results: Results) -> None:
    found = summary.sentences(ldsb_results)
    assert sum("Against the baseline" in text for text in found) == 0
    assert sum(text.startswith("Best way on validation with the") for text in found) == 2


def test_a_way_that_is_worse_than_the_original_is_above_it(ldsb_results: Results, monkeypatch: Any) -> None:
    monkeypatch.setattr("analysis.ldsb.ways.Denoiser.reduction", lambda *_: Interval(3, -35.2, -69.5, -7.9))
    (text, *_) = [text for text in ldsb_sentences(ldsb_results) if text.startswith("Best way on validation")]
    assert "35.2 [7.90, 69.5] % above the original on its best fixed grid" in text
    assert "below the original" not in text
