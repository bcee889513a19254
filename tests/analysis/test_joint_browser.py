"""The report of a joint study in a real browser: what to use with its commands, heat maps, no errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fabricated_joint import fabricate_joint
from test_report_browser import CHROMIUM, Watched

from analysis.collect import collect
from analysis.report import write_report
from analysis.results import build_results
from analysis.what_to_use import uses

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright (pip install -e '.[test]')")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint_browsed")
    fabricate_joint(folder)
    write_report(folder)
    return folder


@pytest.mark.parametrize("width", [1280, 420])
def test_every_recipe_has_a_command_that_can_be_copied(browser: "Browser", folder: Path, width: int) -> None:
    watched = Watched(browser, folder / "report.html", viewport={"width": width, "height": 900})
    watched.draw_all()
    assert watched.errors == []
    page = watched.page
    commands = [use.command for use in uses(build_results(collect(folder)))]
    assert page.locator("#summary .uses code").all_text_contents() == commands
    page.locator("#summary .uses .copy").nth(1).click()
    assert page.evaluate("getSelection().toString()") == commands[1]
    # Nothing of it reaches out of the page.
    assert page.evaluate("document.querySelector('.uses').scrollWidth <= document.querySelector('main').clientWidth")
    page.close()


def test_filters_leave_the_cells_of_a_level(browser: "Browser", folder: Path) -> None:
    watched = Watched(browser, folder / "report.html")
    watched.draw_all()
    watched.toggle("noise β_max", "1")
    watched.toggle("noise β_max", "20")
    rows = watched.rows("grid")
    assert len(rows) == 9 and all("noise β_max = 4" in row[0] for row in rows)
    assert watched.errors == []
    watched.page.close()
