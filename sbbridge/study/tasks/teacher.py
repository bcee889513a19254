"""How far a sampler's images are from where the same noise ends along the converged probability flow."""

from collections.abc import Callable, Iterator
from typing import Any

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
        if sampler not in DETERMINISTIC:
            return
        ends = self._of(seed)
        if ends is None:
            return
        n = min(len(ends), len(made.x))
        value = float((self._seen(made.x[:n].cpu()) - self._seen(ends[:n])).square().mean().sqrt())
        yield {"metric": "teacher_distance", "value": value, "n": n}

    def _of(self, seed: int) -> Tensor | None:
        if seed not in self._ends:
            try:
                made = sample(self._solution, N, NUM_STEPS, sampler="heun", grid="trailing_quadratic", seed=seed)
                self._ends[seed] = made.x.cpu()
            except ValueError:  # no flow: neither a velocity, nor a score with a control or without memory
                self._ends[seed] = None
        return self._ends[seed]
