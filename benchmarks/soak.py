"""Kills and hangs at random places of many runs, each compared with an undisturbed one: weights bit for bit, every loss.

    python benchmarks/soak.py [--minutes 60] [--seed N] [--worker 20 --node 10 --driver 10 --stopped 5 --hung 2] [--json FILE] [--docs FILE]

First the faults that are asked for, then random ones until the time is over. A run endures several, each at a step of its own;
the file is written anew after every run, so that what has happened stays when the soak itself is ended.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sst2_ray.run.provenance import collect_provenance
from sst2_ray.training.fault_injection import Fault
from tests.support.faults import STEPS, TinyRun, started_cluster

KINDS = {
    "worker": "a worker's process, killed with -9",
    "node": "a node's processes, killed with -9",
    "driver": "the driver, killed with -9; the same command again",
    "stopped": "a worker's process, stopped (SIGSTOP)",
    "hung": "a collective that never ends",
}
INSIDE = {"worker": "kill", "stopped": "stop", "hung": "hang"}
"""Faults that a worker brings on itself; nodes and drivers are killed from here when a worker tells where it is."""

FAULTS_A_RUN = 5
BEGIN, END = "<!-- soak -->", "<!-- /soak -->"
LAST_STEP = STEPS - 20
"""Later, a run could end before its node or its driver is killed."""


@dataclass(frozen=True)
class Planned:
    """A fault of one attempt of a run."""

    kind: str
    attempt: int
    rank: int
    step: int
    mark: Path
    """Appears when it happens."""

    @property
    def faults(self) -> list[Fault]:
        where = {"attempt": self.attempt, "rank": self.rank, "step": self.step}
        if self.kind in INSIDE:
            return [Fault(kind=INSIDE[self.kind], path=str(self.mark), **where)]
        # Slow from there on: the run is still at work when it is hit.
        return [Fault(kind="slow", **where), Fault(kind="tell", path=str(self.mark), **where)]


@dataclass
class Outcome:
    """A disturbed run."""

    name: str
    planned: list[dict[str, Any]]
    happened: dict[str, int]
    exit_code: int = 0
    same_weights: bool = False
    same_losses: bool = False
    failures: list[str] = field(default_factory=list)
    hangs_found_after_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.exit_code == 0 and self.same_weights and self.same_losses


class Soak:
    """Runs of one folder, all with the same config."""

    def __init__(self, folder: Path, *, seed: int, step_timeout_s: float) -> None:
        self.folder, self.draw, self.step_timeout_s = folder, random.Random(seed), step_timeout_s
        self.undisturbed = TinyRun(folder, "undisturbed", step_timeout_s=step_timeout_s)

    def plan(self, wanted: Counter[str], number: int) -> list[Planned]:
        """The next run's faults: of those still wanted, else any. Node kills share runs, since they need a cluster."""
        left = [kind for kind, count in wanted.items() for _ in range(count)] or list(KINDS) * FAULTS_A_RUN
        first = self.draw.choice(left)
        alike = [kind for kind in left if (kind == "node") == (first == "node")]
        kinds = self.draw.sample(alike, min(FAULTS_A_RUN, len(alike)))
        steps = sorted(self.draw.sample(range(3, LAST_STEP), len(kinds)))
        return [
            Planned(kind, attempt, self.draw.randrange(2), step, self.folder / f"mark-{number}-{attempt}")
            for attempt, (kind, step) in enumerate(zip(kinds, steps, strict=True))
        ]

    def run(self, name: str, planned: list[Planned], timeout_s: float) -> Outcome:
        """Start it, kill what is to be killed from outside, and compare what it leaves behind."""
        begin = time.monotonic()
        run = TinyRun(self.folder, name, step_timeout_s=self.step_timeout_s)
        code = self._endure(run, planned, begin + timeout_s)
        happened = [p for p in planned if p.mark.exists()]
        attempts = run.attempts()
        outcome = Outcome(
            name=name,
            planned=[{k: v for k, v in asdict(p).items() if k != "mark"} for p in planned],
            happened=dict(Counter(p.kind for p in happened)),
            exit_code=code,
            failures=[f"{a['failure_class']}: {(a['failure_message'] or '')[:120]}" for a in attempts if a["failure_class"]],
            hangs_found_after_s=[
                round(attempts[p.attempt]["ended_at"].timestamp() - p.mark.stat().st_mtime, 1)
                for p in happened
                if p.kind in ("stopped", "hung")
            ],
            seconds=round(time.monotonic() - begin, 1),
        )  # fmt: skip
        if code == 0:
            outcome.same_weights = run.digest() == self.undisturbed.digest()
            outcome.same_losses = run.curve() == self.undisturbed.curve()
        return outcome

    def _endure(self, run: TinyRun, planned: list[Planned], deadline: float) -> int:
        faults = [fault for p in planned for fault in p.faults]
        pending = [p for p in planned if p.kind not in INSIDE]
        log = self.folder / f"{run.name}.log"
        with ExitStack() as stack:
            env, cluster, node = {}, None, None
            if any(p.kind == "node" for p in planned):
                cluster = stack.enter_context(started_cluster(faults))
                node = cluster.add_node(num_cpus=1)
                env = {"RAY_ADDRESS": cluster.address}
            process = run.start(faults, env=env, log=log)
            stack.callback(lambda: process.kill())
            while process.poll() is None and time.monotonic() < deadline:
                for p in [p for p in pending if p.mark.exists()]:
                    pending.remove(p)
                    if p.kind == "node":
                        cluster.remove_node(node, allow_graceful=False)
                        node = cluster.add_node(num_cpus=1)
                    else:
                        process.kill()
                        process.wait()
                        process = run.start(faults, env=env, log=log)
                time.sleep(0.05)
            return process.poll() if process.poll() is not None else 124


