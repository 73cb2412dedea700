"""A command in one or several environments: how it is started, disturbed and watched, and what would be right."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sst2_ray.results.store.table import ResultsTable
from tests.e2e.road.bench import ROOT, Bench
from tests.support.environments import cpu_quota
from tests.support.processes import alive

COMMANDS = ("train", "sweep", "predict", "report", "submit", "doctor")
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
ENVIRONMENTS = (
    *SIGNALS, "closed stdout", "closed stdin", "no home", "latin-1", "long TMPDIR", "quota 0.9", "affinity 1", "proxy",
    "dead RAY_ADDRESS",
)  # fmt: skip
LIMIT_S = 60.0
"""Most seconds of a cell on an idle machine; one with more to do than cores is given as many times more."""

MARK = "SST2_RAY_TEST_CELL"
_OWN_LINES = ("nohup: ", "upload", "submitted ", "[sst2-", "  ", "note: ", "doctor: ", "RAY_ADDRESS=")
"""Beginnings of lines on stderr that are no error: nohup's, and what `submit` and `doctor` tell about their work."""


@dataclass(frozen=True)
class Cell:
    """A command in one or several environments, and how it ended."""

    command: str
    environments: tuple[str, ...]
    code: int
    seconds: float
    row: str
    """Status of the newest row of the results table; empty for commands that write none."""
    left: int
    """Processes that outlived the command by ten seconds."""
    error_lines: int
    """Lines on stderr that are no telling of progress."""
    load: float
    """Processes that had something to do when it began: the seconds of a busy machine are more."""
    expected: tuple[int, ...]
    output: str = field(repr=False)

    @property
    def wrong(self) -> str:
        """Name what is not as it should be; empty if all is right."""
        said = []
        if self.code not in self.expected:
            said.append(f"exit code {self.code}, not {' or '.join(map(str, self.expected))}")
        if "Traceback" in self.output:
            said.append("traceback")
        if self.left:
            said.append(f"{self.left} processes left")
        # The findings of `doctor` are on stdout; `submit` tells the end of a job that it has stopped as its progress.
        tells_itself = (self.command, self.code) in (("doctor", 2), ("submit", 5))
        if self.error_lines != (0 if self.code == 0 or tells_itself else 1):
            said.append(f"{self.error_lines} lines of error")
        if self.command in ("train", "sweep") and self.row != {0: "succeeded", 5: "stopped"}.get(self.code, ""):
            said.append(f"row {self.row or 'missing'}")
        if self.command in ("train", "sweep") and self.code == 2 and self.seconds > 15:
            said.append("slower than 15 s")
        return "; ".join(said)


def expected(command: str, environments: tuple[str, ...]) -> tuple[int, ...]:
    """Return the exit codes that are right; a command that cannot be made long may have ended before its signal."""
    if command == "doctor":  # the shipped file names machines and keys that are not here: its findings
        return (2, 5) if {"TERM", "INT"} & set(environments) else (2,)
    if "dead RAY_ADDRESS" in environments and command in ("train", "sweep"):
        return (2,)
    if {"TERM", "INT"} & set(environments):
        return (0, 5) if command == "report" else (5,)
    return (0,)


def run(bench: Bench, command: str, environments: tuple[str, ...]) -> Cell:
    """Run one cell."""
    cell = bench.folder / uuid.uuid4().hex[:8]
    cell.mkdir()
    load = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(cpu_quota(0.9)) if "quota 0.9" in environments else None
        begin = time.monotonic()
        process = start(bench, command, environments, cell, group)
        stack.callback(process.kill)  # where this one is interrupted
        code = follow(process, [SIGNALS[name] for name in environments if name in SIGNALS], cell, command)
        seconds = time.monotonic() - begin
        left = outlived(cell.name, bench.server)
    errors = (cell / "err").read_text(errors="replace")
    lines = [line for line in errors.splitlines() if line.strip() and not line.startswith(_OWN_LINES)]
    return Cell(
        command=command,
        environments=environments,
        code=code,
        seconds=seconds,
        row=newest_row(cell / "runs") if command in ("train", "sweep") else "",
        left=len(left),
        error_lines=len(lines),
        load=load,
        expected=expected(command, environments),
        output=(cell / "out").read_text(errors="replace") + errors,
    )


