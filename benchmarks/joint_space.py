"""Every configuration of `joint_sweep`'s space, small: trained once, written down, looked up from then on.

Factors, conditions and levels are those of `studies.joint_sweep`, but the noise has 3 of its 5 levels (1, 4, 20).
Fields have 64 x 2 hidden units and 120,000 network evaluations, fits 3 to 12 optimiser steps a network, and quality is
judged on one draw of the validation split: real trainings on digits, one seed each, too short to say which method is
good. What is written is what `sbbridge.study.trial.run_trial` would find; what the search does not see (test split,
measures of paths) is left out.
"""

import csv
import gzip
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from sbbridge import config
from sbbridge.methods import Solution, denoiser_of
from sbbridge.methods.ldsb_stages import PathError
from sbbridge.problems import BridgeProblem, DenoisingProblem
from sbbridge.sampling import sample
from sbbridge.study.denoiser import denoiser_tree
from sbbridge.study.design import SEARCH_SEED
from sbbridge.study.outcome import objectives, training_cost
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.space import Point, Space, resolve
from sbbridge.study.tasks import Task, open_task, primary_metric
from sbbridge.study.tasks.base import eta_of
from sbbridge.study.trial import TrialConfig, digests
from sbbridge.training import DivergenceError, Reporter, Trainer, selected, solution_of
from studies import joint_sweep, ldsb_sweep

TABLE = Path(__file__).parent / "recorded" / "joint_space.csv.gz"
DATASET = "digits"
NOISE_LEVELS = (1.0, 4.0, 20.0)
STEPS = (3, 5, 10, 20)
BASE: Mapping[str, Any] = {
    **joint_sweep.TINY, **joint_sweep.EVALUATION, "evaluation.nfe": list(STEPS), "method.student": "flow",
    "network.width": 64, "network.depth": 2, "training.budget": 120_000, "training.batch_size": 128,
    "training.learning_rate": 4e-3, "training.ema_decay": 0.98,
}  # fmt: skip
OWN_PATH: Mapping[str, Any] = {**joint_sweep.OWN_PATH, "method.prefit_steps": 10, "training.batch_size": 64}
FITS: Mapping[str, Mapping[str, Any]] = {
    "teacher": {
        "method.fit.pairs": 256, "method.fit.epochs": 3, "method.fit.learning_rate": 5e-2,
        "method.fit.generation": {"scheme": "heun", "num_steps": 20, "grid": "trailing_quadratic"},
    },
    "ipf": {
        "method.fit.iterations": 1, "method.fit.epochs": 1, "method.fit.batches": 1, "method.fit.learning_rate": 5e-3,
    },
    "ipf_exact": {"method.fit.iterations": 1, "method.fit.images": 1024, **ldsb_sweep.TABLE},
}  # fmt: skip
OUTCOME = ("status", "quality", "nfe", "sampler", "evaluations", "seconds")
"""completed or failed; Fréchet distance on validation; counted calls; network evaluations, the denoiser's included;
wall seconds of training and judging, the denoiser's included, on one thread beside other work."""


def joint_space() -> Space:
    """The space as the study resolves it."""
    preset = joint_sweep.STUDY.presets["default"]
    factors = tuple(
        replace(factor, values=NOISE_LEVELS) if factor.path == joint_sweep.NOISE.path else factor
        for factor in joint_sweep.space(FITS, *STEPS)
    )
    small = replace(preset, base=BASE, own_path=OWN_PATH, space=factors, factors=(), grid=(), points=(), finalists=())
    options = Options(DATASET, "small", Path("unused"), "unused", trials=1, seeds=1, assignments={})
    return make_plan(replace(joint_sweep.STUDY, presets={"small": small}), options).space()


