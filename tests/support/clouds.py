"""The notice endpoints of three clouds, played by a local HTTP server."""

from __future__ import annotations

import contextlib
import datetime as dt
import email.utils
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "imds-token"


class Endpoint:
    """`url`: to be asked. `take(seconds)`: from now on it tells that the machine goes in so many seconds."""

    def __init__(self, cloud: str) -> None:
        self.cloud = cloud
        self.at: dt.datetime | None = None
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                code, body = getattr(endpoint, f"_{endpoint.cloud}")(self.command, self.path, self.headers)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_PUT = _answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, seconds: float) -> None:
        self.at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)

    def _aws(self, method: str, path: str, headers) -> tuple[int, str]:
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, TOKEN) if headers.get("X-aws-ec2-metadata-token-ttl-seconds") else (400, "")
        if headers.get("X-aws-ec2-metadata-token") != TOKEN:
            return 401, ""
        if path == "/latest/meta-data/instance-id":
            return 200, "i-0"
        if path == "/latest/meta-data/spot/instance-action" and self.at:
            return 200, json.dumps({"action": "terminate", "time": self.at.strftime("%Y-%m-%dT%H:%M:%SZ")})
        return 404, ""

    def _gcp(self, _: str, path: str, headers) -> tuple[int, str]:
        if headers.get("Metadata-Flavor") != "Google":
            return 403, ""
        found = {"id": "1", "preempted": "TRUE" if self.at else "FALSE"}.get(
            path.removeprefix("/computeMetadata/v1/instance/")
        )
        return (200, found) if found else (404, "")

    def _azure(self, _: str, path: str, headers) -> tuple[int, str]:
        if headers.get("Metadata") != "true":
            return 400, ""
        if path.startswith("/metadata/instance/compute/name?api-version="):
            return 200, "worker_0"
        if not path.startswith("/metadata/scheduledevents?api-version="):
            return 404, ""
        other = {"EventType": "Preempt", "Resources": ["worker_1"], "NotBefore": ""}
        mine = [] if self.at is None else [
            {"EventType": "Preempt", "Resources": ["worker_0"], "NotBefore": email.utils.format_datetime(self.at, usegmt=True)}
        ]  # fmt: skip
        return 200, json.dumps({"DocumentIncarnation": 1, "Events": [other, *mine]})


@contextlib.contextmanager
def endpoint_of(cloud: str) -> Iterator[Endpoint]:
    """`cloud`: aws, gcp or azure."""
    endpoint = Endpoint(cloud)
    thread = threading.Thread(target=endpoint.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        thread.join()
        endpoint.server.server_close()
