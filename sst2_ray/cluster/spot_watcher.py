"""Spot watcher of a node: asks the cloud whether it takes this machine, and if so drains the node through Ray.

`python -m sst2_ray.cluster.spot_watcher`, started by cluster/node/watch_spot.sh. Training then writes a checkpoint and leaves
before the deadline (elastic training). Endpoints, as the clouds document them:
EC2 https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
Google https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
Azure https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

from __future__ import annotations

import argparse
import datetime as dt
import email.utils
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

POLL_S = 2.0
"""Azure and Google tell 30 seconds ahead."""

REQUEST_TIMEOUT_S = 2.0
SHORT_NOTICE_S = 30.0


def _request(url: str, *, method: str = "GET", **headers: str) -> str | None:
    """Return the answer's body, None where there is nothing at that address (404). Raises OSError where nobody answers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    # These services never ask for a proxy, and must never be asked through one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(
            urllib.request.Request(url, method=method, headers=named), timeout=REQUEST_TIMEOUT_S
        ) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return body.decode()


class Cloud(ABC):
    """Notices of a cloud about a machine that it takes."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint.rstrip("/")

    @abstractmethod
    def is_here(self) -> bool:
        """Return True on a machine of this cloud. Raises OSError where nobody answers."""

    @abstractmethod
    def seconds_left(self, now: float) -> float | None:
        """Return the seconds that are left, None without notice. `now`: time.time(). Raises OSError or ValueError for nonsense."""


class Aws(Cloud):
    """EC2, instance metadata version 2."""

    def _get(self, path: str) -> str | None:
        seconds = {"X_aws_ec2_metadata_token_ttl_seconds": "300"}  # nosec B105
        token = _request(f"{self.endpoint}/latest/api/token", method="PUT", **seconds)
        return _request(f"{self.endpoint}/latest/{path}", X_aws_ec2_metadata_token=token or "")

    def is_here(self) -> bool:
        return self._get("meta-data/instance-id") is not None

    def seconds_left(self, now: float) -> float | None:
        notice = self._get("meta-data/spot/instance-action")
        if notice is None:
            return None
        at = dt.datetime.fromisoformat(json.loads(notice)["time"].replace("Z", "+00:00"))
        return at.timestamp() - now


class Gcp(Cloud):
    """Compute Engine: says that it preempts, and then leaves half a minute."""

    def _get(self, path: str) -> str | None:
        return _request(f"{self.endpoint}/computeMetadata/v1/instance/{path}", Metadata_Flavor="Google")

    def is_here(self) -> bool:
        return self._get("id") is not None

    def seconds_left(self, now: float) -> float | None:  # noqa: ARG002 - it names no time
        return SHORT_NOTICE_S if (self._get("preempted") or "").strip() == "TRUE" else None


class Azure(Cloud):
    """Scheduled events; they name all machines of the set that they concern."""

    _name: str | None = None

    def _get(self, path: str) -> str | None:
        return _request(f"{self.endpoint}/metadata/{path}", Metadata="true")

    def is_here(self) -> bool:
        self._name = self._get("instance/compute/name?api-version=2021-02-01&format=text")
        return self._name is not None

    def seconds_left(self, now: float) -> float | None:
        events = json.loads(self._get("scheduledevents?api-version=2020-07-01") or "{}").get("Events", [])
        for event in events:
            if event["EventType"] == "Preempt" and self._name in (None, *event["Resources"]):
                begins = event.get("NotBefore")  # empty once it has begun
                return email.utils.parsedate_to_datetime(begins).timestamp() - now if begins else 0.0
        return None


CLOUDS: dict[str, tuple[type[Cloud], str]] = {
    "aws": (Aws, "http://169.254.169.254"),
    "gcp": (Gcp, "http://metadata.google.internal"),
    "azure": (Azure, "http://169.254.169.254"),
}


def find_cloud(name: str, endpoint: str | None) -> Cloud | None:
    """Return the cloud that answers, None where none does."""
    for kind, address in [CLOUDS[name]] if name != "auto" else CLOUDS.values():
        cloud = kind(endpoint or address)
        try:
            if cloud.is_here():
                return cloud
        except (OSError, ValueError):
            continue
    return None


def wait_for_notice(cloud: Cloud) -> float:
    """Block until there is a notice; return the seconds that are left."""
    while True:
        try:
            left = cloud.seconds_left(time.time())
            if left is not None:
                return max(0.0, left)
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"the notice endpoint gave no usable answer ({type(error).__name__}: {error})", flush=True)
        time.sleep(POLL_S)


def drain(address: str | None, node_id: str | None, seconds_left: float) -> None:
    """Tell Ray that this node goes: nothing new is placed on it, and drivers see it. Raises RuntimeError where Ray refuses."""
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # before ray is imported; as `ray start` does
    from sst2_ray.cluster.ray_private import drain_node

    node = drain_node(address, node_id, int((time.time() + seconds_left) * 1000))
    print(f"node {node} drains: {seconds_left:.0f} s are left", flush=True)


def main(argv: Sequence[str]) -> int:
    """Watch until a notice comes, then drain this node."""
    parser = argparse.ArgumentParser(prog="python -m sst2_ray.cluster.spot_watcher", description=__doc__.split("\n")[0])
    parser.add_argument("--cloud", choices=["auto", *CLOUDS], default="auto")
    parser.add_argument("--endpoint", help="instead of the cloud's own metadata address")
    parser.add_argument("--address", help="GCS address of the cluster; the one that runs on this node by default")
    parser.add_argument("--node-id", help="hexadecimal; that of this machine's address by default")
    flags = parser.parse_args(argv)
    cloud = find_cloud(flags.cloud, flags.endpoint)
    if cloud is None:
        print("no cloud's metadata answers here: nothing to watch", flush=True)
        return 0
    print(f"watching {type(cloud).__name__} for a notice, every {POLL_S:g} s", flush=True)
    drain(flags.address, flags.node_id, wait_for_notice(cloud))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
