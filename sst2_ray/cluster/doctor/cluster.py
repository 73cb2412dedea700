"""Checks of a running cluster, by a job on it: every node's storage, data and model; GPUs together; a rehearsal."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sst2_ray.cluster.doctor.findings import Finding, error, ok
from sst2_ray.cluster.doctor.node_versions import check_node, compare
from sst2_ray.cluster.submit.client import connect
from sst2_ray.cluster.submit.follow import Follower
from sst2_ray.errors import Sst2RayError

MARK = "DOCTOR "
"""Lines of the job's output that start with it are JSON findings or node descriptions."""


def check_cluster(address: str, heal: Callable[[], None], options: dict[str, Any]) -> list[Finding]:
    """Run `cluster_probe` on the cluster at `address` and read what it found. `options`: its keyword arguments, JSON."""
    client = connect(address)
    parts: list[str] = []
    job_id = f"sst2-doctor-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="sst2-doctor-") as folder:
        # The package travels with the probe: what is checked is this code, whatever the nodes have installed.
        package = Path(__file__).resolve().parents[2]
        shutil.copytree(package, Path(folder) / "sst2_ray", ignore=shutil.ignore_patterns("__pycache__"))
        command = ["python", "-m", "sst2_ray.cluster.doctor.cluster_probe", json.dumps(options)]
        client.submit_job(entrypoint=shlex.join(command), submission_id=job_id, runtime_env={"working_dir": folder})
    follower = Follower(
        client=client, job_id=job_id, emit=parts.append, say=lambda _: None, heal=heal,
        demand={}, pending_timeout_s=120, reconnect_timeout_s=60,
    )  # fmt: skip
    try:
        info = follower.follow()
    except Sst2RayError as problem:
        return [error("cluster", f"the probe did not run: {problem}", "look at the dashboard's job page")]
    output = "".join(parts)
    findings = read_probe(output)
    if info.status != "SUCCEEDED":
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        findings.append(error("cluster", f"the probe failed: {last[:200]}", f"ray job logs {job_id} has all of it"))
    return findings


def read_probe(output: str) -> list[Finding]:
    """Findings and node descriptions out of the probe's log."""
    findings: list[Finding] = []
    nodes: dict[str, dict[str, Any]] = {}
    for line in output.splitlines():
        if MARK not in line:
            continue
        record = json.loads(line[line.index(MARK) + len(MARK) :])
        if "node" in record:
            nodes[record["where"]] = record["node"]
        else:
            findings.append(
                Finding(
                    level=record["level"], where=record["where"], what=record["what"], remedy=record.get("remedy", "")
                )
            )
    for where, node in nodes.items():
        findings += check_node(where, node, prepared=True)
    if nodes:
        findings.append(ok("cluster", f"{len(nodes)} nodes answer"))
    return [*findings, *compare(nodes)]
