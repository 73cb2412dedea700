"""Slurm: an allocation on somebody's machines, started by sbatch. The script was run with stand-ins for srun, not under Slurm itself."""

from __future__ import annotations

import re

from sst2_ray.cluster.clouds.base import ForeignCloud
from sst2_ray.cluster.clouds.checks import check_harmful, check_shell, places
from sst2_ray.cluster.clouds.slurm_script import check_options, check_script
from sst2_ray.cluster.file import ClusterFile
from sst2_ray.cluster.findings import Findings
from sst2_ray.errors import did_you_mean

_SHORT = {"N": "nodes", "n": "ntasks", "t": "time", "J": "job-name", "o": "output", "e": "error", "p": "partition", "A": "account",
          "c": "cpus-per-task", "G": "gpus", "q": "qos", "C": "constraint", "w": "nodelist", "x": "exclude", "a": "array", "D": "chdir",
          "d": "dependency", "L": "licenses", "M": "clusters", "k": "no-kill", "H": "hold", "Q": "quiet", "v": "verbose", "W": "wait",
          "s": "oversubscribe", "b": "begin", "i": "input", "m": "distribution", "S": "core-spec", "F": "nodefile"}  # fmt: skip
_FORMS = (
    ("nodes", r"[1-9]\d*(-[1-9]\d*)?", "a number, or from-to"),
    ("gpus-per-node", r"([\w.-]+:)?\d+", "a number, or TYPE:NUMBER"),
    ("gpus", r"([\w.-]+:)?\d+", "a number, or TYPE:NUMBER"),
    ("gres", r"gpu(:[\w.-]+)?(:\d+)?(,.*)?", "gpu:NUMBER or gpu:TYPE:NUMBER"),
    ("mem", r"\d+[KMGT]?", "a number with K, M, G or T"),
    ("ntasks-per-node", r"\d+", "a number"),
)
_HARMFUL = (
    (
        r"--kill-on-bad-exit(=1)?(\s|$)",
        "one task that fails ends Ray everywhere, before a checkpoint",
        "--kill-on-bad-exit=0",
    ),
    (
        r"(?m)^\s*export CUDA_VISIBLE_DEVICES=",
        "CUDA_VISIBLE_DEVICES is fixed: workers see other GPUs than Slurm gave",
        "remove it",
    ),
    (
        r"RAY_TMPDIR=[\"']?/tmp/ray",
        "RAY_TMPDIR is a folder of everybody: who writes there can replace the code",
        "as in cluster/slurm.sbatch",
    ),
    (
        r"(?m)^\s*port=\"?\$\{?SLURM_JOB_ID\}?\"?\s*$",
        "the job's number is no port: there are 65535",
        "port=$((20000 + SLURM_JOB_ID % 20000))",
    ),
)
"""Harmful lines of a script: pattern, harm, remedy."""
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
        check_shell("script", cluster.document.text("script"), found)
        script = cluster.document.text("script").replace("\r\n", "\n")
        given = _check_directives(script, found)
        _check_values(given, found)
        _check_steps(script, given, found)
        _check_ray(script, found)
        check_options(given, found)
        check_script(script, found)
        if not found:
            found.ok("slurm", "one exclusive task a node, all of its memory, a token of its own")
        return found


def _check_directives(script: str, found: Findings) -> dict[str, str]:
    """Check the directives one by one; return the options that they give."""
    lines = script.splitlines()
    command = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    given: dict[str, str] = {}
    for number, line in enumerate(lines):
        where = f"line {number + 1}"
        if re.match(r"#\s+SBATCH\b|#sbatch\b", line):
            found.error(where, f"{line.strip()!r} is a comment", "#SBATCH, without a space")
        words = re.split(r"\s+(?=-{1,2}[A-Za-z])", re.sub(r"\s#.*", "", line)) if line.startswith("#SBATCH") else []
        if words and number > command:
            found.error(where, "Slurm reads no #SBATCH after the first command", "move it to the top")
            continue
        if len(words) == 1:
            found.error(where, f"{line.strip()!r} is no option", "#SBATCH --OPTION=VALUE")
        for word in words[1:]:
            _read_option(where, word, given, found)
    return given


def _read_option(where: str, word: str, given: dict[str, str], found: Findings) -> None:
    """Read one option of a directive into `given`."""
    option = re.match(r"--([\w-]+)(?:[= ](.*))?$", word)
    short = re.match(r"-([A-Za-z])[= ]?(.*)$", word)
    if option:
        given[option[1]] = (option[2] or "").strip()
        if option[1] not in places("sbatch_options"):
            found.error(where, f"sbatch has no --{option[1]}", did_you_mean(option[1], places("sbatch_options")))
    elif short and short[1] in _SHORT:
        given[_SHORT[short[1]]] = short[2].strip()
        if re.match(r"[a-z]{2}", short[2]) and short[1] in "nNtcG":
            found.error(where, f"{word!r} is the option -{short[1]}", "two dashes before a long option")
    else:
        found.error(where, f"{word!r} is no option of sbatch", "#SBATCH --OPTION=VALUE")


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
    elif not _TIME.fullmatch(given["time"]) or not re.search(r"[1-9]", given["time"]):
        found.error("--time", f"{given['time']!r} is not a time", "minutes, H:MM:SS or D-HH:MM:SS")
    if "array" in given:
        found.error(
            "--array", "every element would be a driver of the same run", "one job; jobs/sweep.py for many runs"
        )
    if not any(key in given for key in ("gpus-per-node", "gpus", "gres", "gpus-per-task")):
        found.warning("--gpus-per-node", "no GPU is asked for: training runs on CPUs", "#SBATCH --gpus-per-node=4")
    if "nodes" not in given:
        found.error("--nodes", "missing", "#SBATCH --nodes=2")
    for name, form, right in _FORMS:
        if name in given and not re.fullmatch(form, given[name]):
            found.error(f"--{name}", f"{given[name]!r} is not what Slurm takes", right)
    _check_sizes(given, found)


