"""The report in a real browser: Debian's Chromium, driven by Playwright."""

import csv
import io
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fabricated_study import NFE, Fabricator, config, digest, fabricate, frechet, study_json

from analysis import formats
from analysis.collect import collect
from analysis.report import write_report
from analysis.results import Results, build_results
from analysis.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")

HOSTILE = "<img src=x onerror=\"document.title='hit'\"><b>bold</b>"
_FIGURES = "figure.panel:has(.plotly-graph-div)"
# Traces of a figure that are shown: {name: number of points}.
_SHOWN = """all => Object.fromEntries(all.map(panel => [
  panel.dataset.key, Object.fromEntries(panel.querySelector(".plotly-graph-div").data
    .filter(t => t.visible !== false && (t.customdata || t.meta) && !(t.z && t.z.flat().every(v => v === null)))
    .map(t => [t.name || "cells", (t.x || []).length]))]))"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright (pip install -e '.[test]')")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose arm, error and data have HTML in their names, with trajectories in the plane."""
    folder = tmp_path_factory.mktemp("browsed")
    design = study_json()["design"]
    design["arms"] = [{"name": f"rival {HOSTILE}", "overrides": {"method.kind": "score_matching_vp"}}]
    maker = fabricate(folder, design=design)
    maker.write_trials(maker.trial(config(8.0, "asbm"), 8, status="failed", error=f"ValueError: {HOSTILE}"))
    generator = np.random.default_rng(0)
    for tree in (config(), config(coupling="independent")):
        paths = np.cumsum(generator.normal(size=(21, 30, 2)), axis=0)
        spread = generator.exponential(size=30)
        np.savez(folder / "artifacts" / f"{digest(tree)}-0" / "paths.npz", trajectories=paths, straightness=spread,
                 trajectory_variance=spread, times=np.linspace(1, 0, 21))  # fmt: skip
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Results:
    return build_results(collect(folder))


class Watched:
    """A page with what it logged and asked for."""

    def __init__(self, browser: "Browser", path: Path, **options: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def draw_all(self) -> None:
        """Draws and filters every figure, near the reader or not, as before printing."""
        self.page.evaluate("['beforeprint', 'afterprint'].forEach(name => dispatchEvent(new Event(name)))")

    def toggle(self, facet: str, value: str) -> None:
        """Clicks one value of the filter bar."""
        self.page.locator(f'#filters fieldset[data-facet="{facet}"] label:has(input[value="{value}"])').click()

    def shown(self) -> dict[str, dict[str, int]]:
        """{figure: {trace: points}} of what is shown."""
        self.draw_all()
        found: dict[str, dict[str, int]] = self.page.locator(_FIGURES).evaluate_all(_SHOWN)
        return found

    def csv_of(self, key: str) -> list[dict[str, str]]:
        """What the button of a figure or table downloads."""
        with self.page.expect_download() as download:
            self.page.locator(f'figure[data-key="{key}"] .download').click()
        assert download.value.suggested_filename in (f"{key}.csv", f"figure_{key}.csv")
        text = Path(download.value.path()).read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))

    def rows(self, key: str) -> list[list[str]]:
        """The rows of a table that are shown, cell by cell."""
        found: list[list[str]] = self.page.locator(f'figure[data-key="{key}"] tbody').evaluate(
            "b => [...b.rows].filter(r => !r.hidden)"
            ".map(r => [...r.cells].filter(c => !c.hidden).map(c => c.textContent))"
        )
        return found


@pytest.fixture(scope="module")
def shared(browser: "Browser", folder: Path) -> Watched:
    watched = Watched(browser, folder / "report.html", accept_downloads=True)
    watched.draw_all()
    return watched


@pytest.fixture
def watched(shared: Watched) -> Iterator[Watched]:
    """The one page of this file, without filters and panels."""
    yield shared
    shared.page.keyboard.press("Escape")
    if shared.page.locator("#filter-reset").is_visible():
        shared.page.locator("#filter-reset").click()


