"""One trial: a configuration and a seed in, records out. No Ray."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch

from sbbridge.config import Forbid, digest, dump, require
from sbbridge.methods import ASBM, LDSB, MethodConfig, Solution, TeacherFit
from sbbridge.networks import MLP, Network, RatioTable, UNet
from sbbridge.path.nodes import NodeGrid
from sbbridge.sampling import Sampler
from sbbridge.sde import VPSDE, Reference
from sbbridge.study.definition import Dataset
from sbbridge.study.denoiser import with_denoiser
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.tasks import open_task
from sbbridge.study.turns import one_at_a_time
from sbbridge.training import Trainer, Training, selected, solution_of


@final
@dataclass(frozen=True)
class Evaluation(Forbid):
    """What is measured once a training is done; samplers that a method cannot run are left out.

    Attributes:
        nfe: network calls a sample; each sampler takes the most steps whose counted calls are no more.
        samplers, grids: every combination is measured.
        eta: of the samplers ddim and ratio_path alone: 0 is deterministic, 1 is DDPM.
        draws: sets of generated images, each as large as the real one, that a Fréchet distance is averaged over.
        n: samples where the data set is not images.
        paths: trajectories that straightness and its kin are measured on.
        curve: validation scores at `curve_nfe` calls taken in every stage whose network is sampled from; 0 is none. A
            training that an earlier evaluation has done is not repeated for it.
        features: of the Fréchet distance and its kin.
        to_training: with images, also the Fréchet distance of all `draws` sets together to all images but the test
            split's: with features inception and 5 draws on CIFAR-10, 50,000 on either side, what papers report as FID.
        localised_times: how far real examples are carried before they come back; none where it is empty.
    """

    nfe: tuple[int, ...] = (1, 2, 3, 5, 10, 20, 50)
    samplers: tuple[Sampler, ...] = ("exponential", "ancestral", "heun", "ddim")
    grids: tuple[NodeGrid, ...] = ("trailing_uniform", "leading_uniform", "trailing_quadratic")
    eta: float = 0.0
    draws: int = 5
    n: int = 20_000
    paths: int = 512
    curve: int = 0
    curve_nfe: int = 10
    features: Literal["digits-CNN", "patches-CNN", "inception"] = "digits-CNN"
    to_training: bool = False
    localised_times: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8, 1.0)

    def __post_init__(self) -> None:
        require(len(self.nfe) > 0 and min(self.nfe) >= 1, f"nfe must be numbers >= 1, got {list(self.nfe)}")
        require(len(self.samplers) > 0, "samplers must not be empty")
        require(len(self.grids) > 0, "grids must not be empty")
        require(0 <= self.eta <= 1, f"eta must be in [0, 1], got {self.eta}")
        require(self.draws >= 1, f"draws must be >= 1, got {self.draws}")
        require(self.n >= 100, f"n must be >= 100, got {self.n}")
        require(self.paths >= 2, f"paths must be >= 2, got {self.paths}")
        require(self.curve >= 0, f"curve must be >= 0, got {self.curve}")
        require(self.curve_nfe >= 1, f"curve_nfe must be >= 1, got {self.curve_nfe}")
        times = self.localised_times
        require(all(0 < t <= 1 for t in times), f"localised_times must be in (0, 1], got {list(times)}")
        require(len(set(times)) == len(times), f"localised_times must differ, got {list(times)}")


@final
@dataclass(frozen=True)
class TrialConfig(Forbid):
    """Everything that a result depends on, but the seed."""

    dataset: Dataset = "digits"
    reference: Reference = VPSDE()
    method: MethodConfig = ASBM()
    network: Network = MLP()
    training: Training = Training()
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        fields = isinstance(self.network, MLP | UNet)
        allowed = "mlp, unet" if not isinstance(self.method, LDSB) else "kan, efficient_kan, ratio_mlp, table"
        require(
            fields != isinstance(self.method, LDSB),
            f"network.kind {self.network.kind} does not go with method.kind {self.method.kind} (allowed: {allowed})",
        )
        if isinstance(self.method, LDSB):
            shares = isinstance(self.method.fit, TeacherFit) and self.method.fit.shared
            require(not shares or not isinstance(self.network, RatioTable),
                    "method.fit.shared needs a network of time, not network.kind table (allowed: kan, efficient_kan, "
                    "ratio_mlp)")  # fmt: skip
            require(self.training.accumulate == 1, "training.accumulate: ldsb takes its targets from whole batches")
            require(self.training.budget is None, "training.budget: ldsb trains scalars; set the options of method.fit")


class BatchTooLarge(Exception):
    """The device's memory does not hold a batch; the message says what to set."""