def table(result: dict[str, Any]) -> str:
    """Markdown: what happened how often, and what came of it."""
    runs = result["runs"]
    counts = Counter[str]()
    for run in runs:
        counts.update(run["happened"])
    passed = sum(run["passed"] for run in runs)
    lines = [
        "| fault | times |",
        "|---|---|",
        *[f"| {text} | {counts[kind]} |" for kind, text in KINDS.items()],
        f"| **runs that ended with the undisturbed run's weights, bit for bit, and losses** | **{passed} of {len(runs)}** |",
        "",
        f"{result['started_at'][:10]}, commit `{result['git_commit'][:7]}`, {result['minutes']:.0f} minutes, seed {result['seed']}.",
    ]
    return "\n".join(lines) + "\n"


def write_docs(result: dict[str, Any], docs: Path) -> None:
    """Put the table between the two marks of a page."""
    before, _, rest = docs.read_text().partition(f"{BEGIN}\n")
    _, _, after = rest.partition(f"{END}\n")
    docs.write_text(f"{before}{BEGIN}\n{table(result)}{END}\n{after}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--step-timeout-s", type=float, default=30.0, help="after which a worker counts as hung")
    parser.add_argument("--run-timeout-s", type=float, default=1800.0, help="after which a run has failed")
    parser.add_argument("--folder", help="keep the runs here")
    parser.add_argument("--json", help="write the outcome to this file")
    parser.add_argument("--docs", type=Path, help="write the table into this page")
    for (kind, text), count in zip(KINDS.items(), (20, 10, 10, 5, 2), strict=True):
        parser.add_argument(f"--{kind}", type=int, default=count, help=text)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    begin = time.monotonic()
    soak = Soak(
        Path(arguments.folder or tempfile.mkdtemp(prefix="soak-")),
        seed=arguments.seed,
        step_timeout_s=arguments.step_timeout_s,
    )
    ended = soak.undisturbed.run(timeout_s=arguments.run_timeout_s)
    assert ended.code == 0, ended.output
    wanted = Counter({kind: getattr(arguments, kind) for kind in KINDS})
    result: dict[str, Any] = {
        **collect_provenance(),
        "seed": arguments.seed,
        "started_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "undisturbed_s": round(ended.seconds, 1),
        "runs": [],
    }
    while +wanted or time.monotonic() - begin < 60 * arguments.minutes:
        number = len(result["runs"])
        outcome = soak.run(f"run-{number}", soak.plan(+wanted, number), arguments.run_timeout_s)
        wanted.subtract(outcome.happened)
        result["runs"].append({**asdict(outcome), "passed": outcome.passed})
        result["minutes"] = round((time.monotonic() - begin) / 60, 1)
        print(json.dumps(result["runs"][-1]), flush=True)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(result, indent=1) + "\n")
        if arguments.docs:
            write_docs(result, arguments.docs)
    print(table(result))
    return 0 if all(run["passed"] for run in result["runs"]) else 1


if __name__ == "__main__":
    sys.exit(main())