def bring(plot: "Locator") -> None:
    """Scrolls to the middle of the window, clear of the bar of filters."""
    plot.evaluate("plot => plot.scrollIntoView({block: 'center', behavior: 'instant'})")
    plot.page.wait_for_timeout(200)


def means(found: Results, tree: dict[str, Any], nfe: int, seeds: tuple[int, ...]) -> Interval:
    score = found.scores["ablation"].get(digest(tree), nfe)
    assert score is not None
    return mean_interval([score.test[seed] for seed in seeds])


def test_the_page_draws_every_figure_and_asks_nobody(watched: Watched) -> None:
    plots = watched.page.locator(".panel .plotly-graph-div")
    assert plots.count() > 15
    assert plots.evaluate_all("all => all.every(plot => plot.querySelector('.main-svg'))")
    assert watched.errors == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in watched.requests), watched.requests
    assert not watched.page.locator(".modebar-btn[data-title*='loud']").count()
    assert watched.page.title() == "ASBM sweep: digits"


def test_names_and_errors_of_users_are_text(watched: Watched) -> None:
    page = watched.page
    assert page.title() != "hit"
    assert page.locator("main img[src=x], dialog img[src=x]").count() == 0
    assert page.locator("td", has_text="onerror").count() > 0
    legend = page.locator('figure[data-key="curves_arms"] .legendtext', has_text="rival").first
    assert "<img src=x" in legend.text_content() and "<b>bold</b>" in legend.text_content()
    page.locator("button.run", has_text="rival").first.click()
    assert HOSTILE in page.locator("#run-title").inner_text()
    assert watched.errors == []


def test_a_filter_acts_on_every_figure_and_table_that_holds_the_value(watched: Watched) -> None:
    page = watched.page
    before = watched.shown()
    tables = page.locator("figure.table").evaluate_all("all => all.map(panel => panel.dataset.key)")
    rows = {key: len(watched.rows(key)) for key in tables}
    watched.toggle("phase", "ablation")
    after = watched.shown()
    assert all(before.values())
    assert {key for key in after if after[key]} == {"proposals", "importance", "parallel_search"}
    assert {key for key in tables if not watched.rows(key)} == {
        key for key in tables if key not in ("search", "importances", "optimism", "not_completed")
    }  # fmt: skip
    hidden = page.locator('figure[data-key="curves_arms"] .nothing')
    assert hidden.is_visible()
    page.locator("#filter-reset").click()
    assert watched.shown() == before
    assert {key: len(watched.rows(key)) for key in tables} == rows


def test_a_level_leaves_only_the_rest(watched: Watched) -> None:
    watched.toggle("coupling", "independent")
    shown = watched.shown()["curves_arms"]
    assert "coupling = independent (baseline)" not in shown and "centre" in shown
    assert not any("independent" in row[0] for row in watched.rows("arms"))
    cells = watched.page.locator('figure[data-key="heat_map"] .plotly-graph-div').evaluate("plot => plot.data[0].z")
    assert [row[0] for row in cells] == [None] * 3
    assert all(value is not None for row in cells for value in row[1:])
    assert "1 switched off" in watched.page.locator("#filter-state").inner_text()


def test_nfe_takes_points_and_columns_away(watched: Watched) -> None:
    assert watched.shown()["curves_arms"]["centre"] == len(NFE)
    watched.toggle("NFE", "10")
    watched.toggle("NFE", "50")
    assert watched.shown()["curves_arms"]["centre"] == len(NFE) - 2
    assert watched.shown()["effects"] == {}
    heads = watched.page.locator('figure[data-key="arms"] th:visible').all_inner_texts()
    assert "FD, NFE 5" in heads
    assert not any("NFE 10" in head or "NFE 50" in head for head in heads)
    assert all(row[1] not in ("10", "50") for row in watched.rows("scores"))


