"""What the report consists of: a part for each data set, made of sections of figures, tables and missing things."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis import formats, overview, summary
from analysis.artifacts import Artifacts
from analysis.effects import effects_table
from analysis.families import group_tables
from analysis.importances import importances_table
from analysis.ldsb.grid_sizes import grid_size_tables
from analysis.ldsb.shown import left_out, shown_denoisers
from analysis.ldsb.tables import ldsb_tables
from analysis.optimism import optimism_table
from analysis.pareto import pareto_table
from analysis.results import Results
from analysis.summary_answer import answer
from analysis.tables import Table, ablation_tables, scores_table
from analysis.tables_grid import grid_matrices
from analysis.tables_runs import failures_table, further_metrics_table, search_table
from analysis.what_to_use import Use, uses

_IMPORTANT = 100  # runs of the search whose importances a report asks for: seconds, where the command takes its time


@dataclass
class Section:
    """A part of the report: figures, tables, and sentences about what is missing."""

    key: str
    title: str
    intro: str = ""
    panels: list[Any] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Part:
    """Sections under a heading of their own: those of one data set.

    Attributes:
        key: its identifier in the page.
        title: the data set, empty for sections that belong to the whole study.
        sections: its sections.
        cards: its headline numbers.
        answer: what to use on it, and how sure that is.
        uses: what to use at few network calls.
        findings: what else was found.
        facets: what the report's filters look at.
    """

    key: str
    title: str
    sections: list[Section]
    cards: list[summary.Card] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    facets: Mapping[str, str] = field(default_factory=dict)


def all_tables(parts: Sequence[Part]) -> list[Table]:
    """Every table of a report, in its order."""
    return [table for part in parts for section in part.sections for table in section.tables]


def build_parts(parts: Sequence[Results]) -> list[Part]:
    """The report's parts: of several data sets an overview comes first."""
    if len(parts) == 1:
        return [Part("", "", build_sections(parts[0]))]
    found = [Part("", "", [_overview(parts)])]
    for results in parts:
        sections = [section for section in build_sections(results) if section.key != "search" or section.tables]
        for section in sections:
            section.key = f"{results.dataset}-{section.key}"
            section.tables = [replace(table, key=f"{table.key}_{results.dataset}") for table in section.tables]
            section.panels = [replace(panel, key=f"{panel.key}_{results.dataset}") for panel in section.panels]
        title = formats.level(results.dataset)
        found.append(
            Part(results.dataset, title, sections, summary.cards(results), answer(results), uses(results),
                 summary.findings(results), results.place)
        )
    return found


def _overview(parts: Sequence[Results]) -> Section:
    from analysis.figures.overview import overview_panel

    section = Section(
        "overview", "Methods × data sets", panels=[overview_panel(parts)], tables=overview.overview_tables(parts)
    )
    return _without_empty(section, {
        "overview_normalised": "No data set has both a floor and a null above it: there are no normalised scores.",
        "overview_cost": "No completed run recorded its network evaluations.",
    })  # fmt: skip


def build_sections(results: Results) -> list[Section]:
    """The sections of one data set; each says in a sentence what it lacks."""
    artifacts = Artifacts(results.collected)
    ablation = [*ablation_tables(results), *grid_matrices(results), *grid_size_tables(results), *group_tables(results)]
    sections = _sections(results, artifacts, ablation)
    empty = {
        "pareto": "",  # the figure says why
        "search": "The search recorded no run.",
        "not_completed": "Every recorded run is completed."
        if any(results.runs.values())
        else "No run has been recorded yet.",
        "further_metrics": "The ablation recorded no metric without a table of its own.",
        "scores": "The ablation has no score yet.",
        "variety": "No run of the ablation recorded precision, recall, density or coverage.",
        "paths": "No run of the ablation recorded measures of its paths.",
        "effects": "",  # the figures say why
        "importances": "",
        "optimism": "The search has no completed run whose optimism could be estimated.",
    }
    if not ablation:
        sections[1].notes.append("No ablation table can be made: no factor has two levels with runs.")
    return [_without_empty(section, empty) for section in sections]


