"""One line of progress: what is done, what runs, the best so far, the time left."""

import sys
import time
from typing import TextIO


class Progress:
    """A line that rewrites itself on a terminal, and repeats itself at most every ten seconds elsewhere.

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

    def better(self, value: float, words: str, dataset: str) -> None:
        """Remembers the best value so far; where a study has several data sets, the line shows the last one's."""
        if value < self._values.get(dataset, float("inf")):
            self._values[dataset] = value
            self.best = (dataset, words)

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
        if not final and now - self._shown < (0.2 if terminal else 10.0):
            return
        self._shown = now
        self._stream.write(f"\r\x1b[2K{self.line()}" + ("\n" if final else "") if terminal else self.line() + "\n")
        self._stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
