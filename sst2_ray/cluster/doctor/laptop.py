"""Checks of the machine that doctor runs on: the tools that `ray up` calls, the token, the project."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import stat
import subprocess  # nosec B404: asks git for the commit
from pathlib import Path

from packaging.requirements import Requirement

from sst2_ray.cluster.doctor.findings import Finding, error, ok, warning
from sst2_ray.cluster.doctor.probe import source_hash
from sst2_ray.cluster.file import TOKEN_FILE, ClusterFile

_CLIENTS = {
    "aws": ("boto3", "pip install boto3"),
    "gcp": ("googleapiclient", "pip install google-api-python-client google-auth-httplib2 cryptography"),
    "azure": ("azure.mgmt.compute", "install the versions that docs/cluster-azure.md names"),
}


def check_laptop(cluster: ClusterFile | None) -> list[Finding]:
    """Versions here, and what this machine needs for `cluster`."""
    findings = [_versions(), *_dependencies(), _project()]
    if cluster is not None and cluster.platform != "kuberay":
        findings += [_tool(name, why) for name, why in (("ssh", "`ray up` and the tunnel"), ("rsync", "file_mounts"))]
        findings.append(check_token())
        findings += _client(cluster)
    if cluster is not None and cluster.platform == "kuberay" and shutil.which("kubectl") is None:
        findings.append(
            warning("laptop", "kubectl is not installed", "install it, or apply the manifest from where it is")
        )
    return findings


def _versions() -> Finding:
    ray = importlib.metadata.version("ray")
    return ok("laptop", f"Python {platform.python_version()}, Ray {ray}")


def _dependencies() -> list[Finding]:
    """The installed packages against what this package declares."""
    wrong = []
    try:
        declared = importlib.metadata.requires("sst2-ray") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return []
    for text in declared:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} is {installed}, not {requirement.specifier}")
    return [error("laptop", text, "pip install -e . brings what the project was tested with") for text in wrong]


def project_root() -> Path:
    """The checkout that this package lies in (its parent folder where it is installed)."""
    return Path(__file__).resolve().parents[3]


def commit() -> str:
    """Short commit of the checkout with `+` where it has changes; empty outside git."""
    root = str(project_root())
    try:
        head = subprocess.run(
            ["git", "-C", root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        )  # nosec B603 B607
        dirty = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--", "sst2_ray"], capture_output=True, text=True, check=True
        )  # nosec B603 B607
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def local_source_hash() -> str:
    """Fingerprint of this package's source, to be compared with the nodes'."""
    return source_hash(Path(__file__).resolve().parents[2])


def _project() -> Finding:
    where = commit()
    return ok("project", f"source {local_source_hash()}" + (f", commit {where}" if where else ", not a git checkout"))


def _tool(name: str, why: str) -> Finding:
    if shutil.which(name):
        return ok("laptop", f"{name} is installed")
    return error("laptop", f"{name} is not installed, {why} needs it", f"install it with your package manager: {name}")


def check_token() -> Finding:
    """The token that every node gets."""
    path = TOKEN_FILE.expanduser()
    if not path.is_file():
        return warning(  # nothing fails for want of it: `sst2-ray up` makes one, plain `ray up` stops at file_mounts
            str(TOKEN_FILE),
            "no token yet",
            f"`sst2-ray up` makes one; for plain `ray up`: ray get-auth-token --generate, then chmod 600 {TOKEN_FILE}",
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return error(str(TOKEN_FILE), f"readable by others (mode {mode:03o})", f"chmod 600 {TOKEN_FILE}")
    if len(path.read_text().strip()) < 16:
        return error(str(TOKEN_FILE), "too short to be a secret", "remove it, `sst2-ray up` makes a new one")
    return ok(str(TOKEN_FILE), "token there, readable by you alone")


def _client(cluster: ClusterFile) -> list[Finding]:
    if cluster.platform not in _CLIENTS:
        return []
    module, remedy = _CLIENTS[cluster.platform]
    try:
        present = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a missing parent package
        present = False
    if present:
        found = [ok("laptop", f"client library {module} is installed")]
        return [*found, _credentials()] if cluster.platform == "aws" else found
    return [error("laptop", f"client library {module} is missing, `ray up` needs it", remedy)]


def _credentials() -> Finding:
    """Whether boto3 finds credentials; they are not tried, which `--ask-cloud` does."""
    import boto3

    try:
        credentials = boto3.Session().get_credentials()
    except Exception as problem:  # e.g. AWS_PROFILE names a profile that does not exist
        return error(
            "laptop", f"AWS credentials: {' '.join(str(problem).split())}", "correct AWS_PROFILE, or aws configure"
        )
    if credentials is None:
        return error("laptop", "no AWS credentials found, `ray up` needs them", "aws configure, or set AWS_PROFILE")
    return ok("laptop", "AWS credentials are there")
