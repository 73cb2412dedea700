"""Checks of what `ray up` copies to the nodes: that it is here, where it goes, and that it holds no keys."""

from __future__ import annotations

import re
from pathlib import Path

from sst2_ray.cluster.file import ClusterFile, shipped
from sst2_ray.cluster.findings import Findings

_KEYS = re.compile(r"(^|/)\.(ssh|aws|azure|kube|gnupg|docker|netrc|config/gcloud)(/|$)")
"""Folders of keys."""
_SYSTEM = re.compile(r"^/(etc|usr|bin|sbin|lib|lib64|boot|dev|proc|sys|run|var|opt|root)?(/|$)")
_WATCHER = "cluster/spot_watcher.py"


def check_mounts(cluster: ClusterFile, found: Findings) -> None:
    """Make every check of this module."""
    mounts = cluster.document.section("file_mounts")
    for remote in mounts.raw:
        local = mounts.text(remote)
        where = f"file_mounts.{remote}"
        if not shipped(local).exists() and "auth_token" not in remote:
            found.error(where, f"{local} does not exist here", "run from the repository's root, or correct the path")
            continue
        _check_target(where, str(remote), cluster.auth.text("ssh_user", "ubuntu"), found)
        _check_source(where, str(remote), local, found)
    if any(remote.endswith(".ray/auth_token") for remote in mounts.raw):
        found.ok("file_mounts", "the token goes to every node")
    else:
        what = "no token: nodes without ~/.ray/auth_token run code for anybody who reaches them"
        found.error("file_mounts", what, 'add "~/.ray/auth_token": "~/.ray/auth_token"')


def _check_target(where: str, remote: str, user: str, found: Findings) -> None:
    if not remote.startswith(("~/", "/", "~")):
        found.error(where, "is relative: the head and the workers look for it in different folders", f"~/{remote}")
    elif remote.rstrip("/") in ("~", "", f"/home/{user}"):
        what = "replaces the login's whole home: its SSH keys and settings would be those of the copied folder"
        found.error(where, what, "a folder below it, e.g. ~/work")
    elif _SYSTEM.match(remote) and user != "root":
        found.error(where, f"{user} may not write there", "a folder below ~/")


def _check_source(where: str, remote: str, local: str, found: Findings) -> None:
    path = shipped(local).expanduser()
    if _KEYS.search(local):
        what = f"{local} holds keys of yours, and goes to every node of the cluster"
        found.error(where, what, "an instance profile or a service account; a key of the cluster's own")
    elif path.is_dir() and ((path / ".git").exists() or path.resolve() == Path.home()):
        what = f"{local} is a whole repository or home: history, environment, data, and whatever secrets lie in it"
        found.error(where, what, "the folders that nodes need, one by one")
    elif remote.rstrip("/").endswith(".sst2-ray/src/sst2_ray") and not (path / _WATCHER).is_file():
        found.error(where, f"{local} has no {_WATCHER}: nobody watches for spot notices", "sst2_ray")
