"""The only optimiser loop: it runs any method's stages, and continues where a checkpoint stands."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from sbbridge.methods import Evaluations, Method, Run, Stage, TrainedNetwork
from sbbridge.methods.base import Draw
from sbbridge.networks import Network, ResidualField, averaged
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream, isolated
from sbbridge.training import checkpoint
from sbbridge.training.config import Training
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
    seconds: float = 0.0


class DivergenceError(RuntimeError):
    """The loss is no longer a finite number."""


class Trainer:
    """Runs a method's stages.

    Randomness is addressed by (seed, stage, step, row), so a checkpoint holds no generator state, and the global batch
    is the same for any number of workers.
    """

    def __init__(self, method: Method, problem: BridgeProblem, network: Network, training: Training, seed: int,
                 reporter: Reporter) -> None:  # fmt: skip
        self.method, self.training, self.reporter = method, training, reporter
        self.networks = _build_networks(method, problem, network, training, seed, reporter.device)
        stream = Stream(seed, ("training",), reporter.device)
        self.run = Run(problem, self.networks, stream, reporter.workers, training.batch_size)
        self.position = Position()
        self._held: dict[str, Tensor] | None = None
        self._simulated_before = 0
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
                self._save(None, None)

    def _train_stage(self, stage: Stage) -> None:
        trained = self.networks[stage.network]
        trained.online.train()
        parameters = [p for p in trained.online.parameters() if p.requires_grad]
        rate = stage.learning_rate or self.training.learning_rate
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=self.training.weight_decay, fused=True)
        model = self._parallel(trained.online)
        if not self._resume_stage(stage, optimiser) and stage.at_start:
            stage.at_start()
        position = self.position
        for epoch in range(position.epoch, stage.epochs):
            if position.step == 0:  # a resumed epoch has its pairs already
                stage.source.refresh(epoch)
                self._loss = torch.zeros((), dtype=torch.float64, device=self.reporter.device)
            steps = stage.source.steps(self.training.batch_size)
            for step in range(position.step, steps):
                self._set_learning_rate(optimiser, rate, (epoch + step / steps) / stage.epochs)
                self._loss += self._step(stage, model, trained, optimiser, epoch, step)
                position.epoch, position.step = epoch, step + 1
                position.total_steps += 1
                self._save_if_due(stage, optimiser)
            self._report_loss(stage, steps)
            position.epoch, position.step = epoch + 1, 0
        if stage.at_end:
            findings = stage.at_end()
            self.reporter.metrics(stage.name, position.total_steps, findings.metrics, findings.n)
            self.reporter.arrays("spectrum", findings.arrays)

    def _step(self, stage: Stage, model: nn.Module, trained: TrainedNetwork, optimiser: torch.optim.Optimizer,
              epoch: int, step: int) -> Tensor:  # fmt: skip
        batch, rows, total = stage.source.batch(epoch, step, self.training.batch_size)
        stream, workers = self.run.stream.child(stage.name, "step"), self.reporter.workers
        regression = stage.objective(batch, Draw(stream, self.position.total_steps, rows, total))
        with self._dropout(trained.online, stream):
            prediction = model(regression.t, regression.x)
        # DDP averages over workers; this makes the average that of the whole batch when shards differ in size
        loss = regression.loss(prediction) * (len(rows) * workers.size / total)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.training.gradient_clip:
            nn.utils.clip_grad_norm_(trained.online.parameters(), self.training.gradient_clip)
        optimiser.step()
        trained.average.update_parameters(trained.online)
        self.run.evaluations.optimisation += total
        return loss.detach()

    def _dropout(self, network: nn.Module, stream: Stream) -> AbstractContextManager[None]:
        """Dropout draws from torch's global generator: seed it by step and worker where there is any."""
        if not any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules()):
            return nullcontext()
        address = stream.child("dropout").generator(self.position.total_steps, self.reporter.workers.rank)
        return isolated(address.initial_seed(), self.reporter.device)

    def _set_learning_rate(self, optimiser: torch.optim.Optimizer, rate: float, progress: float) -> None:
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)) if self.training.schedule == "cosine" else 1.0
        for group in optimiser.param_groups:
            group["lr"] = factor * rate

    def _report_loss(self, stage: Stage, steps: int) -> None:
        loss = float(self._from_workers(self._loss).mean()) / steps
        if not math.isfinite(loss):
            raise DivergenceError(f"the loss of stage {stage.name!r} is {loss} after {self.position.total_steps} steps")
        self.reporter.metrics(stage.name, self.position.total_steps, {"loss": loss})

    def _from_workers(self, value: Tensor | float) -> Tensor:
        """Every worker's value, float64, in rank order."""
        mine = torch.as_tensor(value, dtype=torch.float64, device=self.reporter.device).reshape(1)
        return self.reporter.workers.gather(mine, self.reporter.workers.size)

    def _parallel(self, module: nn.Module) -> nn.Module:
        if self.reporter.workers.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def _resume_stage(self, stage: Stage, optimiser: torch.optim.Optimizer) -> bool:
        if self._held is None:
            return False
        tensors, self._held = self._held, None
        if self.position.epoch == 0 and self.position.step == 0:
            return False
        checkpoint.load_optimiser(optimiser, tensors)
        checkpoint.load_source(stage.source, tensors, self.reporter.device)
        self._loss = tensors["loss"].to(self.reporter.device)
        return True

    def _restore(self) -> None:
        held = self.reporter.load()
        if held is None:
            return
        self._held, position = held
        self.position = Position(**position)
        checkpoint.load_networks(self.networks, self._held)
        self.run.evaluations = Evaluations(0, self.position.optimisation)
        self._simulated_before = self.position.simulation

    def _save_if_due(self, stage: Stage, optimiser: torch.optim.Optimizer) -> None:
        due = time.monotonic() - self._saved >= self.training.checkpoint_seconds
        if self.reporter.workers.size > 1:  # the clocks differ: rank 0 decides
            due = bool(self._from_workers(due)[0])
        if due:
            if not torch.isfinite(self._from_workers(self._loss)).all():
                self._report_loss(stage, self.position.step)
            self._save(stage, optimiser)

    def _save(self, stage: Stage | None, optimiser: torch.optim.Optimizer | None) -> None:
        evaluations = self.run.evaluations
        # every worker simulates its own rows, and trains on its share of all
        self.position.simulation = self._simulated_before + int(self._from_workers(evaluations.simulation).sum())
        self.position.optimisation = evaluations.optimisation
        self.position.seconds = self._seconds_before + time.monotonic() - self._started
        tensors = checkpoint.gather_state(self.networks, optimiser, stage.source if stage else None)
        if stage is not None:
            tensors["loss"] = self._loss
        self.reporter.save(tensors, asdict(self.position))
        self._saved = time.monotonic()


def _build_networks(method: Method, problem: BridgeProblem, network: Network, training: Training, seed: int,
                    device: str) -> dict[str, TrainedNetwork]:  # fmt: skip
    networks = {}
    for name, known in method.known_parts(problem).items():
        initial = int(torch.randint(2**31, (), generator=Stream(seed, ("weights", name)).generator()))
        online = ResidualField(method.network_for(name, network).build(problem.shape, initial), known).to(device)
        networks[name] = TrainedNetwork(online, averaged(online, training.ema_decay))
    return networks
