"""`python -m analysis table`: from what was typed to the tables that are meant."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis import formats
from analysis.cells import Query, choose_metric
from analysis.collect import Collected
from analysis.data_sets import build_all
from analysis.errors import InputError, unknown
from analysis.fields import Fields
from analysis.presets import PRESETS
from analysis.results import Results
from analysis.tables import Table
from analysis.tables_asked import asked_table


@dataclass(frozen=True)
class Request:
    """What was typed.

    Attributes:
        rows: fields whose levels are the rows.
        columns: fields whose levels are the columns.
        metric: its name; None: the study's own.
        features: of the metric, where it was measured with several.
        baseline: a level of a row or column, or field=level.
        split: test or validation.
        phase: ablation or search.
        where: conditions, each field=level.
        bootstrap: percentile intervals from n >= 20.
        preset: a table of a paper instead.
    """

    rows: Sequence[str] = ("setting",)
    columns: Sequence[str] = ("nfe",)
    metric: str | None = None
    features: str | None = None
    baseline: str | None = None
    split: str = "test"
    phase: str = "ablation"
    where: Sequence[str] = ()
    bootstrap: bool = False
    preset: str | None = None


def asked_tables(collected: Collected, request: Request) -> list[Table]:
    """One table a data set of the study.

    Raises:
        InputError: a name is unknown, or nothing was measured there.
    """
    parts = build_all(collected)
    if request.preset is not None:
        if request.preset not in PRESETS:
            raise unknown("preset", request.preset, PRESETS)
        return PRESETS[request.preset](parts)
    conditions = [_condition(text) for text in request.where]
    wanted = {level for field, levels in conditions if field == "dataset" for level in levels}
    chosen = [results for results in parts if not wanted or wanted & {results.dataset, formats.level(results.dataset)}]
    if not chosen:
        raise unknown("data set", ", ".join(sorted(wanted)), [results.dataset for results in parts])
    conditions = [condition for condition in conditions if condition[0] != "dataset"]
    return [_table(results, request, conditions) for results in chosen]


def _table(results: Results, request: Request, conditions: Sequence[tuple[str, tuple[str, ...]]]) -> Table:
    fields = Fields(results, request.phase)
    if not results.runs[request.phase]:
        raise InputError(f"{results.collected.folder}: no run of the {request.phase} has been recorded")
    rows, columns = (tuple(fields.resolve(name) for name in names) for names in (request.rows, request.columns))
    repeated = set(rows) & set(columns)
    if repeated:
        raise InputError(f"{', '.join(sorted(repeated))} cannot be both rows and columns")
    where = {fields.resolve(name): levels for name, levels in conditions}
    metric = choose_metric(results, request.metric, request.features)
    query = Query(rows, columns, metric, request.phase, request.split, where)
    table = asked_table(results, fields, query, request.baseline, request.bootstrap)
    table.title += f", {formats.level(results.dataset)}" if results.several else ""
    return table


def _condition(text: str) -> tuple[str, tuple[str, ...]]:
    name, sign, levels = text.partition("=")
    if not sign or not name or not levels:
        raise InputError(f"--where {text}: expected FIELD=LEVEL or FIELD=LEVEL,LEVEL")
    return name.strip(), tuple(level.strip() for level in levels.split(","))
