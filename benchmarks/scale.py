"""What a trial costs the driver as their number grows: next to nothing is trained, on a cluster of logical nodes.

    python -m benchmarks.scale [--trials N] [--nodes N] [--patience N] [--profile FILE] [--folder FOLDER]
        [--output FILE.json]

The product's own command line runs a search of N trials over asbm_sweep's space (TPE, SQLite), then an ablation of N
runs, in this process, with clocks around what happens once a trial. Around 0.1 N, 0.3 N and N trials: seconds a trial
on the wall and of the driver's CPU, Optuna's suggestion (with the configuration resolved) and its answer, writing the
row, Ray's snapshots, the rest of its CPU, its memory. Afterwards, with 0.1 N, 0.3 N and N rows: reading
them all, what --patience asks, collecting, and their size. Then what comes first at 10,000 trials and 1,000 nodes, by
straight lines through these numbers.
"""

import argparse
import cProfile
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clocks import PARTS, Clocks, line
from benchmarks.nodes import ENVIRONMENT, Nodes

SHARES = (0.1, 0.3, 1.0)
FLAT = 0.20
TRIALS, NODES = 10_000, 1_000
"""What is extrapolated to."""
PHASES = ("search", "ablation")
ONCE = ("read_rows", "stalled", "collect", "files", "bytes")


def instrument(clocks: Clocks) -> None:
    """Clocks around what happens once a trial in the driver."""
    from ray.tune.execution.tune_controller import TuneController

    from sbbridge.study import design, ray_tune, search
    from sbbridge.study.ray_search import StudySearch
    from sbbridge.study.store import Store

    clocks.within(ray_tune, "run_search", "search")
    clocks.within(ray_tune, "run_jobs", "ablation")
    clocks.around(StudySearch, "suggest", "suggest")
    clocks.around(StudySearch, "on_trial_complete", "tell")
    clocks.around(design, "resolve", "resolve")
    clocks.around(search, "stalled", "stalled")
    clocks.around(TuneController, "checkpoint", "snapshot")
    clocks.around(Store, "add_trial", "write row")
    clocks.at_end(Store, "add_trial")


def run(options: argparse.Namespace, folder: Path, clocks: Clocks) -> dict[str, Any]:
    """The study: its exit status, its seconds and its report's."""
    os.environ |= ENVIRONMENT
    from sbbridge.study import environment

    environment.prepare(local=False)
    from benchmarks.short_trials import STUDY, write_report
    from sbbridge.study import cli

    instrument(clocks)
    reported: list[float] = []

    def report(of: Path) -> Path:
        started = time.perf_counter()
        path = write_report(of)
        reported.append(time.perf_counter() - started)
        return path

    patience = ["--patience", str(options.patience)] if options.patience else []
    count = str(options.trials)
    arguments = ["--preset", "searched", "--trials", count, "--seeds", count, "--output", str(folder), *patience]
    nodes = Nodes([{"num_cpus": 1, "resources": {"train_driver": 1}}, *[{"num_cpus": 1}] * (options.nodes - 1)])
    profile = cProfile.Profile()
    started = time.perf_counter()
    try:
        if options.profile:
            profile.enable()
        status = cli.main(STUDY, report, [*arguments, "--address", nodes.address])
        profile.disable()
    finally:
        nodes.close()
    if options.profile:
        profile.dump_stats(options.profile)
    return {"status": status, "seconds": time.perf_counter() - started, "report": sum(reported)}


def subset(folder: Path, count: int, target: Path) -> Path:
    """A study of the first so many rows of trials, and of the metrics that were written until then."""
    trials = sorted((folder / "records" / "trials").rglob("*.parquet"), key=lambda path: path.name)[:count]
    last = trials[-1].name.partition("-")[0]
    metrics = (folder / "records" / "metrics").rglob("*.parquet")
    target.mkdir()
    shutil.copy2(folder / "study.json", target)
    for path in (*trials, *(path for path in metrics if path.name.partition("-")[0] <= last)):
        place = target / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, place)
    return target


