"""A problem with its judge."""

import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sbbridge.arguments import finite_rows
from sbbridge.config import ConfigurationError
from sbbridge.methods import Solution
from sbbridge.methods.ldsb_paths import path_arrays
from sbbridge.path.scheduler import FILE, scheduler_config
from sbbridge.problems import BridgeProblem, DenoisingProblem
from sbbridge.sampling import STOCHASTIC, Samples, sample
from sbbridge.study.outcome import NOT_FINITE
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.tasks.paths import localised, path_measures
from sbbridge.study.tasks.teacher import Teacher

Row = dict[str, Any]
SHOWN = 64
RETURNED = 8
"""Examples that are shown beside what comes back of them."""
ODE_SAMPLERS = ("heun", "euler", "ddim")
PRIMARY_METRIC = {
    "digits": ("frechet_distance", "digits-CNN"),
    "photos": ("frechet_distance", "patches-CNN"),
    "cifar10": ("frechet_distance", "inception"),
    "celeba": ("frechet_distance", "inception"),
    "celeba_hq": ("frechet_distance", "inception"),
    "ffhq_latent": ("frechet_distance", "inception"),
    "image_folder": ("frechet_distance", "inception"),
    "gaussian64": ("covariance_error", None),
    "mixture2": ("cbw_uvp", None),
    "mixture16": ("cbw_uvp", None),
}
"""(metric, features) that a data set is judged by; others by ("wasserstein2", None)."""


def primary_metric(dataset: str) -> tuple[str, str | None]:
    """What a data set is judged by: metric and features."""
    return PRIMARY_METRIC.get(dataset, ("wasserstein2", None))


