"""What a study costs beside its trainings: trials of half a minute, trials of next to nothing, groups of workers.

    python -m benchmarks.overhead [--parts long short groups] [--seconds S] [--trials N] [--output FILE.json]

`long`: N trials of S seconds (30) by `inline`, one a core: wall time over training seconds / slots; goal 1.10. `short`:
trials that train next to nothing by `inline`, one slot: seconds from one row to the next after the first; goal 0.3 s.
`groups`: the `train` launcher's worker groups, with Ray's dashboard and without, of one worker and of two: seconds
until the first training begins, from the last training's end until the group is gone, and seconds a seed when every
seed has a group of its own or four share one; then four seeds as a study by either launcher. Each study is the script
`benchmarks.short_trials` in a process of its own.
"""

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.groups import run_groups
from benchmarks.short_trials import TRIVIAL

LONG_GOAL, SHORT_GOAL_S, SEEDS = 1.10, 0.3, 4
PROBE_EPOCHS = 100


def study(folder: Path, *arguments: str) -> dict[str, Any]:
    """Runs short_trials; when it began and ended, and the runs in the order in which their rows were written."""
    command = [sys.executable, "-m", "benchmarks.short_trials", "--output", str(folder), *arguments]
    began = time.time()
    with folder.with_suffix(".log").open("w") as log:
        status = processes.start(command, stdout=log, stderr=subprocess.STDOUT).wait()
    if status:
        raise SystemExit(f"the study failed with {status}: {folder.with_suffix('.log').read_text()[-500:]}")
    return {"began": began, "ended": time.time(), "runs": runs(folder)}


def runs(folder: Path) -> list[dict[str, float]]:
    """For every row: when its trial began, when it was written, the trial's own seconds and those of its training."""
    import pyarrow.parquet as pq

    found = []
    for path in sorted((folder / "records" / "trials").rglob("*.parquet"), key=lambda path: path.name):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            found.append({"began": row["attempt"] / 1000, "written": int(path.name.partition("-")[0]) / 1e9,
                          "seconds": row["seconds"], "training": row["training_seconds"]})  # fmt: skip
    return found


def epochs_for(seconds: float, scratch: Path) -> int:
    """How many epochs take so long, by short trials, the last of which runs in a process that is warm."""
    held = study(scratch / "probe", "--preset", "timed", "--seeds", str(3 * (os.cpu_count() or 1)), "--launcher",
                 "inline", "--set", f"method.backward_epochs={PROBE_EPOCHS}")  # fmt: skip
    return max(1, math.ceil(PROBE_EPOCHS * seconds / held["runs"][-1]["training"]))


def long(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Trials of half a minute, as many at once as there are cores."""
    slots, epochs = os.cpu_count() or 1, epochs_for(options.seconds, scratch)
    held = study(scratch / "long", "--preset", "timed", "--seeds", str(options.trials), "--launcher", "inline",
                 "--set", f"method.backward_epochs={epochs}")  # fmt: skip
    found = accounted(held, slots)
    print(
        f"{options.trials} trials of {found['training'] / options.trials:.1f} s on {slots} slots: {found['wall']:.0f} s"
        f", {found['ratio']:.3f} x training seconds / slots (goal {LONG_GOAL}): {found['before']:.1f} s before the "
        f"first, {found['after']:.1f} s after the last; a slot evaluates for {found['evaluation']:.1f} s and is idle "
        f"for {found['idle']:.1f} s",
        flush=True,
    )
    return found


def accounted(held: dict[str, Any], slots: int) -> dict[str, Any]:
    """Where a study's wall time went, a slot."""
    training = sum(run["training"] for run in held["runs"])
    busy = sum(run["seconds"] for run in held["runs"])
    first, last = min(run["began"] for run in held["runs"]), max(run["written"] for run in held["runs"])
    wall = held["ended"] - held["began"]
    return {
        "training": training, "wall": wall, "ratio": wall / (training / slots), "before": first - held["began"],
        "after": held["ended"] - last, "evaluation": (busy - training) / slots, "idle": last - first - busy / slots,
    }  # fmt: skip


def short(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Trials that train next to nothing, one after the other."""
    held = study(scratch / "short", "--preset", "trivial", "--seeds", str(options.short_trials), "--launcher", "inline",
                 "--max-concurrent", "1")  # fmt: skip
    gaps = [after["written"] - before["written"] for before, after in itertools.pairwise(held["runs"])]
    own = statistics.median(run["seconds"] for run in held["runs"][1:])
    found = {"median": statistics.median(gaps), "mean": statistics.fmean(gaps), "longest": max(gaps), "own": own,
             "wall": held["ended"] - held["began"], "gaps": gaps}  # fmt: skip
    print(
        f"{len(held['runs'])} trivial trials: {found['mean']:.3f} s a trial after the first (goal {SHORT_GOAL_S}; "
        f"median {found['median']:.3f}, longest {found['longest']:.2f}), of which {own:.3f} s are the trial's own",
        flush=True,
    )
    return found


def groups(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Worker groups, then studies by either launcher."""
    changes = {"dataset": "gaussian64", **TRIVIAL}
    rows = []
    for workers, dashboard in itertools.product((1, 2), (True, False)):
        alone = [[{"changes": changes, "seed": seed}] for seed in range(2)]
        shared = [{"changes": changes, "seed": seed} for seed in range(2, 2 + SEEDS)]
        told = run_groups(scratch / f"groups-{workers}-{dashboard}", [*alone, shared], workers, dashboard)
        first, second, batch = (
            {"until": group["began"], "rest": group["gone"] - group["ended"], "whole": group["gone"]} for group in told
        )
        row = {"workers": workers, "dashboard": dashboard, "first": first, "second": second,
               "seed_alone": second["whole"], "seed_shared": batch["whole"] / SEEDS}  # fmt: skip
        rows.append(row)
        print(
            f"{workers} workers, {'with' if dashboard else 'no'} dashboard: training begins after {first['until']:.1f} "
            f"s ({second['until']:.1f} s in the second group), the group is gone {second['rest']:.1f} s after its end; "
            f"a seed takes {row['seed_alone']:.1f} s alone, {row['seed_shared']:.1f} s as one of {SEEDS}",
            flush=True,
        )
    for launcher in ("inline", "train"):
        held = study(scratch / launcher, "--preset", "trivial", "--seeds", str(SEEDS), "--launcher", launcher)
        rows.append({"launcher": launcher, "seeds": SEEDS, "wall": held["ended"] - held["began"]})
        print(f"a study of {SEEDS} trivial seeds by {launcher}: {rows[-1]['wall']:.1f} s", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"long": long, "short": short, "groups": groups}
    parser.add_argument("--parts", nargs="+", choices=tuple(parts), default=list(parts))
    parser.add_argument("--seconds", type=float, default=30.0, help="of a long trial")
    parser.add_argument("--trials", type=int, default=12, help="long ones")
    parser.add_argument("--short-trials", type=int, default=60)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        found = {name: parts[name](options, Path(scratch)) for name in options.parts}
    if options.output:
        options.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
