"""A real PostgreSQL server on loopback, in a folder of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER, PASSWORD = "someone", "s3cr3t-pässword"
QUOTED = "s3cr3t-p%C3%A4ssword"
NOBODY = 65534


def program(name: str) -> str | None:
    """Debian keeps the server's programs off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else None)


class PostgresServer:
    """Stops and starts; its URL carries a password."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        # PostgreSQL refuses to run as root
        self._as = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.getuid() == 0 else []
        (folder / "password").write_text(PASSWORD)
        if self._as:
            for path in (folder, folder / "password"):
                os.chown(path, NOBODY, NOBODY)
        self._run("initdb", "--pgdata", folder / "data", "--username", USER, "--pwfile", folder / "password",
                  "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")  # fmt: skip
        self.start()

    def url(self, password: str = QUOTED) -> str:
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        command = [*self._as, program("postgres"), "-D", self.folder / "data", "-p", str(self.port),
                   "-c", "listen_addresses=127.0.0.1", "-k", self.folder, "-c", "fsync=off"]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not answers(self.port):
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @property
    def stopped(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ends every connection."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)

    def _run(self, name: str, *arguments: object) -> None:
        command = [*self._as, str(program(name)), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    return port


def answers(port: int) -> bool:
    """Whether the server accepts connections; while it starts, it refuses them politely."""
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user=USER, password="wrong", dbname="postgres").close()
    except psycopg.OperationalError as error:
        return "password authentication failed" in str(error)
    return True


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    pytest.importorskip("psycopg", reason="needs psycopg (the extra postgresql)")
    if program("initdb") is None or program("postgres") is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
