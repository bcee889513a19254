import html as html_module
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_study import (
    NFE,
    Fabricator,
    config,
    digest,
    fabricate,
    frechet,
    study_json,
    write_artifacts,
    write_optuna,
)
from plotly.offline import get_plotlyjs

from analysis import formats, run_details, summary
from analysis.__main__ import main
from analysis.artifacts import Artifacts
from analysis.collect import collect
from analysis.data_sets import build_all
from analysis.figures.samples import samples_panel, tile
from analysis.pareto import candidates, pareto_front
from analysis.report import write_report
from analysis.results import Results, build_results
from analysis.statistics import Interval
from sbbridge.records import metric_row


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reported")
    fabricate(folder)
    return write_report(folder).read_text(encoding="utf-8")


def own_part(html: str) -> str:
    """The page without plotly's library."""
    return html.replace(get_plotlyjs(), "")


def report(folder: Path) -> str:
    return own_part(write_report(folder).read_text(encoding="utf-8"))


def test_the_report_is_offline_and_holds_plotly_once(page: str) -> None:
    assert page.count(get_plotlyjs()) == 1
    html = own_part(page)
    assert not re.findall(r"(?i)\b(?:src|href|action|srcset)\s*=\s*[\"']?\s*(?:https?:)?//", html)
    assert not re.findall(r"(?i)url\(\s*[\"']?\s*(?:https?:)?//|@import", html)
    assert not re.findall(r"(?i)https?://", html)
    assert "sendChartToCloud" in html  # named as removed: plotly's button that uploads a figure
    assert all('"sendChartToCloud"' in part[:4000] for part in re.findall(r'"modeBarButtonsToRemove".*', html))
    assert len(html) < 3_000_000


def test_the_report_has_its_sections_and_says_n_floor_and_null(page: str) -> None:
    html = own_part(page)
    for title in (
        "Quality against network calls",
        "What matters",
        "Samples",
        "Cost",
        "Training",
        "Search",
        "How it was run",
    ):
        assert f"<h2>{title}</h2>" in html
    for figure in ("curves_arms", "pareto", "effects", "heat_map", "cost_evaluations", "terminal_spectrum", "learning",
                   "importance", "proposals"):  # fmt: skip
        assert f'id="figure-{figure}"' in html
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    of_the_search = ("Optimistic", "of the search's completed trainings", "The best of many runs")
    captions = [html_module.unescape(caption) for caption in captions]
    about_scores = [
        caption for caption in captions
        if "FD (digits-CNN)" in caption and not any(words in caption for words in of_the_search)
    ]  # fmt: skip
    assert len(about_scores) > 5
    assert all("floor" in caption and "null" in caption and "n = " in caption for caption in about_scores)
    assert "PED-ANOVA" in html
    assert "abc1234" in html
    assert "torch 2.15.0" in html
    assert html.count("data:image/png;base64,") == 3 * (len(NFE) + 1)


def test_errors_are_escaped(page: str) -> None:
    assert "stage &lt;cycle 1: adjoint&gt;" in page
    assert "<cycle 1" not in page


def test_traces_and_rows_carry_what_filters_look_at(page: str) -> None:
    html = own_part(page)
    assert '"meta":{"method":"score matching VP","phase":"ablation"' in html
    facets = [json.loads(text.replace("&#34;", '"')) for text in re.findall(r'<tr data-facets="([^"]*)"', html)]
    assert {row.get("phase") for row in facets} >= {"ablation", "search"}
    assert {row.get("coupling") for row in facets} >= {"ASBM", "independent"}
    assert 'value="bridge matching" checked' in html


def test_rivals_of_the_front_wait_for_filters(page: str, results: Results) -> None:
    rows = re.findall(r'<tr data-facets="[^"]*" data-trade="[^"]*"( hidden)?>', own_part(page))
    assert len(rows) == len(candidates(results))
    assert rows.count("") == len(pareto_front(results)) < len(rows)


