"""Rows of a frame as dictionaries of plain values."""

from typing import Any

import numpy as np
import pandas as pd


def runs_of_phase(trials: pd.DataFrame, phase: str) -> list[dict[str, Any]]:
    """The runs of one phase."""
    rows = trials[trials["phase"] == phase]
    plain = {str(name): _plain(rows[name]) for name in rows.columns}
    return [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]


def _plain(column: "pd.Series[Any]") -> list[Any]:
    """A column's values, None for pandas' several kinds of nothing."""
    if column.dtype == object and any(isinstance(value, list | np.ndarray) for value in column):
        return [None if value is None else [int(item) for item in value] for value in column]
    return column.astype(object).where(column.notna(), None).tolist()
