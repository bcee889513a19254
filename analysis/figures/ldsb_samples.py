"""Fig. 4 to 6: samples of a denoiser's original path, of the paper's procedure and of the best way, side by side."""

from collections.abc import Sequence

import numpy as np

from analysis.artifacts import Artifacts
from analysis.design import Setting
from analysis.figures.samples import png, tile
from analysis.figures.style import Panel, Strip
from analysis.ldsb.names import ORIGINAL
from analysis.ldsb.paths import headline_ways
from analysis.ldsb.ways import Denoiser, Way, facets
from analysis.results import Results


def path_sample_panels(denoisers: Sequence[Denoiser], artifacts: Artifacts) -> list[Panel]:
    """A panel a denoiser; none of one whose paths kept no pictures."""
    return [panel for denoiser in denoisers if (panel := _panel(denoiser, artifacts)) is not None]


def _panel(denoiser: Denoiser, artifacts: Artifacts) -> Panel | None:
    results = denoiser.results
    rows = {"original": _originals(denoiser)}
    if denoiser.published_way is not None:
        rows[denoiser.published_way.label] = dict.fromkeys(denoiser.published_way.settings, denoiser.published_way)
    best = {n: way for n in denoiser.steps for way in headline_ways(denoiser, n)[-1:]}
    if best != rows.get(denoiser.published_way.label if denoiser.published_way else ""):
        rows["best way on validation"] = best
    strips = []
    for name, ways in rows.items():
        pictures, settings = [], []
        for n, way in sorted(ways.items()):
            image = _picture(results, artifacts, way.settings[n], f"nfe_{n}")
            if image is not None:
                said = "" if way.label == name else f", {way.label}"
                pictures.append((f"NFE {n}{said}", png(image), image.shape[1]))
                settings.append(way.settings[n])
        if pictures:
            strips.append(Strip(name, pictures, facets(results, settings[0])))
    if not strips:
        return None
    caption = (
        f"By rows the {denoiser.label} denoiser's own path, the paper's procedure and the way that is best on "
        f"validation, by columns N, as Fig. 4 to 6 of the paper do. One run a picture (n = 1, the least seed that kept "
        f"samples); the first samples in the order they were drawn, not a selection."
    )
    title = f"Samples by way of fitting: {denoiser.label}"
    return Panel(f"ldsb_samples_{denoiser.slug}", title, caption, strips=strips)


def _originals(denoiser: Denoiser) -> dict[int, Way]:
    """The runs of the original path on the grid of the paper's procedure, else on any."""
    ways = [way for way in denoiser.ways if way.fit == ORIGINAL]
    beside = denoiser.published_way.grid if denoiser.published_way is not None else ""
    ways.sort(key=lambda way: way.grid != beside)
    return {n: way for way in reversed(ways) for n in way.settings}


def _picture(results: Results, artifacts: Artifacts, setting: Setting, name: str) -> np.ndarray | None:
    for seed in sorted({int(run["seed"]) for run in results.setting_runs(setting)}):
        arrays = artifacts.arrays(setting.digest, seed, "samples.npz")
        if name in arrays:
            return tile(arrays[name])
    return None
