"""Checks of what nodes run besides Ray's own flags: scripts that a mount brings, the watch that ends machines, values of `ray start`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.doctor.build_files import check_setup
from sst2_ray.cluster.doctor.commands import HEAD, WORKER, commands_of
from sst2_ray.cluster.file import ClusterFile, shipped
from sst2_ray.cluster.findings import Findings
from sst2_ray.cluster.prices import machine_of
from sst2_ray.cluster.ray_private import start_value_problem
from sst2_ray.errors import did_you_mean

_AUTOSTOP_FLAGS = {
    "--idle-minutes": "number", "--lost-minutes": "number", "--max-hours": "number", "--poll-s": "number", "--ssh-port": "number",
    "--head": "text", "--cloud": "text", "--dashboard": "text", "--command": "text", "--proc": "text",
}  # fmt: skip
"""Flags of cluster/node/autostop.py."""
_LEAST_IDLE_MINUTES = 5
_MOST_HOURS = 14 * 24
_LONGEST_TEMP_DIR = 107 - len("/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
"""Bytes: the path of a socket takes 107, and Ray makes the rest of it."""


def check_node_scripts(cluster: ClusterFile, found: Findings) -> None:
    """Make every check of this module."""
    _check_scripts(cluster, found)
    setup = shipped(cluster.document.section("file_mounts").text("~/.sst2-ray/node", "-")) / "setup.sh"
    if setup.is_file():
        check_setup(setup, found)
    workers = " ; ".join(cluster.document.texts(WORKER))
    if cluster.platform != "local" and workers and "autostop.sh" not in workers:
        what = "nothing ends the workers where the head is gone: they are paid until somebody looks"
        found.warning(WORKER, what, "autostop.sh worker, as in the repository's file")
    for key, role in (("initialization_commands", "head"), (HEAD, "head"), (WORKER, "worker")):
        for command in cluster.document.texts(key):
            if "autostop.sh" in command:
                _check_autostop(cluster, key, role, command, found)
            start = re.search(r"\bray start\b([^;&|#]*)", command)
            if start:
                _check_values(key, start[1], found)
                _check_sizes(cluster, key, start[1], found)


def _check_scripts(cluster: ClusterFile, found: Findings) -> None:
    """Check that every script of the user's home is one that a mount brings, and lies in the folder that it brings."""
    mounts = {remote.rstrip("/"): local for remote, local in cluster.document.section("file_mounts").raw.items()}
    for path, command in commands_of(cluster):
        for name in re.findall(r"(?:^|[;&|]\s*)(?:bash|sh|source)\s+((?![~/$-])\S+\.sh)\b", command):
            what = f"runs {name}, a path of this machine: nodes run their commands in the home of auth.ssh_user"
            found.error(path, what, "the path that file_mounts gives it, with ~/")
        for name in re.findall(r"(?:^|[;&|]\s*|\s)(?:bash|sh|source|\.|python3?)\s+(~/[\w./-]+)", command):
            remote = next((remote for remote in mounts if name == remote or name.startswith(f"{remote}/")), None)
            if remote is None:
                if not name.startswith(("~/.bashrc", "~/.profile", "~/.sst2-ray/")):  # the latter: told with its mount
                    found.error(path, f"runs {name}, which no file_mounts entry brings", "mount it")
                continue
            problem = _not_brought(name, remote, str(mounts[remote]))
            if problem:
                found.error(path, f"runs {name}, and there is no {problem[0]}", problem[1])


def _not_brought(name: str, remote: str, source: str) -> tuple[Path, str] | None:
    """Return the file that a mount does not bring, with the remedy; None where it is there."""
    local = shipped(source)
    file = local / name[len(remote) :].lstrip("/") if name != remote else local
    if not local.exists() or file.exists():  # a mount without a source is told with the mounts
        return None
    siblings = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
    return file, did_you_mean(file.name, siblings or ["none"])


def _check_autostop(cluster: ClusterFile, key: str, role: str, command: str, found: Findings) -> None:
    """Check the arguments of the watch that ends a machine: with wrong ones it ends it too early, or does not start."""
    try:
        words = shlex.split(command.partition("autostop.sh")[2].replace("=", " "), comments=True)
    except ValueError as error:
        found.error(key, f"autostop.sh cannot be read: {error}", "close the quotation")
        return
    if not words or words[0] != role:
        what = f"autostop.sh {words[0] if words else ''}: machines of these commands are a {role}"
        found.error(key, what, f"autostop.sh {role}")
    flags = dict(zip(words[1::2], words[2::2], strict=False))
    for flag, value in flags.items():
        kind = _AUTOSTOP_FLAGS.get(flag)
        if kind is None:
            found.error(key, f"autostop.sh has no {flag}; {did_you_mean(flag, _AUTOSTOP_FLAGS)}", "correct the flag")
        elif kind == "number" and not re.fullmatch(r"\d*\.?\d+", value):
            found.error(key, f"autostop.sh {flag} {value}: not a number, the watch does not start", "without a unit")
    _check_times(key, role, flags, found)
    if role == "worker" and flags.get("--lost-minutes") in ("0", "0.0"):
        what = "autostop.sh --lost-minutes 0: workers whose head is gone are paid until somebody looks"
        found.warning(key, what, "--lost-minutes 15")
    if cluster.platform == "local":
        what = "autostop.sh would switch your own machines off: nothing starts them again"
        found.error(key, what, "remove it: they are yours, idle or not")
    cloud = flags.get("--cloud", "aws")
    if cloud != cluster.platform and cluster.platform != "local":
        what = f"autostop.sh --cloud {cloud}: on {cluster.platform} it could not end a machine"
        found.error(key, what, f"--cloud {cluster.platform}")
    if role == "worker":
        _check_head_address(cluster, key, flags.get("--head", ""), found)