def test_the_front_is_chosen_again_among_what_is_left(watched: Watched, found: Results) -> None:
    def front(without: set[str]) -> list[tuple[int, str, float]]:
        points = [
            (score.counted, score.validation_mean, setting.label, score.interval.mean)
            for setting in found.settings for nfe in found.budgets
            if found.facets(setting)["method"] not in without and (score := found.score(setting, nfe)) is not None
        ]  # fmt: skip
        beaten = [any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points) for p in points]
        return sorted((p[0], p[2], p[3]) for p, other in zip(points, beaten, strict=True) if not other)

    plot = watched.page.locator('figure[data-key="pareto"] .plotly-graph-div')
    line = "plot => { const t = plot.data.find(t => t.name === 'front'); return [t.x, t.y]; }"
    best = found.facets(next(setting for setting in found.settings if setting.label == front(set())[-1][1]))["method"]
    for without in (set(), {best}, set()):
        for name in without:
            watched.toggle("method", name)
        expected = front(without)
        assert [(int(row[0]), row[1].replace(" (baseline)", "")) for row in watched.rows("pareto")] == [
            (counted, label) for counted, label, _ in expected
        ]
        watched.draw_all()
        x, y = plot.evaluate(line)
        assert x == [counted for counted, *_ in expected]
        assert y == pytest.approx([mean for *_, mean in expected], rel=1e-4)
        for name in without:
            watched.toggle("method", name)


def test_seeds_that_are_left_make_the_means_and_intervals(watched: Watched, found: Results) -> None:
    watched.toggle("seed", "2")
    expected = means(found, config(), 10, (0, 1))
    assert watched.page.locator("#filter-seeds").is_visible()
    row = next(row for row in watched.rows("arms") if row[0] == "centre")
    assert row[2 + NFE.index(10)] == formats.interval(expected)
    watched.shown()
    centre = next(row for row in watched.csv_of("curves_arms") if row["trace"] == "centre" and row["NFE"] == "10")
    assert float(centre["y"]) == pytest.approx(expected.mean, rel=1e-4)
    assert float(centre["y high"]) == pytest.approx(expected.high, rel=1e-4)
    assert centre["n"] == "2"
    text = watched.page.locator('figure[data-key="heat_map"] .plotly-graph-div').evaluate("plot => plot.data[0].text")
    assert f"{formats.interval(expected)}<br>n = 2" in [cell for row in text for cell in row]
    watched.toggle("seed", "1")
    row = next(row for row in watched.rows("arms") if row[0] == "centre")
    assert row[2 + NFE.index(10)] == formats.number(means(found, config(), 10, (0,)).mean)


def test_a_click_on_a_point_shows_its_run_and_escape_closes_it(watched: Watched, found: Results) -> None:
    page = watched.page
    plot = page.locator('figure[data-key="curves_arms"] .plotly-graph-div')
    watched.draw_all()
    bring(plot)
    point = plot.locator(".scatterlayer .trace .points path").last
    box = point.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y - 30)
    page.mouse.move(x, y, steps=4)
    plot.locator(".hoverlayer .hovertext").first.wait_for()
    page.mouse.click(x, y)
    panel = page.locator("dialog#run")
    panel.wait_for(state="visible")
    assert "#run=" in page.url
    page.keyboard.press("Escape")
    panel.wait_for(state="hidden")
    assert "#run=" not in page.url


