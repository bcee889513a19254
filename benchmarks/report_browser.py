"""Size of the report of a large study, and how fast it opens and filters in headless Chromium.

    python benchmarks/report_browser.py [--runs 1000] [--rows 1000] [--repeats 3] [--folder DIR] [--output FILE.json]

The records are those of `records_scale.py`: half of the runs are a search of one seed, half an ablation of settings
with five seeds. Opening: from the start of the navigation to the first figures drawn and the page answering (a frame
and a task after them). Filtering: from the click on a value to the next frame after its work, with one figure after
another in view; tables are filtered at every click. Beside the seconds stand those of the page's main thread alone,
which a busy machine inflates less. It needs Debian's Chromium and `pip install playwright`.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from records_scale import SEARCH_SEED, SEEDS, Writer, configuration

from analysis.report import write_report

# Marks when the first figure is drawn and the page has had a frame and a task to itself.
_OPENED = """
new MutationObserver((_, observer) => {
  if (!document.querySelector(".panel .main-svg")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.opened = performance.now(); }, 0));
}).observe(document, { childList: true, subtree: true });
"""
_FILTERED = """box => new Promise(resolve => {
  const started = performance.now();
  box.click();
  requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - started), 0));
})"""


def make_records(folder: Path, runs: int, rows: int, parts: int = 6) -> None:
    settings = max(18, runs // 2 // SEEDS)
    writer = Writer(folder, rows, parts, settings)
    for number in range(settings):
        for seed in range(SEEDS):
            writer.run(configuration(number), seed, "ablation")
    for number in range(runs - settings * SEEDS):
        writer.run(configuration(number), SEARCH_SEED, "search")


def measured(report: Path, repeats: int) -> dict[str, Any]:
    """Seconds to open the report, and to switch values of every filter with each figure in view."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened, opened_thread = [], []
        for _ in range(repeats):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.add_init_script(_OPENED)
            clock = ThreadClock(page)
            page.goto(report.as_uri(), wait_until="commit")
            page.wait_for_function("window.opened", timeout=120_000)
            opened_thread.append(clock.seconds())
            opened.append(page.evaluate("window.opened") / 1000)
        found = filtered(page, clock, repeats)
        heap = page.evaluate("performance.memory ? performance.memory.usedJSHeapSize : 0")
        browser.close()
    times, threads = [seconds for *_, seconds, _ in found], [seconds for *_, seconds in found]
    worst = max(found, key=lambda item: item[2])
    return {
        "open": round(statistics.median(opened), 2), "open_worst": round(max(opened), 2),
        "open_thread": round(statistics.median(opened_thread), 2),
        "filter_thread": round(statistics.median(threads), 3), "filter_thread_worst": round(max(threads), 3),
        "filter": round(statistics.median(times), 3), "filter_worst": round(worst[2], 3),
        "filter_worst_of": f"{worst[1]}, {worst[0]} in view", "clicks": len(times),
        "clicks_over_0.3_s": sum(seconds > 0.3 for seconds in times), "heap_MB": round(heap / 1e6, 1),
    }  # fmt: skip


class ThreadClock:
    """Seconds that the page's main thread has worked."""

    def __init__(self, page: Any) -> None:
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.last = self._now()

    def seconds(self) -> float:
        """Since the last call."""
        last, self.last = self.last, self._now()
        return self.last - last

    def _now(self) -> float:
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "ThreadTime"))


def filtered(page: Any, clock: ThreadClock, repeats: int) -> list[tuple[str, str, float, float]]:
    """(figure in view, filter, seconds, of the main thread) of clicks that switch a value off and on again."""
    found = []
    for panel in page.locator("figure.panel:has(.plotly-graph-div)").all():
        panel.evaluate("panel => panel.scrollIntoView({block: 'center', behavior: 'instant'})")
        panel.locator(".main-svg").first.wait_for(state="attached", timeout=60_000)
        page.wait_for_timeout(500)
        for facet in page.locator("#filters fieldset").all():
            box = facet.locator("input").last
            for _ in range(2 * repeats):
                clock.seconds()
                seconds = box.evaluate(_FILTERED) / 1000
                thread = clock.seconds()
                found.append((panel.get_attribute("data-key"), facet.get_attribute("data-facet"), seconds, thread))
                page.wait_for_timeout(50)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=1_000, help="rows of metrics a run leaves")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the records (default: a temporary folder)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "study.json").is_file():
            make_records(folder, arguments.runs, arguments.rows)
        started = time.monotonic()
        report = write_report(folder)
        row = {"written": round(time.monotonic() - started, 1), "MB": round(report.stat().st_size / 1e6, 2)}
        row |= {**measured(report, arguments.repeats), "load": round(os.getloadavg()[0], 1)}
    print(f"{arguments.runs} runs of {arguments.rows} rows; load of the machine {row['load']}")
    for name, unit in (("written", "s"), ("MB", ""), ("open", "s"), ("open_worst", "s"), ("open_thread", "s"),
                       ("filter", "s"), ("filter_worst", "s"), ("filter_thread", "s"), ("filter_thread_worst", "s"),
                       ("filter_worst_of", ""), ("clicks", ""), ("clicks_over_0.3_s", ""),
                       ("heap_MB", "")):  # fmt: skip
        print(f"{name:20s} {row[name]} {unit}")
    if arguments.output:
        sizes = {"runs": arguments.runs, "rows": arguments.rows}
        arguments.output.write_text(json.dumps({**sizes, **row}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