def points(space: Space, first: int = 0, chosen: Point | None = None) -> Iterator[dict[str, Any]]:
    """Every point of a space: all levels of each factor that matters beside those before it."""
    chosen = dict(chosen or {})
    for index in range(first, len(space.factors)):
        factor = space.factors[index]
        if space.matters(factor, chosen):
            for level in factor.values:
                yield from points(space, index + 1, {**chosen, factor.path: level})
            return
    yield chosen


def identity(point: Point) -> str:
    """A point's levels as canonical JSON."""
    return json.dumps(point, sort_keys=True)


class Table:
    """Rows by point: the file that is committed, or one that still grows beside it.

    Args:
        path: of the table, CSV in gzip; without it, what is written so far as plain CSV in PATH.part.
        space: whose points are its rows.
    """

    def __init__(self, path: Path, space: Space) -> None:
        self._space, self.path, self._part = space, path, path.with_name(f"{path.name}.part")
        self._paths = [factor.path for factor in space.factors]
        self._levels = {factor.path: {_text(level): level for level in factor.values} for factor in space.factors}
        self.rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read(gzip.decompress(path.read_bytes()).decode())
        if self._part.exists():
            self._read(self._part.read_text(encoding="utf-8"))

    def _read(self, text: str) -> None:
        whole, _, _ = text.rpartition("\n")  # a line that was torn off by a kill is none
        for row in csv.DictReader(whole.splitlines()):
            levels = {path: row[path] for path in self._paths if row.get(path)}
            if any(level not in self._levels[path] for path, level in levels.items()):
                continue  # of a space that has changed since
            point = {path: self._levels[path][level] for path, level in levels.items()}
            numbers = {name: float(row[name]) for name in OUTCOME if name not in ("status", "sampler")}
            self.rows[identity(point)] = {**row, **numbers, "point": point}

    def add(self, point: Point, outcome: Mapping[str, Any]) -> None:
        """Writes a row where a kill leaves it."""
        new = not self._part.exists()
        with self._part.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow([*self._paths, *OUTCOME])
            writer.writerow(self._line(point, outcome))
        self.rows[identity(point)] = {**outcome, "point": dict(point)}

    def mend(self) -> None:
        """Cuts off a line that was torn, so that the next one is not written behind it."""
        if self._part.exists():
            whole, end, _ = self._part.read_text(encoding="utf-8").rpartition("\n")
            self._part.write_text(whole + end, encoding="utf-8")

    def close(self) -> None:
        """Every point of the space into the file, in the order in which it came."""
        known = {identity(point) for point in points(self._space)}
        self.rows = {point: row for point, row in self.rows.items() if point in known}
        lines = [[*self._paths, *OUTCOME], *(self._line(row["point"], row) for row in self.rows.values())]
        text = "".join(",".join(line) + "\n" for line in lines)
        self.path.write_bytes(gzip.compress(text.encode(), mtime=0))
        self._part.unlink(missing_ok=True)

    def _line(self, point: Point, outcome: Mapping[str, Any]) -> list[str]:
        return [_text(value) for value in (*(point.get(p, "") for p in self._paths), *(outcome[n] for n in OUTCOME))]


