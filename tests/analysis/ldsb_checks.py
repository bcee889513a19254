"""What tests of LDSB's tables share: the tables by name, and the expected numbers by scipy."""

import math
from typing import Any

import numpy as np
from fabricated_ldsb import SEEDS, LDSBFabricator, value
from scipy import stats

from analysis.collect import collect
from analysis.ldsb.tables import ldsb_tables
from analysis.results import Results, build_results
from analysis.tables import Table


def tables_of(results: Results) -> dict[str, Table]:
    return {table.key: table for table in ldsb_tables(results)}


def by_way(table: Table) -> dict[str, dict[str, Any]]:
    return {row["way"]: row for row in table.rows}


def built(maker: LDSBFabricator) -> Results:
    return build_results(collect(maker.folder))


def paired(values: list[float], baseline: list[float]) -> tuple[float, float, float]:
    """100 (1 − ratio) with its t interval, by scipy, seed by seed."""
    logs = np.log(np.array(values) / np.array(baseline))
    low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    return tuple(float(100 * (1 - math.exp(number))) for number in (logs.mean(), high, low))  # type: ignore[return-value]


def scores(family: str, name: str, n: int) -> list[float]:
    return [value(family, name, n, seed, "test") for seed in SEEDS]
