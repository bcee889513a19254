"""Writes a study's report: one offline HTML file with everything that the records say."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup
from scipy import special

from analysis import export, facts, summary_study
from analysis.collect import Collected, collect
from analysis.data_sets import build_all
from analysis.figure_json import embedded, figure_json
from analysis.files import write_atomically
from analysis.results import Results
from analysis.run_details import run_details
from analysis.run_details import sentence as left_out
from analysis.sections import Part, all_tables, build_parts
from analysis.tables_runs import run_facets
from analysis.what_to_use import uses

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("numbers.js", "filters.js", "figures.js", "tables.js", "csv.js", "runs.js", "report.js")
_LAST_FILTERS = ("NFE", "seed")


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
    shown = build_parts(parts)
    export.write_tables(all_tables(shown), collected.folder / "tables", names)
    path = collected.folder / "report.html"
    write_atomically(path, render(parts, shown))
    return path


def render(parts: Sequence[Results], shown: Sequence[Part]) -> str:
    """The report of one study's data sets as HTML."""
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rows"] = export.html_rows
    environment.filters["figure"] = lambda panel: Markup(figure_json(panel.figure))
    environment.filters["compact"] = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    details = run_details(parts)
    seeds = max((len(results.seeds) for results in parts), default=1)
    known = {**vars(details), "t": [float(special.stdtrit(df, 0.975)) for df in range(1, max(2, seeds))]}
    return environment.get_template("report.html").render(
        title=facts.title(parts),
        subtitle=facts.subtitle(parts),
        cards=summary_study.study_cards(parts),
        answer=summary_study.study_answer(parts),
        uses=uses(parts[0]) if len(parts) == 1 else [],
        findings=summary_study.study_findings(parts),
        unfinished=summary_study.unfinished(parts),
        parts=shown,
        filters=_filters(parts, shown),
        # Every data set shares one mapping: that of the study.
        problems=parts[0].collected.problems,
        facts=facts.facts(parts),
        configuration=facts.configuration(parts),
        footer=facts.footer(parts),
        left_out=left_out(details),
        known=Markup(embedded(known)),
        plotly=Markup(get_plotlyjs()),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)),
    )


def _filters(parts: Sequence[Results], shown: Sequence[Part]) -> dict[str, list[str]]:
    """{filter: its values} over all runs and tables; a filter of one value filters nothing."""
    found: dict[str, dict[str, None]] = {}

    def note(facets: Mapping[str, str]) -> None:
        for name, value in facets.items():
            found.setdefault(name, {})[value] = None

    for results in parts:
        settings = {setting.digest: setting for setting in results.settings}
        for phase in ("ablation", "search"):
            for run in results.runs[phase]:
                note(run_facets(results, run, settings.get(str(run["digest"])) if phase == "ablation" else None))
        for budget in results.budgets if results.budgets != (0,) else ():
            note({"NFE": str(budget)})
    for part in shown:
        for section in part.sections:
            for table in section.tables:
                for facets in table.facets:
                    note(facets)
    names = sorted((name for name, values in found.items() if len(values) > 1), key=lambda name: name in _LAST_FILTERS)
    return {name: sorted(found[name], key=_natural) for name in names}


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
