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

from sst2_ray.cluster.clouds import cloud_of
from sst2_ray.cluster.doctor.probe import source_hash
from sst2_ray.cluster.file import TOKEN_FILE, ClusterFile
from sst2_ray.cluster.findings import Findings

PACKAGE = Path(__file__).resolve().parents[2]


def check_laptop(cluster: ClusterFile | None) -> Findings:
    """Check versions here, and what this machine needs for `cluster`."""
    found = Findings()
    found.ok("laptop", f"Python {platform.python_version()}, Ray {importlib.metadata.version('ray')}")
    _check_dependencies(found)
    where = commit()
    found.ok("project", f"source {local_source_hash()}" + (f", commit {where}" if where else ", not a git checkout"))
    if cluster is None:
        return found
    if cluster.platform == "kuberay":
        if shutil.which("kubectl") is None:
            found.warning("laptop", "kubectl is not installed", "install it, or apply the manifest from where it is")
        return found
    if cluster.platform == "slurm":
        return found
    for name, why in (("ssh", "`ray up` and the tunnel"), ("rsync", "file_mounts")):
        if shutil.which(name):
            found.ok("laptop", f"{name} is installed")
        else:
            remedy = f"install it with your package manager: {name}"
            found.error("laptop", f"{name} is not installed, {why} needs it", remedy)
    check_token(found, cluster.token if cluster.token.is_file() else TOKEN_FILE)
    _check_client(cluster, found)
    return found


def _check_dependencies(found: Findings) -> None:
    """Check the installed packages against what this package declares."""
    try:
        declared = importlib.metadata.requires("sst2-ray") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return
    remedy = "pip install -e . brings what the project was tested with"
    for requirement in map(Requirement, declared):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.error("laptop", f"{requirement} is not installed", remedy)
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            found.error("laptop", f"{requirement.name} is {installed}, not {requirement.specifier}", remedy)


def commit() -> str:
    """Return the short commit of the checkout, with `+` where it has changes; empty outside git."""
    git = ["git", "-C", str(PACKAGE.parent)]
    try:
        head, dirty = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()  # nosec B603
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "sst2_ray"])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if dirty else "")


def local_source_hash() -> str:
    """Return the fingerprint of this package's source, to be compared with the nodes'."""
    return source_hash(PACKAGE)


def check_token(found: Findings, file: Path = TOKEN_FILE) -> None:
    """Check the token that every node gets."""
    where, path = str(file), file.expanduser()
    if not path.is_file():  # nothing fails for want of it: `sst2-ray up` makes one, plain `ray up` stops at file_mounts
        remedy = (
            f"`sst2-ray up` makes one; for plain `ray up`: ray get-auth-token --generate, then chmod 600 {TOKEN_FILE}"
        )
        found.warning(where, "no token yet", remedy)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        found.error(where, f"readable by others (mode {mode:03o})", f"chmod 600 {file}")
    elif len(path.read_text().strip()) < 16:
        found.error(where, "too short to be a secret", "remove it, `sst2-ray up` makes a new one")
    else:
        found.ok(where, "token there, readable by you alone")


def _check_client(cluster: ClusterFile, found: Findings) -> None:
    library = cloud_of(cluster).client_library
    if library is None:
        return
    module, remedy = library
    try:
        present = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a missing parent package
        present = False
    if not present:
        found.error("laptop", f"client library {module} is missing, `ray up` needs it", remedy)
        return
    found.ok("laptop", f"client library {module} is installed")
    if cluster.platform == "aws":
        _check_aws_credentials(found)


def _check_aws_credentials(found: Findings) -> None:
    """Check that boto3 finds credentials; they are not tried, which `--ask-cloud` does."""
    import boto3

    try:
        credentials = boto3.Session().get_credentials()
    except Exception as problem:  # e.g. AWS_PROFILE names a profile that does not exist
        reason = " ".join(str(problem).split())
        found.error("laptop", f"AWS credentials: {reason}", "correct AWS_PROFILE, or aws configure")
        return
    if credentials is None:
        found.error("laptop", "no AWS credentials found, `ray up` needs them", "aws configure, or set AWS_PROFILE")
    else:
        found.ok("laptop", "AWS credentials are there")
