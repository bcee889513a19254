"""Tab. 6 and 7: the nodes of learned paths beside the original's, over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.artifacts import Artifacts
from analysis.design import Setting
from analysis.ldsb.names import ORIGINAL, is_control
from analysis.ldsb.ways import PATH_FILE, Denoiser, Way, context, facets, validation_rank
from analysis.quality import Score
from analysis.results import Results
from analysis.statistics import Interval, deviation
from analysis.tables import Column, Table

_NEEDED = (
    "times", "image", "noise", "log_snr", "original_times", "original_image", "original_noise", "original_log_snr",
)  # fmt: skip


@dataclass(frozen=True)
class LearnedPath:
    """The paths of one setting's runs.

    Attributes:
        seeds: of the runs that kept theirs.
        arrays: t, a, b and log-SNR, `[n, N]`, from the data up; of the original, `[N]`; `momentum` `[n, N − 1]`, where
            there is one.
    """

    seeds: tuple[int, ...]
    arrays: dict[str, np.ndarray]

    @property
    def momentum(self) -> np.ndarray | None:
        """What extrapolates the image estimate at each node but the first that is called."""
        return self.arrays.get("momentum")

    @property
    def learns_times(self) -> bool:
        """Whether the denoiser is called at other times than the original's."""
        return not np.allclose(self.arrays["times"], self.arrays["original_times"], rtol=0, atol=1e-6)

    def spread(self, name: str, node: int) -> Interval:
        """Mean ± standard deviation over seeds at one node."""
        return deviation(dict(zip(self.seeds, self.arrays[name][:, node].tolist(), strict=True)))


def read_path(results: Results, artifacts: Artifacts, setting: Setting) -> LearnedPath | None:
    """The paths that a setting's completed runs kept; runs whose arrays do not fit the first one's are left out."""
    found: list[tuple[int, dict[str, np.ndarray]]] = []
    for seed in sorted({int(run["seed"]) for run in results.setting_runs(setting) if run["status"] == "completed"}):
        arrays = artifacts.arrays(setting.digest, seed, PATH_FILE)
        shapes = {arrays[name].shape for name in _NEEDED if name in arrays}
        usable = all(name in arrays for name in _NEEDED) and len(shapes) == 1 and len(next(iter(shapes))) == 1
        if usable and (not found or arrays["times"].shape == found[0][1]["times"].shape):
            found.append((seed, arrays))
    if not found or not found[0][1]["times"].size:
        return None
    held = {
        name: found[0][1][name].astype(float) if name.startswith("original_")
        else np.stack([arrays[name].astype(float) for _, arrays in found])
        for name in _NEEDED
    }  # fmt: skip
    expected = (held["times"].shape[1] - 1,)
    if all("momentum" in arrays and arrays["momentum"].shape == expected for _, arrays in found):
        held["momentum"] = np.stack([arrays["momentum"].astype(float) for _, arrays in found])
    return LearnedPath(tuple(seed for seed, _ in found), held)


def headline_ways(denoiser: Denoiser, n: int) -> list[Way]:
    """At N calls: the paper's procedure, and the way that is best on validation among those that learn."""
    fitted = [way for way in denoiser.ways if way.fit != ORIGINAL and not is_control(way.leaves) and n in way.settings]
    scored = [(way, score) for way in fitted if (score := denoiser.score(way, n)) is not None]
    published = denoiser.published_way
    chosen = [published] if published is not None and n in published.settings else []
    if scored:
        best = min(scored, key=lambda item: validation_rank(item[1]))[0]
        chosen += [best] if best not in chosen else []
    return chosen


def paths_table(denoisers: Sequence[Denoiser]) -> Table:
    """A row a node: t, a and b of the original and of the learned path."""
    results = denoisers[0].results
    artifacts = Artifacts(results.collected)
    table = Table("ldsb_paths", "LDSB: paths", "", [])
    shown: list[Score | None] = []
    times = momentum = False
    for denoiser in denoisers:
        for n in denoiser.steps:
            for way in headline_ways(denoiser, n):
                path = read_path(results, artifacts, way.settings[n])
                if path is None:
                    continue
                shown.append(denoiser.score(way, n))
                times, momentum = times or path.learns_times, momentum or path.momentum is not None
                for node in range(len(path.arrays["original_times"])):
                    row = {"denoiser": denoiser.label, "nfe": n, "way": way.label, **_node(path, node)}
                    table.add(row, facets(results, way.settings[n], n), way.settings[n].digest)
    table.columns = _columns(times, momentum)
    table.caption = (
        f"Nodes from the data up: x = a x₀ + b ε. For each denoiser and NFE the paper's procedure and the way that is "
        f"best on validation; every other path lies in its run's {PATH_FILE}. Learned values are means over seeds ± "
        f"one standard deviation, which says how much runs differ; the path is chosen on validation within each run. "
        f"{'Momentum extrapolates the image estimate along its change since the last node. ' if momentum else ''}"
        f"{context(results, shown)}"
    )
    return table


def _columns(times: bool, momentum: bool) -> list[Column]:
    return [
        Column("denoiser", "denoiser"), Column("nfe", "NFE", "count"), Column("way", "way"),
        Column("n", "n (seeds)", "count"), Column("t", "t", "decimal"),
        *([Column("learned_t", "t, learned", "interval")] if times else []),
        Column("original_a", "a, original", "decimal"), Column("original_b", "b, original", "decimal"),
        Column("a", "a, learned", "interval"), Column("b", "b, learned", "interval"),
        *([Column("momentum", "momentum", "interval")] if momentum else []),
    ]  # fmt: skip


def _node(path: LearnedPath, node: int) -> dict[str, Any]:
    arrays = path.arrays
    row: dict[str, Any] = {
        "n": len(path.seeds), "t": float(arrays["original_times"][node]),
        "original_a": float(arrays["original_image"][node]), "original_b": float(arrays["original_noise"][node]),
        "a": path.spread("image", node), "b": path.spread("noise", node),
    }  # fmt: skip
    if path.learns_times:
        row["learned_t"] = path.spread("times", node)
    # The first node that is called has no estimate before it to extrapolate from.
    if path.momentum is not None and node < path.momentum.shape[1]:
        row["momentum"] = path.spread("momentum", node)
    return row


def drawn_ways(denoiser: Denoiser, limit: int) -> list[Way]:
    """Ways that a figure of paths can hold: those that are headlines at some N, then the rest that learn."""
    first = [way for n in denoiser.steps for way in headline_ways(denoiser, n)]
    rest = [way for way in denoiser.ways if way.fit != ORIGINAL and not is_control(way.leaves)]
    unique: list[Way] = []
    for way in [*first, *rest]:
        if way not in unique:
            unique.append(way)
    return unique[:limit]
