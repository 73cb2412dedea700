"""Slurm: an allocation on somebody's machines, started by sbatch. The script was run with stand-ins for srun, not under Slurm itself."""

from __future__ import annotations

import re

from sst2_ray.cluster.clouds.base import ForeignCloud
from sst2_ray.cluster.clouds.checks import places
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.findings import Findings
from sst2_ray.errors import did_you_mean

_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}")


class Slurm(ForeignCloud):
    """An allocation of Slurm."""

    platform = "slurm"
    start_with = "sbatch"
    end_with = "scancel JOBID"
    reached_by = "a batch script has no head to tunnel to; start it with: sbatch {path}"

    def check(self, cluster: ClusterFile) -> Findings:
        """Check the directives, and how the script starts Ray."""
        found = Findings()
        script = cluster.document.text("script")
        _check_directives(script, found)
        _check_ray(script, found)
        if not found:
            found.ok("slurm", "one exclusive task a node, all of its memory, a token of its own")
        return found


def _check_directives(script: str, found: Findings) -> None:
    lines = script.splitlines()
    command = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    given: dict[str, str] = {}
    for number, line in enumerate(lines):
        where = f"line {number + 1}"
        if re.match(r"#\s+SBATCH\b|#sbatch\b", line):
            found.error(where, f"{line.strip()!r} is a comment", "#SBATCH, without a space")
        directive = re.match(r"#SBATCH\s+--([\w-]+)(?:[= ](.*))?$", line)
        if line.startswith("#SBATCH") and number > command:
            found.error(where, "Slurm reads no #SBATCH after the first command", "move it to the top")
        elif directive:
            given[directive[1]] = (directive[2] or "").strip()
            if directive[1] not in places("sbatch_options"):
                found.error(
                    where, f"sbatch has no --{directive[1]}", did_you_mean(directive[1], places("sbatch_options"))
                )
    _check_values(given, found)


def _check_values(given: dict[str, str], found: Findings) -> None:
    if given.get("ntasks-per-node") != "1":
        what = "symmetric-run is started once a node"
        found.error("--ntasks-per-node", what, "#SBATCH --ntasks-per-node=1")
    if "exclusive" not in given:
        what = "starting and stopping Ray ends every Ray process of the user on a node"
        found.error("--exclusive", what, "#SBATCH --exclusive")
    if "time" not in given:
        found.error(
            "--time",
            "missing: a run that hangs holds its nodes as long as the partition allows",
            "#SBATCH --time=04:00:00",
        )
    elif not _TIME.fullmatch(given["time"]):
        found.error("--time", f"{given['time']!r} is not a time", "minutes, H:MM:SS or D-HH:MM:SS")
    if given.get("mem", "0") != "0" or "mem" not in given:
        what = f"{given.get('mem') or 'the default'} of memory, where Ray takes the node's: the run is killed above it"
        found.error("--mem", what, "#SBATCH --mem=0, all of the node's")
    if "array" in given:
        found.error(
            "--array", "every element would be a driver of the same run", "one job; jobs/sweep.py for many runs"
        )
    if not any(key in given for key in ("gpus-per-node", "gpus", "gres", "gpus-per-task")):
        found.warning("--gpus-per-node", "no GPU is asked for: training runs on CPUs", "#SBATCH --gpus-per-node=4")
    if "nodes" not in given:
        found.error("--nodes", "missing", "#SBATCH --nodes=2")


def _check_ray(script: str, found: Findings) -> None:
    bound = re.search(r"--dashboard-host[= ](\S+)", script)
    if bound and bound[1] not in ("127.0.0.1", "localhost"):
        found.error(
            "--dashboard-host", f"the dashboard listens on {bound[1]}: it runs jobs for whoever reaches it", "127.0.0.1"
        )
    if not re.search(r"RAY_AUTH_MODE=token\b", script):
        found.error("RAY_AUTH_MODE", "no token: anybody on the network runs code as you", "export RAY_AUTH_MODE=token")
    for needed, why in (
        ("RAY_ADDRESS=", "the run would start a Ray of its own on the first node"),
        ("--cpu-bind=none", "Slurm would bind the one task of a node to one core"),
        ("symmetric-run", "nothing starts Ray"),
        ("RAY_TMPDIR", "Ray's session folder is writable for everybody on a node"),
    ):
        if needed not in script:
            found.error(needed, f"missing: {why}", "compare with cluster/slurm.sbatch")
