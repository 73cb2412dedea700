"""Labelling a folder with two actors of one core each: the bytes of one process, and memory that does not grow with the rows.

    python -m benchmarks.predict_cluster [--rows 100000 1000000] [--model-dir DIR] [--num-workers 2] [--json FILE]

The folder holds Parquet files of `--rows-per-file` sentences: those of SST2_RAY_DATA's train split, else of the packaged
movie reviews, repeated in a new order every time; from the second round on a word of each is left out or doubled. Without
--model-dir an sbert-minilm is trained for `--train-steps` steps first. `predict` labels every folder alone and with
`--num-workers`; memory is that of each actor, sampled every half second (shared pages are counted once). Passes (exit code
0) where the rows are equal bit for bit and the peak of the largest folder is at most `--allowed-growth` times that of the
smallest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.predict_rows import Sampler, resident
from benchmarks.shared import REPOSITORY, data_name, finish, parser_of, provenance
from sst2_ray.config.train import TrainConfig
from sst2_ray.run.prepare import check

WORKER = b"MapWorker"
"""Stands in the names of Ray Data's actors."""


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--rows-per-file", type=int, default=100_000)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--model-dir", help="an export, or the folder of a run; by default one is trained")
    parser.add_argument("--train-steps", type=int, default=20)
    parser.add_argument("--allowed-growth", type=float, default=1.25)
    arguments = parser.parse_args()
    found = provenance()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model_dir or trained(Path(scratch), arguments.train_steps)
        texts = check(TrainConfig(data=data_name(), batch_size=1)).splits.train.texts
        for rows in arguments.rows:
            folder = write_folder(Path(scratch, f"{rows}"), texts, rows, arguments.rows_per_file)
            outputs = [Path(scratch, f"{rows}.parquet"), Path(scratch, f"{rows}.out")]
            alone = measured(model, folder, outputs[0], [])
            cluster = measured(model, folder, outputs[1], ["--num-workers", str(arguments.num_workers)])
            runs += [{"rows": rows, "way": "one process", **alone}, {"rows": rows, "way": "workers", **cluster}]
            runs[-1]["same_bytes"] = same(*outputs)
            print(line(runs[-2]), line(runs[-1]), sep="\n", flush=True)
    peaks = [run["peak_worker_mib"] for run in runs if run["way"] == "workers"]
    growth = peaks[-1] / peaks[0]
    equal = all(run.get("same_bytes", True) for run in runs)
    told = (
        f"Rows {'equal bit for bit' if equal else 'DIFFER'}; peak memory of an actor at the most rows, of that at the fewest: "
        f"{growth:.2f} times."
    )
    figures = {"runs": runs, "growth": growth, "num_workers": arguments.num_workers, **found}
    finish(figures, f"{table(runs)}\n\n{told}", arguments.json)
    return 0 if equal and growth <= arguments.allowed_growth else 1


def trained(folder: Path, steps: int) -> str:
    command = [
        sys.executable, "jobs/train.py", "--model=sbert-minilm", f"--data={data_name()}", f"--max-steps={steps}",
        "--dev-rows=64", f"--storage-path={folder}/runs", "--name=labeller",
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return f"{folder}/runs/labeller"


def write_folder(folder: Path, texts: list[str], rows: int, rows_per_file: int) -> Path:
    """Files of perturbed sentences, each with the number of its row."""
    folder.mkdir()
    random = np.random.default_rng(0)
    written = 0
    pending: list[str] = []
    number_of_round = 0
    while written < rows:
        while len(pending) < min(rows_per_file, rows - written):
            order = random.permutation(len(texts))
            pending += [texts[i] if number_of_round == 0 else perturbed(texts[i], random) for i in order]
            number_of_round += 1
        some = pending[: min(rows_per_file, rows - written)]
        pending = pending[len(some) :]
        ids = range(written, written + len(some))
        pq.write_table(pa.table({"id": list(ids), "text": some}), folder / f"{written:09d}.parquet")
        written += len(some)
    return folder


def perturbed(text: str, random: np.random.Generator) -> str:
    """The sentence with one word left out, or twice."""
    words = text.split()
    at = int(random.integers(len(words)))
    again = [words[at]] * (2 if len(words) < 3 else 2 * int(random.integers(2)))
    return " ".join([*words[:at], *again, *words[at + 1 :]])


def measured(model: str, folder: Path, output: Path, more: list[str]) -> dict[str, Any]:
    command = [
        sys.executable, "jobs/predict.py", f"--model-dir={model}", f"--input={folder}", f"--out={output}", *more,
    ]  # fmt: skip
    env = {**os.environ, "RAY_OVERRIDE_RESOURCES": '{"CPU": 2}'}
    start = time.perf_counter()
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=said, stderr=said, env=env) as job,
    ):
        memory = Peaks(job.pid)
        job.wait()
        memory.stop()
        said.seek(0)
        if job.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {job.returncode}:\n{said.read()[-3000:]}")
    peaks = [round(peak / 2**20) for peak in (memory.workers or memory.all).values()]
    return {"seconds": time.perf_counter() - start, "peak_worker_mib": max(peaks), "peaks_mib": sorted(peaks)}


class Peaks(Sampler):
    """Peak memory of a process and of each of its descendants, in bytes by process id."""

    def __init__(self, pid: int) -> None:
        self.all: dict[int, int] = {}
        self.workers: dict[int, int] = {}
        super().__init__(pid)

    def look(self, pids: Sequence[int]) -> None:
        for pid in pids:
            size = resident(pid)[0]
            self.all[pid] = max(size, self.all.get(pid, 0))
            if is_worker(pid):
                self.workers[pid] = max(size, self.workers.get(pid, 0))


def is_worker(pid: int) -> bool:
    try:
        return WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def same(one: Path, folder: Path) -> bool:
    """Tell whether a file and the parts of a folder hold the same rows, bit for bit."""
    file, start = pq.read_table(one), 0
    for part in sorted(folder.glob("part-*.parquet")):
        rows = pq.read_table(part)
        if not rows.equals(file.slice(start, rows.num_rows)):
            return False
        start += rows.num_rows
    return start == file.num_rows


def line(run: dict[str, Any]) -> str:
    more = "" if "same_bytes" not in run else ", same bytes" if run["same_bytes"] else ", OTHER BYTES"
    return (
        f"{run['way']}, {run['rows']:,} rows: {run['seconds']:.0f} s, {run['rows'] / run['seconds']:,.0f} rows/s, "
        f"peak of a process {run['peak_worker_mib']:,} MiB{more}"
    )


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown. Seconds hold the start, the check of the files and the model's loading."""
    lines = ["| way | rows | s | rows/s | peak memory of a process, MiB |", f"|{'---|' * 5}"]
    for run in runs:
        rate = run["rows"] / run["seconds"]
        lines.append(
            f"| {run['way']} | {run['rows']:,} | {run['seconds']:.0f} | {rate:,.0f} | {run['peak_worker_mib']:,} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
