"""Checks of files beside the cluster files: the image's Dockerfile, scripts of the nodes, the AWS account's stack, Serve's config."""

from __future__ import annotations

import re
from pathlib import Path

from sst2_ray.cluster.clouds.checks import check_shell, nodes_python
from sst2_ray.cluster.clouds.serve_config import check_serve_file
from sst2_ray.cluster.doctor.account_stack import check_account_stack
from sst2_ray.cluster.doctor.dockerfile import check_dockerfile
from sst2_ray.cluster.file import shipped
from sst2_ray.cluster.findings import Findings


def check_build_file(path: Path) -> Findings | None:
    """Check a Dockerfile, a script of cluster/node, a CloudFormation template or a Serve config; None where `path` is none."""
    if not path.is_file():
        return None
    text = path.read_bytes().decode("utf-8", errors="replace")
    found = Findings()
    if path.suffix in (".yaml", ".yml"):
        if re.search(r"^(AWSTemplateFormatVersion|Resources)\b", text, re.MULTILINE):
            check_account_stack(text, path.name, found)
        elif (
            re.search(r"^(applications|proxy_location|http_options):", text, re.MULTILINE) and "apiVersion:" not in text
        ):
            check_serve_file(text, path.name, found)
        else:
            return None
    elif "dockerfile" in path.name.lower():
        check_dockerfile(text.replace("\r\n", "\n"), found)
    elif path.name == "setup.sh":
        check_setup(path, found)
    elif path.suffix == ".sh":
        check_shell(path.name, text, found)
    else:
        return None
    if not found:
        found.ok(path.name, "versions, files and settings fit each other")
    return found


def check_setup(path: Path, found: Findings) -> None:
    """Check the script that prepares a node: that the shell reads it, its Python, what it reads beside it, and the token."""
    text, where = path.read_bytes().decode("utf-8", errors="replace"), path.name
    check_shell(where, text, found)
    text = text.replace("\r\n", "\n")
    if not re.search(r"^set -[a-z]*e", text, re.MULTILINE):
        what = "goes on after an error: a node without packages would join the cluster"
        found.error(where, what, "set -euo pipefail")
    for before, after in re.findall(r"^\s*([A-Z_]+) += ?|^\s*([A-Z_]+)= +\S", text, re.MULTILINE):
        found.error(where, f"{before or after}: blanks around = make a command of it", "remove them")
    version = re.search(r"^PYTHON_VERSION=[\"']?([\d.]+)", text, re.MULTILINE)
    if version and nodes_python() and not f"{version[1]}.".startswith(f"{nodes_python()}."):
        what = f"PYTHON_VERSION {version[1]}, the packages are locked for {nodes_python()}"
        found.error(where, what, f"PYTHON_VERSION={nodes_python()}, or cluster/node/lock.sh for another one")
    _check_installs(text, where, found)
    for mode in re.findall(r"chmod (\d+) \S*auth_token", text):
        if int(mode, 8) & 0o077:
            found.error(where, f"chmod {mode}: others on the node can read the token", "chmod 600")
    if not re.search(r"^\s*export RAY_AUTH_MODE=token\b", text, re.MULTILINE):
        found.error(where, "no token: anybody who reaches a node runs code as you", "export RAY_AUTH_MODE=token")
    for name in sorted(set(re.findall(r"\$\{?HERE\}?/([\w./-]+)", text))):
        if not (path.parent / name).exists() and not (shipped("cluster/node") / name).exists():
            found.error(where, f"reads {name}, which does not lie beside it", "correct the name")


def _check_installs(text: str, where: str, found: Findings) -> None:
    """Check that everything is installed from the lock, with its hashes, or at its pins."""
    for line in re.findall(r"^\s*uv pip install[^\n]*requirements\.lock[^\n]*", text, re.MULTILINE):
        if "--require-hashes" not in line:
            what = "installs the lock without its hashes: a package that was replaced is taken"
            found.error(where, what, "uv pip install --require-hashes -r ...")
    for command in re.findall(r"^\s*(?:\[[^\n]*\|\| )?uv pip install([^\n|;&]*)", text, re.MULTILINE):
        if not re.search(r"\s(-r|--requirement|-c|--constraint)\b", command):
            what = f"installs {command.split()[-1]} at any version: a worker of tomorrow differs from today's head"
            found.error(where, what, "into the lock (cluster/node/lock.sh), or --constraint")
