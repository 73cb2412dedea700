"""Real runs that are made to fail: the command, what it leaves behind, and the faults that are planned for it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.results.store.table import ResultsTable
from sst2_ray.training.fault_injection import VARIABLE, Fault
from tests.support.models import sbert_folder
from tests.support.reviews import reviews, write_glue_folder

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 120
EVERY_STEPS = 10
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Ended:
    """Exit code, output and duration of the command."""

    code: int
    output: str
    seconds: float


def slowed(attempts: int, by_s: float) -> list[Fault]:
    """Make the first attempts slower by so much a step: still at work when a node comes or goes."""
    times = round(by_s / 0.05)  # what one such fault costs
    return [Fault(kind="slow", attempt=attempt, rank=0, step=0) for attempt in range(attempts) for _ in range(times)]


def pause_at(step: int, mark: Path, *, attempt: int = 0) -> list[Fault]:
    """Make `mark` appear after this step, and each one from there on take 0.2 s longer: time for whoever breaks something."""
    where = {"attempt": attempt, "rank": 0, "step": step}
    return [Fault(kind="tell", path=str(mark), **where), *[Fault(kind="slow", **where)] * 4]


def processes_of(pid: int, title: str) -> list[int]:
    """List process ids below `pid`, however deep, whose command is `title`: a path's last part, or `ray::` and an actor's
    class, behind which Ray writes the method that runs."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_text().split("\0")[0].strip()
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return [found for found in below if titles.get(found, "").rpartition("/")[2].partition(".")[0] == title]


@contextlib.contextmanager
def started_cluster(faults: Sequence[Fault] = ()) -> Iterator[Any]:
    """Start a ray.cluster_utils.Cluster whose head has one CPU. Its workers take `faults` from its nodes' environment."""
    from ray.cluster_utils import Cluster

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = json.dumps([dataclasses.asdict(f) for f in faults])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


class TinyRun:
    """A toy SBERT with dropout on 960 sentences: 120 steps in two epochs, a checkpoint every 10, fp32, two workers."""

    def __init__(self, folder: Path, name: str, **flags: Any) -> None:
        """Lay out `folder`, which holds the model, the data and the storage; runs of one folder share them."""
        self.folder, self.name = folder, name
        self.storage_path = str(flags.pop("storage_path", folder / "runs"))
        if not (folder / "model").exists():
            sbert_folder(folder / "model")
            write_glue_folder(folder / "data", reviews(960), reviews(40, topic="play"))
        self.flags = {
            "model": folder / "model", "data": folder / "data", "batch_size": 16, "epochs": 2, "precision": "fp32",
            "learning_rate": 1e-3, "num_workers": 2, "cpus_per_worker": 1, "checkpoint_every_steps": EVERY_STEPS,
            "storage_path": self.storage_path, "name": name, "max_retries": 1000, **flags,
        }  # fmt: skip

    @property
    def command(self) -> list[str]:
        words = [f"--{key.replace('_', '-')}={value}" for key, value in self.flags.items()]
        return [sys.executable, "jobs/train.py", *words]

    def start(
        self, faults: Sequence[Fault] = (), *, env: dict[str, str] | None = None, log: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start the command in the background; its output goes to `log`, or a pipe."""
        values = {**os.environ, VARIABLE: json.dumps([dataclasses.asdict(f) for f in faults]), **(env or {})}
        # Two CPUs for Ray, whatever the machine has: both workers are placed.
        values.setdefault("RAY_OVERRIDE_RESOURCES", '{"CPU": 2}')
        out = log.open("a") if log else subprocess.PIPE
        return subprocess.Popen(
            self.command, cwd=REPOSITORY, env=values, text=True, stdout=out, stderr=subprocess.STDOUT
        )

    @contextlib.contextmanager
    def running(
        self, faults: Sequence[Fault] = (), *, env: dict[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Yield the process of `start`; whatever the test comes to, nothing of it is left."""
        process = self.start(faults, env=env)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def run(self, faults: Sequence[Fault] = (), *, env: dict[str, str] | None = None, timeout_s: float = 540) -> Ended:
        """Run the command to its end."""
        begin = time.monotonic()
        process = self.start(faults, env=env)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        return Ended(process.returncode, output, time.monotonic() - begin)

    # ---- what it leaves behind

    @property
    def run_folder(self) -> Path:
        return Path(self.storage_path) / self.name

    def digest(self) -> str:
        """Digest the exported weights, all files: equal for weights that are equal bit for bit."""
        digest = hashlib.sha256()
        files = sorted((self.run_folder / "model").rglob("*.safetensors"))
        assert files, f"no export below {self.run_folder}"
        for file in files:
            digest.update(file.relative_to(self.run_folder).as_posix().encode() + file.read_bytes())
        return digest.hexdigest()

    def attempts(self) -> list[dict[str, Any]]:
        """Return the rows of `trials`, one an attempt, in order."""
        rows = ResultsTable(self.storage_path).read("trials", experiment=self.name).to_pylist()
        return sorted(rows, key=lambda row: row["attempt"])

    def curve(self) -> list[tuple[int, float, float]]:
        """Return (step, training loss, dev loss) of every evaluation, as the latest attempts have it."""
        rows = ResultsTable(self.storage_path).read("epochs", experiment=self.name, attempts="latest").to_pylist()
        return sorted((row["global_step"], row["train_loss"], row["dev_loss"]) for row in rows)

    def log(self, attempt: int, rank: int) -> str | None:
        """Return the log of one worker; None where it has not started."""
        path = self.run_folder / "logs" / f"attempt-{attempt}-rank-{rank}.log"
        return path.read_text(errors="replace") if path.exists() else None

    def logs(self) -> str:
        """Return the logs of all workers of all attempts."""
        return "\n".join(path.read_text(errors="replace") for path in sorted((self.run_folder / "logs").glob("*.log")))
