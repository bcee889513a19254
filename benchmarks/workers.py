"""Several workers that train one model: steps a second beside plain torchrun, and whether their curves are in step.

    python -m benchmarks.workers [--workers 1 2] [--batches 128 1024] [--rounds N] [--epochs N] [--output FILE.json]

Speed: network (0.85 M weights), data and pairs of `training_speed`, AdamW, averaged weights, gloo, one thread a worker,
the same batch for the whole group. Ours is a study of `benchmarks.short_trials` by the `train` launcher; its seconds
are the training's own, of the second of two seeds that share a group. The rounds of either side alternate. In step:
what the trainings of ASBM (corrector, adjoint, backward), of LDSB's ways to fit and of their denoiser tell at every
epoch (losses, terminal tests, selection) by 1 and by n workers at the same batch of the whole group: the largest
relative difference.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks import processes
from benchmarks.study_state import curves, relative, rows

GOAL = 1e-5
PAIRS = 4096
Curve: TypeAlias = dict[tuple[str, str, int], float]


def study(folder: Path, preset: str, workers: int, *further: str) -> None:
    """A study of short_trials by the `train` launcher."""
    command = [sys.executable, "-m", "benchmarks.short_trials", "--preset", preset, "--output", str(folder),
               "--launcher", "train", "--num-workers", str(workers), *further]  # fmt: skip
    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        status = processes.start(command, stdout=stream, stderr=stream).wait()
    if status:
        raise SystemExit(f"the study of {workers} workers failed with {status}: {log.read_text()[-500:]}")


def ours(folder: Path, batch: int, workers: int, epochs: int) -> float:
    """Steps a second of the second training of a group."""
    changes = (f"training.batch_size={batch}", f"method.backward_epochs={epochs}")
    study(folder, "speed", workers, *(word for change in changes for word in ("--set", change)))
    (second,) = (row for row in rows(folder, "trials") if row["seed"] == 1)
    return epochs * (PAIRS // batch) / float(second["training_seconds"])


def plain(batch: int, workers: int, epochs: int) -> float:
    """Steps a second of the plain script."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers),
               "-m", "benchmarks.plain_ddp", "--batch", str(batch), "--epochs", str(epochs)]  # fmt: skip
    child = processes.start(command, {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    out, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"torchrun failed with {child.returncode}")
    said = json.loads(out.splitlines()[-1])
    return float(said["steps"] / said["seconds"])


def speed(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Both sides in turns, for every batch and number of workers."""
    found = []
    for batch in options.batches:
        for workers in options.workers:
            pairs = [
                (ours(scratch / f"{batch}-{workers}-{number}", batch, workers, options.epochs),
                 plain(batch, workers, options.epochs))
                for number in range(options.rounds)
            ]  # fmt: skip
            row = {"batch": batch, "workers": workers, "ours": statistics.median(mine for mine, _ in pairs),
                   "torchrun": statistics.median(theirs for _, theirs in pairs),
                   "ratio": statistics.median(mine / theirs for mine, theirs in pairs), "rounds": pairs}  # fmt: skip
            found.append(row)
            print(f"batch {batch:5d}, {workers} workers: {row['ours']:7.1f} steps/s, torchrun {row['torchrun']:7.1f}, "
                  f"ratio {row['ratio']:.2f}", flush=True)  # fmt: skip
    return found


def in_step(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """Curves of one worker and of several, of all trainings."""
    told: dict[int, dict[str, Curve]] = {}
    for workers in sorted({1, *options.workers}):
        folder = scratch / f"curves-{workers}"
        study(folder, "curves", workers)
        told[workers] = curves(folder)
    found = [
        {"training": name, "workers": workers, **row}
        for workers in sorted(set(told) - {1}) for name in sorted({*told[1], *told[workers]})
        for row in compared(told[1].get(name, {}), told[workers].get(name, {}))
    ]  # fmt: skip
    for (name, workers), group in itertools.groupby(found, key=lambda row: (row["training"], row["workers"])):
        mine = list(group)
        worst = max(mine, key=lambda row: row["difference"])
        of_loss = max((row["difference"] for row in mine if row["metric"] == "loss"), default=0.0)
        alone = sum(row["alone"] for row in mine)
        good = worst["difference"] <= GOAL and not alone
        print(
            f"{name}: the losses of {workers} workers differ from those of 1 by at most {of_loss:.1e}; all "
            f"{sum(row['points'] for row in mine)} numbers by {worst['difference']:.1e} ({worst['stage']}: "
            f"{worst['metric']}); {alone} of one alone: {'in step' if good else 'NOT IN STEP'}",
            flush=True,
        )
    return found


def compared(one: Curve, several: Curve) -> list[dict[str, Any]]:
    """The largest relative difference of every curve, and how many points only one of the two has."""
    found = []
    for stage, metric in sorted({key[:2] for key in (*one, *several)}):
        here, there = ({key for key in curve if key[:2] == (stage, metric)} for curve in (one, several))
        largest = max((relative(one[key], several[key]) for key in here & there), default=0.0)
        found.append({"stage": stage, "metric": metric, "points": len(here & there), "alone": len(here ^ there),
                      "difference": largest})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = {"in_step": in_step(options, Path(scratch)), "speed": speed(options, Path(scratch))}
    if options.output:
        options.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
