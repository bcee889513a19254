"""Sample grids: real data beside what each setting generates at each NFE."""

import base64
import io
import math
import re
from collections.abc import Mapping

import numpy as np
from plotly.subplots import make_subplots

from analysis.artifacts import Artifacts
from analysis.design import Setting
from analysis.families import headliners
from analysis.figures import style
from analysis.figures.kept import importance
from analysis.figures.style import Panel, Strip
from analysis.results import Results

_SETTINGS = 12  # strips in a report
_TILES = 5  # a side of a grid of pictures
_ACROSS = 4  # scatters side by side
_POINTS = 400  # of a scatter of two-dimensional data
_NFE = re.compile(r"nfe_(\d+)$")


def samples_panel(results: Results, artifacts: Artifacts) -> Panel:
    """Real data beside the samples at each NFE, for the settings that kept samples."""
    title = "Samples"
    found: list[tuple[Setting, int, dict[str, np.ndarray]]] = []
    for setting in sorted(headliners(results), key=importance):
        for seed in sorted({int(run["seed"]) for run in results.setting_runs(setting)}):
            arrays = artifacts.arrays(setting.digest, seed, "samples.npz")
            if _labels(arrays) and len(found) < _SETTINGS:
                found.append((setting, seed, arrays))
                break
    if not found:
        return Panel("samples", title, "No run of the ablation kept samples (artifacts/…/samples.npz).")
    first = found[0][2]
    if all(array.ndim == 2 and array.shape[1] == 2 for array in first.values()):
        return _scatter(results, found, title)
    strips = [_strip(results, setting, seed, arrays) for setting, seed, arrays in found]
    strips = [strip for strip in strips if strip.pictures]
    if not strips:
        shape = next(iter(first.values())).shape[1:]
        return Panel(
            "samples",
            title,
            f"The samples have the shape {shape}, which is neither a picture nor a point of the plane.",
        )
    caption = (
        "One run a setting (n = 1, the least seed that kept samples); the first samples in the order they were "
        "drawn, not a selection. Each grid names the calls of the network that a sample took."
    )
    return Panel("samples", title, caption, strips=strips)


def _strip(results: Results, setting: Setting, seed: int, arrays: Mapping[str, np.ndarray]) -> Strip:
    pictures = []
    for name, label in _labels(arrays):
        grid = tile(arrays[name])
        if grid is not None:
            pictures.append((label, png(grid), grid.shape[1]))
    facets = _facets(results, setting, seed)
    return Strip(f"{setting.label}, seed {seed}", pictures, facets, run=f"{setting.digest}-{seed}")


