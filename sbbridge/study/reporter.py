"""The training loop's view of a study's store."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sbbridge import records
from sbbridge.coupling import Workers
from sbbridge.study.store import Store
from sbbridge.training import Reporter
from sbbridge.training.checkpoint import from_bytes, to_bytes


class StudyReporter(Reporter):
    """Writes checkpoints, metrics and artefacts of one trial; only rank 0 writes.

    Args:
        store: the study's.
        training_digest, digest, seed, phase: which trial.
        attempt: milliseconds since the epoch when this attempt began: later attempts win.
        timeout: seconds after which the trial fails, at the next epoch.
        progress: is told (network evaluations, validation quality) during training; whoever listens may end it.

    Attributes:
        entries: what was measured on validation, by sampler and NFE.
        notes: what the user should know of a trial that goes on all the same, a line each.
    """

    def __init__(
        self,
        store: Store,
        *,
        training_digest: str,
        digest: str,
        seed: int,
        phase: str,
        attempt: int,
        workers: Workers | None = None,
        device: str = "cpu",
        timeout: float | None = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> None:
        super().__init__(workers, device)
        self._progress = progress
        self.store, self._training_digest = store, training_digest
        self._timeout, self._deadline = timeout, time.monotonic() + (timeout or float("inf"))
        self._key: dict[str, Any] = {"digest": digest, "seed": seed, "phase": phase, "attempt": attempt}
        self._rows: list[dict[str, Any]] = []
        self.entries: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def save(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any],
             training_digest: str | None = None) -> None:  # fmt: skip
        if self.workers.rank == 0:
            self.flush()  # first: a training that goes on from this checkpoint does not tell it again
            number = position["stage"] * 10**8 + position["total_steps"]
            training, seed = training_digest or self._training_digest, self._key["seed"]
            self.store.save_checkpoint(training, seed, number, to_bytes(tensors, position))

    def load(self, training_digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint that can be used; those that cannot are deleted, and `notes` says so."""
        held, unusable = None, []
        for path, data in self.store.checkpoints(training_digest or self._training_digest, self._key["seed"]):
            try:
                held = from_bytes(data)
                break
            except ValueError as error:
                unusable.append(f"{path}: {error}")
                self.store.delete(path)
        instead = "the checkpoint before it is used" if held else "the training starts anew"
        self.notes += [f"{line}; {instead}" for line in unusable]
        return held

    def metrics(self, stage: str, step: int, values: Mapping[str, float], n: int | None = None) -> None:
        if self._late():
            raise TimeoutError(f"the trial took longer than --trial-timeout {self._timeout:g} s")
        for metric, value in values.items():
            self.row(metric=metric, value=value, stage=stage, step=step, n=n)

    def arrays(self, name: str, arrays: Mapping[str, Tensor]) -> None:
        if self.workers.rank == 0 and arrays:
            plain = {key: array.detach().cpu().numpy() for key, array in arrays.items()}
            self.store.merge_arrays(self._key["digest"], self._key["seed"], name, plain)

    def document(self, name: str, content: Mapping[str, Any]) -> None:
        """A JSON file beside the arrays."""
        if self.workers.rank == 0:
            data = json.dumps(content, indent=1) + "\n"
            self.store.write(data.encode(), "artifacts", f"{self._key['digest']}-{self._key['seed']}", name)

    def row(self, *, metric: str, value: float, **fields: Any) -> None:
        """One more row of metrics; sampler entries on validation are remembered, for the search to choose among."""
        self._rows.append(records.metric_row(metric, value, **self._key, **fields))
        measured = fields.get("stage") == "evaluation" and fields.get("split") == "validation"
        if measured and fields.get("sampler"):
            names = ("sampler", "grid", "nfe")
            self.entries.append({"metric": metric, "value": value} | {name: fields.get(name) for name in names})

    def progress(self, evaluations: int, quality: float) -> None:
        """A point of the training's curve; called on every worker, the quality is rank 0's."""
        if self._progress is not None:
            self.flush()
            self._progress(evaluations, quality)

    def _late(self) -> bool:
        if self._timeout is None:
            return False
        late = torch.tensor([float(time.monotonic() > self._deadline)], device=self.device)
        # the clocks differ, and a worker that went on alone would wait for ever: rank 0 decides
        return bool(self.workers.gather(late, self.workers.size)[0])

    def flush(self) -> None:
        """Writes what has gathered as one part."""
        if self.workers.rank == 0 and self._rows:
            self.store.add_metrics(self._rows)
        self._rows = []
