"""Which of the search's samplers finds the best trade-off of quality and calls on the joint space?

    python -m benchmarks.search_quality [--samplers tpe …] [--variants] [--batches 1 2] [--repeats 20]
        [--trials 20 40 80] [--quantiles 0.9 0.25] [--table FILE] [--output FILE.json]
    python -m benchmarks.search_quality --record [FILE]

Every sampler that `--search-algorithm` knows proposes points of `benchmarks.joint_space`, whose table answers: log of
the Fréchet distance on validation and counted calls, both minimised. What a search has found is the hypervolume of its
trials (Zitzler and Thiele 1999; by Optuna's routine) up to 21 calls and a quantile of the table's distances, as a share
of the whole table's; the first quantile decides, others show what a stricter one would say. The table's outcomes are
fixed numbers: repetitions differ in the sampler's seed alone. `--record` makes the table, and goes on where it was
interrupted.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna._hypervolume import compute_hypervolume
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

from analysis.statistics import Interval, holm, mean_interval, paired_difference
from benchmarks.joint_space import TABLE, Table, identity, joint_space, points, record
from sbbridge.study.arguments import positive, whole
from sbbridge.study.definition import SEARCH_ALGORITHMS
from sbbridge.study.search import sampler
from sbbridge.study.space import Space

DECIDED_AT = 40
"""Trials after which samplers are compared."""
MOST_CALLS = 21.0
SLOW_S, SLOW_REPEATS = 20.0, 6
"""A sampler whose first repetition takes more processor seconds gets so many repetitions."""
ALPHA = 0.05
DEFAULT, RANDOM = "tpe", "random"


def tpe(**changes: Any) -> Callable[[int], BaseSampler]:
    """The study's TPE with changes."""
    return lambda seed: TPESampler(**{"seed": seed, "multivariate": True, "group": True, "constant_liar": True,
                                      **changes})  # fmt: skip


MADE_BY: Mapping[str, Callable[[int], BaseSampler]] = {
    name: lambda seed, name=name: sampler(name, seed) for name in SEARCH_ALGORITHMS  # type: ignore[misc]
}  # fmt: skip
VARIANTS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe, factor by factor": tpe(multivariate=False, group=False),
    "tpe, no groups": tpe(group=False),
    "tpe, 5 at random": tpe(n_startup_trials=5),
    "tpe, 20 at random": tpe(n_startup_trials=20),
    "tpe, factor by factor, 5": tpe(multivariate=False, group=False, n_startup_trials=5),
    "tpe, no groups, 5": tpe(group=False, n_startup_trials=5),
    "tpe, 100 candidates": tpe(n_ei_candidates=100),
    "nsga2, population 10": lambda seed: NSGAIISampler(seed=seed, population_size=10),
}
"""What might serve better; `tpe` itself begins with 10 at random and weighs 24 candidates, `nsga2` has 50 at random."""
Curve: TypeAlias = dict[int, float]
"""{trials: share of the table's hypervolume}."""


class Judge:
    """Hypervolumes as shares of the table's."""

    def __init__(self, table: Table, quantile: float) -> None:
        self.quantile = quantile
        outcomes = np.array([values(row) for row in table.rows.values() if row["status"] == "completed"])
        self.reference = np.array([np.quantile(outcomes[:, 0], quantile), MOST_CALLS])
        self._whole = self._volume(outcomes)

    @property
    def distance(self) -> float:
        """Fréchet distance at which volumes end."""
        return math.exp(self.reference[0])

    def _volume(self, outcomes: np.ndarray) -> float:
        within = outcomes[(outcomes < self.reference).all(axis=1)]  # what is NaN is not
        return float(compute_hypervolume(within, self.reference)) if len(within) else 0.0

    def share(self, outcomes: np.ndarray) -> float:
        """Of `[n, 2]` log distances and calls."""
        return self._volume(outcomes) / self._whole


def values(row: Mapping[str, Any]) -> tuple[float, float]:
    """A row's objectives: log distance, calls."""
    return math.log(row["quality"]), row["nfe"]


def search(made: BaseSampler, space: Space, table: Table, trials: int, batch: int) -> tuple[np.ndarray, int, float]:
    """Asks `batch` at a time, then tells: outcomes `[trials, 2]`, distinct points, processor seconds of the sampler."""
    study = optuna.create_study(directions=["minimize"] * 2, sampler=made)
    outcomes, seen, spent = np.full((trials, 2), np.nan), set(), 0.0
    for first in range(0, trials, batch):
        began, asked = time.process_time(), []
        for _ in range(first, min(first + batch, trials)):
            trial = study.ask()
            asked.append((trial, identity(space.suggest(trial))))
        spent += time.process_time() - began
        for number, (trial, point) in enumerate(asked, first):
            seen.add(point)
            row = table.rows[point]
            if row["status"] != "completed":
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            outcomes[number] = values(row)
            study.tell(trial, outcomes[number].tolist())
    return outcomes, len(seen), spent


