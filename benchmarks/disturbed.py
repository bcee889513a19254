"""A study whose processes are killed at random moments, and that is continued by the same command until it is done."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from benchmarks import processes
from benchmarks.nodes import ENVIRONMENT, TWO_NODES, Nodes
from benchmarks.study_state import Rows

AT_WORK = ("ray::ImplicitFunc.train", "ray::RayTrainWorker", "ray::evaluate")
"""Titles of the processes that train or evaluate."""
RARE = {"worker": 6, "trial": 2}
"""What is seldom there is taken when it is."""
NODE_BACK_S, HUNG_S, GRACE_S, TRIES = 3.0, 300.0, 10.0, 4
AT_START = 1 / 3
"""Share of kills that are followed by another before work has gone on."""

Victim: TypeAlias = tuple[str, list[int], int]


@dataclass
class Kill:
    """One signal and what came of it.

    Attributes:
        kind: what was asked for.
        what: what was hit.
        study: number of the study.
        at: when.
        before: the rows that could be read just before.
        at_work: processes that trained then.
        driver: "went on", "ended STATUS" or "hung".
        seconds: until another process was at work; None if none was before the next kill, or the end.
        lost: rows that are not there in the end.
        again: finished runs that were run once more.
    """

    kind: str
    what: str
    study: int
    at: float
    before: Rows
    at_work: set[int]
    driver: str = "went on"
    seconds: float | None = None
    lost: int = 0
    again: int = 0


@dataclass
class Judged:
    """A study in the end.

    Attributes:
        where: local or cluster.
        seconds, commands: that it took.
        doubled: keys that more than one collected row has.
        compared: numbers that the undisturbed study has, too.
        difference: the largest relative one among them.
        wrong: what is not as it should be.
    """

    where: str
    seconds: float = 0.0
    commands: int = 0
    doubled: int = 0
    compared: int = 0
    difference: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Disturbed:
    """Runs a study to its end, and kills meanwhile.

    Args:
        command: the study script and its arguments.
        folder: its output.
        number: of the study.
        cluster: on two nodes, or on a Ray of its own.
        wanted: {kind: how many kills are still wanted}; what is done is taken off.
        most: kills of this study.
        every: mean seconds between work going on and the next kill.
        seed: of moments and victims.
    """

    def __init__(self, command: Sequence[str], folder: Path, number: int, cluster: bool, wanted: Counter[str],
                 most: int, every: float, seed: int) -> None:  # fmt: skip
        self.command, self.folder, self.number, self.wanted, self.most = command, folder, number, wanted, most
        self.random = random.Random(f"{seed}-{number}")
        self._span = 2 * every
        self._log = folder.with_suffix(".log").open("a")
        self._nodes = Nodes(TWO_NODES, self._log) if cluster else None
        self.kills: list[Kill] = []
        self.drivers: list[subprocess.Popen[str]] = []
        self._seen: set[int] = set()
        self._lost_node: float | None = None
        self._next = self._moment()

    def run(self) -> Judged:
        """Until the command has ended with 0, or has failed too often although nothing was killed."""
        started, failures = time.monotonic(), 0
        judged = Judged("cluster" if self._nodes else "local")
        try:
            while failures < TRIES:
                before = len(self.kills)
                self._start()
                if (status := self._until_it_ends()) == 0:
                    break
                if len(self.kills) == before:
                    failures += 1
                elif self.kills[-1].driver == "went on":
                    self.kills[-1].driver = f"ended {status}"
            else:
                judged.wrong.append(f"the command ended {failures} times with {status}, and nothing was killed")
        finally:
            for driver in self.drivers:
                processes.end(driver)
            if self._nodes:
                self._nodes.close()
        judged.seconds, judged.commands = time.monotonic() - started, len(self.drivers)
        judged.wrong += self._left()
        return judged

    def _start(self) -> None:
        """The command; where the head of the cluster has died, on a new one."""
        if self._nodes and not self._nodes.raylets(0):
            self._nodes.close()
            self._nodes, self._lost_node = Nodes(TWO_NODES, self._log), None
        address = ("--address", self._nodes.address) if self._nodes else ()
        command = [sys.executable, *self.command, "--output", str(self.folder), *address]
        environment = ENVIRONMENT if self._nodes else {}
        options = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": subprocess.STDOUT}
        self.drivers.append(processes.start(command, environment, **options))

    def _until_it_ends(self) -> int:
        driver, changed, seen = self.drivers[-1], time.monotonic(), set[int]()
        while (status := driver.poll()) is None:
            time.sleep(0.1)
            now, below = time.monotonic(), self._below()
            at_work = {process.pid for process in below if process.title.startswith(AT_WORK)}
            self._seen |= {process.pid for process in below}
            if at_work != seen:
                changed, seen = now, at_work
            self._notice(now, at_work)
            self._repair(now)
            if now >= self._next and len(self.kills) < self.most:
                self._strike(at_work)
            if now - changed > HUNG_S:
                if self.kills:
                    self.kills[-1].driver = "hung"
                processes.end(driver)
        return status

    def _notice(self, now: float, at_work: set[int]) -> None:
        """Whether work has gone on since the last kill."""
        last = self.kills[-1] if self.kills else None
        if last and last.seconds is None and at_work - last.at_work:
            last.seconds = now - last.at
            self._next = self._moment()

    def _repair(self, now: float) -> None:
        """A node that has died comes back, as where a cluster is managed."""
        if self._nodes and self._lost_node and now - self._lost_node > NODE_BACK_S and self._nodes.raylets(0):
            self._nodes.bring_back(1)
            self._lost_node = None

    def _strike(self, at_work: set[int]) -> None:
        """Kills one of what is there and still wanted; nothing, if there is none."""
        kinds = [kind for kind, count in self.wanted.items() if count > 0 and self._victim(kind)]
        if not kinds:
            return
        kind = self.random.choices(kinds, [self.wanted[kind] * RARE.get(kind, 1) for kind in kinds])[0]
        before, victim = Rows.read(self.folder), self._victim(kind)
        if victim is None:  # it ended while the rows were read
            return
        what, pids, number = victim
        processes.send(pids, number)
        self.kills.append(Kill(kind, what, self.number, time.monotonic(), before, at_work))
        self.wanted[kind] -= 1
        self._next = self._moment() if self.random.random() < AT_START else float("inf")
        if what in ("node", "raylet of a node"):
            self._lost_node = time.monotonic()

    def _victim(self, kind: str) -> Victim | None:
        """(what it is, its processes, the signal), or None where there is none."""
        if kind in ("driver", "SIGINT", "SIGTERM"):
            number = signal.SIGKILL if kind == "driver" else signal.Signals[kind]
            return kind, [self.drivers[-1].pid], number
        if kind in ("node", "raylet") and self._nodes:
            return self._of_a_node(kind)
        titles = {"worker": "ray::RayTrainWorker", "trial": "ray::ImplicitFunc.train", "raylet": "/raylet/raylet "}
        below = self._below()
        there = [process.pid for process in below if kind in titles and titles[kind] in process.title]
        if not there:
            return None
        group = any(process.title.startswith("ray::TrainController") for process in below)
        named = {"raylet": "local raylet", "trial": "trial with workers" if group else "trial"}
        return named.get(kind, kind), [self.random.choice(there)], signal.SIGKILL

    def _of_a_node(self, kind: str) -> Victim | None:
        assert self._nodes is not None
        head = self.random.random() < 1 / 3
        pids = self._nodes.raylets(1 - head) if kind == "raylet" else self._nodes.pids(1 - head)
        what = {"node": ("node", "head node"), "raylet": ("raylet of a node", "raylet of the head")}[kind][head]
        return (what, pids, signal.SIGKILL) if pids else None

    def _below(self) -> list[processes.Process]:
        """What runs for the study: in a cluster its nodes, else what the driver has started."""
        return processes.below(self._nodes.pid if self._nodes else self.drivers[-1].pid)

    def _left(self) -> list[str]:
        """What the study has started and did not end; it is ended now."""
        deadline = time.monotonic() + GRACE_S
        while left := [process for process in processes.below(os.getpid()) if process.pid in self._seen]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        processes.send(process.pid for process in left)
        return [f"left running: {process.title[:60]}" for process in left]

    def _moment(self) -> float:
        return time.monotonic() + self.random.uniform(0, self._span)
