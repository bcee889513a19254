"""Writes tables as CSV (numbers in full), Markdown and LaTeX (booktabs), and the cells of the report's HTML."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from analysis import formats
from analysis.files import write_atomically
from analysis.overview import Ranked
from analysis.statistics import Interval
from analysis.tables import TRADE, Column, Table

TABLE_KEYS = (
    "grid", "grid_matrix", "arms", "pareto", "scores", "search", "further_metrics", "not_completed", "variety", "paths",
    "best_of_family", "overview", "overview_normalised", "overview_cost", "ldsb_parameterisations", "ldsb_controls",
    "ldsb_paths", "ldsb_grid_sizes", "effects", "importances", "optimism",
)  # fmt: skip
_PREFIXES = ("factor_", "arms_", "ldsb_against_", "grid_matrix_")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--",
    "β": r"$\beta$", "σ": r"$\sigma$", "τ": r"$\tau$", "ε": r"$\varepsilon$", "α": r"$\alpha$", "∞": r"$\infty$",
    "“": "``", "”": "''", "<": r"$<$", ">": r"$>$", "γ": r"$\gamma$", "λ": r"$\lambda$", "μ": r"$\mu$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∫": r"$\int$", "²": r"$^2$", "₁": r"$_1$", "₂": r"$_2$",
}  # fmt: skip


def write_tables(tables: list[Table], folder: Path, data_sets: Sequence[str] = ()) -> list[Path]:
    """Writes each table in three formats and removes tables of an earlier report that no longer exist.

    Args:
        data_sets: the study's, where it has several: names of tables end in them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for suffix, text in ((".csv", to_csv(table)), (".md", to_markdown(table)), (".tex", to_latex(table))):
            path = folder / f"{table.key}{suffix}"
            write_atomically(path, text)
            written.append(path)
    names = {*TABLE_KEYS, *(f"{key}_{name}" for key in TABLE_KEYS for name in data_sets)}
    for path in folder.iterdir():
        ours = path.stem in names or path.stem.startswith(_PREFIXES)
        if ours and path.suffix in (".csv", ".md", ".tex") and path not in written:
            path.unlink()
    return written


def to_csv(table: Table) -> str:
    """Numbers in full precision; an interval becomes its mean, limits and n."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([name for column in table.columns for name in _csv_heads(column)])
    for row in table.rows:
        writer.writerow([cell for column in table.columns for cell in _csv_cells(column, row.get(column.name))])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A pipe table under its title, the caption below."""
    heads = [column.label.replace("|", "\\|") for column in table.columns]
    rules = ["---" if column.kind == "text" else "---:" for column in table.columns]
    lines = [f"### {table.title}", "", _pipes(heads), _pipes(rules)]
    for index, row in enumerate(table.rows):
        cells = [
            cell_text(column, row.get(column.name)).replace("|", "\\|").replace("\n", " ") for column in table.columns
        ]
        lines.append(_pipes([
            f"**{cell}**" if (index, column.name) in table.bold else cell
            for column, cell in zip(table.columns, cells, strict=True)
        ]))  # fmt: skip
    return "\n".join([*lines, "", table.caption, ""])


