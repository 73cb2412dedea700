"""Checks of a running cluster, by a job on it: every node's storage, data and model; GPUs together; a rehearsal."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from sst2_ray.cluster.doctor.node_versions import check_node, compare
from sst2_ray.cluster.doctor.probe import MARK
from sst2_ray.cluster.findings import Finding, Findings, Level
from sst2_ray.cluster.submit.client import connect
from sst2_ray.cluster.submit.follow import Follower
from sst2_ray.cluster.submit.reach import CALL_ERRORS
from sst2_ray.config.section import Section
from sst2_ray.errors import InputError, Sst2RayError

_OPTIONS_FILE = "options.json"
_LEVELS: dict[str, Level] = {"ok": "ok", "warning": "warning", "error": "error"}


def check_cluster(address: str, heal: Callable[[], None], options: Mapping[str, str | bool | None]) -> Findings:
    """Run `cluster_probe` on the cluster at `address` and read what it found. `options`: the keys of its `main`."""
    client = connect(address)
    parts: list[str] = []
    job_id = f"sst2-doctor-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory(prefix="sst2-doctor-") as folder:
        # The package travels with the probe: what is checked is this code, whatever the nodes have installed.
        package = Path(__file__).resolve().parents[2]
        shutil.copytree(package, Path(folder) / "sst2_ray", ignore=shutil.ignore_patterns("__pycache__"))
        # Everybody reads a job's command and variables in the dashboard, and a URI may hold credentials.
        file = Path(folder) / _OPTIONS_FILE
        file.touch(mode=0o600)
        file.write_text(json.dumps(options), encoding="utf-8")
        command = ["python", "-m", "sst2_ray.cluster.doctor.cluster_probe", _OPTIONS_FILE]
        try:
            client.submit_job(entrypoint=shlex.join(command), submission_id=job_id, runtime_env={"working_dir": folder})
        except CALL_ERRORS as error:  # right after `up` no node may take jobs yet
            line = " ".join(str(error).split())[:160]
            raise InputError(f"{address}: takes no job now ({line}); try again in a minute") from None
    follower = Follower(
        client=client, job_id=job_id, emit=parts.append, say=lambda _: None, heal=heal,
        demand={}, pending_timeout_s=120, reconnect_timeout_s=60,
    )  # fmt: skip
    found = Findings()
    try:
        info = follower.follow()
    except Sst2RayError as problem:
        found.error("cluster", f"the probe did not run: {problem}", "look at the dashboard's job page")
        return found
    output = "".join(parts)
    read_probe(output, found)
    if info.status != "SUCCEEDED":
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        found.error("cluster", f"the probe failed: {last[:200]}", f"ray job logs {job_id} has all of it")
    return found


def read_probe(output: str, found: Findings) -> None:
    """Read findings and node descriptions out of the probe's log."""
    nodes: dict[str, Section] = {}
    for line in output.splitlines():
        if MARK not in line:
            continue
        record = Section(json.loads(line[line.index(MARK) + len(MARK) :]))
        where = record.text("where")
        if "node" in record:
            nodes[where] = record.section("node")
        else:
            level = _LEVELS[record.text("level")]
            found.append(Finding(level=level, where=where, what=record.text("what"), remedy=record.text("remedy")))
    for where, node in nodes.items():
        check_node(where, node, found, prepared=True)
    if nodes:
        found.ok("cluster", f"{len(nodes)} nodes answer")
    compare(nodes, found)
