"""Every command in every environment, as a user meets them: exit code, seconds, row, processes left, lines of error.

    python -m tests.e2e.road.matrix [--only train sweep] [--where TERM latin-1] [--random 50 --seed 7] [--json FILE]

Real processes, real signals, a real job server. Takes about a quarter of an hour on two cores; exits with 1 where a cell is
wrong. Needs root for the CPU quota (a control group); without it that column is left out and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sst2_ray.results.store.table import ResultsTable
from tests.support import models
from tests.support.reviews import reviews, write_glue_folder

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = ("train", "sweep", "predict", "report", "submit", "doctor")
ENVIRONMENTS = (
    "TERM", "INT", "HUP", "closed stdout", "closed stdin", "no home", "latin-1", "long TMPDIR", "quota 0.9", "affinity 1",
    "proxy", "dead RAY_ADDRESS",
)  # fmt: skip
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
LIMIT_S = 120.0
MARK = "SST2_RAY_TEST_CELL"
QUOTA = Path("/sys/fs/cgroup/cpu")


@dataclass(frozen=True)
class Cell:
    """One command in one or several environments, and how it ended."""

    command: str
    environments: tuple[str, ...]
    code: int
    seconds: float
    row: str
    """Status of the newest row of the results table; empty for commands that write none."""
    left: int
    """Processes that outlived the command by ten seconds."""
    error_lines: int
    output: str = field(repr=False)
    expected: tuple[int, ...] = ()

    @property
    def wrong(self) -> str:
        """What is not as it should be; empty if all is right."""
        said = []
        if self.code not in self.expected:
            said.append(f"exit code {self.code}, not {' or '.join(map(str, self.expected))}")
        if "Traceback" in self.output:
            said.append("traceback")
        if self.left:
            said.append(f"{self.left} processes left")
        if self.code in (2, 3) and self.error_lines != 1:
            said.append(f"{self.error_lines} lines on stderr")
        if self.row == "running" or (self.row and self.code == 0 and self.row != "succeeded"):
            said.append(f"row {self.row}")
        if "dead RAY_ADDRESS" in self.environments and self.code in (2, 3) and self.seconds > 15:
            said.append("slower than 15 s")
        return "; ".join(said)


class Bench:
    """Inputs that every cell uses: a model, data, an export, a results table and a job server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        models.sbert_folder(folder / "model")
        models.export_of(folder / "model", folder / "export")
        write_glue_folder(folder / "data", reviews(2000), reviews(200, topic="play"))
        rows = "".join(json.dumps({"text": text}) + "\n" for text, _ in [*reviews(2000)] * 40)
        (folder / "many.jsonl").write_text(rows)
        (folder / "few.jsonl").write_text("".join(rows.splitlines(keepends=True)[:200]))
        self.table = folder / "table"
        self.address = ""

    def words(self, command: str, cell: Path, *, long: bool) -> list[str]:
        """The command's words; `long`: it still works when a signal arrives."""
        common = ["--model", str(self.folder / "model"), "--data", str(self.folder / "data"), "--precision", "fp32"]
        common += ["--num-workers", "1", "--storage-path", str(cell / "runs"), "--name", "x"]
        steps = ["--max-steps", "20000" if long else "30", "--epochs", "400" if long else "1", "--batch-size", "16"]
        return {
            "train": ["train", *common, *steps],
            "sweep": ["sweep", *(w for w in common if w not in ("--model", str(self.folder / "model"))), "--models",
                      str(self.folder / "model"), "--learning-rates", "1e-3", "2e-3", "--num-seeds", "1", "--batch-sizes", "16",
                      "--epochs", "400" if long else "1", "--selection-fraction", "0", "--train-rows", "1600" if long else "320"],
            "predict": ["predict", "--model-dir", str(self.folder / "export"), "--input",
                        str(self.folder / ("many.jsonl" if long else "few.jsonl")), "--output", str(cell / "out.jsonl")],
            "report": ["report", "--storage-path", str(self.table), "--out", str(cell / "report")],
            "submit": ["submit", "--address", self.address, "--working-dir", str(self.folder / "upload"), "--on-interrupt", "stop",
                       "--", "python", "-c", f"import time; print('hello', flush=True); time.sleep({600 if long else 1}) # {cell.name}"],
            "doctor": ["doctor", str(ROOT / "cluster/onprem.yaml"), "--offline"],
        }[command]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=COMMANDS)
    parser.add_argument("--where", nargs="*", default=ENVIRONMENTS)
    parser.add_argument(
        "--random", type=int, default=0, help="so many random combinations of three environments instead"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="road-"))
    bench = Bench(folder)
    plan = [(command, (where,)) for command in arguments.only for where in arguments.where]
    if arguments.random:
        draw = random.Random(arguments.seed)
        print(f"seed {arguments.seed}")
        plan = [
            (draw.choice(arguments.only), tuple(draw.sample(list(arguments.where), 3))) for _ in range(arguments.random)
        ]
    cells = []
    with job_server(folder) as bench.address:
        prepare_table(bench)
        for command, environments in plan:
            if "quota 0.9" in environments and not os.access(QUOTA, os.W_OK):
                print(f"{command:8} {' + '.join(environments)}: left out, {QUOTA} cannot be written", flush=True)
                continue
            cell = run(bench, command, environments)
            cells.append(cell)
            print(
                f"{command:8} {' + '.join(environments):40} code {cell.code:3} {cell.seconds:6.1f} s  row {cell.row or '-':10}"
                f" left {cell.left} stderr {cell.error_lines}  {cell.wrong or 'right'}",
                flush=True,
            )
            if cell.wrong:
                print("    " + "\n    ".join(cell.output.strip().splitlines()[-12:]), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    right = sum(not cell.wrong for cell in cells)
    print(f"{right} of {len(cells)} right")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([asdict(cell) | {"wrong": cell.wrong} for cell in cells], indent=1))
    return 0 if right == len(cells) else 1


