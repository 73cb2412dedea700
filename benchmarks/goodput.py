"""Goodput of the main job under failures: the same run undisturbed, and with a worker killed every n seconds.

    python -m benchmarks.goodput [--every-s 30] [--kills N] [--rounds 3] [--steps 400] [--checkpoint-every-s 10] [--json FILE]

A small SBERT on SST-2 (or the packaged reviews) with two workers. Whatever is killed, the weights at the end must be the
same, bit for bit; the figures are the closing table's own, and the wall-clock of the command.
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
from pathlib import Path
from typing import Any

from benchmarks.shared import REPOSITORY, data_name, finish, parser_of, provenance
from sst2_ray.results.analysis.goodput import Goodput, read_goodput
from sst2_ray.results.store.table import ResultsTable
from tests.support.faults import processes_of

WORKER = "ray::RayTrainWorker"
"""Beginning of the title of a training worker's process."""


def workers_of(pid: int) -> list[int]:
    """Process ids of the training workers below a driver."""
    return processes_of(pid, WORKER)


def run(
    name: str, storage: Path, flags: dict[str, Any], every_s: float | None, seed: int, most: int | None = None
) -> dict[str, Any]:
    """The main job to its end; kill one of its workers, drawn by `seed`, `every_s` seconds after all were there.

    `most`: kills; None: without end.
    """
    words = [f"--{key.replace('_', '-')}={value}" for key, value in flags.items()]
    command = [sys.executable, "jobs/train.py", f"--name={name}", f"--storage-path={storage}", *words]
    draw, kills = random.Random(seed), 0
    begin = time.monotonic()
    env = {**os.environ, "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    with subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True) as process:
        due = None
        while process.poll() is None:
            time.sleep(0.2)
            if every_s is None or kills == most:
                continue
            workers = workers_of(process.pid)
            if due is None:  # counted from when training can have begun
                due = time.monotonic() + every_s if len(workers) == flags["num_workers"] else None
            elif time.monotonic() >= due and workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    kills += 1
                due = None
        seconds = time.monotonic() - begin
        output = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0, output
    found = read_goodput(ResultsTable(str(storage)), name)
    return {"name": name, "kills": kills, "command_s": seconds, "goodput": found, "digest": digest(storage / name)}


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


def main() -> int:
    parser = parser_of(__doc__)
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
                one = run(f"{kind}-{number}", Path(folder), flags, every_s, arguments.seed + number, arguments.kills)
                runs.append(one)
                print(row_of(one), flush=True)
    assert len({one["digest"] for one in runs}) == 1, "the weights differ"
    head = (
        "| run | kills | command, s | goodput, % | start-up, s | a restart, s | steps done again | evaluation, s | "
        "checkpoints, s | other, s |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    plain = json.loads(json.dumps(runs, default=lambda value: {**vars(value), "share": value.share}))
    finish({**figures, "runs": plain}, "\n".join([head, *map(row_of, runs)]), arguments.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