def repeated(make: Callable[[int], BaseSampler], space: Space, table: Table, trials: int, batch: int,
             repeats: int) -> dict[str, Any]:  # fmt: skip
    """Outcomes of a sampler by seed, and what its suggestions cost."""
    outcomes: dict[int, np.ndarray] = {}
    distinct, seconds = [], []
    for seed in range(repeats):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes[seed], different, spent = search(make(seed), space, table, trials, batch)
        distinct.append(different)
        seconds.append(spent)
        if seconds[0] > SLOW_S and len(outcomes) >= SLOW_REPEATS:
            break
    return {"n": len(outcomes), "outcomes": outcomes, "distinct": float(np.mean(distinct)),
            "seconds_a_suggestion": float(np.mean(seconds)) / trials}  # fmt: skip


def graded(row: Mapping[str, Any], judge: Judge, trials: Sequence[int]) -> dict[str, Any]:
    """With the curves of its hypervolume by seed."""
    curves: dict[int, Curve] = {
        seed: {n: judge.share(outcomes[:n]) for n in trials} for seed, outcomes in row["outcomes"].items()
    }
    return {**row, "curves": curves}


def at(row: Mapping[str, Any], trials: int) -> dict[int, float]:
    """{seed: share} after so many trials."""
    return {seed: curve[trials] for seed, curve in row["curves"].items()}


def compared(row: Mapping[str, Any], other: Mapping[str, Any], trials: int) -> tuple[Interval, float]:
    """Interval of the difference in percent, pair by pair, and p of its t test."""
    mine, theirs = at(row, trials), at(other, trials)
    found = paired_difference({seed: 100 * share for seed, share in mine.items()},
                              {seed: 100 * share for seed, share in theirs.items()})  # fmt: skip
    return found.difference, found.p_value


def verdict(rows: Mapping[str, Mapping[str, Any]], trials: int) -> dict[str, Any]:
    """Which has the largest mean over the seeds of all, and from which others it can be told (Holm over them)."""
    seeds = set.intersection(*(set(at(row, trials)) for row in rows.values()))
    best = max(rows, key=lambda name: float(np.mean([at(rows[name], trials)[seed] for seed in seeds])))
    others = [name for name in rows if name != best]
    found = [compared(rows[best], rows[name], trials) for name in others]
    adjusted = holm([p for _, p in found])
    return {
        "trials": trials, "best": best, "like_it": [n for n, p in zip(others, adjusted, strict=True) if not p < ALPHA],
        "differences": {
            name: {**as_json(interval), "p": p}
            for name, (interval, _), p in zip(others, found, adjusted, strict=True)
        },
    }  # fmt: skip


def as_json(interval: Interval) -> dict[str, float]:
    return {"n": interval.n, "mean": interval.mean, "low": interval.low, "high": interval.high}


def summary(rows: Mapping[str, Mapping[str, Any]], trials: Sequence[int], decided: int) -> list[dict[str, Any]]:
    """A row a sampler: means in percent with 95 % t intervals, differences to random search of the same seeds."""
    found = []
    for name, row in rows.items():
        shares = {n: mean_interval([100 * share for share in at(row, n).values()]) for n in trials}
        entry = {
            "sampler": name, "n": row["n"], "distinct": row["distinct"],
            "seconds_a_suggestion": row["seconds_a_suggestion"],
            "hypervolume": {n: as_json(interval) for n, interval in shares.items()},
            "by_seed": {n: [round(share, 5) for share in at(row, n).values()] for n in trials},
        }  # fmt: skip
        if RANDOM in rows and name != RANDOM:
            entry["against_random"] = as_json(compared(row, rows[RANDOM], decided)[0])
        found.append(entry)
    return found


def show(entries: Sequence[Mapping[str, Any]], decided: int) -> None:
    trials = list(entries[0]["hypervolume"])
    heads = "".join(f"{n:>14d}" for n in trials)
    print(f"{'sampler':26s}  n{heads}  minus random at {decided}    distinct  ms")
    for entry in entries:
        cells = "".join(f"{cell['mean']:8.1f} ± {(cell['high'] - cell['low']) / 2:3.1f}"
                        for cell in entry["hypervolume"].values())  # fmt: skip
        against = entry.get("against_random")
        told = f"{against['mean']:+5.1f} [{against['low']:+5.1f}, {against['high']:+5.1f}]" if against else ""
        print(f"{entry['sampler']:26s} {entry['n']:2d}{cells}  {told:22s} {entry['distinct']:8.1f} "
              f"{1e3 * entry['seconds_a_suggestion']:4.0f}")  # fmt: skip