def test_the_panel_of_a_run_tells_its_configuration_numbers_and_curves(watched: Watched) -> None:
    page, tree = watched.page, config(coupling="independent")
    page.locator('figure[data-key="arms"] button.run', has_text="independent").focus()
    page.keyboard.press("Enter")
    panel = page.locator("dialog#run")
    assert panel.locator("#run-title").inner_text() == "coupling = independent, seed 0"
    differences = panel.locator("table").first.inner_text()
    assert "method.coupling" in differences and "asbm" in differences and "independent" in differences
    assert "Whole configuration" in panel.inner_text()
    value = frechet(tree, 0, 20, "ancestral", "test")
    numbers = panel.locator("table", has_text="metric").inner_text()
    assert f"FD (digits-CNN), NFE 20\t{formats.number(value, 4)}" in numbers
    assert panel.locator("#run-curves .main-svg").count() > 0
    assert panel.locator(".picture img").count() == 1 + len(NFE)
    assert "node-1" in panel.inner_text() and "763 MiB" in panel.inner_text()
    panel.locator("button", has_text="seed 1").click()
    assert panel.locator("#run-title").inner_text() == "coupling = independent, seed 1"
    assert page.url.endswith(f"#run={digest(tree)}-1")


def test_a_link_opens_a_run_and_a_failed_one_shows_its_error(browser: "Browser", folder: Path) -> None:
    failed = f"{digest(config(8.0, 'asbm'))}-7"
    page = browser.new_page()
    page.goto(f"{(folder / 'report.html').as_uri()}#run={failed}")
    panel = page.locator("dialog#run")
    assert "FloatingPointError" in panel.locator("pre.error").inner_text()
    assert panel.locator(".status").inner_text() == "failed"
    page.evaluate("location.hash = '#run=absent-0'")
    panel.locator("text=has no run").wait_for()
    page.close()


def test_tables_sort_by_the_numbers_in_full(watched: Watched) -> None:
    head = watched.page.locator('figure[data-key="search"] th button').first
    column = lambda: watched.page.locator('figure[data-key="search"] tbody').evaluate(  # noqa: E731
        "body => [...body.rows].map(r => r.cells[0].dataset.value).filter(v => v).map(Number)"
    )
    head.click()
    rising = column()
    assert rising == sorted(rising)
    head.click()
    assert column() == sorted(rising, reverse=True)
    assert len(rising) == 12


def test_a_figure_downloads_its_data(watched: Watched, found: Results) -> None:
    rows = watched.csv_of("curves_arms")
    assert {row["trace"] for row in rows} > {"centre", "floor (real against real)"}
    for nfe in NFE:
        row = next(row for row in rows if row["trace"] == "centre" and row["NFE"] == str(nfe))
        expected = means(found, config(), nfe, (0, 1, 2))
        assert float(row["y"]) == pytest.approx(expected.mean, rel=1e-4)
        assert float(row["y low"]) == pytest.approx(expected.low, rel=1e-3)
        assert row["run"] == digest(config())
        assert row["y axis"] == "FD (digits-CNN)"
    every = watched.page.locator(f"{_FIGURES} .download").count()
    assert every == watched.page.locator(_FIGURES).count()
    grid = {(row["y axis"], row["x"]): float(row["y"]) for row in watched.csv_of("heat_map")}
    assert grid["4", "ASBM"] == pytest.approx(means(found, config(), 10, (0, 1, 2)).mean, rel=1e-4)


def test_a_table_downloads_the_rows_that_are_shown(watched: Watched, found: Results) -> None:
    watched.toggle("coupling", "independent")
    rows = watched.csv_of("factor_method.coupling")
    assert [row["setting"] for row in rows] == ["bridge matching", "ASBM (centre)"]
    assert float(rows[1]["FD, NFE 10"]) == pytest.approx(means(found, config(), 10, (0, 1, 2)).mean)
    assert rows[1]["FD, NFE 10 (as shown)"] == formats.interval(means(found, config(), 10, (0, 1, 2)))


def test_trajectories_play(watched: Watched) -> None:
    plot = watched.page.locator('figure[data-key="trajectories"] .plotly-graph-div')
    bring(plot)
    place = "plot => plot.data.filter(t => t.mode === 'markers')[0].x[0]"
    end = plot.evaluate(place)
    plot.locator(".updatemenu-button", has_text="Play").click()
    watched.page.wait_for_timeout(700)
    plot.locator(".updatemenu-button", has_text="Pause").click()
    assert plot.evaluate(place) != end