def to_latex(table: Table) -> str:
    """A booktabs table; it needs the packages booktabs and, for its width, graphicx."""
    alignment = "".join("l" if column.kind == "text" else "r" for column in table.columns)
    heads = " & ".join(_latex(column.label) for column in table.columns)
    body = []
    for index, row in enumerate(table.rows):
        cells = [(column.name, _latex(cell_text(column, row.get(column.name)))) for column in table.columns]
        cells = [(name, rf"\textbf{{{cell}}}" if (index, name) in table.bold else cell) for name, cell in cells]
        body.append(" & ".join(cell for _, cell in cells) + r" \\")
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title + ': ' + table.caption)}}}",
        rf"\label{{tab:{table.key.replace('_', '-')}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        heads + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """A table element with its caption; every text is escaped."""
    lines = [f"<table><caption><strong>{escape(table.title)}</strong><br>{escape(table.caption)}</caption>"]
    lines.append(
        "<thead><tr>" + "".join(f"<th>{escape(column.label)}</th>" for column in table.columns) + "</tr></thead>"
    )
    lines.append("<tbody>")
    for index, row in enumerate(table.rows):
        cells = []
        for column in table.columns:
            text = escape(cell_text(column, row.get(column.name)))
            text = f"<strong>{text}</strong>" if (index, column.name) in table.bold else text
            cells.append(f"<td>{text}</td>" if column.kind == "text" else f'<td align="right">{text}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table>", ""])


def cell_text(column: Column, value: Any) -> str:
    """A cell for people."""
    if value is None:
        return "" if column.kind == "text" else formats.ABSENT
    if column.kind == "ranked":
        return formats.interval(value.interval) + (f" ({value.rank})" if value.rank else "")
    if column.kind == "interval":
        return formats.interval(value)
    if column.kind == "limits":
        return formats.limits(value)
    writers = {
        "number": formats.number, "count": formats.count, "duration": formats.duration, "p": formats.p_value,
        "decimal": formats.decimal,
    }  # fmt: skip
    return writers[column.kind](value) if column.kind in writers else str(value)


def sort_value(value: Any) -> str:
    """What a cell is sorted by and downloaded as: the number in full, or the text."""
    if isinstance(value, Ranked):
        value = value.interval
    if isinstance(value, Interval):
        value = value.mean if value.n else None
    if value is None or value != value:
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def html_rows(table: Table) -> list[dict[str, Any]]:
    """For each row its facets, its run and its cells (text, sort value, whether it is a number, values by seed).

    Of a front all rivals, each with its trade: the page shows those that none beats, of all at first.
    """
    shown = [row.get(TRADE) for row in table.rows]
    table = table.rivals or table
    return [
        {
            "facets": facets,
            "run": run,
            "trade": row.get(TRADE),
            "hidden": row.get(TRADE) not in shown,
            "cells": [
                {
                    "text": cell_text(column, row.get(column.name)),
                    "value": sort_value(row.get(column.name)),
                    "numeric": column.kind != "text",
                    "seeds": _seeds(row.get(column.name)),
                    "bold": (index, column.name) in table.bold,
                }
                for column in table.columns
            ],
        }
        for index, (row, facets, run) in enumerate(zip(table.rows, table.facets, table.runs, strict=True))
    ]


def _seeds(value: Any) -> dict[str, Any] | None:
    """What the page makes a cell anew from when seeds are switched off: values by seed, and the kind of interval."""
    held = value.interval if isinstance(value, Ranked) else value
    if not isinstance(held, Interval) or not held.by_seed:
        return None
    return {"of": held.method, "by": {str(seed): float(f"{number:.6g}") for seed, number in held.by_seed.items()}}


def _csv_heads(column: Column) -> list[str]:
    if column.kind in ("interval", "limits"):
        return [column.name, f"{column.name}_low", f"{column.name}_high", f"{column.name}_n"]
    if column.kind == "ranked":
        return [*_csv_heads(replace(column, kind="interval")), f"{column.name}_rank"]
    return [column.name]


def _csv_cells(column: Column, value: Any) -> list[str]:
    if column.kind == "ranked":
        interval, rank = (None, None) if value is None else (value.interval, value.rank)
        return [*_csv_cells(replace(column, kind="interval"), interval), "" if rank is None else str(rank)]
    if column.kind in ("interval", "limits"):
        if value is None or value.n == 0:
            return ["", "", "", "0" if value is not None else ""]
        return [sort_value(value.mean), sort_value(value.low), sort_value(value.high), str(value.n)]
    return [sort_value(value)]


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


WRITERS: dict[str, Callable[[Table], str]] = {
    "csv": to_csv, "markdown": to_markdown, "latex": to_latex, "html": to_html,
}  # fmt: skip
"""How a table is written, by the format's name."""