class Task(abc.ABC):
    """A problem with its judge."""

    problem: BridgeProblem

    @abc.abstractmethod
    def judge(self, samples: Samples, split: str) -> Row:
        """metric, value, n (and features) of samples."""

    @abc.abstractmethod
    def sizes(self, evaluation: Any) -> dict[str, int]:
        """How many samples each split's judgement takes."""

    def variety(self, x: Tensor) -> Iterator[Row]:
        """Further metrics of samples against the test split: what they cover."""
        return iter(())

    def seen(self, x: Tensor) -> Tensor:
        """States as they are compared with each other."""
        return x

    def finite(self, x: Tensor) -> Tensor:
        """Which samples are finite in all that is judged of them, `[n]`."""
        return finite_rows(x)

    def not_finite(self, x: Tensor) -> Iterator[Row]:
        """The share of samples that are not finite, where there are some: their other metrics are NaN."""
        finite = self.finite(x)
        if not finite.all():
            yield {"metric": NOT_FINITE, "value": float((~finite).double().mean()), "n": len(x)}

    def floors(self) -> Iterator[Row]:
        """What real samples score."""
        return iter(())

    def examples(self) -> Tensor | None:
        """States of the test split that are carried to t and back, where that is of interest."""
        return None

    def extras(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:
        """Metrics that no sampler enters."""
        return iter(())

    def picture(self, samples: Tensor) -> Tensor:
        """Samples as the report shows them."""
        return samples[:SHOWN]

    def real(self) -> Tensor:
        """Real samples beside them."""
        return self.problem.data.sample(SHOWN, seed=0)

    def evaluate(self, solution: Solution, evaluation: Any, seed: int, reporter: StudyReporter) -> Iterator[Row]:
        """All rows of metrics of a solution; the best samples on validation at each NFE become an artefact."""
        best: dict[int, tuple[float, Tensor]] = {}
        teacher = Teacher(solution, self.seen)
        for name, grid, steps in self.combinations(solution, evaluation):
            for nfe, num_steps in steps.items():
                entry: Row = {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema"}
                for index, (split, n) in enumerate(self.sizes(evaluation).items()):
                    made = sample(solution, n, num_steps, sampler=name, grid=grid, seed=2 * seed + index,
                                  eta=eta_of(name, evaluation))  # fmt: skip
                    judged = self.judge(made, split)
                    measured: Row = {**entry, "split": split, "num_steps": num_steps, "nfe": made.nfe}
                    yield {**measured, **judged}
                    yield from ({**measured, **row} for row in self.not_finite(made.x))
                    if split == "test":
                        near = teacher.distance(made, name, 2 * seed + index) if eta_of(name, evaluation) == 0 else ()
                        yield from ({**measured, **row} for row in near)
                        yield from ({**measured, **row} for row in self.variety(made.x))
                    if split == "validation" and judged["value"] < best.get(nfe, (float("inf"),))[0]:
                        best[nfe] = (judged["value"], self.picture(made.x).cpu())
        yield from ({"stage": "evaluation", "role": "floor", **row} for row in self.floors())
        yield from ({"stage": "evaluation", **row} for row in self.extras(solution, evaluation, seed))
        yield from self.paths(solution, evaluation, seed, reporter)
        shown = {f"nfe_{nfe}": images for nfe, (_, images) in best.items()}
        reporter.arrays("samples", {"real": self.picture(self.real()), **shown})

    def selector(self, evaluation: Any, seed: int) -> Callable[[Solution, str], float]:
        """What the candidates of a fit are chosen by: (candidate, criterion) -> a score, less is better, NaN never.

        A split means the primary metric there, with the candidate's own sampler at eta = 0 (settings that differ in eta
        share a fit); teacher the distance to where the denoiser's converged flow takes the noise of the validation
        split.
        """
        teachers: list[Teacher] = []

        def score(candidate: Solution, criterion: str) -> float:
            if criterion == "teacher":
                if not teachers:  # the candidates share their denoiser
                    teachers.append(Teacher(candidate, self.seen))
                return teachers[0].of_path(candidate, 2 * seed)
            made = sample(candidate, self.sizes(evaluation)[criterion], seed=2 * seed + (criterion == "test"))
            return float(self.judge(made, criterion)["value"])

        return score

    def glance(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:
        """The validation score at `evaluation.curve_nfe` with the first sampler and grid, for curves in training."""
        for name, grid, steps in self.combinations(solution, replace(evaluation, nfe=(evaluation.curve_nfe,))):
            for num_steps in steps.values():
                made = sample(solution, self.sizes(evaluation)["validation"], num_steps, sampler=name, grid=grid,
                              seed=2 * seed, eta=eta_of(name, evaluation))  # fmt: skip
                yield {**self.judge(made, "validation"), "sampler": name, "grid": grid, "split": "validation",
                       "num_steps": num_steps, "nfe": made.nfe, "weights": "ema"}  # fmt: skip
                return

    def combinations(self, solution: Solution, evaluation: Any) -> Iterator[tuple[str, str, dict[int, int]]]:
        """Sampler, grid and {NFE budget: steps}, for every sampler that this method can run.

        A path has one number of steps, and is all that a method which fits one is judged by. A distilled method has one
        sampler, whether it is named or not.
        """
        if solution.path is not None:
            yield "ratio_path", solution.path_grid, {len(solution.path): len(solution.path)}
            return
        distilled = solution.dynamics.generator is not None
        for name in ("one_step",) if distilled else evaluation.samplers:
            for grid in evaluation.grids[:1] if name == "one_step" else evaluation.grids:
                if steps := _steps(solution, name, grid, evaluation.nfe):
                    yield name, grid, steps

    def require_samplers(self, solution: Solution, evaluation: Any) -> None:
        """Before anything is trained: a run that no sampler of the evaluation can score is none.

        Raises:
            ConfigurationError: there is no sampler, or no NFE that one of them can do.
        """
        if next(self.combinations(solution, evaluation), None) is None:
            raise ConfigurationError(
                f"evaluation: method {solution.method} can be sampled by none of {', '.join(evaluation.samplers)} "
                f"in {min(evaluation.nfe)} to {max(evaluation.nfe)} calls (see evaluation.samplers and evaluation.nfe)"
            )

    def paths(self, solution: Solution, evaluation: Any, seed: int, reporter: StudyReporter) -> Iterator[Row]:
        """Paths of the method's ODE, or of its first sampler, and the localised coupling, as rows and artefacts."""
        if solution.path is not None:
            yield from self._own_path(solution, reporter)
            return
        supported = [name for name in evaluation.samplers if _calls(solution, name, 2) is not None]
        if not supported:
            return
        name = next((s for s in ODE_SAMPLERS if s in supported), supported[0])
        rows, arrays = path_measures(solution, name, evaluation.paths, seed)
        reporter.arrays("paths", arrays)
        yield from ({"stage": "evaluation", "weights": "ema", **row} for row in rows)
        yield from self._localised(solution, evaluation.localised_times, supported[0], seed, reporter)

    def _own_path(self, solution: Solution, reporter: StudyReporter) -> Iterator[Row]:
        """What a path is made of, beside the original; what it would take to store; the path as a scheduler's JSON."""
        assert solution.path is not None and solution.path_nodes is not None
        nodes, problem = solution.path_nodes, solution.problem
        if isinstance(problem, DenoisingProblem) and problem.denoiser.timesteps is not None:
            denoiser = problem.denoiser
            reporter.document(FILE, scheduler_config(solution.path, problem.denoiser.timesteps, denoiser.digest))
        reporter.arrays("ratio_path", path_arrays(solution.path, nodes))
        change = (solution.path.log_snr - nodes.original.log_snr)[: len(nodes) - nodes.start]
        momentum = 0 if solution.path.momentum is None else len(solution.path.momentum)
        moved = int((solution.path.times != nodes.times).sum())
        scalars = len(nodes.free_image) + len(nodes.free_noise) + momentum + moved
        for metric, value in (("path_log_snr_change", float(change.abs().max())), ("path_scalars", float(scalars))):
            yield {"stage": "evaluation", "weights": "ema", "metric": metric, "value": value}

    def _localised(self, solution: Solution, times: tuple[float, ...], sampler: str, seed: int,
                   reporter: StudyReporter) -> Iterator[Row]:  # fmt: skip
        x0 = self.examples()
        found = [] if x0 is None else list(localised(solution, x0, times, sampler, seed))
        if x0 is None:
            return
        for t, _, distance in found:
            yield {"stage": "evaluation", "sampler": sampler, "weights": "ema", "split": "test", "n": len(x0),
                   "metric": f"localised_distance_t{t:g}", "value": distance}  # fmt: skip
        found = [entry for entry in found if self.finite(entry[1][:RETURNED]).all()]  # others have no picture
        if not found:
            return
        reporter.arrays("localised", {
            "t": torch.tensor([t for t, _, _ in found], dtype=torch.float64),
            "distance": torch.tensor([distance for _, _, distance in found], dtype=torch.float64),
            "originals": self.picture(x0[:RETURNED]),
            "returned": torch.stack([self.picture(returned[:RETURNED]) for _, returned, _ in found]),
        })  # fmt: skip


def eta_of(sampler: str, evaluation: Any) -> float:
    """The share of noise that is drawn anew, for samplers that can be told."""
    return float(evaluation.eta) if sampler in STOCHASTIC else 0.0


def _steps(solution: Solution, sampler: str, grid: str, budgets: Sequence[int]) -> dict[int, int]:
    """{NFE budget: the most steps whose counted calls are no more}; from the third step on each costs the same."""
    one, two, three = (_calls(solution, sampler, n, grid) for n in (1, 2, 3))
    if one is None:
        return {}
    within = sorted(nfe for nfe in budgets if nfe >= one)
    if two is None or three is None:
        return dict.fromkeys(within[:1], 1)
    return {
        nfe: 1 if nfe < two else 2 if nfe < three else 3 + (nfe - three) // (three - two) for nfe in within
    }  # fmt: skip


def _calls(solution: Solution, sampler: str, num_steps: int, grid: str = "trailing_uniform") -> int | None:
    """Counted calls of a sampler, None where it needs a field that the method lacks or does not take these steps."""
    try:
        return sample(solution, 1, num_steps, sampler=sampler, grid=grid).nfe
    except ValueError:
        return None
