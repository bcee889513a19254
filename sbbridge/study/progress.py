"""One line of progress: what is done, what runs, the best so far, the time left."""

import sys
import time
from typing import TextIO

HEARTBEAT_S = 60.0
"""How long a log says nothing while nothing is done."""


class Progress:
    """A line that rewrites itself on a terminal; elsewhere, one every ten seconds when something was done, or a minute.

    Args:
        phase: what is counted.
        total: how many there are to be, those that were done before included.
        done: how many were done before.
    """

    def __init__(self, phase: str, total: int, done: int = 0, stream: TextIO | None = None) -> None:
        self.phase, self.total, self.done, self.failed, self.running = phase, total, done, 0, 0
        self.best: tuple[str, str] | None = None
        self._values: dict[str, float] = {}
        self._stream = stream or sys.stderr
        self._started, self._shown, self._done_before = time.monotonic(), float("-inf"), done
        self._said: tuple[int, int, int] | None = None

    def better(self, value: float, words: str, dataset: str) -> None:
        """Remembers the best value so far; where a study has several data sets, the line shows the last one's."""
        if value < self._values.get(dataset, float("inf")):
            self._values[dataset] = value
            self.best = (dataset, words)

    def note(self, words: str) -> None:
        """Says something once, above the line."""
        clear = "\r\x1b[2K" if self._stream.isatty() else ""
        self._stream.write(f"{clear}{words}\n")
        self._stream.flush()
        self._shown = float("-inf")

    def line(self) -> str:
        """The line."""
        elapsed = time.monotonic() - self._started
        parts = [f"{self.phase} {self.done}/{self.total}", f"running {self.running}", f"failed {self.failed}"]
        if self.best:
            of = f" on {self.best[0]}" if len(self._values) > 1 else ""
            parts.append(f"best{of} {self.best[1]}")
        parts.append(f"{_clock(elapsed)} elapsed")
        fresh = self.done - self._done_before
        if fresh and self.done < self.total:
            parts.append(f"~{_clock(elapsed / fresh * (self.total - self.done))} left")
        return " · ".join(parts)

    def show(self, final: bool = False) -> None:
        """Writes the line if it is time."""
        now, terminal = time.monotonic(), self._stream.isatty()
        said = self.done, self.failed, self.running
        pause = 0.2 if terminal else 10.0 if said != self._said else HEARTBEAT_S
        if not final and now - self._shown < pause:
            return
        self._shown, self._said = now, said
        self._stream.write(f"\r\x1b[2K{self.line()}" + ("\n" if final else "") if terminal else self.line() + "\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
