"""Goodput of the main job under failures: the same run undisturbed, and with a worker or a node killed every n seconds.

    python -m benchmarks.goodput [--what worker|node] [--every-s 30] [--kills N] [--rounds 3] [--steps 400]
        [--checkpoint-every-s 10] [--json FILE]

A small SBERT on SST-2 (or the packaged reviews) with two workers. Whatever is killed, the weights at the end must be the
same, bit for bit; the figures are the closing table's own, and the wall-clock of the command.

A node: the run goes to a Ray cluster on this machine, of a head and a node of one CPU each. Another node joins, then every
process of the one that is not the head is killed with -9. Ray's detection lasts until its control service marks the node dead
(after five failed health checks); its table of nodes is read twenty times a second. "Beyond" are the seconds from there to the
first step of the next attempt: its start and its seconds to the first step, from the results table. But where the attempt ended
before that mark, nothing waited for Ray's detection, and all seconds since the kill are beyond it: the kernel closes the
connections of killed processes, so that the other worker fails at once. A machine without power closes none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.shared import REPOSITORY, data_name, finish, parser_of, provenance
from sst2_ray.results.analysis.goodput import Goodput, read_goodput
from sst2_ray.results.store.table import ResultsTable
from tests.support.faults import processes_of, started_cluster

WORKER = "ray::RayTrainWorker"
"""Beginning of the title of a training worker's process."""


def workers_of(pid: int) -> list[int]:
    """Process ids of the training workers below a process."""
    return processes_of(pid, WORKER)


class Workers:
    """Ray as the command starts it, of which one worker is killed."""

    environment: Mapping[str, str] = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def kill(self, workers: list[int]) -> dict[str, float]:
        killed_at = time.time()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._draw.choice(workers), signal.SIGKILL)
        return {"killed_at": killed_at}


class Nodes:
    """A cluster on this machine, of which the node that is not its head is killed and replaced."""

    def __init__(self, cluster: Any) -> None:
        self._cluster, self._node = cluster, cluster.add_node(num_cpus=1)
        self.environment: Mapping[str, str] = {"RAY_ADDRESS": cluster.address}

    def kill(self, _: list[int]) -> dict[str, float]:
        spare = self._cluster.add_node(num_cpus=1)  # before: the start of a node is not what is measured
        raylet = psutil.Process(self._node.all_processes["raylet"][0].process.pid)
        killed_at = time.time()
        for process in (raylet, *raylet.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._cluster.remove_node(self._node, allow_graceful=False)
        while self._node.node_id in self._alive():
            time.sleep(0.05)
        self._node = spare
        return {"killed_at": killed_at, "found_at": time.time()}

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self._cluster.global_state.node_table() if node["Alive"]}


@contextlib.contextmanager
def victims(what: str, seed: int) -> Iterator[Workers | Nodes]:
    """Yield what is killed, in a Ray that a run may begin in."""
    if what == "worker":
        yield Workers(seed)
    else:
        with started_cluster() as cluster:
            yield Nodes(cluster)


def run(
    name: str, storage: Path, flags: dict[str, Any], victim: Workers | Nodes, every_s: float | None, most: int | None
) -> dict[str, Any]:
    """Run the main job to its end; kill one of its workers or nodes `every_s` seconds after all workers were there.

    `most`: kills; None: without end.
    """
    words = [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]
    command = [sys.executable, "jobs/train.py", f"--name={name}", f"--storage-path={storage}", *words]
    kills: list[dict[str, float]] = []
    begin = time.monotonic()
    env = {**os.environ, **victim.environment}
    with subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True) as process:
        due = None
        while process.poll() is None:
            time.sleep(0.2)
            if every_s is None or len(kills) == most:
                continue
            workers = workers_of(os.getpid())
            if due is None:  # counted from when training can have begun
                due = time.monotonic() + every_s if len(workers) == flags["num_workers"] else None
            elif time.monotonic() >= due and workers:
                kills.append(victim.kill(workers))
                due = None
        seconds = time.monotonic() - begin
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    table = ResultsTable(str(storage))
    attempts = table.read("trials", experiment=name).sort_by("attempt").to_pylist()
    return {
        "name": name,
        "kills": len(kills),
        "command_s": seconds,
        "goodput": read_goodput(table, name),
        "losses": [loss_of(*one) for one in zip(kills, attempts, attempts[1:], strict=False) if "found_at" in one[0]],
        "digest": digest(storage / name),
    }