def reading(folder: Path, share: float) -> dict[str, Any]:
    """What is done once a phase or once a study, with a share of its rows."""
    import optuna

    from analysis.collect import collect
    from sbbridge.study import search
    from sbbridge.study.store import Store

    study = json.loads((folder / "study.json").read_text())
    count = max(1, round(share * len(list((folder / "records" / "trials").rglob("*.parquet")))))
    held = optuna.load_study(study_name=study["study"], storage=f"sqlite:///{folder / 'optuna.db'}")
    with tempfile.TemporaryDirectory() as scratch:
        part = subset(folder, count, Path(scratch) / "study")
        fewer = optuna.create_study(storage=f"sqlite:///{scratch}/part.db", directions=held.directions)
        fewer.add_trials(held.trials[: max(1, round(share * len(held.trials)))])
        sizes = [path.stat().st_size for path in (part / "records").rglob("*.parquet")]
        row: dict[str, Any] = {"rows": count, "files": len(sizes), "bytes": sum(sizes)}
        parts: dict[str, Callable[[], Any]] = {
            "read_rows": Store(str(part), study["config_columns"]).trials,
            "stalled": lambda: search.stalled(fewer, 10),
            "collect": lambda: collect(part),
        }
        for name, function in parts.items():
            started = time.perf_counter()
            function()
            row[name] = time.perf_counter() - started
    return row


def estimate(marks: Sequence[dict[str, Any]], readings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a trial and a resume cost at 10,000 trials, and how short trials may be with 1,000 at once."""
    found: dict[str, Any] = {}
    for phase in PHASES:
        rows = [row for row in marks if row["phase"] == phase]
        numbers = [row["trials"] for row in rows]
        names = ("serial", "memory_mib", "resolve", "rest", *PARTS)
        held = {name: line(numbers, [row.get(name, 0.0) for row in rows], TRIALS) for name in names}
        first = max((*PARTS, "rest"), key=lambda name, held=held: held[name])
        found[phase] = {**held, "first": first, "least_trial_seconds": NODES * held["serial"]}
    numbers = [row["rows"] for row in readings]
    found["once"] = {name: line(numbers, [row[name] for row in readings], TRIALS) for name in ONCE}
    return found


def show(marks: Sequence[dict[str, Any]], readings: Sequence[dict[str, Any]], at: dict[str, Any]) -> None:
    names = ("suggest", "resolve", "tell", "stalled", "write row", "snapshot", "rest")
    heads = " ".join(f"{name + ' ms':>12s}" for name in names)
    print(f"{'phase':9s} {'trials':>6s} {'wall s':>7s} {'CPU s':>7s} {'MiB':>6s} {heads}")
    for row in marks:
        parts = " ".join(f"{1000 * row.get(name, 0.0):12.2f}" for name in names)
        clocks = f"{row['wall']:7.3f} {row['cpu']:7.3f} {row['memory_mib']:6.0f}"
        print(f"{row['phase']:9s} {row['trials']:6d} {clocks} {parts}")
    for phase in PHASES:
        for clock in ("wall", "cpu"):
            first, *_, last = (row[clock] for row in marks if row["phase"] == phase)
            change = last / first - 1
            print(f"{phase}: {clock} a trial changes by {change:+.0%}: {'flat' if abs(change) <= FLAT else 'not flat'}")
    for row in (*readings, {"rows": TRIALS, **at["once"]}):
        print(
            f"{row['rows']} rows in {row['files']:.0f} files, {row['bytes'] / 2**20:.1f} MiB: read in "
            f"{row['read_rows']:.2f} s, stalled {row['stalled']:.3f} s, collected in {row['collect']:.2f} s"
        )
    for phase in PHASES:
        held = at[phase]
        print(
            f"at {TRIALS} trials, {phase}: the driver is busy {held['serial']:.3f} s a trial, most of it with "
            f"{held['first']} ({held[held['first']]:.3f} s); {held['memory_mib']:.0f} MiB; {NODES} nodes wait for "
            f"the driver where a trial takes less than {held['least_trial_seconds']:.0f} s"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of the search, and runs of the ablation")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--patience", type=int, help="as of a study script; more than --trials never ends the search")
    parser.add_argument("--profile", type=Path, help="where the driver's time goes, for pstats; slows it down")
    parser.add_argument("--folder", type=Path, help="new; the study stays there")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    clocks = Clocks()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch) / "study").resolve()
        whole = run(options, folder, clocks)
        marks = [clocks.at(phase, share) for phase in PHASES for share in SHARES]
        readings = [reading(folder, share) for share in SHARES]
    at = estimate(marks, readings)
    print(f"{options.trials} trials, then {options.trials} runs, over {options.nodes} nodes: {whole['seconds']:.0f} s, "
          f"exit status {whole['status']}; report in {whole['report']:.1f} s")  # fmt: skip
    show(marks, readings, at)
    if options.output:
        found = {"whole": whole, "marks": marks, "readings": readings, "estimate": at, "ends": clocks.ends}
        options.output.write_text(json.dumps(found, indent=1))
    return int(whole["status"])


if __name__ == "__main__":
    sys.exit(main())
