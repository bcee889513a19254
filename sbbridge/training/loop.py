"""The only optimiser loop: it runs any method's stages, and continues where a checkpoint stands."""

import math
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sbbridge.coupling import Batch
from sbbridge.methods import Evaluations, Method, Run, Stage, cost
from sbbridge.methods.base import Draw
from sbbridge.networks import Network
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream, isolated
from sbbridge.training import checkpoint
from sbbridge.training.compute import Compute
from sbbridge.training.config import Training
from sbbridge.training.learner import Learner, build_networks, learners_of
from sbbridge.training.reporter import Reporter


@dataclass
class Position:
    """Where a training stands: everything but tensors that continuing needs."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    simulation: int = 0
    optimisation: int = 0
    best: float = math.inf
    seconds: float = 0.0
    memory: int = 0
    findings: dict[str, dict[str, float]] = field(default_factory=dict)


class DivergenceError(RuntimeError):
    """The loss is no longer a finite number."""


class Trainer:
    """Runs a method's stages.

    Randomness is addressed by (seed, stage, step, row), so a checkpoint holds no generator state, and the global batch
    is the same for any number of workers.

    Attributes:
        watch: called after epochs of a stage that is `sampled`, with the shares of it that were done before and after
            the epoch; for curves of quality.
        judge: scores what has been trained so far by what `method.selects` names, less is better; asked after the same
            epochs.
        best: averages of the best of these candidates, {network: {weight: value}}.
    """

    def __init__(self, method: Method, problem: BridgeProblem, network: Network, training: Training, seed: int,
                 reporter: Reporter, watch: Callable[[float, float], None] | None = None,
                 judge: Callable[[str], float] | None = None) -> None:  # fmt: skip
        self.method = cost.within(method, training.budget, training.batch_size) if training.budget else method
        self.training, self.reporter, self.watch, self.judge = training, reporter, watch, judge
        self.best: dict[str, dict[str, Tensor]] = {}
        self._compute = Compute(training, reporter.device)
        self.networks = build_networks(self.method, problem, network, training, seed, self._compute)
        stream = Stream(seed, ("training",), reporter.device)
        self.run = Run(
            problem, self.networks, stream, reporter.workers, training.batch_size, autocast=self._compute.autocast
        )
        self.position = Position()
        self._held: dict[str, Tensor] | None = None
        self._simulated_before = self._saved_step = 0
        self._loss = torch.zeros((), dtype=torch.float64, device=reporter.device)
        self._restore()

    def train(self) -> None:
        """All stages that are left.

        Raises:
            DivergenceError: a loss is not finite.
        """
        self._started = self._saved = time.monotonic()
        self._seconds_before = self.position.seconds
        for index, stage in enumerate(self.method.stages(self.run)):
            if index >= self.position.stage:
                self._train_stage(stage)
                self.position.stage, self.position.epoch, self.position.step = index + 1, 0, 0
                self._save(None, [])

    def evaluations(self) -> int:
        """Network calls times samples so far, of all workers together; called on every worker."""
        return self._simulation() + self.run.evaluations.optimisation

    def _simulation(self) -> int:
        """Of all workers: each simulates its own rows, and counts in training steps what all of them do."""
        return self._simulated_before + int(self._from_workers(self.run.evaluations.simulation).sum())

    def _train_stage(self, stage: Stage) -> None:
        learners = learners_of(stage, self.networks, self.training, self._compute, self.reporter.workers.size)
        if not self._resume_stage(stage, learners) and stage.at_start:
            stage.at_start()
        position = self.position
        for epoch in range(position.epoch, stage.epochs):
            if position.step == 0:  # a resumed epoch has its pairs already
                stage.source.refresh(epoch)
                self._loss = torch.zeros((), dtype=torch.float64, device=self.reporter.device)
            steps = stage.source.steps(self.training.batch_size)
            for step in range(position.step, steps):
                self._loss += self._step(stage, learners, epoch, step, (epoch + step / steps) / stage.epochs)
                position.epoch, position.step = epoch, step + 1
                position.total_steps += 1
                self._save_if_due(stage, learners)
            if steps:
                self._report_loss(stage, steps)
            position.epoch, position.step = epoch + 1, 0
            if stage.sampled:
                self._select(stage)
                if self.watch:
                    self.watch(epoch / stage.epochs, (epoch + 1) / stage.epochs)
        if stage.at_end:
            findings = stage.at_end()
            self.run.findings[stage.name] = dict(findings.metrics)
            self.reporter.metrics(stage.name, position.total_steps, findings.metrics, findings.n)
            self.reporter.arrays("spectrum", findings.arrays)

    def _step(self, stage: Stage, learners: list[Learner], epoch: int, step: int, progress: float) -> Tensor:
        """One step of those of the stage's networks that are due; the first one's loss."""
        batch, rows, total = stage.source.batch(epoch, step, self.training.batch_size)
        losses = []
        for learner in learners:
            if learner.due(step):
                losses.append(self._learn(stage, learner, batch, rows, total, progress))
        return losses[0]

    def _learn(self, stage: Stage, learner: Learner, batch: Batch, rows: range, total: int,
               progress: float) -> Tensor:  # fmt: skip
        stream, workers = self.run.stream.child(stage.name, *learner.names, "step"), self.reporter.workers
        learner.set_learning_rate(progress)
        learner.optimiser.zero_grad(set_to_none=True)
        whole, evaluated = torch.zeros((), dtype=torch.float64, device=self.reporter.device), 0.0
        for part, last in _parts(rows, self.training.accumulate):
            piece = {name: value[part.start - rows.start : part.stop - rows.start] for name, value in batch.items()}
            regression = learner.objective(piece, Draw(stream, self.position.total_steps, part, total))
            with self._dropout(learner, stream, part.start), learner.synchronised(last):
                with self._compute.autocast():
                    prediction = learner.model(regression.t, self._compute.states(regression.x))
                # DDP averages over workers; this makes the average that of the whole batch when shards differ in size
                loss = regression.loss(prediction.to(regression.target)) * (len(part) * workers.size / total)
                loss.backward()
            whole += loss.detach()
            evaluated += len(regression.x) * regression.calls
        clip = self.training.gradient_clip if stage.gradient_clip is None else stage.gradient_clip
        if clip:
            nn.utils.clip_grad_norm_(learner.online.parameters(), clip)
        learner.optimiser.step()
        learner.averaging.update()
        self.run.evaluations.optimisation += round(total * evaluated / len(rows))
        return whole

    def _select(self, stage: Stage) -> None:
        """Keeps the averages if they are the best candidate so far."""
        if self.method.selects is None or self.judge is None:
            return
        mine = self.judge(self.method.selects) if self.reporter.workers.rank == 0 else math.inf
        score = float(self._from_workers(mine)[0])
        self.reporter.metrics(stage.name, self.position.total_steps, {f"selection_{self.method.selects}": score})
        if score < self.position.best:
            self.position.best = score
            self.best = {
                name: {key: value.detach().clone() for key, value in trained.average.state_dict().items()}
                for name, trained in self.networks.items()
            }

    def _dropout(self, learner: Learner, stream: Stream, row: int) -> AbstractContextManager[None]:
        """Dropout draws from torch's global generator: seed it by step and row where there is any."""
        if not learner.drops:
            return nullcontext()
        address = stream.child("dropout").generator(self.position.total_steps, row)
        return isolated(address.initial_seed(), self.reporter.device)

    def _report_loss(self, stage: Stage, steps: int) -> None:
        loss = float(self._from_workers(self._loss).mean()) / steps
        if not math.isfinite(loss):
            raise DivergenceError(
                f"the loss of stage {stage.name!r} is {loss} after {self.position.total_steps} steps; "
                f"the last good checkpoint is that of step {self._saved_step}"
            )
        self.reporter.metrics(stage.name, self.position.total_steps, {"loss": loss})

    def _from_workers(self, value: Tensor | float) -> Tensor:
        """Every worker's value, float64, in rank order."""
        mine = torch.as_tensor(value, dtype=torch.float64, device=self.reporter.device).reshape(1)
        return self.reporter.workers.gather(mine, self.reporter.workers.size)

    def _resume_stage(self, stage: Stage, learners: list[Learner]) -> bool:
        if self._held is None:
            return False
        tensors, self._held = self._held, None
        if self.position.epoch == 0 and self.position.step == 0:
            return False
        for learner in learners:
            checkpoint.load_optimiser(learner.network, learner.optimiser, tensors)
        checkpoint.load_source(stage.source, tensors, self.reporter.device)
        self._loss = tensors["loss"].to(self.reporter.device)
        return True

    def _restore(self) -> None:
        held = self._newest()
        if held is None:
            return
        self._held, position = held
        self.position = Position(**position)
        self._saved_step = self.position.total_steps
        checkpoint.load_networks(self.networks, self._held)
        self.best = checkpoint.load_best(self.networks, self._held, self.reporter.device)
        self.run.evaluations = Evaluations(0, self.position.optimisation)
        self.run.findings = self.position.findings
        self._simulated_before = self.position.simulation

    def _newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint that rank 0 finds: another worker may see one more, written since by another group."""
        workers = self.reporter.workers
        if workers.size == 1:
            return self.reporter.load()

        def found() -> bytes | None:
            held = self.reporter.load()
            return None if held is None else checkpoint.to_bytes(*held)

        data = workers.decide(found, self.reporter.device)
        return None if data is None else checkpoint.from_bytes(data)

    def _save_if_due(self, stage: Stage, learners: list[Learner]) -> None:
        due = time.monotonic() - self._saved >= self.training.checkpoint_seconds
        if self.reporter.workers.size > 1:  # the clocks differ: rank 0 decides
            due = bool(self._from_workers(due)[0])
        if due:
            if not torch.isfinite(self._from_workers(self._loss)).all():
                self._report_loss(stage, self.position.step)
            self._save(stage, learners)

    def _save(self, stage: Stage | None, learners: list[Learner]) -> None:
        self.position.simulation = self._simulation()
        self.position.optimisation = self.run.evaluations.optimisation
        self.position.seconds = self._seconds_before + time.monotonic() - self._started
        self.position.memory = max(self.position.memory, _peak_memory(self.reporter.device))
        self.position.findings = self.run.findings
        optimisers = {learner.network: learner.optimiser for learner in learners}
        tensors = checkpoint.gather_state(self.networks, optimisers, stage.source if stage else None, self.best)
        if stage is not None:
            tensors["loss"] = self._loss
        self.reporter.save(tensors, asdict(self.position))
        self._saved, self._saved_step = time.monotonic(), self.position.total_steps


def _peak_memory(device: str) -> int:
    """Bytes: of the device's tensors on a GPU, of the process on a CPU."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _parts(rows: range, parts: int) -> list[tuple[range, bool]]:
    """Contiguous parts of the rows, those that are not empty, and whether each is the last."""
    n = len(rows)
    bounds = [rows.start + part * n // parts for part in range(parts + 1)]
    kept = [range(a, b) for a, b in pairwise(bounds) if b > a]
    return [(part, part is kept[-1]) for part in kept]
