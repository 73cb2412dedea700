"""A small training run as somebody's machine, shell or container would start it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.results.store.table import ResultsTable
from tests.support.models import sbert_folder
from tests.support.reviews import reviews, write_glue_folder
from tests.support.waiting import waited

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = str(Path(sys.executable).with_name("sst2-ray"))


@dataclass(frozen=True)
class SmallRuns:
    """Runs of four steps below one folder, which every user may write to and whose path is short."""

    folder: Path

    def words(self, name: str, *more: str) -> list[str]:
        """Return the command line of a run."""
        return [
            COMMAND, "train", f"--model={self.folder}/model", f"--data={self.folder}/data", "--batch-size=16", "--epochs=1",
            "--precision=fp32", f"--storage-path={self.folder}/runs", f"--name={name}", *more,
        ]  # fmt: skip

    def run(
        self, words: Sequence[str], *, before: Sequence[str] = (), after: str = "", timeout_s: float = 150, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command line in a shell.

        Args:
            words: the command line.
            before: words before it, such as `nohup`.
            after: shell code behind it, such as a pipe.
            timeout_s: of the whole.
            env: variables besides this process's own; an empty one is taken away.
        """
        values = {**os.environ, "PYTHONPATH": str(REPOSITORY), **env}
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {shlex.join([*before, *words])} {after}"],
            env={name: value for name, value in values.items() if value},
            cwd=self.folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )

    def row(self, name: str) -> dict[str, Any]:
        """Return the latest row of a run."""
        (row,) = ResultsTable(f"{self.folder}/runs").read("trials", experiment=name, attempts="latest").to_pylist()
        return row

    def succeeded(self, name: str, done: subprocess.CompletedProcess[str], *, lines: int = 0) -> dict[str, Any]:
        """Check exit code, row and lines on stderr; returns the row."""
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        assert done.stderr.count("\n") == lines, done.stderr
        row = self.row(name)
        assert row["status"] == "succeeded"
        return row


def small_runs(folder: Path) -> SmallRuns:
    """Make model and data below `folder`."""
    folder.chmod(0o777)
    sbert_folder(folder / "model")
    write_glue_folder(folder / "data", reviews(64), reviews(16, topic="play"))
    (folder / "runs").mkdir()
    for path in folder.rglob("*"):  # safetensors writes for its user alone
        path.chmod(0o777)
    return SmallRuns(folder)


def copy_of_clone(target: Path) -> Path:
    """Copy the files that git knows to a folder, so that nothing is written to the tree; return the folder."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split("\0"):
        if name and (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)
    return target


def wheel_of(folder: Path) -> Path:
    """Build the package's wheel below `folder`."""
    source = copy_of_clone(folder / "source")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


_CONTAINER = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm
mkdir -p "$WORK/python"
mount --bind "$BASE" "$WORK/python"
for top in /root /home; do
  case "$BASE" in "$top"/*)
    mount -t tmpfs -o mode=755 tmpfs "$top"; mkdir -p "$BASE"; mount --bind "$WORK/python" "$BASE";;
  esac
done
mount --bind /tmp /tmp
mount -o remount,bind,ro /
exec setpriv --reuid=12345 --regid=12345 --clear-groups env -u HOME -u USER -u LOGNAME "$@"
"""


def in_container(work: Path) -> list[str]:
    """Return the words that run what follows as a strict container does.

    A user id that nobody has, without HOME; a root that is read-only but for /tmp; 64 MB of /dev/shm. `work`: an empty folder.
    """
    return [
        "env",
        f"WORK={work}",
        f"BASE={sys.base_prefix}",
        "unshare",
        "--mount",
        "bash",
        "-c",
        _CONTAINER,
        "container",
    ]


def missing_for_containers() -> str:
    """Tell why containers cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "root is needed to make a mount namespace"
    probe = subprocess.run(["unshare", "--mount", "mount", "--make-rprivate", "/"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "mount namespaces are not allowed here"


@contextlib.contextmanager
def cpu_quota(cores: float) -> Iterator[Path]:
    """Make a cgroup (version 1 or 2) with a quota; yield the file that takes the ids of its processes."""
    version_1 = Path("/sys/fs/cgroup/cpu")
    group = (version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")) / f"sst2-ray-{os.getpid()}"
    group.mkdir()
    try:
        if version_1.is_dir():
            (group / "cpu.cfs_quota_us").write_text(str(round(cores * 100_000)))
        else:
            (group / "cpu.max").write_text(f"{round(cores * 100_000)} 100000")
        yield group / "cgroup.procs"
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        waited(lambda: _removed(group), "the end of a cgroup", 10)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:  # its processes are about to end
        return False
    return True


def missing_for_quotas() -> str:
    """Tell why a cgroup with a quota cannot be made here; empty where it can."""
    try:
        with cpu_quota(1.0):
            return ""
    except OSError as error:
        return f"cgroups cannot be made here ({error.strerror})"
