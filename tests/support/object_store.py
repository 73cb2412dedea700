"""An S3 of the tests' own on loopback (moto), reached as users reach theirs: s3:// and the AWS variables."""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator

import pytest

BUCKET = "sst2"


class ObjectStore:
    """A server with one bucket. What it holds stays in this process: stopped and started again, it has it still."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._port = 0
        self.start()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT"), timeout=10).close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment variables under which s3://sst2/... is its bucket."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start it again at the port that it had before."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Connections are refused from now on."""
        self._server.stop()


@contextlib.contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """The environment variables under which s3://sst2/... is an empty bucket of a server that runs meanwhile."""
    store = ObjectStore()
    try:
        yield store.env
    finally:
        store.stop()


@contextlib.contextmanager
def object_store_here() -> Iterator[dict[str, str]]:
    """The same, with the variables set in this process meanwhile."""
    with object_store() as env, pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        yield env