def tile(images: np.ndarray, across: int | None = None) -> np.ndarray | None:
    """Pictures [k, H, W] or [k, H, W, 3] as one picture, row by row with a gap of one pixel; None for other shapes.

    Args:
        across: pictures in a row, all rows are then shown; None: a square of the first.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3) or not len(images):
        return None
    if images.dtype != np.uint8:
        # The record's pictures are bytes; anything else can only be a value in [0, 1].
        images = (255 * np.clip(np.nan_to_num(images), 0, 1)).astype(np.uint8)
    side = across or max(1, min(_TILES, math.isqrt(len(images))))
    chosen = images[: side * (len(images) // side if across else side)]
    padded = np.pad(chosen, [(0, 0), (0, 1), (0, 1), *([(0, 0)] if images.ndim == 4 else [])], constant_values=127)
    rows = [np.concatenate(list(padded[start : start + side]), axis=1) for start in range(0, len(chosen), side)]
    return np.concatenate(rows, axis=0)[:-1, :-1]


def _scatter(results: Results, found: list[tuple[Setting, int, dict[str, np.ndarray]]], title: str) -> Panel:
    names = list(dict.fromkeys(item for _, _, arrays in found for item in _labels(arrays)))
    made = [item for item in names if item[0] != "real"]
    if len(made) == 1:
        return _gallery(results, found, made[0][0], f"{title}, {made[0][1]}")
    found = found[:6]
    figure = make_subplots(
        len(found), len(names), column_titles=[label for _, label in names], shared_xaxes="all", shared_yaxes="all",
        horizontal_spacing=0.012, vertical_spacing=0.03,
    )  # fmt: skip
    for row, (setting, seed, arrays) in enumerate(found, 1):
        for column, (name, label) in enumerate(names, 1):
            if name in arrays and arrays[name].ndim == 2:
                points = arrays[name][:_POINTS]
                figure.add_scatter(
                    x=points[:, 0], y=points[:, 1], mode="markers", row=row, col=column,
                    name=f"{setting.label}, {label}",
                    marker={"size": 3, "opacity": 0.6,
                    "color": style.FLOOR_COLOUR if name == "real" else style.colour(row - 1)},
                    showlegend=False, meta=_facets(results, setting, seed, name), hoverinfo="name",
                    customdata=[style.point(f"{setting.digest}-{seed}")],
                )  # fmt: skip
        figure.update_yaxes(title_text=f"{setting.label}<br>seed {seed}", row=row, col=1)
    style.finish(figure, 80 + 170 * len(found), legend=False, titled=True)
    reals = [arrays["real"][:_POINTS] for _, _, arrays in found if "real" in arrays]
    for axis, update in enumerate((figure.update_xaxes, figure.update_yaxes)):
        if reals:
            update(range=_around(np.concatenate(reals)[:, axis]))
    cut = " Axes end where real data would be twice as wide." if reals else ""
    caption = (
        f"One run a setting (n = 1), the first {_POINTS} points in the order they were drawn; grey: real data.{cut}"
    )
    return Panel("samples", title, caption, figure)


def _gallery(results: Results, found: list[tuple[Setting, int, dict[str, np.ndarray]]], name: str,
             title: str) -> Panel:  # fmt: skip
    """One picture a setting, side by side, where all were sampled at one NFE."""
    real = next((arrays["real"][:_POINTS] for _, _, arrays in found if "real" in arrays), None)
    cells: list[tuple[str, np.ndarray, Setting | None, int]] = [] if real is None else [("real", real, None, 0)]
    own = [(setting, seed, arrays[name]) for setting, seed, arrays in found if name in arrays]
    cells += [(setting.label, points[:_POINTS], setting, seed) for setting, seed, points in own]
    rows = math.ceil(len(cells) / _ACROSS)
    figure = make_subplots(
        rows, _ACROSS, subplot_titles=[label for label, *_ in cells], shared_xaxes="all", shared_yaxes="all",
        horizontal_spacing=0.02, vertical_spacing=0.25 / rows,
    )  # fmt: skip
    for place, (label, points, setting, seed) in enumerate(cells):
        known = {} if setting is None else {
            "meta": _facets(results, setting, seed, name), "customdata": [style.point(f"{setting.digest}-{seed}")],
        }  # fmt: skip
        figure.add_scatter(
            x=points[:, 0], y=points[:, 1], mode="markers", row=place // _ACROSS + 1, col=place % _ACROSS + 1,
            name=label, hoverinfo="name", showlegend=False,
            marker={"size": 3, "opacity": 0.6,
                    "color": style.FLOOR_COLOUR if setting is None else style.colour(place - 1)}, **known,
        )  # fmt: skip
    style.finish(figure, 60 + 270 * rows, legend=False, titled=True)
    figure.update_annotations(font_size=11)
    for axis, update in enumerate((figure.update_xaxes, figure.update_yaxes)):
        if real is not None:
            update(range=_around(real[:, axis]))
    cut = "" if real is None else " Axes end where real data would be twice as wide."
    caption = f"One run a setting (n = 1), the first {_POINTS} points in the order they were drawn.{cut}"
    return Panel("samples", title, caption, figure)


def _around(values: np.ndarray) -> list[float]:
    """What real data take, and half of it on either side."""
    low, high = float(values.min()), float(values.max())
    room = 0.5 * (high - low) or 1.0
    return [low - room, high + room]


def _facets(results: Results, setting: Setting, seed: int, name: str = "") -> dict[str, str]:
    calls = _NFE.match(name)
    return {**results.facets(setting), "seed": str(seed), **({"NFE": calls.group(1)} if calls else {})}


def _labels(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """(array, label): real first, then by NFE."""
    nfe = sorted((int(found.group(1)), name) for name in arrays if (found := _NFE.match(name)))
    real = [("real", "real")] if "real" in arrays else []
    return [*real, *((name, f"NFE {calls}") for calls, name in nfe)]


def png(image: np.ndarray) -> str:
    """A picture as PNG in base64."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode("ascii")