def loss_of(kill: Mapping[str, float], ended: Mapping[str, Any], following: Mapping[str, Any]) -> dict[str, float]:
    """Compute the seconds from a node's kill to Ray's mark, to the attempt's end and to the next one's first step."""
    killed_at, found_at = kill["killed_at"], kill["found_at"]
    ended_at = ended["ended_at"].timestamp()
    first_step_at = following["started_at"].timestamp() + following["startup_seconds"]
    return {
        "found_s": found_at - killed_at,
        "ended_s": ended_at - killed_at,
        "first_step_s": first_step_at - killed_at,
        "beyond_s": first_step_at - (found_at if found_at < ended_at else killed_at),
    }


def digest(run_folder: Path) -> str:
    """SHA-256 over the exported weights."""
    files = sorted((run_folder / "model").rglob("*.safetensors"))
    assert files, f"no export below {run_folder}"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def row_of(one: dict[str, Any]) -> str:
    found: Goodput = one["goodput"]
    restart = f"{found.restarts / found.num_restarts:.1f}" if found.num_restarts else ""
    return (
        f"| {one['name']} | {one['kills']} | {one['command_s']:.1f} | {100 * found.share:.1f} | {found.startup:.1f} | "
        f"{restart} | {found.num_lost_steps} ({found.repeated:.1f} s) | {found.evaluation:.1f} | {found.checkpoints:.1f} | "
        f"{found.other:.1f} |"
    )


def losses_table(runs: list[dict[str, Any]]) -> str:
    """Markdown: every killed node, seconds from the kill on; empty where none was killed."""
    rows = [
        f"| {one['name']} | {loss['found_s']:.1f} | {loss['ended_s']:.1f} | {loss['first_step_s']:.1f} | {loss['beyond_s']:.1f} |"
        for one in runs
        for loss in one["losses"]
    ]
    head = (
        "\n\nSeconds after a node's kill:\n\n| run | Ray marks it dead | the attempt has ended | first step of the next | "
        "beyond Ray's detection |\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(rows) if rows else ""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--what", choices=("worker", "node"), default="worker")
    parser.add_argument("--every-s", type=float, default=30.0)
    parser.add_argument("--kills", type=int, help="of a run at most; all that there is time for if it is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--checkpoint-every-s", type=float, default=10.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", default="sbert-minilm")
    parser.add_argument("--seed", type=int, default=2026)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {**vars(arguments), **provenance()}
    flags = {
        "model": arguments.model, "data": data_name(), "batch_size": arguments.batch_size, "max_steps": arguments.steps,
        "num_workers": 2, "cpus_per_worker": 1, "checkpoint_every_s": arguments.checkpoint_every_s, "dev_rows": 200,
        "max_retries": 1000,
    }  # fmt: skip
    if not os.environ.get("SST2_RAY_DATA"):
        del flags["dev_rows"]
    runs = []
    with tempfile.TemporaryDirectory(prefix="goodput-") as folder:
        for number in range(arguments.rounds):
            for kind, every_s in (("undisturbed", None), ("killed", arguments.every_s)):
                with victims(arguments.what, arguments.seed + number) as victim:
                    one = run(f"{kind}-{number}", Path(folder), flags, victim, every_s, arguments.kills)
                runs.append(one)
                print(row_of(one), flush=True)
    assert len({one["digest"] for one in runs}) == 1, "the weights differ"
    head = (
        "| run | kills | command, s | goodput, % | start-up, s | a restart, s | steps done again | evaluation, s | "
        "checkpoints, s | other, s |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    plain = json.loads(json.dumps(runs, default=lambda value: {**vars(value), "share": value.share}))
    finish({**figures, "runs": plain}, "\n".join([head, *map(row_of, runs)]) + losses_table(runs), arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
