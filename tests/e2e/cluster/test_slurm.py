"""cluster/slurm.sbatch on two hosts: srun and scontrol are stand-ins that speak the few options it uses, everything else is real."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.hosts import REPOSITORY, HostLab, missing_for_hosts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

JOB_ID = 4711
SCONTROL = """\
#!/usr/bin/env bash
[ "$1 $2" = "show hostnames" ] || { echo "scontrol stand-in: $*" >&2; exit 64; }
tr ',' '\\n' <<< "$3"
"""
# Like Slurm: the caller's environment and folder on every node, one task each, and the highest exit code of all.
SRUN = """\
#!/usr/bin/env bash
nodes="$SLURM_JOB_NODELIST"
while [[ $1 == --* ]]; do
  case $1 in
    --nodelist=*) nodes=${{1#*=}} ;;
    --nodes=1|--ntasks=1|--export=ALL|--kill-on-bad-exit=0|--cpu-bind=none) ;;
    *) echo "srun stand-in: unknown option $1" >&2; exit 64 ;;
  esac
  shift
done
step="$(mktemp -p {shared})"
{{ export -p; printf 'cd %q\\nexec' "$PWD"; printf ' %q' "$@"; echo; }} > "$step"
pids=()
for node in ${{nodes//,/ }}; do {ssh} "root@$node" "bash $step" & pids+=($!); done
code=0
for pid in "${{pids[@]}}"; do wait "$pid" || {{ ended=$?; [ $ended -le $code ] || code=$ended; }}; done
exit $code
"""


@pytest.fixture(scope="module")
def allocation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostLab]:
    """Yield two hosts with a home, an environment and a folder for results in common, as a cluster's shared file system gives them."""
    reason = missing_for_hosts()
    if reason:
        pytest.skip(f"hosts cannot be made here: {reason}")
    if not Path(sys.prefix, "bin", "activate").is_file():
        pytest.skip(f"{sys.prefix} is no virtual environment, which the script activates")
    with HostLab(tmp_path_factory.mktemp("slurm"), count=2) as lab:
        tools = lab.shared / "bin"
        for folder in (tools, lab.shared / "home"):
            folder.mkdir()
        key = lab.shared / "key"
        key.write_text(lab.key.read_text())
        key.chmod(0o600)
        ssh = f"ssh -n -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN.format(shared=lab.shared, ssh=ssh))):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        yield lab


def sbatch(lab: HostLab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm does: on the allocation's first node, with what Slurm sets."""
    settings = {
        "HOME": f"{lab.shared}/home",
        "PATH": f"{lab.shared}/bin:{os.defpath}:/usr/sbin:/sbin",
        "SLURM_SUBMIT_DIR": str(REPOSITORY),
        "SLURM_JOB_ID": str(JOB_ID),
        "SLURM_JOB_NODELIST": ",".join(lab.addresses),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "2",
        "SST2_RAY_VENV": sys.prefix,
    }
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    command = f"env -i {exports} bash {REPOSITORY}/cluster/slurm.sbatch {shlex.join(arguments)}"
    return lab.run(0, command, check=False, timeout=400)


def left_behind(lab: HostLab) -> list[str]:
    """List the processes of Ray on the nodes, and files of the allocation in the home."""
    processes = [line for index in range(2) for line in lab.run(index, "ps ax -o args").stdout.splitlines()]
    running = [line for line in processes if "raylet" in line or "gcs_server" in line or "ray::" in line]
    return [*running, *map(str, (lab.shared / "home/.ray").iterdir())]


@pytest.mark.slow
def test_wrong_input_ends_the_allocation_with_2_and_leaves_nothing_behind(allocation: HostLab) -> None:
    result = sbatch(allocation, "--model", "no-such-model", "--storage-path", f"{allocation.shared}/runs")
    assert result.returncode == 2, result.stdout[-3000:] + result.stderr[-3000:]
    assert "no-such-model" in result.stderr
    assert left_behind(allocation) == [] and not (allocation.shared / "runs").exists()


@pytest.mark.slow
def test_one_allocation_trains_across_its_nodes_and_leaves_nothing_behind(allocation: HostLab) -> None:
    storage = f"{allocation.shared}/runs"
    train = ("--model", "modernbert-mini", "--data", "rotten-tomatoes", "--train-rows", "512", "--dev-rows", "128", "--epochs", "1",
             "--num-workers", "2", "--cpus-per-worker", "2", "--storage-path", storage, "--name", "allocated")  # fmt: skip
    result = sbatch(allocation, *train)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (row,) = [row for row in pq.read_table(f"{storage}/results/trials").to_pylist() if row["status"] == "succeeded"]
    assert {node["address"] for node in json.loads(row["node_types_json"])} == set(allocation.addresses)
    assert left_behind(allocation) == []
