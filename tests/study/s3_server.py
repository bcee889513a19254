"""A real HTTP server of the S3 protocol on loopback, that can be told to misbehave."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

BUCKET = "bucket"
KEY, SECRET = "a-key", "a-secret"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}

Fault = Callable[[str, str, int], "str | float | None"]
"""(method, path, number of the request) -> "500", "503", "drop", "late" (done, then no answer), seconds, or None."""


@dataclass
class S3Server:
    """Attributes: its address, what it has been asked, and the faults it makes."""

    port: int = 0
    fault: Fault | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)

    def uri(self, prefix: str, bucket: str = BUCKET) -> str:
        return f"s3://{bucket}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def application(self, app: Any) -> Any:
        """WSGI around moto's."""

        from werkzeug.wsgi import get_input_stream

        def answer(environ: dict[str, Any], start: Any) -> Any:
            self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            fault = self.fault(*self.requests[-1], len(self.requests)) if self.fault else None
            if fault is not None:
                name = fault if isinstance(fault, str) else "slow"
                self.made[name] = self.made.get(name, 0) + 1
            if isinstance(fault, float):
                time.sleep(fault)
            if fault in ("500", "503"):
                get_input_stream(environ).read()
                code = {"500": "InternalError", "503": "SlowDown"}[fault]
                start(f"{fault} {code}", [("Content-Type", "application/xml")])
                text = f"<Error><Code>{code}</Code><Message>made to fail</Message></Error>".encode()
                return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]
            if fault == "late":
                b"".join(app(environ, lambda *a, **k: None))
            if fault in ("drop", "late"):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return app(environ, start) if fault not in ("drop", "late") else []

        return answer


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with one bucket."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = S3Server()
    app = server.application(DomainDispatcherApplication(create_backend_app))
    http = make_server("127.0.0.1", 0, app, threaded=True)
    server.port = http.server_port
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1",
                          aws_access_key_id=KEY, aws_secret_access_key=SECRET)  # fmt: skip
    client.create_bucket(Bucket=BUCKET)
    server.requests.clear()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
