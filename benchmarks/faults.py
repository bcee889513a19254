"""Kills what a study runs on, at random moments, and looks whether the same command ends with the same study.

    python -m benchmarks.faults [--kills N] [--interrupts N] [--kinds worker trial driver raylet node] [--seed N]
        [--study smoke|tiny] [--per-study N] [--every SECONDS] [--folder FOLDER] [--output FILE.json]

By SIGKILL, in equal shares: `worker`, a Ray Train worker; `trial`, the process of a Tune trial; `driver`, the study
script; `raylet`, the local one, or one of a cluster of two nodes; `node`, all processes of one of its nodes (in one
case of three the head's). As many SIGINT and SIGTERM to the driver as --interrupts says. A study is disturbed several
times; a driver that has ended is started again by the same command; a dead node comes back after three seconds, a dead
head as a new cluster. An undisturbed study is run first. The table says, for everything that was hit: what became of
the driver; seconds from the signal until a process that was not there before was at work (median, largest); rows of
trials and metrics that could be read before the signal and are not there in the end; finished runs that were run again;
keys that more than one row has; the largest relative difference of the ablation's numbers from the undisturbed
study's, in the studies where it was hit. Exit status 1 if anything is not as it should be.
"""

import argparse
import itertools
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.disturbed import Disturbed, Judged, Kill
from benchmarks.study_state import Rows, differences, temporary, wrong_in_optuna

STUDIES = {
    "smoke": ("studies/asbm_sweep.py", "--preset", "smoke"),
    "tiny": ("-m", "tests.study.tiny_study"),
}
KINDS = ("worker", "trial", "driver", "raylet", "node")
TOLERANCE = 1e-3
"""Of a number against the undisturbed study's."""
IN_VAIN = 3
"""Studies without a single kill, one after the other, after which nothing more is to be expected."""


def shares(total: int, names: Sequence[str]) -> dict[str, int]:
    """The total in parts that differ by one at most."""
    return {name: total // len(names) + (index < total % len(names)) for index, name in enumerate(names)}


def judge(disturbed: Disturbed, judged: Judged, reference: Path) -> None:
    """What is wrong with a study that has ended; every kill is told what it has cost."""
    after, folder = Rows.read(disturbed.folder), disturbed.folder
    for kill in disturbed.kills:
        kill.lost, kill.again = len(kill.before.keys - after.keys), kill.before.run_again(after)
    judged.doubled = Rows.collected(folder).doubled
    judged.compared, judged.difference, missing = differences(reference, folder)
    judged.wrong += [
        *wrong_in_optuna(folder),
        *(f"only one of both studies has {digest}" for digest in missing),
        *(f"left behind: {name}" for name in temporary(folder)),
        *(f"unreadable: {path}" for path in after.unreadable),
        *(f"{kill.lost} rows lost: {kill.what}" for kill in disturbed.kills if kill.lost),
        *(f"hung: {kill.what}" for kill in disturbed.kills if kill.driver == "hung"),
        *([f"{judged.doubled} rows doubled"] if judged.doubled else []),
        *([f"numbers differ by {judged.difference:.1e}"] if judged.difference > TOLERANCE else []),
    ]


def summary(kills: Sequence[Kill], studies: Sequence[Judged]) -> list[dict[str, Any]]:
    """A row for everything that was hit."""
    rows = []
    for what, group in itertools.groupby(sorted(kills, key=lambda kill: kill.what), key=lambda kill: kill.what):
        mine = list(group)
        seconds = [kill.seconds for kill in mine if kill.seconds is not None]
        touched = [studies[number] for number in sorted({kill.study for kill in mine})]
        rows.append({
            "killed": what, "times": len(mine), "driver": dict(Counter(kill.driver for kill in mine)),
            "seconds": statistics.median(seconds) if seconds else None, "longest": max(seconds, default=None),
            "lost": sum(kill.lost for kill in mine), "again": sum(kill.again for kill in mine),
            "doubled": sum(study.doubled for study in touched),
            "difference": max(study.difference for study in touched),
        })  # fmt: skip
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'killed':19s} {'times':>5s}  {'the driver':36s} {'s to go on':>14s} {'lost':>5s} {'again':>5s} "
          f"{'doubled':>7s} {'difference':>10s}")  # fmt: skip
    for row in rows:
        driver = ", ".join(f"{how}: {count}" for how, count in row["driver"].items())
        seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f} ({row['longest']:.1f})"
        print(f"{row['killed']:19s} {row['times']:5d}  {driver:36s} {seconds:>14s} {row['lost']:5d} {row['again']:5d} "
              f"{row['doubled']:7d} {row['difference']:10.1e}", flush=True)  # fmt: skip