def test_the_summary_claims_what_the_tests_support(results: Results) -> None:
    text = " ".join(summary.sentences(results))
    assert "Use the centre: ASBM's coupling (noise β_max = 4, cycles = 6), ancestral sampler at NFE 10 on the" in text
    assert "trailing uniform grid. It is the best of 11 settings at NFE 10 on validation" in text
    assert "How sure: all 10 others are worse by more than chance" in text
    assert "95 % t interval over 3 seeds" in text and "times the floor of 0.316" in text
    assert "The runner-up on validation, " in text and "more than chance (p " in text
    assert "Cost: 3.5 M network evaluations of training a run (1.5 M of them to simulate pairs)" in text
    assert "n = 3" in text
    assert "all 6 significantly better" in text
    assert "optimistic" in text
    assert "1 run of 48 failed" in text


def test_the_summary_claims_nothing_where_settings_are_the_same_but_for_noise(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)

    def same(tree: dict[str, Any], seed: int, nfe: int, sampler: str, split: str) -> float:
        return float(1 + np.random.default_rng([seed, nfe, int(digest(tree)[:6], 16), len(split)]).normal() * 0.1)

    for seed in range(3):
        for coupling in ("independent", "bridge_matching", "asbm"):
            maker.run(config(coupling=coupling), seed, value=same)
    text = " ".join(summary.sentences(build_results(collect(tmp_path))))
    assert "none of the 2 other settings can be told from it" in text
    assert "which may be chance" in text
    assert "significantly" not in text
    assert "not distinguishable" in text


def test_the_report_is_written_atomically_over_an_earlier_one(tmp_path: Path) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    (tmp_path / "report.html").write_text("old")
    path = write_report(str(tmp_path))
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_study_that_has_only_started(tmp_path: Path) -> None:
    Fabricator(tmp_path, study_json(centre=None))
    html = report(tmp_path)
    assert "No run has been recorded yet." in html
    assert "There is no ablation yet" in html
    assert "The search has left no Optuna database" in html
    assert "figure-" not in html


def test_a_study_that_has_searched_but_not_ablated(tmp_path: Path) -> None:
    fabricate(tmp_path, ablation=False, artifacts=False, centre=None)
    html = report(tmp_path)
    assert "There is no ablation yet" in html
    assert "not chosen yet" in html
    assert 'id="figure-importance"' in html
    assert "The ablation has no completed run yet." in html


def test_a_search_with_too_few_runs_has_no_importance(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for number, noise in enumerate((1.0, 4.0, 8.0)):
        maker.run(config(noise), 0, "search", optuna_numbers=[number])
    write_optuna(tmp_path, trials=3)
    assert "needs at least 4 completed runs" in report(tmp_path)


def test_an_optuna_study_that_cannot_be_opened_is_a_sentence(tmp_path: Path) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    (tmp_path / "optuna.db").write_bytes(b"not a database at all" * 50)
    assert "The Optuna study could not be opened" in report(tmp_path)


def test_one_seed_claims_no_difference(tmp_path: Path) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    html = report(tmp_path)
    assert "With one seed there is no interval" in html
    assert "significantly better" not in html
    assert 'id="figure-curves_arms"' in html


def test_only_failed_runs(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for seed in range(3):
        maker.write_trials(maker.trial(config(), seed, status="failed", error="RuntimeError: no <memory> & no luck",
                                       seconds=None, simulation_evaluations=None,
                                       optimisation_evaluations=None))  # fmt: skip
    html = report(tmp_path)
    assert "nothing can be claimed" in html
    assert html.count("no &lt;memory&gt; &amp; no luck") >= 3
    assert "3 runs of 3 failed" in html


def gaussian_study(folder: Path) -> None:
    """A dataset with a known answer: no images, no sampling, no splits, no floor."""
    maker = Fabricator(folder, study_json(dataset="gaussian64", primary_metric={"metric": "covariance_error"}))
    for seed in range(3):
        for coupling in ("independent", "asbm"):
            tree = {**config(coupling=coupling), "dataset": "gaussian64"}
            maker.write_trials(maker.trial(tree, seed))
            shared = {"digest": digest(tree), "seed": seed, "phase": "ablation", "stage": "evaluation", "attempt": 1}
            value = {"independent": 0.9 + 0.1 * seed, "asbm": 0.02 + 0.003 * (seed - 1) ** 2}[coupling]
            maker.write_metrics(
                metric_row("covariance_error", value, **shared), metric_row("control_error", 0.1, **shared)
            )


def test_a_gaussian_study(tmp_path: Path) -> None:
    gaussian_study(tmp_path)
    html = report(tmp_path)
    assert "covariance error without sampling" in html
    assert "No run of the ablation kept samples" in html
    assert "No floor was recorded" in html
    assert "needs no sampling: there is no NFE" in html
    assert "chosen on validation" not in html
    assert "significantly better: ASBM (centre)" in html
    assert "control error" in html


def test_samples_in_the_plane_and_of_no_known_shape(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path, study_json(dataset="moons"))
    maker.run(config(), 0)
    place = tmp_path / "artifacts" / f"{digest(config())}-0"
    place.mkdir(parents=True)
    points = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    np.savez(place / "samples.npz", real=points, nfe_1=points, nfe_10=points)
    assert 'id="figure-samples"' in report(tmp_path)
    np.savez(place / "samples.npz", real=points, nfe_5=points + 1)  # at one NFE: a picture a setting, beside the data
    (results,) = build_all(collect(tmp_path))
    panel = samples_panel(results, Artifacts(results.collected))
    assert panel.title == "Samples, NFE 5"
    first, second = panel.figure.data
    assert first.name == "real"
    assert second.meta["NFE"] == "5"
    assert np.allclose(np.subtract(second.x, first.x), 1, atol=1e-5)
    np.savez(place / "samples.npz", real=np.zeros((5, 16)), nfe_1=np.zeros((5, 16)))
    assert "neither a picture nor a point" in report(tmp_path)


def test_pictures_are_tiled_in_order() -> None:
    images = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 3), np.uint8)
    grid = tile(images)
    assert grid is not None
    assert grid.shape == (2 * 3 - 1, 2 * 4 - 1)
    assert (grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]) == (0, 1, 2, 3)
    colour = tile(np.full((1, 4, 4, 3), 0.5))
    assert colour is not None
    assert (colour.shape, colour.dtype) == ((4, 4, 3), np.uint8)
    assert tile(np.zeros((3, 5))) is None


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    assert main(["collect", str(tmp_path)]) == 0
    assert "12 runs" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert (tmp_path / "tables/factor_method.coupling.csv").is_file()