def _check_times(key: str, role: str, flags: dict[str, str], found: Findings) -> None:
    """Check that a head lives long enough for a first job, and no machine for weeks."""
    numbers = {flag: float(value) for flag, value in flags.items() if re.fullmatch(r"\d*\.?\d+", value)}
    if role == "head" and 0 < numbers.get("--idle-minutes", 30) < _LEAST_IDLE_MINUTES:
        what = f"autostop.sh --idle-minutes {flags['--idle-minutes']}: the head ends before anybody submits a job"
        found.warning(key, what, "--idle-minutes 30")
    if numbers.get("--max-hours", 72) > _MOST_HOURS:
        what = f"autostop.sh --max-hours {flags['--max-hours']}: a forgotten machine is paid for so long"
        found.warning(key, what, "--max-hours 72")


def _check_head_address(cluster: ClusterFile, key: str, head: str, found: Findings) -> None:
    starts = " ; ".join(cluster.document.texts(HEAD))
    port = re.search(r"(?<!\S)--port[= ](\d+)", starts)
    wanted = f"$RAY_HEAD_IP:{port[1] if port else 6379}"
    if head.replace("{", "").replace("}", "") != wanted:
        what = f"autostop.sh asks for the head at {head or 'no address'}: workers would end themselves beside a head that runs"
        found.error(key, what, f'--head "{wanted}"')


def _check_values(key: str, start: str, found: Findings) -> None:
    """Check the values of `ray start`'s flags as Ray reads them, and the session folder."""
    if "--block" in start:
        found.error(key, "ray start --block never returns, and `ray up` waits for it for ever", "remove --block")
    for flag, value in re.findall(r"(--[a-z][\w-]*)(?:=| (?!-))(\S+)", start):
        value = value.strip("'\"")
        if "$" in value:
            continue
        problem = start_value_problem(flag, value)
        if problem:
            found.error(key, f"ray start {flag} {value}: {problem}", "correct the value")
        elif flag.startswith("--num-") and float(value) < 0:
            found.error(key, f"ray start {flag} {value}: less than nothing", "0 or more")
        elif flag.endswith("-port") and not 0 <= int(value) <= 65535:
            found.error(key, f"ray start {flag} {value}: no such port", "0 to 65535")
        if flag == "--temp-dir":
            _check_temp_dir(key, value, found)


def _check_sizes(cluster: ClusterFile, key: str, start: str, found: Findings) -> None:
    """Check the CPUs and GPUs that `ray start` is told against the machines: what is told goes before what is there."""
    told = {flag: int(value) for flag, value in re.findall(r"--(num-cpus|num-gpus)[= ](\d+)", start)}
    for name, sizes in _sizes(cluster).items() if key == WORKER else ():
        if name in told and sizes and told[name] > max(sizes):
            what = f"ray start --{name}={told[name]}: the largest machine has {max(sizes)}"
            found.error(key, what, "remove it: Ray counts them")
    if key == HEAD and cluster.platform != "local" and told.get("num-cpus"):
        what = f"ray start --num-cpus={told['num-cpus']}: work can land on the head, whatever its resources say"
        found.error(key, what, "remove it")
    if key == WORKER and told.get("num-cpus") == 0:
        found.error(key, "ray start --num-cpus=0: no work is ever placed on a worker", "remove it: Ray counts them")


def _sizes(cluster: ClusterFile) -> dict[str, list[int]]:
    """Return CPUs and GPUs of the worker types whose machines the table of prices holds, by the flag of `ray start`."""
    cloud = cloud_of(cluster)
    types = [node_type for node_type in cluster.node_types if not node_type.is_head]
    known = [machine_of(cloud.price_list or "", cloud.machine_name(node_type)) for node_type in types]
    machines = [machine for machine in known if machine]
    return {"num-cpus": [machine.cpus for machine in machines], "num-gpus": [machine.gpus for machine in machines]}


def _check_temp_dir(key: str, value: str, found: Findings) -> None:
    path = Path(value)
    if value.startswith(("/tmp/", "/var/tmp/")):  # nosec B108: looked for, not used
        what = f"--temp-dir {value}: Ray makes its session folder writable for everybody, and others can replace the code that runs"
        found.error(key, what, "remove it: setup.sh chooses a folder that only this user can enter")
    if not path.is_absolute() and not value.startswith("~"):
        found.error(key, f"--temp-dir {value} is not absolute", "remove it")
    if len(value.encode()) > _LONGEST_TEMP_DIR:
        what = f"--temp-dir of {len(value)} letters: the sockets below it would exceed 107, and Ray does not start"
        found.error(key, what, f"at most {_LONGEST_TEMP_DIR}, or remove it")
