"""`python -m analysis figures`: every figure of the report as a file for print."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.collect import Collected
from analysis.data_sets import build_all
from analysis.errors import InputError
from analysis.figures.style import Panel
from analysis.files import write_atomically
from analysis.sections import build_parts
from analysis.static.draw import draw_figure, draw_strips, print_style


def write_figures(collected: Collected, kind: str, out: Path | None, width: float) -> tuple[list[Path], dict[str, str]]:
    """Writes a file for every figure, and `captions.md` with what the report says under each.

    Args:
        collected: the records.
        kind: pdf, png or svg.
        out: where to (default: `figures/` in the study's folder).
        width: in inches.

    Returns:
        The files, and {file: what of the figure could not be drawn and is marked there}.

    Raises:
        InputError: nothing has been recorded, or the folder cannot be written.
    """
    if not len(collected.trials):
        raise InputError(f"{collected.folder}: no run has been recorded yet")
    folder = out or collected.folder / "figures"
    written: list[Path] = []
    gaps: dict[str, str] = {}
    captions = []
    with print_style():
        for panel in _panels(collected):
            captions.append(_caption(panel))
            if panel.missing:
                continue
            path = folder / f"{_file_name(panel.key)}.{kind}"
            if panel.figure is None:
                canvas = draw_strips(panel.strips, width)
            else:
                canvas, left_out = draw_figure(panel.figure, width)
                if left_out:
                    gaps[str(path)] = f"left out: {'; '.join(left_out)}"
            _save(canvas, path, panel)
            written.append(path)
    write_atomically(folder / "captions.md", "\n".join(captions))
    return [*written, folder / "captions.md"], gaps


def _panels(collected: Collected) -> Iterator[Panel]:
    for part in build_parts(build_all(collected)):
        for section in part.sections:
            yield from section.panels


def _file_name(key: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in key)


def _caption(panel: Panel) -> str:
    return f"## {_file_name(panel.key)}\n\n**{panel.title}.** {panel.caption}\n"


def _save(canvas: Figure, path: Path, panel: Panel) -> None:
    """Title and caption go with the file; dates do not, so that the same records give the same file."""
    kind = path.suffix[1:]
    described: dict[str, dict[str, Any]] = {
        "pdf": {"Title": panel.title, "Subject": panel.caption, "CreationDate": None},
        "png": {"Title": panel.title, "Description": panel.caption},
        "svg": {"Title": panel.title, "Description": panel.caption, "Date": None},
    }
    content = io.BytesIO()
    canvas.savefig(content, format=kind, metadata=described[kind])
    write_atomically(path, content.getvalue())