def _sections(results: Results, artifacts: Artifacts, ablation: list[Table]) -> list[Section]:
    from analysis.figures import convergence, cost, effects, localised, parallel, paths, quality, samples, training
    from analysis.figures.grid import grid_panel
    from analysis.tables_measures import paths_table, variety_table

    varied = results.design.factors or not results.tables()
    effect_table = effects_table(results)
    factors = (
        [quality.effects_panel(results), effects.effects_figure(results, effect_table), grid_panel(results)]
        if varied else []
    )  # fmt: skip
    terminal = training.terminal_panels(results, artifacts)
    return [
        Section(
            "quality",
            "Quality against network calls",
            panels=quality.nfe_panels(results),
            tables=[pareto_table(results)],
        ),
        Section(
            "ablation",
            "What matters" if factors else "Methods",
            panels=[*factors, parallel.parallel_panel(results, "ablation")],
            tables=[*ablation, *([effect_table] if factors else [])],
        ),
        *_ldsb(results, artifacts),
        Section(
            "samples",
            "Samples",
            panels=[samples.samples_panel(results, artifacts)],
            tables=[variety_table(results)],
        ),
        Section(
            "paths",
            "Paths and coupling",
            panels=[*paths.path_panels(results, artifacts), *localised.localised_panels(results, artifacts)],
            tables=[paths_table(results)],
        ),
        Section("cost", "Cost", panels=[*cost.cost_panels(results), convergence.convergence_panel(results)]),
        Section("training", "Training", panels=[*terminal, training.learning_panel(results)]),
        _search(results),
        Section("runs", "Failed, pruned and unfinished runs", tables=[failures_table(results)]),
        Section("numbers", "All numbers", tables=[further_metrics_table(results), scores_table(results)]),
    ]


def _search(results: Results) -> Section:
    """Where the search looked, what mattered in it, and how far its best can be believed."""
    from analysis.figures import effects, parallel, search

    intro = (
        "Where the search looked. Its scores are the best of many tries on validation; claims come from the ablation."
    )
    importances = importances_table(results, largest=_IMPORTANT)
    panels = [search.proposals_panel(results)]
    if results.runs["search"]:
        panels += [effects.importances_figure(results, importances), parallel.parallel_panel(results, "search")]
    tables = [optimism_table(results), importances, search_table(results)]
    return Section("search", "Search", intro, panels, tables if results.runs["search"] else tables[2:])


def _ldsb(results: Results, artifacts: Artifacts) -> list[Section]:
    """What a path of its own buys a denoiser; nothing where the ablation fitted no path."""
    from analysis.figures.ldsb import ldsb_panels
    from analysis.figures.ldsb_samples import path_sample_panels

    denoisers = shown_denoisers(results)
    if not denoisers:
        return []
    intro = (
        "LDSB without a further word is the published procedure, alternating least squares on KANs; other ways of "
        "fitting ask what the same few scalars can do. Every way is compared with the path that it starts from, and "
        f"with other samplers of the same denoiser.{left_out(results, len(denoisers))}"
    )
    tables = ldsb_tables(results, denoisers)
    panels = [*ldsb_panels(denoisers, artifacts), *path_sample_panels(denoisers, artifacts)]
    return [Section("ldsb", "LDSB: a path of its own for a denoiser", intro, panels, tables)]


def _without_empty(section: Section, empty: Mapping[str, str]) -> Section:
    """What is missing becomes a sentence."""
    notes = [panel.caption for panel in section.panels if panel.missing]
    notes += [empty.get(table.key, "") for table in section.tables if not table.rows]
    section.notes = list(dict.fromkeys(note for note in [*notes, *section.notes] if note))
    section.panels = [panel for panel in section.panels if not panel.missing]
    section.tables = [table for table in section.tables if table.rows]
    return section