def test_unreadable_files_are_named_in_the_report_and_in_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    write_artifacts(tmp_path, config())
    samples = tmp_path / "artifacts" / f"{digest(config())}-0" / "samples.npz"
    samples.write_bytes(samples.read_bytes()[:300])
    spectrum = samples.with_name("spectrum.npz")
    np.savez(spectrum, cycle_1=np.array([{"a": "pickled object"}], dtype=object))
    (tmp_path / "records/metrics/torn.parquet").write_bytes(b"torn")
    assert main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("torn.parquet", "samples.npz", "spectrum.npz"):
        assert name in error
        assert f"{name}</code>" in html
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["report", "collect"])
def test_wrong_input_is_one_line_and_exit_two(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/study.json").write_text('{"schema_version": 1,')
    for folder in (tmp_path / "absent", tmp_path, tmp_path / "torn"):
        assert main([command, str(folder)]) == 2
        streams = capsys.readouterr()
        assert streams.out == ""
        assert len(streams.err.splitlines()) == 1
        assert str(folder) in streams.err
    assert main([command, str(tmp_path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fresh_interpreter_loads_neither_torch_nor_ray_and_help_loads_nothing_heavy(study: Path) -> None:
    program = (
        "import sys; from analysis.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'plotly', 'pandas', 'pyarrow', 'numpy'} & set(sys.modules), 'help is slow'\n"
        "import analysis.report, analysis.figures.search, analysis.figures.samples, analysis.figures.training\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not {'torch', 'ray'} & loaded\n"
        "ours = {name for name in sys.modules if name.startswith('sbbridge.')}\n"
        "assert ours <= {'sbbridge.records'}, ours\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0249, "1.02"), (12345.6, "12,346"), (0.000012, "1.20e-05"), (float("nan"), "–"), (float("inf"), "∞"),
    (-2.5, "−2.50"),
     (0, "0"), (None, "–")],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert formats.number(value) == text


def test_intervals_counts_and_times() -> None:
    assert formats.interval(Interval(3, 1.02449, 0.88, 1.17)) == "1.02 ± 0.14"
    assert formats.interval(Interval(3, 123.4, 100.0, 146.8)) == "123 ± 23"
    assert formats.interval(Interval(1, 1.5, float("nan"), float("nan"))) == "1.50"
    assert formats.interval(None) == "–"
    assert [formats.count(n) for n in (950, 12_345, 3_500_000, 7.8e9)] == ["950", "12.3 k", "3.5 M", "7.8 G"]
    assert [formats.duration(s) for s in (0.52, 42, 402, 11_100)] == ["0.52 s", "42 s", "6 min 42 s", "3 h 05 min"]
    assert [formats.level(v) for v in (4.0, "minibatch_ot", None, True)] == ["4", "minibatch OT", "–", "yes"]


def test_a_study_that_is_still_running_says_so(tmp_path: Path) -> None:
    sessions = [{"started": "2026-11-21T19:00:00+00:00", "address": "local", "num_workers": 1}]
    maker = fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0, 1), sessions=sessions)
    maker.write_trials(maker.trial(config(1.0), 5, status="running"))
    html = report(tmp_path)
    assert "The last session of this study has not ended" in html
    assert "1 run of 24 is recorded as not finished" in html
    assert "may change" in html


def test_a_study_that_was_stopped_says_so(tmp_path: Path) -> None:
    ended = {"started": "2026-11-21T19:00:00+00:00", "ended": "2026-11-21T19:01:00+00:00", "outcome": "stopped"}
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,), sessions=[ended])
    assert "This study was stopped before its end; the same command continues it." in report(tmp_path)


