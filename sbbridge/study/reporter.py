"""The training loop's view of a study's store."""

import time
from collections.abc import Mapping
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

    Attributes:
        entries: what was measured on validation, by sampler and NFE.
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
    ) -> None:
        super().__init__(workers, device)
        self._store, self._training_digest = store, training_digest
        self._timeout, self._deadline = timeout, time.monotonic() + (timeout or float("inf"))
        self._key: dict[str, Any] = {"digest": digest, "seed": seed, "phase": phase, "attempt": attempt}
        self._rows: list[dict[str, Any]] = []
        self.entries: list[dict[str, Any]] = []

    def save(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any],
             training_digest: str | None = None) -> None:  # fmt: skip
        if self.workers.rank == 0:
            number = position["stage"] * 10**8 + position["total_steps"]
            training, seed = training_digest or self._training_digest, self._key["seed"]
            self._store.save_checkpoint(training, seed, number, to_bytes(tensors, position))
            self.flush()

    def load(self, training_digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        data = self._store.newest_checkpoint(training_digest or self._training_digest, self._key["seed"])
        return from_bytes(data) if data is not None else None

    def metrics(self, stage: str, step: int, values: Mapping[str, float], n: int | None = None) -> None:
        if self._late():
            raise TimeoutError(f"the trial took longer than --trial-timeout {self._timeout:g} s")
        for metric, value in values.items():
            self.row(metric=metric, value=value, stage=stage, step=step, n=n)

    def arrays(self, name: str, arrays: Mapping[str, Tensor]) -> None:
        if self.workers.rank == 0 and arrays:
            plain = {key: array.detach().cpu().numpy() for key, array in arrays.items()}
            self._store.merge_arrays(self._key["digest"], self._key["seed"], name, plain)

    def row(self, *, metric: str, value: float, **fields: Any) -> None:
        """One more row of metrics; sampler entries on validation are remembered, for the search to choose among."""
        self._rows.append(records.metric_row(metric, value, **self._key, **fields))
        measured = fields.get("stage") == "evaluation" and fields.get("split") == "validation"
        if measured and fields.get("sampler"):
            self.entries.append({"metric": metric, "value": value, "sampler": fields["sampler"], "nfe": fields["nfe"]})

    def _late(self) -> bool:
        if self._timeout is None:
            return False
        late = torch.tensor([float(time.monotonic() > self._deadline)], device=self.device)
        # the clocks differ, and a worker that went on alone would wait for ever: rank 0 decides
        return bool(self.workers.gather(late, self.workers.size)[0])

    def flush(self) -> None:
        """Writes what has gathered as one part."""
        if self.workers.rank == 0 and self._rows:
            name = f"{time.time_ns()}-{self._key['digest']}-{self._key['seed']}"
            self._store.add_metrics(name, self._rows)
        self._rows = []
