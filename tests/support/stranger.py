"""Probe of what somebody without the token can do from another host of the same network. Prints JSON.

usage: python stranger.py HEAD WORKER      on a host that does not belong to the cluster
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

# What would give the cluster away: running jobs, reading logs and state, the agent's job server, a profile of a process.
PATHS = (
    "/api/version",
    "/api/jobs/",
    "/nodes?view=summary",
    "/api/v0/logs",
    "/api/job_agent/jobs/",
    "/api/cluster_status",
    "/",
)
# The first thing that ray:// asks, without its minutes of trying again.
CLIENT_CALL = (
    "import grpc; from ray.core.generated import ray_client_pb2 as m, ray_client_pb2_grpc as s; "
    "print('in', s.RayletDriverStub(grpc.insecure_channel('{head}:10001'))"
    ".ClusterInfo(m.ClusterInfoRequest(type=m.ClusterInfoType.CLUSTER_RESOURCES), timeout=10))"
)
JOB = json.dumps({"entrypoint": "touch /tmp/stranger-was-here"}).encode()


def open_ports(address: str) -> list[int]:
    """List every TCP port that accepts a connection. Raises RuntimeError for one that neither accepts nor refuses."""
    return [port for port in range(1, 65536) if accepts(address, port)]


def accepts(address: str, port: int) -> bool:
    for _ in range(5):  # a busy machine may not answer at once, and a port that was missed would prove nothing
        with socket.socket() as probe:
            probe.settimeout(5)
            answer = probe.connect_ex((address, port))
        if answer in (0, errno.ECONNREFUSED):
            return answer == 0
        time.sleep(0.5)
    raise RuntimeError(f"{address}: port {port} neither accepts nor refuses a connection")


def status(url: str, data: bytes | None = None, token: str | None = None) -> int | str:
    """Return the HTTP status, or what the port said instead."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=3) as answer:
            # Prometheus figures: speeds and sizes, on every path, for GET alone. Ray cannot be told to guard them.
            return "metrics" if answer.read(6) == b"# HELP" else int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except Exception as problem:
        return type(problem).__name__


def join(call: str, mode: str, token: str) -> str:
    """Tell whether a driver gets in: `in`, or what it was told."""
    script = (
        "import ray\ntry:\n"
        f"    {call}\n"
        "except BaseException as error:\n    print(type(error).__name__, str(error).splitlines()[:1])\n"
    )
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": mode,
        "RAY_AUTH_TOKEN": token,
        "RAY_gcs_server_request_timeout_seconds": "5",
    }
    try:
        answer = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60, env=environment
        )
    except subprocess.TimeoutExpired:
        return "no answer within 60 s"
    # Where the process dies in C++ it prints nothing itself; its log says why.
    told = answer.stdout.strip() or answer.stderr.strip() or f"exit code {answer.returncode}"
    return told.splitlines()[-1][:300]


def main(head: str, worker: str) -> None:
    report: dict[str, object] = {}
    # Most ports speak gRPC and leave an HTTP request waiting: all of them are asked at once.
    with ThreadPoolExecutor(max_workers=128) as pool:
        drivers = {
            f"{name} {how}": pool.submit(join, call, mode, token)
            for name, call in (
                (
                    "gcs",
                    f"ray.init('{head}:6379', logging_level='CRITICAL', log_to_driver=False); print('in', ray.cluster_resources())",
                ),
                ("client", CLIENT_CALL.format(head=head)),
            )
            for how, mode, token in (("without token", "disabled", ""), ("with a wrong token", "token", "0" * 64))
        }
        for address in (head, worker):
            asked = {
                port: {name: pool.submit(status, *call) for name, call in calls(address, port).items()}
                for port in open_ports(address)
            }
            report[address] = {
                port: {name: future.result() for name, future in answers.items()} for port, answers in asked.items()
            }
        report |= {name: future.result() for name, future in drivers.items()}
    print(json.dumps(report))


def calls(address: str, port: int) -> dict[str, tuple[str, bytes | None, str | None]]:
    """Map the name of each try to the arguments of `status`."""
    base = f"http://{address}:{port}"
    return {
        **{path: (base + path, None, None) for path in PATHS},
        "with a wrong token": (f"{base}/api/jobs/", None, "0" * 64),
        "submit": (f"{base}/api/jobs/", JOB, None),
        "submit to the agent": (f"{base}/api/job_agent/jobs/", JOB, None),
    }


if __name__ == "__main__":
    main(*sys.argv[1:3])
