"""Checks of the commands that nodes run: what they install, and how they start Ray."""

from __future__ import annotations

import contextlib
import importlib.metadata
import ipaddress
import re
from collections.abc import Iterator

from sst2_ray.cluster.file import ClusterFile, shipped
from sst2_ray.cluster.findings import Findings

_COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands",
    "worker_start_ray_commands",
)  # fmt: skip
_RAY_REQUIREMENT = re.compile(
    r"(?:^|[\s'\"])(ray(?:\[[\w,]+\])?(?:\s*[=<>~!]=?[^\s'\"]+)?(?:\s*@\s*\S+)?)(?=$|[\s'\"])"
)
HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"


def commands_of(cluster: ClusterFile) -> Iterator[tuple[str, str]]:
    """Yield (key path, shell command) of everything that the nodes run."""
    for key in _COMMANDS:
        for index, command in enumerate(cluster.document.items(key)):
            if isinstance(command, str):
                yield f"{key}[{index}]", command


def check_pins(cluster: ClusterFile, found: Findings) -> None:
    """Check that everything that is installed has a version, the same on every node."""
    commands = list(commands_of(cluster))
    by_script = any("node/setup.sh" in command for _, command in commands)
    if by_script:
        _check_pinned_ray(cluster, found)
    installs = by_script or bool(cluster.document.section("docker").get("image"))
    for path, command in commands:
        for spec in _RAY_REQUIREMENT.findall(command) if "pip install" in command else ():
            installs = True
            if "==" not in spec:
                what = f"Ray is not pinned ({spec.strip()}): nodes made on different days get different versions"
                found.error(path, what, "install ray[default,train,tune]==2.60.0, or use cluster/node/setup.sh")
        if "-latest" in command or "ray-wheels/latest" in command or "dev0" in command:
            found.error(path, "installs a nightly build of Ray", "pin a release")
    if not installs:
        what = "nothing installs Ray and the project's packages; where they are missing Ray's own default installs a nightly"
        found.error("setup_commands", what, "use cluster/node/setup.sh as in the repository's file")


def _check_pinned_ray(cluster: ClusterFile, found: Findings) -> None:
    local = cluster.document.section("file_mounts").text("~/.sst2-ray/node")
    path = shipped(local) / "requirements.lock"
    here = importlib.metadata.version("ray")
    if local and not path.is_file():
        return  # the mount's own check says that its folder does not exist here
    pin = re.search(r"^ray==(\S+)", path.read_text(), re.MULTILINE) if local else None
    if pin is None:
        what = "cluster/node with its pinned versions is not mounted"
        found.error("file_mounts.~/.sst2-ray/node", what, 'add "~/.sst2-ray/node": "cluster/node"')
    elif pin[1] != here:
        what = f"nodes get Ray {pin[1]}, this machine has {here}"
        remedy = "use the same version: `ray up` and the job client are not compatible across minors"
        found.error("cluster/node/requirements.lock", what, remedy)
    else:
        found.ok("setup_commands", f"nodes get Ray {pin[1]}, the version here")


def check_start_commands(cluster: ClusterFile, found: Findings) -> None:
    """Check how the head and the workers start Ray."""
    head, worker = (" ; ".join(cluster.document.texts(key)) for key in (HEAD, WORKER))
    for key, text in ((HEAD, head), (WORKER, worker)):
        if re.search(r"RAY_AUTH_MODE=(?!token)\w+", text):
            found.error(key, "switches token authentication off", "remove RAY_AUTH_MODE from the command")
        if text and "ray start" not in text:
            found.error(key, "never starts Ray", "copy the repository's start commands")
    if head:
        _check_head_start(head, found)
    if worker and "RAY_HEAD_IP" not in worker:
        found.error(WORKER, "workers do not join $RAY_HEAD_IP", "use ray start --address=$RAY_HEAD_IP:6379")


def _check_head_start(head: str, found: Findings) -> None:
    bound = re.search(r"--dashboard-host[= ](\S+)", head)
    if bound and not _is_loopback(bound[1]):
        what = f"the dashboard listens on {bound[1]}: it runs jobs for whoever reaches it"
        found.error(HEAD, what, "use --dashboard-host=127.0.0.1; submit opens a tunnel")
    else:
        found.ok(HEAD, "the dashboard is reached through SSH only")
    if "--autoscaling-config" not in head:
        what = "without --autoscaling-config no worker is ever started"
        found.error(HEAD, what, "add --autoscaling-config=~/ray_bootstrap_config.yaml")
    if "--include-dashboard=false" in head.lower():
        found.error(HEAD, "without the dashboard no job can be submitted", "remove --include-dashboard=false")


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return address == "localhost"
