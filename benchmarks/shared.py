"""Parts of several benchmarks: the workers' allocator, a process group of one, the main job as a subprocess, JSON files."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.environment import worker_env
from sst2_ray.run.prepare import RunInputs
from sst2_ray.run.provenance import collect_provenance
from sst2_ray.training.task import Task

REPOSITORY = Path(__file__).resolve().parents[1]
WARM_UP_STEPS = 64
"""First steps that do not count: memory is new, a CPU's library compiles a kernel for every shape that it has not seen, and
on a GPU all is set up and compiled."""

PHASES = ("data", "forward", "backward", "communication", "optimizer")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Make a parser with the first line of a benchmark's docstring, and `--json`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", help="write the figures to this file as well")
    return parser


def data_name() -> str:
    """Return the folder of the real SST-2 where it is named, else the packaged movie reviews."""
    return os.environ.get("SST2_RAY_DATA", "rotten-tomatoes")


def provenance() -> dict[str, Any]:
    """Collect and print chip, commit, versions and load."""
    found = {**collect_provenance(), "load_average": os.getloadavg()[0]}
    print(f"{found['chip']}, commit {found['git_commit']}, load average {found['load_average']:.1f}", flush=True)
    print(found["versions_json"], flush=True)
    return found


def finish(figures: dict[str, Any], table: str, path: str | None) -> None:
    """Print what was found as `table`; keep it in a file with its figures, which say nothing of this machine's folders."""
    print(table)
    if not path:
        return
    kept = {name: value for name, value in figures.items() if name not in ("json", "picture")}
    text = json.dumps({**kept, "table": table}, indent=1)
    for variable in ("SST2_RAY_DATA", "SST2_RAY_TOKENIZER"):
        if folder := os.environ.get(variable):
            text = text.replace(folder, f"${variable}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text + "\n")


def commit_of(checkout: str) -> str:
    """Return the short hash of the commit of another checkout of this repository."""
    command = ["git", "-C", checkout, "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def with_the_workers_allocator(module: str, more: Mapping[str, str] | None = None) -> None:
    """Start again with what the main job's workers get, and `more`: loader and libraries read it before Python runs."""
    wanted = {**worker_env(use_gpu=False), **(more or {})}
    missing = any(os.environ.get(name) != value for name, value in (more or {}).items())
    if missing or "LD_PRELOAD" in wanted:  # not where it is set already
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, **wanted})


def process_group_of_one() -> None:
    """Start torch's default process group, which ZeRO-2 asks for."""
    import torch

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def task_of(prepared: RunInputs, config: TrainConfig | None = None) -> Task:
    """Return the task that a worker of the main job would be given."""
    config = config or prepared.config
    return Task(
        config=config,
        experiment="benchmark",
        trial_id=config.engine,
        attempt=0,
        resolved=prepared.resolved,
        tokenizer_json=prepared.tokenizer_json,
        micro_batch_tokens=config.micro_batch_tokens,
        source="",
        eval_split="dev",
        corpora=(),
        started_at=time.time(),
    )


def main_job_flags(model: str, batch_size: int, *, steps: int, workers: int) -> list[str]:
    """Return the flags of the main job on all cores, shared out among its workers, with next to no evaluation."""
    cores = os.cpu_count() or 1
    return [
        f"--model={model}", f"--data={data_name()}", f"--batch-size={batch_size}", f"--max-steps={steps}", "--epochs=100",
        "--dev-rows=64", f"--num-workers={workers}", f"--cpus-per-worker={max(1, cores // workers)}",
    ]  # fmt: skip


def steps_seconds(row: dict[str, Any]) -> float:
    """Return, for a row of the results table, the time inside optimizer steps."""
    return float(sum(row[f"{phase}_seconds"] or 0.0 for phase in PHASES))


def rate_after_warm_up(folder: str) -> float:
    """Compute examples a second of the run in `folder` whose epochs are WARM_UP_STEPS long: of all but the first."""
    epochs = ResultsTable(folder).read("epochs", experiment="benchmark").sort_by("global_step")
    return after_warm_up(epochs.to_pylist())


def after_warm_up(epochs: list[dict[str, Any]]) -> float:
    """Return the rate of rows of `epochs`, in the order of their steps."""
    stretches = [
        (after["global_step"] - before["global_step"], after["examples_per_sec"]) for before, after in pairwise(epochs)
    ]
    return float(sum(steps for steps, _ in stretches) / sum(steps / rate for steps, rate in stretches))


def run_job(flags: list[str], environment: dict[str, str] | None = None) -> tuple[dict[str, Any], float]:
    """Run the main job in a process of its own; return its row of the results table, and the seconds from command to end."""
    with tempfile.TemporaryDirectory() as folder:
        wall = run_in(folder, flags, environment)
        return ResultsTable(folder).read("trials", experiment="benchmark").to_pylist()[-1], wall


def run_in(folder: str, flags: list[str], environment: dict[str, str] | None = None) -> float:
    """Run the main job in a process of its own, its results in `folder`; return the seconds from command to end."""
    command = [sys.executable, "jobs/train.py", "--name=benchmark", f"--storage-path={folder}", *flags]
    start = time.perf_counter()
    variables = {**os.environ, **(environment or {})}
    ended = subprocess.run(command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")
    return time.perf_counter() - start
