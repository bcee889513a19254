"""Writes a study's report: one offline HTML file with everything that the records say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from analysis import export, formats, summary
from analysis.artifacts import Artifacts
from analysis.collect import Collected, collect
from analysis.pareto import pareto_table
from analysis.results import Results, build_results
from analysis.tables import Table, ablation_tables, grid_matrix, scores_table
from analysis.tables_runs import failures_table, further_metrics_table, search_table

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class Section:
    """A part of the report: figures, tables, and sentences about what is missing."""

    key: str
    title: str
    intro: str = ""
    panels: list[Any] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_report(folder: str | Path) -> Path:
    """Collects a study's records, writes its tables, and writes `report.html`; returns the report's path.

    Raises:
        InputError: there is no study in the folder.
    """
    return write_report_of(collect(folder))


def write_report_of(collected: Collected) -> Path:
    """Tables and report of records that were collected before; files found unreadable join `collected.problems`."""
    results = build_results(collected)
    tables = all_tables(results)
    export.write_tables([table for table in tables if table.rows], collected.folder / "tables")
    path = collected.folder / "report.html"
    export.write_atomically(path, render(results))
    return path


def all_tables(results: Results) -> list[Table]:
    """Every table of a study, in the order of the report."""
    matrix = grid_matrix(results)
    return [
        *ablation_tables(results),
        *([matrix] if matrix is not None else []),
        pareto_table(results),
        scores_table(results),
        further_metrics_table(results),
        search_table(results),
        failures_table(results),
    ]


def render(results: Results) -> str:
    """The report as HTML."""
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rows"] = export.html_rows
    environment.filters["figure"] = _figure_html
    environment.filters["compact"] = lambda value: json.dumps(value, ensure_ascii=False)
    sections = build_sections(results)
    return environment.get_template("report.html").render(
        study=results.study,
        title=_title(results),
        subtitle=_subtitle(results),
        cards=summary.cards(results),
        sentences=summary.sentences(results),
        sections=sections,
        filters=_filters(sections),
        problems=results.collected.problems,
        facts=_facts(results),
        configuration=_configuration(results),
        plotly=Markup(get_plotlyjs()),
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup((_TEMPLATES / "report.js").read_text(encoding="utf-8")),
    )


def build_sections(results: Results) -> list[Section]:
    """The report's sections; each says in a sentence what it lacks."""
    from analysis.figures import cost, quality, samples, search, training

    artifacts = Artifacts(results.collected)
    ablation = ablation_tables(results)
    optimistic = (
        "Where the search looked. Its scores are the best of many tries on validation; claims come from the ablation."
    )
    sections = [
        Section(
            "quality",
            "Quality against network calls",
            panels=[*quality.curve_panels(results), quality.pareto_panel(results)],
            tables=[pareto_table(results)],
        ),
        Section(
            "ablation",
            "What matters",
            panels=[quality.effects_panel(results), quality.grid_panel(results)],
            tables=ablation,
        ),
        Section("samples", "Samples", panels=[samples.samples_panel(results, artifacts)]),
        Section("cost", "Cost", panels=cost.cost_panels(results)),
        Section(
            "training",
            "Training",
            panels=[*training.terminal_panels(results, artifacts), training.learning_panel(results)],
        ),
        Section("search", "Search", optimistic, search.search_panels(results), [search_table(results)]),
        Section("runs", "Failed, pruned and unfinished runs", tables=[failures_table(results)]),
        Section("numbers", "All numbers", tables=[further_metrics_table(results), scores_table(results)]),
    ]
    empty = {
        "pareto": "",  # the figure says why
        "search": "The search recorded no run.",
        "not_completed": "Every recorded run is completed."
        if any(results.runs.values())
        else "No run has been recorded yet.",
        "further_metrics": "The ablation recorded no metric besides the primary one.",
        "scores": "The ablation has no score yet.",
    }
    for section in sections:
        section.notes += [panel.caption for panel in section.panels if panel.missing]
        section.notes += [empty.get(table.key, "") for table in section.tables if not table.rows]
        section.panels = [panel for panel in section.panels if not panel.missing]
        section.tables = [table for table in section.tables if table.rows]
    if not ablation:
        sections[1].notes.append("No ablation table can be made: no factor has two levels with runs.")
    for section in sections:
        section.notes = list(dict.fromkeys(note for note in section.notes if note))
    return sections


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


