from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster_files import render
from tests.support.hosts import REPOSITORY, HostLab, missing_for_hosts
from tests.support.waiting import waited

CLI = (sys.executable, "-c", "from sst2_ray.cli import main; main()")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostLab]:
    """Yield three hosts for a cluster and a fourth that does not belong to it."""
    reason = missing_for_hosts()
    if reason:
        pytest.skip(f"hosts cannot be made here: {reason}")
    with HostLab(tmp_path_factory.mktemp("lab"), count=4) as lab:
        yield lab


def onprem_file(lab: HostLab, head: int = 0, workers: tuple[int, ...] = (1, 2)) -> Path:
    """Write cluster/onprem.yaml with nothing but the lab's addresses, user and key filled in."""
    text = render("onprem", HEAD_ADDRESS=lab.address(head), SSH_USER="root")
    addresses = ", ".join(lab.address(index) for index in workers)
    text = text.replace("[192.168.7.11, 192.168.7.12]", f"[{addresses}]").replace("~/.ssh/sst2-ray", str(lab.key))
    path = lab.folder / f"onprem-{head}-{'-'.join(map(str, workers))}.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def cluster(lab: HostLab) -> Path:
    """Start the on-prem cluster; return its file."""
    path = onprem_file(lab)
    result = lab.laptop(*CLI, "up", str(path), "--yes", timeout=900)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return path


class Submission:
    """A `sst2-ray submit` that runs while the test does something to it."""

    def __init__(self, lab: HostLab, folder: Path, *arguments: str, home: Path | None = None) -> None:
        """Start it. `home`: of another user than the lab's own."""
        self.files = (folder / "stdout", folder / "stderr")
        another = {"HOME": str(home)} if home else {}
        with self.files[0].open("wb") as out, self.files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [*CLI, "submit", *arguments], cwd=REPOSITORY, env=lab.environment(PYTHONUNBUFFERED="1", **another),
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True,
                # Tests that were started in a shell's background ignore Ctrl-C, and so would their children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip

    @property
    def stdout(self) -> str:
        return self.files[0].read_text()

    @property
    def stderr(self) -> str:
        return self.files[1].read_text()

    def until(self, pattern: str, timeout_s: float = 90) -> re.Match[str]:
        """Wait until the output holds `pattern`."""
        return waited(lambda: re.search(pattern, self.stdout + self.stderr), f"{pattern!r} in the output", timeout_s)

    def end(self, timeout_s: float = 120) -> int:
        """Wait for the end; its exit code."""
        return self.process.wait(timeout=timeout_s)

    def interrupt(self) -> None:
        """Interrupt the command as Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture
def submit(lab: HostLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Submission]]:
    """Start submissions; whatever still runs at the end of the test is ended."""
    started: list[Submission] = []

    def start(*arguments: str, home: Path | None = None) -> Submission:
        started.append(Submission(lab, tmp_path_factory.mktemp("submit"), *arguments, home=home))
        return started[-1]

    yield start
    for submission in started:
        if submission.process.poll() is None:
            os.killpg(submission.process.pid, signal.SIGKILL)
            submission.process.wait()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Make a working directory with a small script that counts, then ends as it is told."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "count.py").write_text(
        "import os, signal, sys, time\n"
        "for number in range(int(sys.argv[1])):\n"
        "    print('line', number, flush=True)\n"
        "    time.sleep(0.25)\n"
        "if sys.argv[2] == 'kill':\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(int(sys.argv[2]))\n"
    )
    return folder
