"""Many millions of rows: read, checked, compared for leaks, tokenized and trained on; beside `datasets.map`.

    python -m benchmarks.many_rows [--rows 10000000] [--json FILE]

CSV files as in holdouts.py: sentences and phrases over and over, each round with other words between them, and a dev file of
100,000 rows. First a tenth of the rows, on one core and on all, by what `train` does before it starts anything, and by
`datasets.map` with as many processes; then all rows on all cores by `train`; then the main job itself, two steps of it, twice: its
driver's peak memory, and the seconds from the command to the first step. Every row of the table is a process of its own.
Nothing that was kept before is read. Passes (exit code 0) where the driver stays below 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.holdouts import DEV_ROWS, perturbed, write
from benchmarks.shared import REPOSITORY, data_name, finish, parser_of, provenance
from sst2_ray.config.train import TrainConfig
from sst2_ray.data.load import load_splits
from sst2_ray.results.store.table import ResultsTable
from sst2_ray.run.prepare import check
from sst2_ray.run.tokenizing import prepare

MOST_GIB = 2.0
MODEL = "sbert-minilm"


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](Path(arguments.folder))))
        return 0
    figures: dict[str, Any] = {"rows": arguments.rows, **provenance()}
    cores, rows = os.cpu_count() or 1, []
    base = load_splits(TrainConfig(data=data_name(), batch_size=1)).train
    labelled = [(str(text), int(label)) for text, label in zip(base.texts, base.labels, strict=True)]
    with tempfile.TemporaryDirectory(prefix="many-rows-") as scratch:
        for count, on in ((arguments.rows // 10, 1), (arguments.rows // 10, cores), (arguments.rows, cores)):
            folder = Path(scratch) / f"{count}-{on}"
            folder.mkdir()
            write(folder / "train.csv", perturbed(labelled, count))
            write(folder / "dev.csv", ((f"unseen {text}", label) for text, label in perturbed(labelled, DEV_ROWS)))
            for what in ("train", "train again", *(["datasets.map"] if count < arguments.rows else [])):
                found = in_a_process(what.split()[0], folder, on)
                rows.append({"what": what, "rows": count, "cores": on, **found})
                print(line_of(rows[-1]), flush=True)
        for what in ("main job", "main job again"):
            rows.append({"what": what, "rows": arguments.rows, "cores": cores, **main_job(folder)})
            print(line_of(rows[-1]), flush=True)
    finish({**figures, "runs": rows}, table(rows), arguments.json)
    return 0 if max(row["gib"] for row in rows if row["what"].startswith("main job")) < MOST_GIB else 1


def in_a_process(part: str, folder: Path, cores: int) -> dict[str, Any]:
    """Run a part of this benchmark on some cores; its own cache lies in `folder`."""
    command = [sys.executable, "-m", "benchmarks.many_rows", f"--part={part}", f"--folder={folder}"]
    done = subprocess.run(
        ["taskset", "-c", f"0-{cores - 1}", *command], cwd=REPOSITORY, env=environment(folder), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}


def by_train(folder: Path) -> dict[str, Any]:
    """Measure what `train` does before it starts Ray."""
    config = TrainConfig(model=MODEL, data=str(folder / "train.csv"), dev_data=str(folder / "dev.csv"))
    start = time.perf_counter()
    inputs = check(config)
    checked = time.perf_counter() - start
    num_tokens = len(prepare(inputs).tokens["train"].input_ids)
    seconds = time.perf_counter() - start
    return {"s": seconds, "checked_s": checked, "tokens": num_tokens, "gib": peak_gib()}


def by_datasets(folder: Path) -> dict[str, Any]:
    """Measure `datasets.map`: read and tokenize, nothing else."""
    import datasets
    from transformers import AutoTokenizer

    from sst2_ray.modeling.sources import resolve_model

    resolved = resolve_model(TrainConfig(model=MODEL))
    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(resolved.tokenizer_folder, local_files_only=True)
    files = {"data_files": str(folder / "train.csv"), "cache_dir": str(folder / "datasets")}
    read = datasets.load_dataset("csv", split="train", **files)
    tokenized = read.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=resolved.max_length),
        batched=True,
        num_proc=len(os.sched_getaffinity(0)),
        remove_columns=["text"],
    )
    assert len(tokenized) == len(read)
    return {"s": time.perf_counter() - start, "gib": peak_gib()}


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main_job(folder: Path) -> dict[str, Any]:
    """Train two steps on all rows; look at the driver's peak memory meanwhile."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="many-rows-runs-") as storage:
        begin = time.time()
        command = [
            sys.executable, "jobs/train.py", f"--model={MODEL}", f"--data={folder / 'train.csv'}",
            f"--dev-data={folder / 'dev.csv'}", "--dev-rows=64", "--max-steps=2", "--name=benchmark",
            f"--storage-path={storage}", "--num-workers=1", f"--cpus-per-worker={cores}",
        ]  # fmt: skip
        with subprocess.Popen(command, cwd=REPOSITORY, env=environment(folder), stdout=subprocess.DEVNULL) as driver:
            peak = 0.0
            while driver.poll() is None:
                peak = max(peak, high_water_gib(driver.pid))
                time.sleep(0.2)
        if driver.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {driver.returncode}")
        row = ResultsTable(storage).read("trials", experiment="benchmark").to_pylist()[-1]
        first_step_s = row["started_at"].timestamp() - begin + row["startup_seconds"]
        return {"s": first_step_s, "gib": peak, "worker_gib": row["peak_memory_gib"]}


def high_water_gib(pid: int) -> float:
    """Read the peak of a process's resident memory, mapped files included; 0: it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), default=0.0)


def line_of(row: dict[str, Any]) -> str:
    until = WORDS[row["what"].removesuffix(" again")]
    what = f"{until}, a second time" if row["what"].endswith("again") else until
    rate = "" if row["what"].startswith("main") else f"{row['rows'] / row['s']:,.0f}"
    return f"| {what} | {row['rows']:,} | {row['cores']} | {row['s']:.1f} | {rate} | {row['gib']:.2f} |"


def table(rows: list[dict[str, Any]]) -> str:
    head = ["| | rows | cores | s | rows/s | peak memory, GiB |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *map(line_of, rows)])


PARTS = {"train": by_train, "datasets.map": by_datasets}
WORDS = {
    "train": "read, checked, compared, tokenized",
    "datasets.map": "`datasets.map`: read, tokenized",
    "main job": "the main job, to its first step; the driver's memory",
}


if __name__ == "__main__":
    sys.exit(main())