def _filters(sections: Sequence[Section]) -> dict[str, list[str]]:
    """{filter: its values} over everything that is shown; a filter of one value filters nothing."""
    found: dict[str, dict[str, None]] = {}

    def note(facets: Mapping[str, str] | None) -> None:
        for name, value in (facets or {}).items():
            found.setdefault(name, {})[value] = None

    for section in sections:
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


def _title(results: Results) -> str:
    name = results.study.get("study") or results.collected.folder.name
    return f"{formats.level(name)}: {formats.level(results.study.get('dataset') or 'study')}"


def _subtitle(results: Results) -> str:
    study = results.study
    seeds = ", ".join(str(seed) for seed in results.seeds)
    parts = [
        f"preset {study['preset']}" if study.get("preset") else "",
        f"metric {results.metric.label}",
        f"ablation seeds {seeds}" if seeds else "no completed ablation",
        f"created {str(study['created'])[:16].replace('T', ' ')}" if study.get("created") else "",
    ]
    return " · ".join(part for part in parts if part)


def _facts(results: Results) -> list[tuple[str, str]]:
    """What is needed to repeat the study: versions, commit, hardware, seeds, sessions."""
    study = results.study
    hardware = study.get("hardware") or {}
    sessions = study.get("sessions") or []
    centre = study.get("centre") or {}
    by = centre.get("chosen_by")
    chosen = f"chosen by {by}, digest {centre.get('digest')}" if by else "not chosen yet"
    asked = ", ".join(str(seed) for seed in study.get("seeds") or []) or "not recorded"
    gpus = ", ".join(str(gpu) for gpu in hardware.get("gpus") or []) or "no GPU"
    seconds = sum(session.get("seconds") or 0 for session in sessions)
    workers = ", ".join(sorted({str(session["num_workers"]) for session in sessions if session.get("num_workers")}))
    hosts = ", ".join(sorted({str(run["host"]) for runs in results.runs.values() for run in runs if run["host"]}))
    return [
        ("Commit", str(study.get("commit") or "not recorded")),
        (
            "Versions",
            ", ".join(f"{name} {version}" for name, version in (study.get("versions") or {}).items()) or "not recorded",
        ),
        (
            "Hardware",
            ", ".join(
                filter(
                    None,
                    [
                        f"{hardware['cpu_count']} CPU cores" if hardware.get("cpu_count") else "",
                        gpus if hardware else "",
                        f"{hardware['memory_gib']:g} GiB memory" if hardware.get("memory_gib") else "",
                        str(hardware.get("platform") or ""),
                    ],
                )
            )
            or "not recorded",
        ),
        ("Hosts", hosts or "not recorded"),
        ("Seeds asked for", asked),
        ("Centre", chosen),
        ("Baseline and null", results.design.baseline_label),
        (
            "Sessions",
            f"{len(sessions)}, {formats.duration(seconds)} in all" + (f", {workers} workers" if workers else ""),
        ),
    ]


def _configuration(results: Results) -> list[tuple[str, str]]:
    study = results.study
    parts = [
        ("Centre", (study.get("centre") or {}).get("config")),
        ("Base", study.get("base")),
        ("Search space", study.get("space")),
        ("Design", study.get("design")),
        ("Sessions", study.get("sessions")),
    ]
    return [(name, json.dumps(value, indent=2, ensure_ascii=False)) for name, value in parts if value]