def _check_sizes(given: dict[str, str], found: Findings) -> None:
    """Check that the task has all of its node: memory and cores."""
    several = [name for name in ("mem", "mem-per-cpu", "mem-per-gpu") if name in given]
    if len(several) > 1:
        what = f"beside {' and '.join(f'--{name}' for name in several[1:])}: Slurm takes one of them"
        found.error("--mem", what, "--mem=0 alone")
    if given.get("mem", "") != "0":
        what = f"{given.get('mem') or 'the default'} of memory, where Ray takes the node's: the run is killed above it"
        found.error("--mem", what, "#SBATCH --mem=0, all of the node's")
    if "cpus-per-task" in given:
        what = f"{given['cpus-per-task']} of a node's cores, where the task is Ray on all of them"
        found.error("--cpus-per-task", what, "remove it: --exclusive gives all cores")


def _check_steps(script: str, given: dict[str, str], found: Findings) -> None:
    """Check the step that starts Ray, and the numbers it is told, against the allocation."""
    joined = re.sub(r"\\\n", " ", script)
    step = next((line for line in joined.splitlines() if "symmetric-run" in line and not line.startswith("#")), "")
    start, _, ray = step.partition("symmetric-run")
    nodes = given.get("nodes", "")
    for flag, value in re.findall(r"\s(-N|-n|--nodes|--ntasks)[= ]?(\d+)", start):
        if value != nodes:
            what = f"srun {flag} {value}, and the allocation has {nodes or 'other'} nodes: the rest stays idle"
            found.error("srun", what, f"remove {flag}: srun takes the allocation's")
    if given.get("ntasks", nodes) != nodes:
        what = f"{given['ntasks']} tasks on {nodes} nodes: Ray is started once a node"
        found.error("--ntasks", what, "remove it: --ntasks-per-node=1")
    _check_head_address(script, ray, found)
    least = re.search(r"--min-nodes[= ](\d+)", ray)
    if least and least[1] != nodes:
        what = f"waits for {least[1]} nodes, the allocation has {nodes}: it never starts, or starts without the rest"
        found.error("--min-nodes", what, '--min-nodes "$SLURM_JOB_NUM_NODES"')
    gpus = re.search(r"--num-gpus[= ](\d+)", ray)
    allocated = re.search(r"(\d+)$", given.get("gpus-per-node", given.get("gres", "")))
    if gpus and gpus[1] != (allocated[1] if allocated else "0"):
        what = f"Ray is told {gpus[1]} GPUs, the allocation has {allocated[1] if allocated else 'none'} a node"
        found.error("--num-gpus", what, '--num-gpus="${SLURM_GPUS_ON_NODE:-0}"')


def _check_head_address(script: str, ray: str, found: Findings) -> None:
    """Check that symmetric-run is given the head's address, not its name."""
    head = re.search(r"--address[= ][\"']?\$\{?(\w+)", ray)
    by_name = head and re.search(
        rf"read -r {head[1]}\b.*show hostnames|^{head[1]}=.*show hostnames", script, re.MULTILINE
    )
    if head and by_name:
        what = f"${head[1]} is a name: symmetric-run finds out by the address which node is the head"
        found.error("--address", what, "the head's address: srun ... hostname -I")


def _check_ray(script: str, found: Findings) -> None:
    bound = re.search(r"--dashboard-host[= ](\S+)", script)
    if bound and bound[1] not in ("127.0.0.1", "localhost"):
        found.error(
            "--dashboard-host", f"the dashboard listens on {bound[1]}: it runs jobs for whoever reaches it", "127.0.0.1"
        )
    if not re.search(r"RAY_AUTH_MODE=token\b", script):
        found.error("RAY_AUTH_MODE", "no token: anybody on the network runs code as you", "export RAY_AUTH_MODE=token")
    check_harmful("script", script, _HARMFUL, found)
    if "jobs/" in script and not re.search(r'jobs/[^\n]*"\$@"', script):
        found.error("script", "drops what stands behind its name: the run has no arguments", '"$@" behind the job')
    if not re.search(r"^\s*set -[a-z]*e", script, re.MULTILINE):
        found.error(
            "script",
            "goes on after an error: without the environment it would start another Python",
            "set -euo pipefail",
        )
    commands = re.sub(r"^\s*#.*$", "", script, flags=re.MULTILINE)
    for needed, why in (
        ("RAY_ADDRESS=", "the run would start a Ray of its own on the first node"),
        ("--cpu-bind=none", "Slurm would bind the one task of a node to one core"),
        ("symmetric-run", "nothing starts Ray"),
        ("RAY_TMPDIR", "Ray's session folder is writable for everybody on a node"),
    ):
        if needed not in commands:
            found.error(needed, f"missing: {why}", "compare with cluster/slurm.sbatch")