def digests(tree: dict[str, Any]) -> tuple[str, str]:
    """(digest, training_digest) of a resolved configuration: with and without its evaluation."""
    return digest(tree), digest({key: value for key, value in tree.items() if key != "evaluation"})


def run_trial(config: TrialConfig, seed: int, reporter: StudyReporter, data_root: str | None = None,
              skip_bad: bool = False, evaluate: bool = True) -> dict[str, Any]:  # fmt: skip
    """Trains (or continues), evaluates, writes metrics and artefacts through the reporter.

    Args:
        config: what to train, and how to judge it.
        seed: of everything.
        reporter: where checkpoints, metrics and artefacts go.
        data_root, skip_bad: of the data.
        evaluate: False stops at the trained network, whose checkpoint a later call evaluates.

    Returns:
        The fields of the trial's row that only a finished trial knows.

    Raises:
        DataError, MissingWeights: something that the user must bring is missing.
        DivergenceError: a loss is not finite.
        BatchTooLarge: the device's memory does not hold a batch.
    """
    try:
        return _run_trial(config, seed, reporter, data_root, skip_bad, evaluate)
    except RuntimeError as error:  # torch's OutOfMemoryError is one; on the CPU it is told by its text alone
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            training = config.training
            whole = isinstance(config.method, LDSB)  # its batches are not accumulated
            parts = "" if whole else f" or training.accumulate={2 * training.accumulate}"
            raise BatchTooLarge(
                f"the batch does not fit on {reporter.device}: try --set training.batch_size="
                f"{max(1, training.batch_size // 2)}{parts}, with --fresh"
            ) from None
        raise


def _run_trial(config: TrialConfig, seed: int, reporter: StudyReporter, data_root: str | None, skip_bad: bool,
               evaluate: bool) -> dict[str, Any]:  # fmt: skip
    started = time.monotonic()
    task = open_task(config, data_root, skip_bad, reporter.device)
    problem, denoiser_evaluations = with_denoiser(config, task.problem, seed, reporter)
    _, training_digest = digests(dump(config))
    with one_at_a_time(reporter, training_digest, seed):
        trainer = Trainer(config.method, problem, config.network, config.training, seed, reporter)
        if evaluate and not isinstance(config.method, LDSB):
            task.require_samplers(solution_of(trainer), config.evaluation)
        if config.method.selects:
            select = task.selector(config.evaluation, seed)
            trainer.judge = lambda criterion: select(solution_of(trainer), criterion)
        if config.evaluation.curve:
            trainer.watch = _Curve(task, trainer, config.evaluation, seed, reporter)
        trainer.train()
    trained = time.monotonic()
    if evaluate and reporter.workers.rank == 0:
        _evaluate(task, selected(trainer), config, seed, reporter)
    reference = config.reference
    return {
        "training_seconds": trainer.position.seconds,
        "evaluation_seconds": time.monotonic() - trained,
        "seconds": time.monotonic() - started,
        "simulation_evaluations": trainer.position.simulation,
        "optimisation_evaluations": trainer.position.optimisation,
        "denoiser_evaluations": denoiser_evaluations,
        "network_parameters": sum(
            p.numel() for name in config.method.judged for p in trainer.networks[name].online.parameters()
            if p.requires_grad
        ),
        "peak_memory_bytes": trainer.position.memory,
        "retained_memory": reference.retained_memory,
        "terminal_variance": reference.terminal_variance,
    }


def resolved(config: TrialConfig) -> dict[str, Any]:
    """The whole configuration as JSON data."""
    return dump(config)


def _evaluate(task: Any, solution: Solution, config: TrialConfig, seed: int, reporter: StudyReporter) -> None:
    for row in task.evaluate(solution, config.evaluation, seed, reporter):
        reporter.row(**row)
    reporter.flush()


class _Curve:
    """Validation quality against network evaluations, while the network that samples are drawn from is trained.

    Rank 0 judges; every worker tells the reporter, which may end the training there.
    """

    def __init__(self, task: Any, trainer: Trainer, evaluation: Evaluation, seed: int, reporter: StudyReporter) -> None:
        self._task, self._trainer, self._evaluation = task, trainer, evaluation
        self._seed, self._reporter = seed, reporter

    def __call__(self, before: float, after: float) -> None:
        points = self._evaluation.curve
        if int(after * points) == int(before * points):
            return
        quality, spent = math.nan, self._trainer.evaluations()  # of all workers: each of them has to ask
        if self._reporter.workers.rank == 0:
            for row in self._task.glance(solution_of(self._trainer), self._evaluation, self._seed):
                self._reporter.row(**row, stage="training", step=spent)
                quality = row["value"] if math.isfinite(row["value"]) else math.inf  # the last of all
        if after < 1:  # what is trained already is evaluated
            self._reporter.progress(spent, quality)