def prepare_table(bench: Bench) -> None:
    """One short run whose table `report` reads."""
    words = bench.words("train", bench.folder / "first", long=False)
    subprocess.run([sys.executable, "-m", "sst2_ray", *words], cwd=ROOT, check=True, capture_output=True)
    bench.table = bench.folder / "first" / "runs"
    (bench.folder / "upload").mkdir()
    (bench.folder / "upload" / "job.txt").write_text("nothing\n")


@contextlib.contextmanager
def job_server(folder: Path) -> Iterator[str]:
    """A real Ray with its job server on loopback; yields its address."""
    port = free_port()
    code = (
        "import ray, time, sys; "
        f"ray.init(address='local', include_dashboard=True, dashboard_port={port}, _node_ip_address='127.0.0.1', "
        "log_to_driver=False, num_cpus=1); print('ready', flush=True); time.sleep(1e6)"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder / "ray")}
    (folder / "ray").mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, text=True,
    )  # fmt: skip
    try:
        assert server.stdout and server.stdout.readline().strip() == "ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def expected(command: str, environments: tuple[str, ...]) -> tuple[int, ...]:
    """Exit codes that are right; a command that is short may have ended before its signal."""
    codes: tuple[int, ...] = (0,)
    if set(environments) & {"TERM", "INT"}:
        codes = (5,) if command in ("train", "sweep", "submit") else (0, 5)
    if "dead RAY_ADDRESS" in environments and command in ("train", "sweep"):
        codes = (2, 3)
    if command == "doctor":
        codes += (4,)  # the shipped file names machines that are not here; a finding is no failure of the command
    return codes


