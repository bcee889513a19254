"""A data set by name: the bridge problem that it poses, and how solutions of it are judged."""

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbbridge.data import (
    AbstractDistribution,
    DataError,
    ImageSplits,
    StandardNormal,
    TensorData,
    Toy2D,
    digits,
    eight_gaussians,
)
from sbbridge.data.cifar10 import cifar10
from sbbridge.methods import Solution
from sbbridge.metrics import (
    FrechetJudge,
    conditional_bures_wasserstein_uvp,
    cross_covariance,
    digits_features,
    inception_features,
    relative_error,
    straightness,
    trajectory_variance,
    transport_cost,
    wasserstein2,
)
from sbbridge.path import node_times
from sbbridge.problems import BridgeProblem, GaussianBridge, MixtureBridge
from sbbridge.rng import Stream
from sbbridge.sampling import Samples, sample
from sbbridge.study.reporter import StudyReporter

Row = dict[str, Any]
SHOWN = 64
PRIMARY_METRIC = {
    "digits": ("frechet_distance", "digits-CNN"),
    "cifar10": ("frechet_distance", "inception"),
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

    def floors(self) -> Iterator[Row]:
        """What real samples score."""
        return iter(())

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
        device = reporter.device
        best: dict[int, tuple[float, Tensor]] = {}
        for name, grid, steps in self._combinations(solution, evaluation, device):
            for nfe, num_steps in steps.items():
                entry: Row = {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema"}
                for index, (split, n) in enumerate(self.sizes(evaluation).items()):
                    made = sample(solution, n, num_steps, sampler=name, grid=grid, seed=2 * seed + index, device=device)
                    judged = self.judge(made, split)
                    yield {**entry, **judged, "split": split, "num_steps": num_steps, "nfe": made.nfe}
                    if split == "validation" and judged["value"] < best.get(nfe, (float("inf"),))[0]:
                        best[nfe] = (judged["value"], self.picture(made.x).cpu())
        yield from ({"stage": "evaluation", "role": "floor", **row} for row in self.floors())
        yield from ({"stage": "evaluation", **row} for row in self.extras(solution, evaluation, seed))
        yield from self._paths(solution, evaluation, seed, device)
        shown = {f"nfe_{nfe}": images for nfe, (_, images) in best.items()}
        reporter.arrays("samples", {"real": self.picture(self.real()), **shown})

    def _combinations(self, solution: Solution, evaluation: Any,
                      device: str) -> Iterator[tuple[str, str, dict[int, int]]]:  # fmt: skip
        for name in evaluation.samplers:
            try:  # a sampler may need a field that this method lacks
                one, two = (sample(solution, 1, n, sampler=name, device=device).nfe for n in (1, 2))
            except ValueError:
                continue
            steps = {nfe: 1 + (nfe - one) // (two - one) for nfe in sorted(evaluation.nfe) if nfe >= one}
            for grid in evaluation.grids:
                yield name, grid, steps

    def _paths(self, solution: Solution, evaluation: Any, seed: int, device: str) -> Iterator[Row]:
        """Cost, straightness and variance of the paths of the method's ODE, or of its first sampler's."""
        supported = [name for name, _, _ in self._combinations(solution, evaluation, device)]
        if not supported:
            return
        name = next((s for s in ("heun", "ddim") if s in supported), supported[0])
        times = node_times("trailing_uniform", 50)
        made = sample(solution, evaluation.paths, 50, sampler=name, seed=seed, trajectory=True, device=device)
        assert made.trajectory is not None
        entry = {"stage": "evaluation", "sampler": name, "grid": "trailing_uniform", "num_steps": 50, "nfe": made.nfe,
                 "weights": "ema", "n": evaluation.paths}  # fmt: skip
        path = made.trajectory.cpu()
        yield {**entry, "metric": "transport_cost", "value": transport_cost(path[-1], path[0])}
        yield {**entry, "metric": "straightness", "value": straightness(path, times)}
        yield {**entry, "metric": "trajectory_variance", "value": trajectory_variance(path, times)}


class ImageTask(Task):
    """Images judged by Fréchet distances on validation and test splits."""

    def __init__(self, problem: BridgeProblem, splits: ImageSplits, config: Any, device: str) -> None:
        self.problem, self._splits = problem, splits
        name = config.evaluation.features
        features = digits_features(device) if name == "digits-CNN" else inception_features(_inception_folder(), device=device)
        self._judges = {
            split: FrechetJudge(getattr(splits, split).images, features, name) for split in ("validation", "test")
        }

    def sizes(self, evaluation: Any) -> dict[str, int]:  # noqa: D102
        return {split: judge.n * evaluation.draws for split, judge in self._judges.items()}

    def judge(self, samples: Samples, split: str) -> Row:  # noqa: D102
        judge = self._judges[split]
        value, n = judge.distance(samples.x)
        return {"metric": "frechet_distance", "features": judge.name, "value": value, "n": n}

    def floors(self) -> Iterator[Row]:  # noqa: D102
        for split, judge in self._judges.items():
            value, n = judge.floor(self._splits.train.images)
            yield {"metric": "frechet_distance", "features": judge.name, "value": value, "n": n, "split": split}

    def picture(self, samples: Tensor) -> Tensor:  # noqa: D102
        grey = ((samples[:SHOWN] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return grey[:, 0] if grey.shape[1] == 1 else grey.permute(0, 2, 3, 1)

    def real(self) -> Tensor:  # noqa: D102
        return self._splits.test.images


class GaussianTask(Task):
    """Gaussian ends: everything against the closed form."""

    def __init__(self, problem: GaussianBridge) -> None:
        self.problem: GaussianBridge = problem

    def sizes(self, evaluation: Any) -> dict[str, int]:  # noqa: D102
        return {"validation": evaluation.n, "test": evaluation.n}

    def judge(self, samples: Samples, split: str) -> Row:  # noqa: D102
        estimate = torch.cov(samples.x.double().mT).reshape(self.problem.cov0.shape).cpu()
        return {"metric": "covariance_error", "value": relative_error(estimate, self.problem.cov0), "n": len(samples.x)}

    def floors(self) -> Iterator[Row]:  # noqa: D102
        drawn = Samples(self.problem.data.sample(20_000, seed=1), 0)
        for split in ("validation", "test"):
            yield {**self.judge(drawn, split), "split": split}

    def extras(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:  # noqa: D102
        exact = self.problem.couple(evaluation.n, seed)
        t = Stream(seed, ("t",)).uniform(0, range(evaluation.n)).clamp(min=1e-3)
        x = self.problem.reference.bridge(t, *exact, torch.randn(exact.x0.shape, generator=Stream(seed).generator()))
        scale = self.problem.reference.variance(0.0, t).sqrt()[:, None]
        pairs = [("backward_score_error", solution.backward_score(t, x) * scale, self.problem.backward_score(t, x) * scale)]
        if solution.dynamics.control is not None:
            pair = solution.couple(evaluation.n, seed)
            pairs.append(("control_error", solution.control(t, x), self.problem.control(t, x)))
            pairs.append(("coupling_error", cross_covariance(*pair), self.problem.coupling_covariance))
        for metric, estimate, truth in pairs:
            yield {"metric": metric, "value": relative_error(estimate, truth), "n": evaluation.n, "split": "test"}


class MixtureTask(Task):
    """A mixture with a known plan: cBW-UVP of x0 given x1."""

    CONDITIONS = {"validation": 100, "test": 200}

    def __init__(self, problem: MixtureBridge) -> None:
        self.problem: MixtureBridge = problem
        self._end = torch.cov(problem.data.sample(50_000, seed=5).double().mT)
        self._x1 = {split: problem.prior.sample(n, seed=11 + n) for split, n in self.CONDITIONS.items()}

    def sizes(self, evaluation: Any) -> dict[str, int]:  # noqa: D102
        return {split: n * max(2, evaluation.n // n) for split, n in self.CONDITIONS.items()}

    def judge(self, samples: Samples, split: str) -> Row:  # noqa: D102
        raise RuntimeError("a mixture is judged conditionally")

    def conditional(self, drawn: Tensor, split: str) -> float:
        """cBW-UVP of draws `[conditions, n, d]`."""
        moments = self.problem.conditional_moments(self._x1[split])
        return conditional_bures_wasserstein_uvp(drawn, moments.mean, moments.covariance, self._end)

    def evaluate(self, solution: Solution, evaluation: Any, seed: int, reporter: StudyReporter) -> Iterator[Row]:
        """Draws from each condition; floor: the exact plan's draws; null: draws of the independent plan."""
        shown = {}
        for name, grid, steps in self._combinations(solution, evaluation, reporter.device):
            for nfe, num_steps in steps.items():
                for index, (split, n) in enumerate(self.sizes(evaluation).items()):
                    x1 = self._repeated(split, n).to(reporter.device)
                    made = sample(solution, None, num_steps, sampler=name, grid=grid, x1=x1, seed=2 * seed + index,
                                  device=reporter.device)  # fmt: skip
                    value = self.conditional(made.x.cpu().view(len(self._x1[split]), -1, x1.shape[1]), split)
                    yield {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema", "metric": "cbw_uvp",
                           "value": value, "n": n, "split": split, "num_steps": num_steps, "nfe": made.nfe}  # fmt: skip
                made = sample(solution, SHOWN * 8, num_steps, sampler=name, grid=grid, seed=seed, device=reporter.device)
                shown.setdefault(f"nfe_{nfe}", made.x.cpu())
        for split, n in self.sizes(evaluation).items():
            x1 = self._repeated(split, n)
            oracle, null = self.problem.sample_conditional(x1, seed=3), self.problem.data.sample(n, seed=4)
            for role, drawn in (("floor", oracle), ("null", null)):
                value = self.conditional(drawn.view(len(self._x1[split]), -1, x1.shape[1]), split)
                yield {"stage": "evaluation", "role": role, "metric": "cbw_uvp", "value": value, "n": n, "split": split}
        yield from self._paths(solution, evaluation, seed, reporter.device)
        reporter.arrays("samples", {"real": self.problem.data.sample(SHOWN * 8, seed=0), **shown})

    def _repeated(self, split: str, n: int) -> Tensor:
        x1 = self._x1[split]
        return x1.repeat_interleave(n // len(x1), dim=0)


class PlaneTask(Task):
    """Toys on the plane, judged by exact W2 at n = 1,024."""

    N = 1024

    def __init__(self, problem: BridgeProblem) -> None:
        self.problem = problem
        self._real = {split: problem.data.sample(self.N, seed=7 + i) for i, split in enumerate(("validation", "test"))}

    def sizes(self, evaluation: Any) -> dict[str, int]:  # noqa: D102
        return dict.fromkeys(self._real, self.N)

    def judge(self, samples: Samples, split: str) -> Row:  # noqa: D102
        return {"metric": "wasserstein2", "value": wasserstein2(samples.x.cpu(), self._real[split]), "n": self.N}

    def floors(self) -> Iterator[Row]:  # noqa: D102
        for split in self._real:
            yield {**self.judge(Samples(self.problem.data.sample(self.N, seed=99), 0), split), "split": split}

    def picture(self, samples: Tensor) -> Tensor:  # noqa: D102
        return samples[: SHOWN * 8]

    def real(self) -> Tensor:  # noqa: D102
        return self.problem.data.sample(SHOWN * 8, seed=0)


def open_task(config: Any, data_root: str | None = None, skip_bad: bool = False, device: str = "cpu") -> Task:
    """The problem and judge that a configuration's data set and reference make.

    Raises:
        DataError: the data are not where the user says, or hold NaN.
        MissingWeights: the features' weights are missing.
    """
    name, reference = config.dataset, config.reference
    if name in ("digits", "cifar10"):
        splits = digits() if name == "digits" else cifar10(_data_root(data_root))
        data = _usable(splits.train.images, skip_bad)
        problem = BridgeProblem(data, StandardNormal(data.shape, getattr(reference, "sigma", 1.0)), reference)
        return ImageTask(problem, splits, config, device)
    if name == "gaussian64":
        return GaussianTask(gaussian64(reference))
    if name.startswith("mixture"):
        return MixtureTask(mixture(int(name.removeprefix("mixture")), reference))
    plane: AbstractDistribution = eight_gaussians() if name == "eight_gaussians" else Toy2D(name)
    return PlaneTask(BridgeProblem(plane, StandardNormal((2,)), reference))


def gaussian64(reference: Any) -> GaussianBridge:
    """d = 64, eigenvalues falling as 1/k^2 from 200 to 1e-2 or less, in a fixed random basis; prior N(0, I)."""
    spectrum = 200.0 * torch.arange(1, 65, dtype=torch.float64) ** -2
    spectrum = spectrum[0] * (spectrum / spectrum[0]) ** (torch.log(torch.tensor(2e4)) / torch.log(torch.tensor(4096.0)))
    basis, _ = torch.linalg.qr(torch.randn(64, 64, generator=Stream(0, ("gaussian64",)).generator(), dtype=torch.float64))
    return GaussianBridge(torch.zeros(64), basis @ torch.diag(spectrum) @ basis.mT, torch.zeros(64), torch.eye(64), reference)


def mixture(dimension: int, reference: Any, components: int = 5) -> MixtureBridge:
    """Our mixture pair (seed 0): centres on a sphere of radius 5, variances uniform in [0.5, 2]."""
    stream = Stream(0, ("mixture", str(dimension)))
    centres = stream.normal(0, range(components), (dimension,)).double()
    variances = 0.5 + 1.5 * torch.stack([stream.uniform(1 + i, range(components)) for i in range(dimension)], 1)
    means = 5 * centres / centres.norm(dim=1, keepdim=True)
    return MixtureBridge([1.0] * components, means, variances, reference)


def _usable(images: Tensor, skip_bad: bool) -> TensorData:
    if skip_bad:
        images = images[torch.isfinite(images).flatten(1).all(1)]
    return TensorData(images)


def _data_root(given: str | None) -> Path | None:
    root = given or os.environ.get("SB_DATA_ROOT")
    if root is not None and not Path(root).is_dir():
        raise DataError(f"--data-root {root}: no such folder")
    return Path(root) if root else None


def _inception_folder() -> Path:
    return Path(os.environ.get("SB_INCEPTION", "."))
