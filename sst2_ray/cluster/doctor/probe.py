"""Description of a node by itself, as JSON. Runs on the node with whatever Python is there: standard library only.

ssh node 'python3 - SRC' < probe.py        prints one line of JSON
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

MARK = "DOCTOR "
"""Lines of the cluster probe's output that start with it are JSON findings or node descriptions."""

PACKAGES = ("ray", "torch", "deepspeed", "transformers", "datasets", "sentence-transformers", "pyarrow")

GPU_FIELDS = ("name", "memory.total", "driver_version", "compute_cap", "clocks.current.sm", "clocks.max.sm", "temperature.gpu",
              "ecc.errors.uncorrected.volatile.total")  # fmt: skip


def source_hash(package: str | Path) -> str:
    """Return 12 hex digits over the Python files of a package folder; empty where it is not there."""
    root = Path(package)
    if not root.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if "__pycache__" not in path.parts:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that must be the same everywhere, with CUDA's."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if "torch" in found:
        found["cuda"] = torch_cuda()
    return found


def torch_cuda() -> str:
    """Return the CUDA that torch was built for, or cpu; read from its files, since importing it takes seconds."""
    spec = importlib.util.find_spec("torch")
    text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    built = re.search(r"^cuda\b[^=]*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return built[1] if built else "cpu"


def has_nvidia_gpu(root: str | Path = "/") -> bool:
    """Return True for a GPU with a device file, or one on the PCI bus without a driver that works."""
    vendors = Path(root).glob("sys/bus/pci/devices/*/vendor")
    return any(Path(root).glob("dev/nvidia[0-9]*")) or any(path.read_text().strip() == "0x10de" for path in vendors)


def gpus() -> list[dict[str, str]]:
    """Return one entry a GPU as the driver sees it; empty where there is no driver, or an image's driver and no GPU."""
    query = ",".join(GPU_FIELDS)
    if shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if answer.returncode != 0:
        if not has_nvidia_gpu():  # a CPU node on an NVIDIA image
            return []
        return [{"problem": " ".join((answer.stdout + answer.stderr).split())[:200]}]
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.stdout.strip().splitlines()]
    return [dict(zip(GPU_FIELDS, row)) for row in rows]  # noqa: B905


def differing(lock: str | Path = "~/.sst2-ray/node/requirements.lock") -> list[str]:
    """Return what is installed in another version than the node's lock pins; builds of one version (+cpu) are the same."""
    path = Path(lock).expanduser()
    found = []
    for name, pinned in re.findall(
        r"^([\w.-]+)==([^\s;\\]+)", path.read_text() if path.is_file() else "", re.MULTILINE
    ):
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed.partition("+")[0] != pinned.partition("+")[0]:
            found.append(f"{name} {installed} for {pinned}")
    return found


def token() -> str:
    """Return the mode of the token's file, env where a variable holds it (KubeRay), empty where there is none. It is never read."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "env"
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    return oct(stat.S_IMODE(path.stat().st_mode))[2:] if path.is_file() else ""


def describe(package: str = "~/.sst2-ray/src/sst2_ray") -> dict[str, object]:
    """Return everything that doctor compares between nodes, as plain JSON values."""
    home = shutil.disk_usage(Path.home())
    memory = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.split()[1].isdigit()
    }
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": versions(),
        "source": source_hash(Path(package).expanduser()),
        "token": token(),
        "auth_mode": os.environ.get("RAY_AUTH_MODE", ""),
        "clock": time.time(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory.get("MemTotal", 0) / 2**20, 1),
        "disk_free_gb": round(home.free / 1e9, 1),
        "shm_gib": round(shutil.disk_usage("/dev/shm").total / 2**30, 1) if Path("/dev/shm").is_dir() else 0.0,  # nosec B108
        "gpus": gpus(),
        "differing": differing(),
    }


if __name__ == "__main__":
    print(json.dumps(describe(*sys.argv[1:2])))
