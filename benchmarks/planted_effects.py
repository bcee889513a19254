"""Do the intervals of `analysis effects` hold what they promise? Simulated studies in which the truth is planted.

    python benchmarks/planted_effects.py [--studies 2000] [--seeds 3 5] [--trials 40] [--output FILE.json]

Each study has four factors of three levels: noise and coupling interact (crossed in full), cycles matters, warm start
does nothing (each varied alone around the centre), with an error of 10 % a run and of 5 % a seed, on the logarithm. Its
values go through the model that `analysis effects` fits. A search over the same factors, with one seed and noise of its
own, goes before: how much too good is its best, by the estimate from the search, by its re-run, and in truth?
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from analysis.linear_model import LinearModel, Term
from analysis.optimism import expected_optimism

LEVELS = 3
ERROR, SEED_ERROR = 0.10, 0.05
NOISE = np.array([0.30, 0.0, -0.30])
COUPLING = np.array([0.20, 0.05, -0.25])
INTERACTION = np.outer([0.12, 0.0, -0.12], [1.0, -1.0, 0.0])
CYCLES = np.array([0.25, 0.0, -0.25])
CENTRE = 1


def truth(noise: np.ndarray, coupling: np.ndarray, cycles: np.ndarray) -> np.ndarray:
    """The mean logarithm of a setting; warm start has no part in it."""
    mean: np.ndarray = NOISE[noise] + COUPLING[coupling] + INTERACTION[noise, coupling] + CYCLES[cycles]
    return mean


class Design:
    """One fitted model of a study: the levels of its runs, and the true effects of its terms."""

    def __init__(self, codes: np.ndarray, means: np.ndarray, terms: list[Term], seeds: int) -> None:
        self.codes, self.seeds, self.terms = codes, seeds, terms
        self.means = np.repeat(means, seeds)
        levels = [LEVELS] * codes.shape[1]
        blocks = np.tile(np.arange(seeds), len(codes))
        self.model = LinearModel(np.repeat(codes, seeds, axis=0), levels, terms, blocks)
        self.blocks = blocks

    def simulate(self, studies: int, generator: np.random.Generator) -> np.ndarray:
        """Logarithms, `[runs, studies]`."""
        shared = generator.normal(0, SEED_ERROR, size=(self.seeds, studies))
        own = generator.normal(0, ERROR, size=(len(self.means), studies))
        return self.means[:, None] + shared[self.blocks] + own

    def check(self, studies: int, generator: np.random.Generator) -> list[dict[str, Any]]:
        """For each term: how often its intervals hold the truth, and how often it is called an effect."""
        fit, exact = self.model.fit(self.simulate(studies, generator)), self.model.fit(self.means)
        rows = []
        for term in self.terms:
            effects, true = fit.effects(term), exact.effects(term).estimate[:, None]
            covered = (effects.low <= true) & (true <= effects.high)
            rows.append({
                "covered": float(covered.mean()), "called": float((effects.f_p_value < 0.05).mean()),
                "largest": float(np.abs(true).max()),
            })  # fmt: skip
        return rows


def designs(seeds: int) -> dict[str, Design]:
    grid = np.array([(noise, coupling) for noise in range(LEVELS) for coupling in range(LEVELS)])
    line, centre = np.arange(LEVELS), np.full(LEVELS, CENTRE)
    crossed = truth(grid[:, 0], grid[:, 1], np.full(len(grid), CENTRE))
    alone: list[Term] = [(0,)]
    return {
        "noise x coupling": Design(grid, crossed, [(0,), (1,), (0, 1)], seeds),
        "cycles": Design(line[:, None], truth(centre, centre, line), alone, seeds),
        "warm start": Design(line[:, None], truth(centre, centre, centre), alone, seeds),
    }


def intervals(studies: int, seeds: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    names = {"noise x coupling": ["noise", "coupling", "noise x coupling"]}
    rows = []
    for name, design in designs(seeds).items():
        for term, row in zip(names.get(name, [name]), design.check(studies, generator), strict=True):
            rows.append({"seeds": seeds, "term": term, "df": design.model.degrees, **row})
    return rows


def searches(studies: int, trials: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True and seen logarithms of the settings that each search tried, `[trials, studies]`.

    Ten settings at random, then the best one with one factor changed, or at random: no setting twice.
    """
    settings = np.array(list(np.ndindex(*[LEVELS] * 4)))
    means = truth(*settings[:, :3].T)
    seen = means[:, None] + generator.normal(0, ERROR, size=(len(settings), studies))
    weights = LEVELS ** np.arange(3, -1, -1)
    tried = np.zeros((len(settings), studies), dtype=bool)
    order = np.empty((trials, studies), dtype=int)
    every = np.arange(studies)
    for trial in range(trials):
        best = settings[np.where(tried, seen, np.inf).argmin(axis=0)]
        factor = generator.integers(4, size=studies)
        best[every, factor] = (best[every, factor] + generator.integers(1, LEVELS, size=studies)) % LEVELS
        near = best @ weights
        random = np.where(tried, np.inf, generator.random(size=tried.shape)).argmin(axis=0)
        local = (trial >= 10) & (generator.random(studies) < 0.7) & ~tried[near, every]
        order[trial] = np.where(local, near, random)
        tried[order[trial], every] = True
    return means[order], np.take_along_axis(seen, order, axis=0)


