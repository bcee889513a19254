"""Clocks around what a study's driver does once a trial, and what they say as the number of trials grows."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.processes import resident_mib

HALF_WIDTH = 0.05
"""Of the window around a share of all trials."""
PARTS = ("suggest", "tell", "stalled", "write row", "snapshot")
"""What the driver does one after the other; "resolve" is a part of the suggestion."""


@dataclass
class Clocks:
    """Seconds of what is called, with the number of trials that had ended before.

    Attributes:
        phase: search or ablation.
        spans: {(phase, name): [(trials before, seconds on the wall, of this thread's CPU)]}.
        ends: {phase: [(seconds on the wall, of the driver's CPU, its memory in MiB) at the end of each trial]}.
    """

    phase: str = "search"
    spans: dict[tuple[str, str], list[tuple[int, float, float]]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[tuple[float, float, float]]] = field(default_factory=lambda: defaultdict(list))

    def around(self, owner: Any, name: str, called: str) -> None:
        """Puts a clock around a function of a module or class."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.perf_counter() - wall, time.thread_time() - cpu
                self.spans[self.phase, called].append((len(self.ends[self.phase]), *spent))

        setattr(owner, name, timed)

    def at_end(self, owner: Any, name: str) -> None:
        """Notes the time whenever this function, called once a trial, returns."""
        function: Callable[..., Any] = getattr(owner, name)

        def noting(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.ends[self.phase].append((time.perf_counter(), time.process_time(), resident_mib()))
            return result

        setattr(owner, name, noting)

    def within(self, owner: Any, name: str, phase: str) -> None:
        """This function is this phase."""
        function: Callable[..., Any] = getattr(owner, name)

        def entered(*arguments: Any, **options: Any) -> Any:
            self.phase = phase
            return function(*arguments, **options)

        setattr(owner, name, entered)

    def at(self, phase: str, share: float) -> dict[str, Any]:
        """Seconds a trial around a share of the phase's trials.

        Those of a part are on the wall; "rest" is the driver's CPU beside its parts, "serial" what it cannot do at the
        same time: the parts and the rest.
        """
        ends = self.ends[phase]
        first, last = window(len(ends), share)
        (wall0, cpu0, _), (wall1, cpu1, memory) = ends[first - 1], ends[last - 1]
        count = max(1, last - first)
        row: dict[str, Any] = {
            "phase": phase, "trials": round(share * len(ends)), "wall": (wall1 - wall0) / count,
            "cpu": (cpu1 - cpu0) / count, "memory_mib": memory,
        }  # fmt: skip
        rest = row["cpu"]
        for (of, name), spans in self.spans.items():
            if of == phase:
                mine = [(wall, cpu) for before, wall, cpu in spans if first <= before < last]
                row[name] = sum(wall for wall, _ in mine) / count
                rest -= sum(cpu for _, cpu in mine) / count if name in PARTS else 0.0
        row["rest"] = max(0.0, rest)
        row["serial"] = row["rest"] + sum(row.get(name, 0.0) for name in PARTS)
        return row


def window(total: int, share: float) -> tuple[int, int]:
    """The trials that are looked at around a share of all: the first, and one past the last; at least one apart."""
    last = min(total, round((share + HALF_WIDTH) * total))
    return max(1, min(last - 1, round((share - HALF_WIDTH) * total))), last


def line(numbers: Sequence[float], values: Sequence[float], at: float) -> float:
    """The least-squares line through points, at a number; never less than nothing."""
    fit = statistics.linear_regression(numbers, values)
    return max(0.0, fit.intercept + fit.slope * at)
