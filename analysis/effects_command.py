"""`python -m analysis effects`: what factors do, what mattered in the search, how optimistic its best is."""

from dataclasses import replace

from analysis import formats
from analysis.collect import Collected
from analysis.data_sets import build_all
from analysis.effects import effects_table
from analysis.errors import InputError
from analysis.importances import importances_table
from analysis.optimism import optimism_table
from analysis.results import Results
from analysis.tables import Table


def effects_tables(collected: Collected, budget: int | None = None) -> list[Table]:
    """The three tables for each data set; those that nothing can be said in keep their caption.

    Raises:
        InputError: nothing was recorded, or nothing at this NFE.
    """
    parts = build_all(collected)
    if not len(collected.trials):
        raise InputError(f"{collected.folder}: no run has been recorded yet")
    tables = []
    for results in parts:
        if budget is not None and budget not in results.budgets:
            known = ", ".join(str(known) for known in results.budgets)
            raise InputError(f"{collected.folder}: nothing is reported at NFE {budget} (there are {known})")
        for table in data_set_effects(results, budget):
            name = f", {formats.level(results.dataset)}" if results.several else ""
            tables.append(replace(table, title=table.title + name))
    return tables


def data_set_effects(results: Results, budget: int | None = None) -> list[Table]:
    """Effects, importances, optimism; of a study without a search only the first."""
    found = [effects_table(results, budget)]
    if results.runs["search"]:
        found += [importances_table(results, budget), optimism_table(results, budget)]
    return found
