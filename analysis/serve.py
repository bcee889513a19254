"""An HTTP server of one page and its status, for this machine alone."""

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from analysis.errors import InputError, one_line

ADDRESS = "127.0.0.1"
_NAMES = (ADDRESS, "localhost")
_HEADERS = {
    "Cache-Control": "no-store",
    # The page reaches no other site and no other site shows it; plotly needs the two unsafe words.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class Served:
    """What a browser gets at `/` and at `/status`."""

    page: bytes = b""
    status: dict[str, Any] = field(default_factory=dict)


def serve(served: Served, port: int) -> ThreadingHTTPServer:
    """A server that listens at a port of this machine (0: any that is free); `serve_forever` answers.

    Raises:
        InputError: the port is in use, or not allowed.
    """

    class Handler(_Handler):
        content = served

    try:
        server = ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        reason = one_line(error) if error.strerror is None else error.strerror.lower()
        raise InputError(f"port {port} of {ADDRESS} cannot be listened at: {reason} (--port N)") from error
    server.daemon_threads = True
    return server


class _Handler(BaseHTTPRequestHandler):
    content: Served
    server_version, sys_version = "sbbridge", ""
    timeout = 30.0

    def do_GET(self) -> None:
        """The page or the status; other paths do not exist."""
        # A foreign site whose name was pointed at this machine would ask under that name (DNS rebinding).
        if not self._is_for_this_machine(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, "not asked under a name of this machine")
        elif self.path == "/":
            self._answer("text/html; charset=utf-8", self.content.page)
        elif self.path == "/status":
            self._answer("application/json", json.dumps(self.content.status).encode())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the command's output is its address."""

    def _is_for_this_machine(self, host: str) -> bool:
        return host.rpartition(":")[0] in _NAMES or host in _NAMES

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
