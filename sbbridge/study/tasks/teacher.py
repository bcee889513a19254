"""How far a sampler's images are from where the same noise ends along the converged probability flow."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sbbridge.methods import Solution
from sbbridge.sampling import SAMPLERS, Samples, sample

NUM_STEPS = 100
N = 256
DETERMINISTIC = tuple(
    name for name in SAMPLERS
    if name in ("heun", "euler", "ddim", "edm_heun", "dpm_solver_pp", "dpm_solver_pp_3", "unipc", "ratio_path")
)  # fmt: skip


class Teacher:
    """100 Heun steps of a solution's own probability flow (199 calls), from the noise of the samples compared.

    `seen` is what is compared of a state: images are clipped to their range, as they are when they are judged.
    A Fréchet distance alone may reward samples that no flow of this network makes; this distance does not.
    """

    def __init__(self, solution: Solution, seen: Callable[[Tensor], Tensor]) -> None:
        self._solution, self._seen = solution, seen
        self._ends: dict[int, Tensor | None] = {}

    def distance(self, made: Samples, sampler: str, seed: int) -> Iterator[dict[str, Any]]:
        """teacher_distance: the root mean square over n samples and all pixels; nothing for samplers that draw noise.

        Args:
            made: by `sampler` with `seed`: the teacher starts from the same noise.
        """
        ends = self._of(seed) if sampler in DETERMINISTIC else None
        if ends is not None:
            yield {"metric": "teacher_distance", "value": self._between(made, ends), "n": min(len(ends), len(made.x))}

    def of_path(self, candidate: Solution, seed: int) -> float:
        """The same of a path of its own, for the denoiser that this teacher is.

        Raises:
            ValueError: the denoiser has no probability flow.
        """
        ends = self._of(seed)
        if ends is None:
            raise ValueError("method.select: this denoiser has no probability flow, so no teacher (allowed: last, "
                             "validation, reported)")  # fmt: skip
        return self._between(sample(candidate, len(ends), seed=seed), ends)

    def _between(self, made: Samples, ends: Tensor) -> float:
        n = min(len(ends), len(made.x))
        if not (torch.isfinite(made.x).all() and torch.isfinite(ends).all()):  # clipped, infinity would be a pixel
            return math.nan
        return float((self._seen(made.x[:n].cpu().double()) - self._seen(ends[:n].double())).square().mean().sqrt())

    def _of(self, seed: int) -> Tensor | None:
        if seed not in self._ends:
            try:
                made = sample(self._solution, N, NUM_STEPS, sampler="heun", grid="trailing_quadratic", seed=seed)
                self._ends[seed] = made.x.cpu()
            except ValueError:  # no flow: neither a velocity, nor a score with a control or without memory
                self._ends[seed] = None
        return self._ends[seed]