def test_numbers_are_written_as_in_python(watched: Watched, found: Results) -> None:
    cells = watched.page.locator('figure[data-key="scores"] td[data-seeds]').evaluate_all(
        "all => all.map(cell => [cell.textContent, cell.dataset.seeds])"
    )
    assert len(cells) == len(found.settings) * len(NFE)
    assert all(math.isfinite(float(text.split(" ")[0].replace(",", ""))) for text, _ in cells)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_in_both_schemes_has_no_scroll_to_the_side(browser: "Browser", folder: Path, scheme: str) -> None:
    narrow = Watched(browser, folder / "report.html", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    bring(narrow.page.locator('figure[data-key="curves_arms"] .plotly-graph-div'))
    narrow.page.locator('figure[data-key="curves_arms"] .main-svg').first.wait_for()
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = narrow.page.locator("main figure.panel, main .card, #filters").evaluate_all(
        "all => all.filter(e => e.getBoundingClientRect().right > 391).length"
    )
    assert wide == 0
    red = narrow.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) == (scheme == "dark")
    ink = narrow.page.locator('figure[data-key="curves_arms"] .plotly-graph-div').evaluate("p => p.layout.font.color")
    assert ink == ("#dfe4ea" if scheme == "dark" else "#3d444d")
    narrow.page.locator("td button.run").first.click()
    assert narrow.page.locator("dialog#run").evaluate("d => d.getBoundingClientRect().width <= 390")
    assert narrow.errors == []
    narrow.page.close()


def test_in_print_the_bar_is_gone_and_the_figures_are_there(watched: Watched) -> None:
    page = watched.page
    page.emulate_media(media="print", color_scheme="light")
    assert not page.locator("#filters").is_visible()
    assert not page.locator(".download").first.is_visible()
    assert page.locator('figure[data-key="pareto"] .main-svg').first.is_visible()
    assert page.locator("body").evaluate("b => getComputedStyle(b).backgroundColor") == "rgb(255, 255, 255)"
    assert len(page.pdf()) > 100_000
    page.emulate_media(media="screen")


def test_figures_in_view_are_drawn_where_no_frames_come(browser: "Browser", folder: Path) -> None:
    """As for a picture of the page from the command line."""
    page = browser.new_page(viewport={"width": 1280, "height": 3000})
    page.add_init_script(
        "window.requestAnimationFrame = () => 0;"
        "window.IntersectionObserver = class { observe() {} unobserve() {} disconnect() {} };"
    )
    page.goto((folder / "report.html").as_uri())
    drawn = page.locator(_FIGURES).evaluate_all(
        "all => all.filter(panel => panel.getBoundingClientRect().top < innerHeight)"
        ".map(panel => Boolean(panel.querySelector('.main-svg')))"
    )
    assert len(drawn) > 2
    assert all(drawn)
    page.close()


def test_a_study_of_ldsb_shows_learned_paths(browser: "Browser", ldsb_study: Path) -> None:
    watched = Watched(browser, ldsb_study / "report.html")
    page = watched.page
    page.locator('figure[data-key^="ldsb_against"] button.run').nth(1).click()
    page.locator("dialog#run #run-path .main-svg").first.wait_for(state="attached")
    assert page.locator("dialog#run #run-path .plotly, dialog#run #run-path.js-plotly-plot").count() > 0
    assert watched.errors == []
    page.close()


def test_a_study_that_has_only_started_is_a_page_without_errors(browser: "Browser", tmp_path: Path) -> None:
    Fabricator(tmp_path, study_json(centre=None))
    watched = Watched(browser, write_report(tmp_path))
    assert watched.page.locator("text=No run has been recorded yet.").count() > 0
    assert watched.errors == []
    watched.page.close()
