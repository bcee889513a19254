"""Optuna's database: opened in seconds or refused in one line, waited for while it restarts, set aside when torn."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sbbridge.records import without_credentials

CONNECT_S = 5
OUTAGE_S = 60.0
"""How long a server that was there before is waited for."""


class DatabaseError(Exception):
    """The search's database cannot be used; one line, without credentials."""


def open_database(url: str) -> RDBStorage:
    """Optuna's storage at a URL, its tables made if they are not there.

    Raises:
        DatabaseError: nothing answers, the password is wrong, a driver is missing, it is no database, ….
    """
    options: dict[str, Any] = {}
    if url.startswith("postgresql"):
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_S}}
    try:
        with in_one_line(url):
            storage = _Database(url, engine_kwargs=options)
    except ImportError:
        raise _error(url, "its driver is not installed (allowed: postgresql+psycopg://…, with python -m pip install -e "
                          "'.[postgresql]', and sqlite:///…)") from None  # fmt: skip
    except (RuntimeError, ValueError) as error:  # tables of another version; a port that is no number
        raise _error(url, str(error)) from None
    if options:
        event.listen(storage.engine, "do_connect", _connect_patiently)
    return storage


@contextlib.contextmanager
def in_one_line(url: str) -> Iterator[None]:
    """What goes wrong in the database is raised as a DatabaseError."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, SQLAlchemyError):  # Optuna and Ray Tune wrap it
            cause = cause.__cause__
        if cause is None:
            raise
        raise _error(url, str(cause.orig if isinstance(cause, DBAPIError) else cause)) from None


def set_torn_aside(path: Path) -> str | None:
    """Renames SQLite's file if it is torn; says so in a line.

    Raises:
        DatabaseError: it cannot be read, whole as it may be.
    """
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.OperationalError as error:
        raise _error(f"sqlite:///{path}", str(error)) from None
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found == "ok":
        return None
    aside = path.with_name(f"{path.name}.torn-{time.time_ns()}")
    path.rename(aside)
    for journal in path.parent.glob(f"{path.name}-*"):  # belongs to what is gone
        journal.unlink()
    return f"{path} is torn ({found.splitlines()[0]}): kept as {aside.name}"


def _error(url: str, reason: str) -> DatabaseError:
    where = without_credentials(url)
    line = reason.replace(url, where).strip().splitlines()[0]
    return DatabaseError(f"--optuna-storage {where}: {line}")


class _Database(RDBStorage):
    """Ray Tune pickles what searches: not with a password, and nobody reads it again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return object, ()


def _connect_patiently(dialect: Any, record: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Connects anew to a server that may be restarting."""
    deadline = time.monotonic() + OUTAGE_S
    while True:
        try:
            return dialect.connect(*arguments, **options)
        except dialect.loaded_dbapi.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)
