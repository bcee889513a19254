"""Random changes of a path: how many of them help, by their scale."""

from collections.abc import Sequence

import numpy as np
from plotly.subplots import make_subplots

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.ldsb.controls import scales
from analysis.ldsb.ways import Denoiser, context, facets

_POINTS = 400  # candidates drawn at a scale


def random_panel(denoisers: Sequence[Denoiser]) -> Panel | None:
    """Fig. 1: how many random changes of the path help, by their scale."""
    found = scales(denoisers)
    if not found:
        return None
    results = denoisers[0].results
    titles = ["candidates better than the original, %", "candidate / original"]
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.1)
    for index, (denoiser, n, tried) in enumerate(found):
        name, meta = f"{denoiser.label}, NFE {n}", facets(results, tried[0][1].settings[n], n)
        shares = [candidates.improving for _, _, candidates in tried]
        figure.add_scatter(
            x=[scale for scale, _, _ in tried], y=[share.mean for share in shares], mode="lines+markers", name=name,
            legendgroup=name, error_y=style.error_bars(shares, "linear"), line=style.line(index),
            marker=style.marker(index), meta=meta, row=1, col=1, hoverinfo="text",
            customdata=[
                style.point(way.settings[n].digest, n, y=share)
                for (_, way, _), share in zip(tried, shares, strict=True)
            ],
            hovertext=[
                f"{name}, scale {scale:g}<br>{formats.with_n(share)}, {candidates.count} candidates a run"
                for (scale, _, candidates), share in zip(tried, shares, strict=True)
            ],
        )  # fmt: skip
        for scale, way, candidates in tried:
            ratios = np.concatenate(list(candidates.ratios.values()))[:_POINTS]
            seeds = [seed for seed, values in candidates.ratios.items() for _ in values][:_POINTS]
            digest = way.settings[n].digest
            figure.add_scatter(
                x=[scale] * len(ratios), y=ratios, mode="markers", name=name, legendgroup=name, showlegend=False,
                marker={**style.marker(index, 5), "opacity": 0.5}, meta=meta, row=1, col=2,
                customdata=[style.point(f"{digest}-{seed}", n, seed) for seed in seeds],
                hovertemplate=f"{name}, scale {scale:g}: %{{y:.3g}}<extra></extra>",
            )  # fmt: skip
    figure.add_hline(y=1, line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5}, row=1, col=2)
    style.finish(figure, 400, titled=True)
    figure.update_xaxes(title_text="scale of the changes of log-ratios")
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    caption = (
        f"Random changes of the original path and {results.metric.label} on validation. Left: share of a run's "
        f"candidates that score below the original, mean over seeds, bars: 95 % t intervals. Right: every candidate "
        f"over its run's original (dashed: 1). Validation scores of many tries are optimistic; what the best one is "
        f"worth on test stands in the table of controls. "
        f"{context(results, [denoiser.score(way, n) for denoiser, n, tried in found for _, way, _ in tried])}"
    )
    return Panel("ldsb_random", "Random paths: how many help", caption, figure)
