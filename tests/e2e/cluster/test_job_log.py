"""A real job server on this machine: a job's log with bytes that are not UTF-8, and two people with the same command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import REPOSITORY
from tests.support.waiting import waited

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CLI = (sys.executable, "-c", "from sst2_ray.cli import main; main()")
SERVER = """
    import ray, sys
    context = ray.init(num_cpus=2, include_dashboard=True, dashboard_port=0, _temp_dir=sys.argv[1], log_to_driver=False)
    print("at", context.dashboard_url, flush=True)
    sys.stdin.read()
"""


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "HOME": str(home),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(REPOSITORY),
    }


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A job server of its own, ended with its process."""
    folder = tmp_path_factory.mktemp("r")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), str(folder)], env=environment(folder),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        line = waited(lambda: re.search(r"at (\S+)", process.stdout.readline()), "the job server", 120)  # type: ignore[union-attr]
        yield f"http://{line[1]}"
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


def submit(address: str, home: Path, work: Path, *command: str) -> subprocess.Popen[bytes]:
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [*CLI, "submit", "--address", address, "--working-dir", str(work), "--on-interrupt", "stop", "--", *command],
        env=environment(home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.parametrize("lasts", [False, True])
def test_a_log_that_is_not_utf8_is_shown_replaced_and_the_exit_code_kept(
    address: str, tmp_path: Path, lasts: bool
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.py").write_text(
        "import sys, time\n"
        "for number in range(15): print('line', number, flush=True)\n"
        "sys.stdout.buffer.write(b'caf\\xe9\\n'); sys.stdout.flush()\n"
        f"time.sleep({12 if lasts else 0})\n"
        "print('last', flush=True); sys.exit(7)\n"
    )
    out, said = submit(address, tmp_path / "home", work, "python", "a.py").communicate(timeout=120)
    assert b"exit code 7" in said
    lines = [line for line in out.decode().splitlines() if line.startswith(("line", "caf", "last"))]
    assert lines == [*(f"line {number}" for number in range(15)), "caf�", "last"]


def test_two_people_with_the_same_command_each_run_their_own_and_end_only_that(address: str, tmp_path: Path) -> None:
    (tmp_path / "ann").mkdir()
    (tmp_path / "bob").mkdir()
    script = "import time\nprint('{} started', flush=True)\ntime.sleep({})\nprint('{} done')\n"
    (tmp_path / "ann/a.py").write_text(script.format("ann", 60, "ann"))
    (tmp_path / "bob/a.py").write_text(script.format("bob", 15, "bob"))
    ann = submit(address, tmp_path / "home-ann", tmp_path / "ann", "python", "a.py")
    assert ann.stdout is not None
    waited(lambda: b"ann started" in ann.stdout.readline() or None, "ann's job", 60)  # type: ignore[union-attr]
    bob = submit(address, tmp_path / "home-bob", tmp_path / "bob", "python", "a.py")
    assert bob.stdout is not None
    waited(lambda: b"bob started" in bob.stdout.readline() or None, "bob's job", 60)  # type: ignore[union-attr]
    ann.send_signal(signal.SIGTERM)
    _, said = ann.communicate(timeout=60)
    assert ann.returncode == 5 and b"stopped, exit code 5" in said
    out, said = bob.communicate(timeout=60)
    assert bob.returncode == 0 and b"bob done" in out and b"runs the same command; yours is a job of its own" in said
