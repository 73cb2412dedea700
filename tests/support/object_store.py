"""An S3 of the tests' own on loopback (moto), reached as users reach theirs: s3:// and the AWS variables."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator

BUCKET = "sst2"


@contextlib.contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """The environment variables under which s3://sst2/... is an empty bucket of this server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=10).close()
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        server.stop()