def undisturbed(command: Sequence[str], folder: Path) -> float:
    """Seconds of the study that all are compared with."""
    started = time.monotonic()
    with folder.with_suffix(".log").open("w") as log:
        child = processes.start([sys.executable, *command, "--output", str(folder)], stdout=log, stderr=log)
        if child.wait():
            raise SystemExit(f"the undisturbed study failed: see {log.name}")
    return time.monotonic() - started


def disturb(options: argparse.Namespace, folder: Path) -> tuple[list[Kill], list[Judged]]:
    """Studies, on this machine's own Ray and on a cluster in turn, until all kills are done."""
    command = STUDIES[options.study]
    wanted = Counter(shares(options.kills, options.kinds))
    wanted.update({"SIGINT": options.interrupts, "SIGTERM": options.interrupts})
    kills: list[Kill] = []
    studies: list[Judged] = []
    in_vain = 0
    while any(wanted.values()) and in_vain < IN_VAIN:
        number = len(studies)
        cluster = number % 2 == 1 or not any(count for kind, count in wanted.items() if kind != "node")
        disturbed = Disturbed(command, folder / f"study-{number}", number, cluster, wanted, options.per_study,
                              options.every, options.seed)  # fmt: skip
        judged = disturbed.run()
        judge(disturbed, judged, folder / "reference")
        kills, studies = [*kills, *disturbed.kills], [*studies, judged]
        in_vain = 0 if disturbed.kills else in_vain + 1
        hit = ", ".join(kill.what for kill in disturbed.kills) or "nothing"
        print(f"study {number}, {judged.where}: {judged.seconds:.0f} s, {judged.commands} commands; hit {hit}; "
              f"{'; '.join(judged.wrong) or 'as it should be'}", flush=True)  # fmt: skip
        write(options.output, kills, studies)
    for kind, count in (+wanted).items():
        print(f"{count} of {kind} were not done: there was none to hit")
    return kills, studies


def write(path: Path | None, kills: Sequence[Kill], studies: Sequence[Judged]) -> None:
    if path:
        told = ("what", "study", "driver", "seconds", "lost", "again")
        found = {"table": summary(kills, studies), "studies": [asdict(study) for study in studies],
                 "kills": [{name: getattr(kill, name) for name in told} for kill in kills]}  # fmt: skip
        path.write_text(json.dumps(found, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="by SIGKILL")
    parser.add_argument("--interrupts", type=int, default=5, help="SIGINT, and as many SIGTERM")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--per-study", type=int, default=5, help="kills of one study, at most")
    parser.add_argument("--every", type=float, default=10.0, help="mean seconds from work going on to the next kill")
    parser.add_argument("--study", choices=tuple(STUDIES), default="smoke")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="new; the studies stay there")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    # a shell's background job ignores it, and its children would, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
    processes.adopt_orphans()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="faults-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    seconds = undisturbed(STUDIES[options.study], folder / "reference")
    print(f"undisturbed: {seconds:.0f} s; studies in {folder}", flush=True)
    kills, studies = disturb(options, folder)
    show(summary(kills, studies))
    good = not any(study.wrong for study in studies)
    if good and not options.folder:
        shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