def run(bench: Bench, command: str, environments: tuple[str, ...]) -> Cell:
    """Run one cell."""
    cell = bench.folder / uuid.uuid4().hex[:8]
    cell.mkdir()
    mark = cell.name
    environment = {**os.environ, MARK: mark, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    sent = [SIGNALS[e] for e in environments if e in SIGNALS]
    prefix: list[str] = ["nohup"] if "HUP" in environments else []
    words = [
        sys.executable,
        "-m",
        "sst2_ray",
        *bench.words(command, cell, long=bool(set(environments) & {"TERM", "INT"})),
    ]
    before: list[Callable[[], None]] = []
    if "no home" in environments:
        environment["HOME"] = "/proc/nobody"
    if "latin-1" in environments:
        environment |= {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    if "long TMPDIR" in environments:
        deep = cell / ("d" * max(1, 90 - len(str(cell)) - 1))
        deep.mkdir()
        environment["TMPDIR"] = str(deep)
    if "proxy" in environments:
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    if "dead RAY_ADDRESS" in environments:
        environment["RAY_ADDRESS"] = "127.0.0.1:6399"
    if "affinity 1" in environments:
        before.append(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
    group = QUOTA / f"road-{mark}"
    if "quota 0.9" in environments:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("90000")
        (group / "cpu.cfs_period_us").write_text("100000")
        before.append(lambda: (group / "tasks").write_text(str(os.getpid())) and None)
    line = [*prefix, *words]
    if "closed stdout" in environments:
        line = ["bash", "-c", f"set -o pipefail; {shlex.join(line)} | head -1"]
    (cell / "err").touch()
    begin = time.monotonic()
    with (cell / "out").open("wb") as out, (cell / "err").open("wb") as err:
        process = subprocess.Popen(
            line, cwd=ROOT, env=environment, stdout=out, stderr=err, start_new_session=True,
            stdin=subprocess.DEVNULL if "closed stdin" not in environments else None,
            preexec_fn=lambda: [step() for step in [*before, *([lambda: os.close(0)] if "closed stdin" in environments else [])]],
        )  # fmt: skip
        code = follow(process, sent, cell, command)
    seconds = time.monotonic() - begin
    deadline = time.monotonic() + 10
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.25)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    if group.is_dir():
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            group.rmdir()
    errors = (cell / "err").read_text(errors="replace")
    noise = ("nohup: ", "stopping: ")
    lines = [text for text in errors.splitlines() if text.strip() and not text.startswith(noise)]
    row = newest_row(cell / "runs") if command in ("train", "sweep") else ""
    output = (cell / "out").read_text(errors="replace") + errors
    return Cell(
        command, environments, code, seconds, row, len(left), len(lines), output, expected(command, environments)
    )


def follow(process: subprocess.Popen[bytes], sent: list[signal.Signals], cell: Path, command: str) -> int:
    """Send the signals once the command is at work, and wait for its end; a command that hangs is killed (-9)."""
    deadline = time.monotonic() + LIMIT_S
    while sent and time.monotonic() < deadline and process.poll() is None and not at_work(cell, command):
        time.sleep(0.2)
    for number in sent:
        if process.poll() is None:
            os.kill(process.pid, number)
            time.sleep(0.5)
    try:
        return process.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return -9


def at_work(cell: Path, command: str) -> bool:
    """Whether the command has begun what it is for."""
    if command in ("train", "sweep"):
        return bool(list((cell / "runs").glob("x/**/checkpoints/*"))) or "epoch" in (cell / "out").read_text(
            errors="replace"
        )
    if command == "submit":
        return "hello" in (cell / "out").read_text(errors="replace")
    return time.time() - cell.stat().st_ctime > 2.0


def alive(mark: str) -> list[int]:
    """Processes whose environment holds the cell's mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def newest_row(storage: Path) -> str:
    """The status of the row that was written last."""
    if not (storage / "results").is_dir():
        return ""
    rows = ResultsTable(str(storage)).read("trials", columns=["status", "written_at"]).to_pylist()
    return str(max(rows, key=lambda row: row["written_at"])["status"]) if rows else ""


if __name__ == "__main__":
    sys.exit(main())
