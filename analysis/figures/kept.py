"""Which runs kept an artefact that a figure can show: one run a setting, the most important settings first."""

from collections.abc import Sequence

import numpy as np

from analysis.artifacts import Artifacts
from analysis.design import Setting
from analysis.families import headliners
from analysis.results import Results

Kept = tuple[Setting, int, dict[str, np.ndarray]]


def kept(results: Results, artifacts: Artifacts, name: str, needed: Sequence[str], limit: int) -> list[Kept]:
    """(setting, seed, arrays) of at most `limit` settings whose run left a file with these arrays, least seed first."""
    found: list[Kept] = []
    for setting in sorted(headliners(results), key=importance):
        if len(found) == limit:
            break
        for seed in sorted({int(run["seed"]) for run in results.setting_runs(setting) if run["status"] == "completed"}):
            arrays = artifacts.arrays(setting.digest, seed, name)
            if all(key in arrays and arrays[key].size for key in needed):
                found.append((setting, seed, arrays))
                break
    return found


def importance(setting: Setting) -> tuple[int, int]:
    """Centre, baseline and arms before the rest; the order is otherwise kept."""
    return (0 if setting.is_centre else 1 if setting.is_baseline or setting.arm else 2, len(setting.changed))


def seeds_of(found: Sequence[Kept]) -> str:
    """The seeds in words: "seed 0", or "seeds 0, 1" where the settings' least seeds differ."""
    seeds = sorted({seed for _, seed, _ in found})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(str(seed) for seed in seeds)}"
