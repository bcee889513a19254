"""Who trains what several trials need: one of them, on whichever node; the others wait and read what it has saved."""

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from sbbridge.study.store import Store

RENEW_S = 10.0
STALE_S = 60.0
"""A claim that has not been renewed for so long, by the clock of who looks, is a dead process's."""
LOOK_S = 0.5


class Claim:
    """A claim on a training, as a small file beside its checkpoints: every node of a study sees the same storage.

    The oldest claim that is alive holds. Two processes whose clocks differ may both hold for once: they then do the
    same training, and save the same.

    Args:
        store: of the study.
        training: the folder's name, DIGEST-SEED.
    """

    def __init__(self, store: Store, training: str) -> None:
        self._store, self._folder = store, training
        self._name = f"claim-{uuid.uuid4().hex}.json"
        self._since = time.time()
        self._seen: dict[str, tuple[float, float]] = {}
        self._over = threading.Event()
        self._renewing: threading.Thread | None = None

    def holds(self) -> bool:
        """Makes or keeps the claim, and says whether no other comes before it."""
        if self._renewing is None:
            self._write()
            self._renewing = threading.Thread(target=self._renew, daemon=True)
            self._renewing.start()
        alive = []
        for name, claim in self._others():
            if self._is_alive(name, claim):
                alive.append(claim)
            else:  # whoever is alive after all writes it again
                self._store.remove("checkpoints", self._folder, name)
        return all((self._since, self._name) < (claim["since"], claim["name"]) for claim in alive)

    def end(self) -> None:
        """Takes the claim back."""
        self._over.set()
        if self._renewing is not None:
            self._renewing.join()
        self._store.remove("checkpoints", self._folder, self._name)

    def _write(self) -> None:
        claim = {"name": self._name, "since": self._since, "renewed": time.time(), "host": platform.node(),
                 "pid": os.getpid()}  # fmt: skip
        self._store.write(json.dumps(claim).encode(), "checkpoints", self._folder, self._name)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_S):
            with contextlib.suppress(OSError):  # the next time may go well, and a lost claim costs a training at most
                self._write()

    def _others(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in self._store.names("checkpoints", self._folder):
            if name.startswith("claim-") and name != self._name:
                data = self._store.read("checkpoints", self._folder, name)
                if data is not None:
                    yield name, json.loads(data)

    def _is_alive(self, name: str, claim: dict[str, Any]) -> bool:
        if claim["host"] == platform.node() and not _runs(claim["pid"]):
            return False
        renewed, since = self._seen.get(name, (float("nan"), 0.0))
        if renewed != claim["renewed"]:
            self._seen[name] = claim["renewed"], time.monotonic()
            return True
        return time.monotonic() - since < STALE_S


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def one_at_a_time(reporter: Any, training_digest: str, seed: int) -> Iterator[None]:
    """One trial of a study does a training, the others wait for its end.

    Rank 0 claims it for its workers; none of them looks for a checkpoint before.

    Args:
        reporter: of the trial.
        training_digest, seed: of the training.
    """
    import torch

    workers, started = reporter.workers, time.monotonic()
    claim = Claim(reporter.store, f"{training_digest}-{seed}") if workers.rank == 0 else None
    try:
        while True:
            mine = claim.holds() if claim is not None else False
            if workers.gather(torch.tensor([float(mine)], device=reporter.device), workers.size)[0]:
                break
            time.sleep(LOOK_S)
        waited = time.monotonic() - started
        if waited > STALE_S:
            reporter.notes.append(f"a trial waited {waited:.0f} s for the training {training_digest}-{seed} of another")
        yield
    finally:
        if claim is not None:
            claim.end()
