"""Writes a study's report: one offline HTML file with everything that the records say."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analysis import export, facts, summary_study
from analysis.collect import Collected, collect
from analysis.data_sets import build_all
from analysis.files import write_atomically
from analysis.results import Results
from analysis.sections import Part, all_tables, build_parts

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(folder: str | Path) -> Path:
    """Collects a study's records, writes its tables, and writes `report.html`; returns the report's path.

    Raises:
        InputError: there is no study in the folder.
    """
    return write_report_of(collect(folder))


def write_report_of(collected: Collected) -> Path:
    """Tables and report of records that were collected before; files found unreadable join `collected.problems`."""
    parts = build_all(collected)
    names = [results.dataset for results in parts] if len(parts) > 1 else []
    export.write_tables([table for table in all_tables(parts) if table.rows], collected.folder / "tables", names)
    path = collected.folder / "report.html"
    write_atomically(path, render(parts))
    return path


def render(parts: Sequence[Results]) -> str:
    """The report of one study's data sets as HTML."""
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rows"] = export.html_rows
    environment.filters["figure"] = _figure_html
    environment.filters["compact"] = lambda value: json.dumps(value, ensure_ascii=False)
    shown = build_parts(parts)
    return environment.get_template("report.html").render(
        title=facts.title(parts),
        subtitle=facts.subtitle(parts),
        cards=summary_study.study_cards(parts),
        sentences=summary_study.study_sentences(parts),
        parts=shown,
        filters=_filters(shown),
        # Every data set shares one mapping: that of the study.
        problems=parts[0].collected.problems,
        facts=facts.facts(parts),
        configuration=facts.configuration(parts),
        plotly=Markup(get_plotlyjs()),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
    )


def _figure_html(panel: Any) -> Markup:
    import plotly.io

    configuration = {
        "displaylogo": False,
        "displayModeBar": "hover",
        "responsive": True,
        # Plotly's own tool bar has a button that uploads the figure with its data: the report must not have it.
        "plotlyServerURL": "",
        "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
        "toImageButtonOptions": {"format": "svg", "filename": panel.key},
    }
    html = plotly.io.to_html(
        panel.figure, full_html=False, include_plotlyjs=False, config=configuration,
        div_id=f"figure-{panel.key}".replace(".", "-"),
        default_width="100%", default_height=f"{panel.figure.layout.height}px",
    )  # fmt: skip
    return Markup(html)


def _filters(parts: Sequence[Part]) -> dict[str, list[str]]:
    """{filter: its values} over everything that is shown; a filter of one value filters nothing."""
    found: dict[str, dict[str, None]] = {}

    def note(facets: Mapping[str, str] | None) -> None:
        for name, value in (facets or {}).items():
            found.setdefault(name, {})[value] = None

    for part in parts:
        note(part.facets)
        for section in part.sections:
            for table in section.tables:
                for facets in table.facets:
                    note(facets)
            for panel in section.panels:
                for trace in panel.figure.data if panel.figure is not None else ():
                    note(trace.meta)
                for strip in panel.strips:
                    note(strip.facets)
    return {name: sorted(values, key=_natural) for name, values in found.items() if len(values) > 1}


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
