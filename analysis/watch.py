"""Watches a running study: its report is made again when records have come, and served to this machine's browser."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from analysis.collect import Collected, collect
from analysis.errors import InputError, one_line
from analysis.formats import duration, plural
from analysis.report import write_report_of
from analysis.serve import ADDRESS, Served, serve
from analysis.sources import open_source

_SILENCE = timedelta(minutes=10)  # after which a study may as well be cut off
_ENDS = {
    "complete": "finished",
    "incomplete": "ended, with runs that failed or are missing",
    "stopped": "stopped before its end (the same command continues it)",
}
_CLOCKS = timedelta(seconds=2)  # by which the clocks of a session and of its storage may differ
_SCRIPT = (Path(__file__).parent / "templates" / "watch.js").read_text(encoding="utf-8")


@dataclass
class Watched:
    """The report of a study and the state of its records.

    Attributes:
        folder: the study's.
        served: what a browser gets.
        named: files that could not be read, and were said.
    """

    folder: Path
    served: Served = field(default_factory=Served)
    named: set[str] = field(default_factory=set)
    _made_of: object = None

    def look(self) -> list[str]:
        """Brings the report up to date; returns what the user has not been told yet, a line each.

        Where the study cannot be read the last report stays, with the reason in its status.
        """
        try:
            return self.refresh()
        except (InputError, OSError) as error:
            text, told = one_line(error), self.served.status.get("error")
            self.served.status = {**self.served.status, "error": text}
            return [text] if text != told else []

    def refresh(self) -> list[str]:
        """Collects new parts; makes the report again where there were some, or where study.json has changed."""
        collected = collect(self.folder)
        made_of = ([(part.path, part.size, part.modified) for part in collected.parts], collected.study)
        if made_of != self._made_of:
            version = uuid.uuid4().hex
            script = _SCRIPT.replace('"VERSION"', json.dumps(version))
            before, end, after = write_report_of(collected).read_text(encoding="utf-8").rpartition("</body>")
            self.served.page = f"{before}<script>{script}</script>\n{end}{after}".encode()
            self.served.status = {"version": version}
            self._made_of = made_of
        self.served.status = {**self.served.status, "state": state_of(collected, datetime.now(UTC)), "error": None}
        new = {path: reason for path, reason in collected.problems.items() if path not in self.named}
        self.named |= new.keys()
        return [f"cannot read {path}: {reason}" for path, reason in new.items()]


def state_of(collected: Collected, now: datetime) -> str:
    """A study's state in a line: nothing recorded, running, silent or how it ended, and the time of its last record."""
    if not collected.parts:
        return "no run has been recorded yet"
    last = datetime.fromtimestamp(max(part.modified for part in collected.parts) / 1e9, UTC)
    statuses = collected.trials["status"].tolist()
    text = (
        f"{plural(len(statuses), 'run')}, {statuses.count('completed')} completed, last record at {last:%H:%M:%S} UTC"
    )
    if now - last > timedelta(days=1):
        text += f" on {last:%Y-%m-%d}"
    session = (collected.study.get("sessions") or [{}])[-1]
    if session.get("ended") and datetime.fromisoformat(session["ended"]) + _CLOCKS >= last:
        return f"{_ENDS[session.get('outcome', 'complete')]}: {text}"
    if now - last > _SILENCE:
        return f"running or cut off, silent for {duration((now - last).total_seconds())}: {text}"
    return f"running: {text}"


@contextmanager
def watching(folder: str | Path, port: int) -> Iterator[tuple[str, Watched]]:
    """Serves a study's report, whose address it gives, while the block runs; the first is made at the first look.

    Raises:
        InputError: there is no study in the folder, or the port cannot be listened at.
    """
    watched = Watched(Path(folder))
    open_source(folder)  # wrong input is said before a port is taken
    with serve(watched.served, port) as server:
        answering = threading.Thread(target=server.serve_forever, daemon=True)
        answering.start()
        try:
            yield f"http://{ADDRESS}:{server.server_address[1]}/", watched
        finally:
            server.shutdown()
            answering.join()