def optimism(studies: int, seeds: int, trials: int, generator: np.random.Generator) -> dict[str, Any]:
    """The best of the search: how much too good it is in truth, by the estimate, and by a re-run on fresh seeds."""
    means, seen = searches(studies, trials, generator)
    winner, every = seen.argmin(axis=0), np.arange(studies)
    true = means[winner, every] - seen[winner, every]
    design = designs(seeds)["noise x coupling"]
    deviation = np.sqrt(design.model.fit(design.simulate(studies, generator)).variance)
    fresh = means[winner, every] + generator.normal(0, math.hypot(ERROR, SEED_ERROR), size=(seeds, studies))
    again = fresh - seen[winner, every]
    half = special.stdtrit(seeds - 1, 0.975) * again.std(axis=0, ddof=1) / math.sqrt(seeds)
    covered = np.abs(again.mean(axis=0) - true) <= half
    estimate = expected_optimism(seen, deviation)
    return {
        "seeds": seeds, "trials": trials, "true": float(true.mean()), "estimate": float(estimate.mean()),
        "estimate error": float(np.sqrt(((estimate - true) ** 2).mean())), "re-run": float(again.mean()),
        "re-run error": float(np.sqrt(((again.mean(axis=0) - true) ** 2).mean())),
        "re-run covered": float(covered.mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 40], help="of the search")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    rows = [row for seeds in arguments.seeds for row in intervals(arguments.studies, seeds, generator)]
    print(f"{arguments.studies} studies; a term is called an effect where the F test says p < 0.05")
    for row in rows:
        print(f"{row['seeds']} seeds  {row['term']:18s} df {row['df']:3d}  largest effect {row['largest']:.2f}  "
              f"intervals that hold the truth {100 * row['covered']:.1f} %  "
              f"called an effect {100 * row['called']:.1f} %")  # fmt: skip
    best = [
        optimism(arguments.studies, seeds, trials, generator)
        for seeds in arguments.seeds for trials in arguments.trials
    ]  # fmt: skip
    for row in best:
        print(f"best of {row['trials']}, {row['seeds']} seeds: too good by {100 * row['true']:.1f} % in truth, "
              f"{100 * row['estimate']:.1f} % by the estimate (error {100 * row['estimate error']:.1f} %), "
              f"{100 * row['re-run']:.1f} % by the re-run (error {100 * row['re-run error']:.1f} %, its intervals hold "
              f"the truth in {100 * row['re-run covered']:.1f} %)")  # fmt: skip
    if arguments.output:
        found = {"studies": arguments.studies, "effects": rows, "optimism": best}
        arguments.output.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