def test_a_study_at_its_end_does_not(tmp_path: Path) -> None:
    fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,))
    assert 'class="unfinished"' not in report(tmp_path)


def test_names_of_users_are_escaped(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    design = study_json()["design"]
    design["arms"] = [{"name": hostile, "overrides": {"method.kind": "score_matching_vp"}}]
    design["factors"][0]["label"] = hostile
    maker = fabricate(tmp_path, search=False, artifacts=False, optuna_db=False, seeds=(0,), design=design,
                      study=hostile, commit=hostile)  # fmt: skip
    maker.write_trials(maker.trial(config(1.0), 5, status="failed", error=hostile))
    html = report(tmp_path)
    assert "alert(1)" in html
    assert "<script>alert" not in html and "<img" not in html
    assert html.count("</script>") == html.count("<script")


def test_what_is_too_much_for_the_page_is_left_out_and_said(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_details.run_details([results])
    assert not whole.left_out and run_details.sentence(whole) == ""
    assert all("curves" in run for run in whole.runs if run["status"] == "completed")
    monkeypatch.setattr(run_details, "RUNS", 20)
    monkeypatch.setattr(run_details, "CURVES", 2000)
    less = run_details.run_details([results])
    assert len(less.runs) == len(whole.runs) == 48
    assert sum("numbers" in run for run in less.runs) <= 20
    assert 0 < sum("curves" in run for run in less.runs) < 20
    text = run_details.sentence(less)
    assert "numbers and curves of 28 runs" in text and "learning curves of" in text
    drawn = [points for run in less.runs for points, _ in run.get("curves", {}).values()]
    assert max(len(points) for points in drawn) <= 16


def test_details_tell_a_run_apart_from_the_centre(results: Results) -> None:
    details = run_details.run_details([results])
    rival = details.settings[digest(config(coupling=None, kind="score_matching_vp"))]
    assert rival["changed"] == {"method.kind": "score_matching_vp"}
    assert set(rival["absent"]) == {"method.coupling", "method.cycles"}
    assert details.settings[digest(config())]["changed"] == {}
    run = next(run for run in details.runs if run["run"] == f"{digest(config())}-1")
    values = {(metric, split, nfe): value for metric, split, nfe, value in run["numbers"]}
    assert values["FD (digits-CNN)", "test", 20] == pytest.approx(
        frechet(config(), 1, 20, "ancestral", "test"), rel=1e-5
    )
    assert values["straightness", "test", 10] == pytest.approx(0.31)
    steps, losses = run["curves"]["backward"]
    assert len(steps) == len(losses) == 20 and steps == sorted(steps)
    assert list(run["curves"]) == ["corrector", "adjoint", "backward"]
    assert (run["curves"]["corrector"][0][0], steps[0], steps[-1]) == (25, 6 * 2 * 500 + 25, 6 * 2 * 500 + 500)