def start(
    bench: Bench, command: str, environments: tuple[str, ...], cell: Path, group: Path | None
) -> subprocess.Popen[bytes]:
    """Start a cell's command. `group`: file that takes the ids of a cgroup's processes."""
    long = bool({"TERM", "INT"} & set(environments))
    words = [sys.executable, "-m", "sst2_ray", *bench.words(command, cell, long=long)]
    if "HUP" in environments:
        words = ["nohup", *words]
    if "closed stdout" in environments:  # the process and its exit code stay the command's own
        words = ["bash", "-c", f"exec {shlex.join(words)} > >(exec head -1)"]
    with (cell / "out").open("wb") as out, (cell / "err").open("wb") as err:
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=variables(command, environments, cell),
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: [step() for step in steps_before(environments, group)],
        )


def variables(command: str, environments: tuple[str, ...], cell: Path) -> dict[str, str]:
    """Return the environment variables of a cell."""
    values = {**os.environ, MARK: cell.name, "PYTHONPATH": str(ROOT)}
    if command == "submit":
        values["RAY_AUTH_MODE"] = "disabled"  # as the job server
    if "no home" in environments:
        values["HOME"] = "/proc/nobody"
    if "latin-1" in environments:
        values |= {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
        values["PYTHONCOERCECLOCALE"] = "0"
    if "long TMPDIR" in environments:
        deep = cell / ("d" * max(1, 90 - len(str(cell)) - 1))
        deep.mkdir()
        values["TMPDIR"] = str(deep)
    if "proxy" in environments:
        values |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    if "dead RAY_ADDRESS" in environments:
        values["RAY_ADDRESS"] = "127.0.0.1:6399"
    return values


def steps_before(environments: tuple[str, ...], group: Path | None) -> list[Callable[[], object]]:
    """Return what the new process does before it becomes the command."""
    steps: list[Callable[[], object]] = [lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)]
    if group is not None:
        steps.append(lambda: group.write_text(str(os.getpid())))
    if "affinity 1" in environments:
        steps.append(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    if "closed stdin" in environments:
        steps.append(lambda: os.close(0))
    return steps


def follow(process: subprocess.Popen[bytes], sent: list[signal.Signals], cell: Path, command: str) -> int:
    """Send the signals once the command is at work, and wait for its end; a command that hangs is killed (-9)."""
    begin = time.monotonic()
    limit_s = LIMIT_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    while sent and time.monotonic() < begin + limit_s and process.poll() is None:
        if at_work(cell, command, time.monotonic() - begin):
            break
        time.sleep(0.1)
    for number in sent:
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(0.5)
    try:
        return process.wait(max(1.0, begin + limit_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -9


def at_work(cell: Path, command: str, seconds: float) -> bool:
    """Tell whether the command, started so many seconds ago, has begun what it is for."""
    match command:
        case "train" | "sweep":
            logs = (cell / "runs").glob("x/**/logs/attempt-0-rank-0.log")
            return any("step 1/" in log.read_text(errors="replace") for log in logs)
        case "submit":
            return (cell / "at-work").exists()
        case "predict":
            return any(cell.glob("*out.jsonl*")) or seconds > 20
        case "report":
            return seconds > 2.0
        case _:
            return seconds > 0.7


def outlived(mark: str, server: int) -> list[int]:
    """Wait up to ten seconds for a cell's processes to end; kill and return those that have not.

    Args:
        mark: of the cell, in its processes' environment; of a submitted job in its command line.
        server: process of the job server, whose own processes stay.
    """
    deadline = time.monotonic() + 10
    while (left := alive(f"{MARK}={mark}", f"# {mark}", but_below=server or None)) and time.monotonic() < deadline:
        time.sleep(0.25)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return left


def newest_row(storage: Path) -> str:
    """Return the status of the row that was written last; empty where there is none."""
    if not (storage / "results").is_dir():
        return ""
    rows = ResultsTable(str(storage)).read("trials", columns=["status", "written_at"]).to_pylist()
    return str(max(rows, key=lambda row: row["written_at"])["status"]) if rows else ""