def _text(value: Any) -> str:
    """One and the same for 1 and 1.0."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


@dataclass
class Field:
    """A trained field, what judged it, and all its scores on validation."""

    task: Task
    solution: Solution
    digest: str
    entries: list[dict[str, Any]]
    evaluations: int
    seconds: float


def record(path: Path) -> None:
    """Trains what the table lacks; every field once for all paths on it. A line of progress a field.

    It trusts the rows that are there: after a change of BASE, OWN_PATH or FITS the file has to go first.
    """
    import torch

    torch.set_num_threads(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    space = joint_space()
    table = Table(path, space)
    table.mend()
    wanted = [point for point in points(space) if identity(point) not in table.rows]
    print(f"{len(table.rows)} rows are there, {len(wanted)} to do", flush=True)
    started, done = time.monotonic(), 0
    for _, group in groupby(sorted(wanted, key=_field_of), key=_field_of):
        fitted = None
        for point in group:
            fitted = fitted or train_field(space, point)
            table.add(point, outcome(space, fitted, point))
            done += 1
        spent = time.monotonic() - started
        print(f"{done} of {len(wanted)}, {spent:.0f} s, {spent / done * (len(wanted) - done):.0f} s left", flush=True)
    table.close()


def _field_of(point: Point) -> tuple[str, ...]:
    """The levels that a field is trained with."""
    return tuple(str(point.get(path)) for path in ("method.coupling", "method.student", "reference.beta_max"))


def train_field(space: Space, point: Point) -> Field:
    """The field that a point samples from, judged at every number of calls."""
    started = time.monotonic()
    tree = space.tree(point)
    wanted = resolve(TrialConfig, denoiser_tree(tree) or tree, {})
    parsed = config.parse(TrialConfig, wanted)
    task = open_task(parsed)
    trainer = Trainer(parsed.method, task.problem, parsed.network, parsed.training, SEARCH_SEED, Reporter())
    trainer.train()
    solution, position = solution_of(trainer), trainer.position
    entries = judged(task, selected(trainer), parsed.evaluation)
    seconds = time.monotonic() - started
    return Field(task, solution, digests(wanted)[1], entries, position.simulation + position.optimisation, seconds)


def outcome(space: Space, field: Field, point: Point) -> dict[str, Any]:
    """A point's row; where there is a path, it is fitted first."""
    started = time.monotonic()
    tree = space.tree(point)
    fields: dict[str, Any] = {
        "entries": field.entries, "simulation_evaluations": 0, "optimisation_evaluations": field.evaluations,
    }  # fmt: skip
    status = "completed"
    if denoiser_tree(tree) is not None:
        try:
            fields = fit_path(field, config.parse(TrialConfig, tree))
        except (DivergenceError, PathError):
            fields, status = {}, "failed"
    metric, _ = primary_metric(DATASET)
    quality, nfe, sampler = objectives(fields, metric, space.judged_at(point), None)
    return {
        "status": status, "quality": float(f"{math.exp(quality):.6g}"), "nfe": nfe, "sampler": sampler,
        "evaluations": training_cost(fields), "seconds": round(field.seconds + time.monotonic() - started, 2),
    }  # fmt: skip


def fit_path(field: Field, parsed: TrialConfig) -> dict[str, Any]:
    """Fits a path for a field, chosen and judged on validation: what a trial's row knows of it."""
    problem, task = field.task.problem, field.task
    denoiser = denoiser_of(field.solution, f"{field.digest}-{SEARCH_SEED}")
    denoising: BridgeProblem = DenoisingProblem(problem.data, problem.prior, problem.reference, denoiser)
    trainer = Trainer(parsed.method, denoising, parsed.network, parsed.training, SEARCH_SEED, Reporter())
    select = task.selector(parsed.evaluation, SEARCH_SEED)
    trainer.judge = lambda criterion: select(solution_of(trainer), criterion)
    trainer.train()
    return {
        "entries": judged(task, selected(trainer), parsed.evaluation), "denoiser_evaluations": field.evaluations,
        "simulation_evaluations": trainer.position.simulation,
        "optimisation_evaluations": trainer.position.optimisation,
    }  # fmt: skip


def judged(task: Task, solution: Solution, evaluation: Any) -> list[dict[str, Any]]:
    """The primary metric on validation with every sampler and grid, as `Task.evaluate` takes it."""
    n, found = task.sizes(evaluation)["validation"], []
    for name, grid, steps in task.combinations(solution, evaluation):
        for number in steps.values():
            made = sample(solution, n, number, sampler=name, grid=grid, seed=2 * SEARCH_SEED,
                          eta=eta_of(name, evaluation))  # fmt: skip
            found.append({**task.judge(made, "validation"), "nfe": made.nfe, "sampler": name})
    return found
