"""One-step distillation: a generator trained against a fake score, beside pairs of the teacher's own ODE."""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from sbbridge.config import Forbid, require, require_finite
from sbbridge.coupling import ODE_SCHEMES, Batch, BufferSource, GeneratedCoupling, Generation
from sbbridge.methods.base import Draw, Follower, Run, Stage
from sbbridge.methods.prediction import AbstractPrediction, one_time
from sbbridge.networks import Part
from sbbridge.objectives import Regression
from sbbridge.solvers import BACKWARD, Dynamics
from sbbridge.types import Field, State, expand_like


@final
@dataclass(frozen=True)
class Distillation(Forbid):
    """The options of one-step distillation (ASBM, Eq. 18; DMD, Yin et al. 2024, where the teacher is memoryless).

    G(z) = x0hat of the generator's network at (time, z). The fake network learns the pairs (G(z), z) as the teacher
    learned its own; the generator descends w (x0hat_fake − x0hat_teacher) at a point of the bridge between G(z) and z.

    Attributes:
        epochs: of `pairs` teacher pairs each; 1 generator step in `every` steps of the fake network.
        pairs: teacher pairs (z, its ODE's end), simulated once.
        generation: how the teacher's ODE is integrated.
        time: where the generator's network is called: 1 where the coupling knows x1, less for memoryless teachers
            (the paper: 0.5).
        every: steps of the fake network to one of the generator.
        learning_rate: of both.
        pair_weight: of the squared distance to the teacher's pairs.
        weight: normalised divides the difference by its image's mean |x0hat_teacher − G| (DMD, Eq. 8); bridge is the
            paper's 0.9 B(t) + 0.1 on the difference of scores.
    """

    epochs: int = 20
    pairs: int = 32768
    generation: Generation = Generation("heun", 24, "trailing_uniform")
    time: float = 1.0
    every: int = 5
    learning_rate: float = 1e-4
    pair_weight: float = 0.1
    weight: Literal["normalised", "bridge"] = "normalised"

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("epochs", "pairs", "every"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        require(0 < self.time <= 1, f"time must be in (0, 1], got {self.time}")
        require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}")
        require(self.pair_weight >= 0, f"pair_weight must be >= 0, got {self.pair_weight}")
        scheme = self.generation.scheme
        require(scheme in ODE_SCHEMES, f"generation.scheme must be one of {', '.join(ODE_SCHEMES)}, got {scheme}")

    def cost(self, batch_size: int, calls: int) -> int:
        """Network evaluations, where the teacher's probability flow takes `calls` a pair."""
        steps = self.epochs * max(1, self.pairs // batch_size)
        turns = self.epochs * -(-max(1, self.pairs // batch_size) // self.every)
        teacher_calls = 2 if self.weight == "normalised" else 1
        return self.pairs * calls + min(batch_size, self.pairs) * (2 * steps + turns * (2 + 1 + teacher_calls + 1))

    def parts(self, teacher: Part, prediction: AbstractPrediction, has_control: bool = False) -> dict[str, Part]:
        """The two networks that distillation adds.

        Args:
            teacher: what is known of its field.
            prediction: what the networks say.
            has_control: whether the teacher has a forward control, too.

        Raises:
            ValueError: the teacher has no ODE that `generation.scheme` could integrate.
        """
        dynamics = prediction.dynamics(_nowhere, _nowhere if has_control else None)
        start, end = torch.tensor([1.0, 0.5], dtype=torch.float64)
        try:  # a step of one number, for the scheme knows what it needs
            BACKWARD[self.generation.scheme](dynamics, start, end, torch.zeros(1, 1), lambda: torch.zeros(1, 1))
        except ValueError as error:
            raise ValueError(f"distillation: {error}") from None
        return {"generator": teacher, "fake": teacher}

    def stage(self, run: Run, teacher: str, prediction: AbstractPrediction, dynamics: Dynamics,
              independent: bool) -> Stage:  # fmt: skip
        """The stage that follows the teacher's.

        Args:
            teacher: its network's name.
            prediction: what the networks say.
            dynamics: the teacher's, for its ODE.
            independent: the teacher learned independent pairs: then G(z) is noised towards a fresh prior point, not z.
        """
        coupling = GeneratedCoupling(run.problem.prior, dynamics, self.generation)
        stream = run.stream.child("distillation")
        generate = self.generator(prediction, run.simulated_field("generator", ema=False))
        teach, fake = run.simulated_field(teacher), run.simulated_field("fake", ema=False)

        def pair_of(draw: Draw) -> tuple[State, Batch]:
            z = self._prior(run, draw, "z")
            end = self._prior(run, draw, "end") if independent else z
            return z, {"x0": generate(one_time(1.0, z), z), "x1": end}

        def fake_objective(batch: Batch, draw: Draw) -> Regression:
            return prediction.regression(pair_of(draw)[1], draw)

        def generator_objective(batch: Batch, draw: Draw) -> Regression:
            z, pair = pair_of(draw)
            wanted = pair["x0"] - self._direction(run, prediction, draw, pair, teach, fake)
            time = one_time(self.time, z)
            matched = self._target(prediction, time, z, wanted, 1.0)
            paired = self._target(prediction, time, batch["x1"], batch["x0"], self.pair_weight)
            t, x, target, weight = (torch.cat(both) for both in zip(matched, paired, strict=True))
            return Regression(t, x, target, weight)

        def due(step: int) -> bool:
            return step % self.every == 0

        return Stage(
            name="distillation",
            network="fake",
            source=BufferSource(coupling, self.pairs, self.pairs, stream, run.workers, refresh_every=self.epochs),
            objective=fake_objective,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            follower=Follower("generator", generator_objective, due, self.learning_rate),
            at_start=lambda: run.copy_weights(teacher, "generator", "fake"),
            sampled=True,
        )

    def generator(self, prediction: AbstractPrediction, network: Field) -> Field:
        """G, as a field whose time is of no matter."""

        def generate(t: Tensor, z: State) -> State:
            time = one_time(self.time, z)
            return prediction.image(time, z, network(time, z))

        return generate

    def _direction(self, run: Run, prediction: AbstractPrediction, draw: Draw, pair: Batch, teach: Field,
                   fake: Field) -> State:  # fmt: skip
        """What the generator should move by, negatively."""
        regression = prediction.regression(pair, draw)
        t, x = regression.t, regression.x
        difference = fake(t, x) - teach(t, x)
        if self.weight == "bridge":
            a_b = run.problem.reference.bridge_coefficients(t)[1]
            scale = run.problem.reference.variance(0.0, t).sqrt()
            return expand_like(prediction.slope(t).sign() * (0.9 * a_b + 0.1) / scale, x) * difference
        moved = expand_like(prediction.slope(t), x) * difference
        gap = (prediction.image(t, x, teach(t, x)) - pair["x0"]).abs().flatten(1).mean(1)
        return moved / expand_like(gap.clamp(min=1e-3), x)

    def _target(self, prediction: AbstractPrediction, time: Tensor, z: State, image: State,
                weight: float) -> tuple[Tensor, State, State, Tensor]:  # fmt: skip
        """A regression of the network's value at (time, z) whose loss is ½ weight |G(z) − image|^2."""
        slope = prediction.slope(time)
        free = prediction.image(time, z, torch.zeros_like(z))
        return time, z, (image - free) / expand_like(slope, z), 0.5 * weight * slope**2

    def _prior(self, run: Run, draw: Draw, name: str) -> State:
        return run.problem.prior.draw(draw.step, draw.rows, draw.stream.child(name))


def _nowhere(t: Tensor, x: State) -> State:
    return torch.zeros_like(x)
