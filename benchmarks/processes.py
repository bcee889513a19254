"""Processes below this one (Linux): who they are and what they hold. Nothing is ever looked for outside of them."""

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SET_CHILD_SUBREAPER = 36
ZOMBIE = "Z"

_started: set[int] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Process:
    """A line of the process table."""

    pid: int
    parent: int
    state: str
    title: str


def adopt_orphans() -> None:
    """Processes whose parent died become this one's children, and are reaped as init would: none is lost from sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    threading.Thread(target=_reap, daemon=True).start()


def start(command: Sequence[str], environment: Mapping[str, str] | None = None,
          **options: Any) -> subprocess.Popen[str]:  # fmt: skip
    """A child in the repository's root; Ray's address of this shell is not its own."""
    held = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with _lock:
        child = subprocess.Popen(command, cwd=ROOT, env={**held, **(environment or {})}, text=True, **options)
        _started.add(child.pid)
    return child


def table() -> dict[int, Process]:
    """Every process, by its number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # it has just ended
                continue
            found[int(folder.name)] = Process(int(folder.name), int(parent), state, title)
    return found


def below(pid: int, processes: Mapping[int, Process] | None = None) -> list[Process]:
    """Live descendants of a process, itself not among them."""
    return descendants(pid, table() if processes is None else processes)


def descendants(pid: int, processes: Mapping[int, Process]) -> list[Process]:
    """Those of a process in a table, parents first, without what has already ended."""
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found, front = [], [pid]
    while front:
        born = [child for parent in front for child in children.get(parent, [])]
        found += [child for child in born if child.state != ZOMBIE]
        front = [child.pid for child in born]
    return found


def send(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """A signal to each that still lives."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def end(child: subprocess.Popen[str]) -> None:
    """Kills a child and everything below it, and waits for it."""
    send([*(process.pid for process in below(child.pid)), child.pid])
    child.wait()


def resident_mib(pid: int | None = None) -> float:
    """Memory that a process (this one) holds."""
    pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _reap() -> None:
    while True:
        with _lock:
            for process in table().values():
                if process.parent == os.getpid() and process.state == ZOMBIE and process.pid not in _started:
                    os.waitpid(process.pid, os.WNOHANG)
        time.sleep(0.2)