def say(found: Mapping[str, Any]) -> None:
    told = ", ".join(f"{name} {cell['mean']:+.1f} [{cell['low']:+.1f}, {cell['high']:+.1f}] p {cell['p']:.2g}"
                     for name, cell in found["differences"].items())  # fmt: skip
    print(f"best at {found['trials']} trials: {found['best']}; minus the others (Holm): {told}; "
          f"not to be told from it: {', '.join(found['like_it']) or 'none'}")  # fmt: skip


def against_default(rows: Mapping[str, Mapping[str, Any]], trials: int) -> dict[str, Any]:
    """Each variant minus the default (Holm over the variants)."""
    names = [name for name in rows if name != DEFAULT]
    found = [compared(rows[name], rows[DEFAULT], trials) for name in names]
    adjusted = holm([p for _, p in found])
    print(f"variants at {trials} trials, minus {DEFAULT} (Holm over them):")
    for name, (interval, _), p in zip(names, found, adjusted, strict=True):
        print(f"  {name} minus {DEFAULT}: {interval.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}] p {p:.2g}")
    return {name: {**as_json(i), "p": p} for name, (i, _), p in zip(names, found, adjusted, strict=True)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, nargs="?", const=TABLE, metavar="FILE",
                        help="train what this table lacks, about 25 minutes for all of it")  # fmt: skip
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--samplers", nargs="+", choices=SEARCH_ALGORITHMS, default=list(SEARCH_ALGORITHMS))
    parser.add_argument("--variants", action="store_true", help="of their options, too, where one trial is asked for")
    parser.add_argument("--batches", type=whole(1), nargs="+", default=[1, 2], help="trials that are asked for at once")
    parser.add_argument("--repeats", type=whole(2), default=20)
    parser.add_argument("--trials", type=whole(1), nargs="+", default=[20, DECIDED_AT, 80])
    parser.add_argument("--quantiles", type=share, nargs="+", default=[0.9, 0.25],
                        help="of the table's distances: where volumes end")  # fmt: skip
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def share(text: str) -> float:
    """A number in (0, 1], for argparse."""
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1], got {text!r}")
    return value


def told(rows: Mapping[str, Mapping[str, Any]], samplers: Sequence[str], judge: Judge, trials: Sequence[int],
         batch: int) -> dict[str, Any]:  # fmt: skip
    """Prints one table, and returns it as JSON's data."""
    curves = {name: graded(row, judge, trials) for name, row in rows.items()}
    decided = DECIDED_AT if DECIDED_AT in trials else trials[-1]
    entries = summary(curves, trials, decided)
    print(f"\n{batch} at a time; % of the table's hypervolume up to a distance of {judge.distance:.0f} "
          f"({100 * judge.quantile:g} % of the points) and {MOST_CALLS:g} calls, with 95 % t intervals")  # fmt: skip
    show(entries, decided)
    found = {
        "batch": batch, "quantile": judge.quantile, "distance": judge.distance, "calls": MOST_CALLS, "rows": entries,
        "verdict": verdict({name: curves[name] for name in samplers}, decided),
    }  # fmt: skip
    say(found["verdict"])
    variants = {name: row for name, row in curves.items() if name == DEFAULT or name in VARIANTS}
    if len(variants) > 1 and DEFAULT in variants:
        found["variants"] = against_default(variants, decided)
    return found


def main() -> None:
    arguments = parse()
    if arguments.record:
        record(arguments.record)
        return
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space, trials = joint_space(), sorted(arguments.trials)
    table = Table(arguments.table, space)
    if lacking := sum(identity(point) not in table.rows for point in points(space)):
        raise SystemExit(f"{arguments.table.name} lacks {lacking} points of the space: see --record")
    judges = [Judge(table, quantile) for quantile in arguments.quantiles]
    parts: list[dict[str, Any]] = []
    for batch in arguments.batches:
        makers = {name: MADE_BY[name] for name in arguments.samplers}
        makers |= VARIANTS if arguments.variants and batch == 1 else {}
        rows = {
            name: repeated(make, space, table, trials[-1], batch, arguments.repeats) for name, make in makers.items()
        }  # fmt: skip
        parts += [told(rows, arguments.samplers, judge, trials, batch) for judge in judges]
        if arguments.output:
            found = {"points": len(table.rows), "parts": parts}
            arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
