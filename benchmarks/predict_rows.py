"""Rows a second and memory of labelling a large file, as a user would: `jobs/predict.py`, and Ray Data with the Predictor.

    python -m benchmarks.predict_rows [--rows 100000 1000000] [--ways job ray-data] [--model-dir DIR] [--json FILE]

The file is Parquet with one column of real sentences, repeated in a new order every time: those of SST2_RAY_DATA's train
split where that is set, else the packaged movie reviews. Without --model-dir a modernbert-mini is trained for
`--train-steps` steps first: what is measured here is the way, which any model goes. Memory is sampled every half second:
of all processes of the command together (shared pages are counted once), and of Ray's object store. That the peak
of the largest file is at most `--allowed-growth` times that of the smallest is what passes (exit code 0).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.shared import REPOSITORY, data_name, finish, parser_of, provenance
from sst2_ray.config.train import TrainConfig
from sst2_ray.run.prepare import check

SAMPLE_S = 0.5
WAYS = ("job", "ray-data")


def main() -> int:
    if sys.argv[1:2] == ["--through-ray-data"]:
        through_ray_data(*sys.argv[2:])
        return 0
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--model-dir", help="an export, or the folder of a run; by default one is trained")
    parser.add_argument("--train-steps", type=int, default=100)
    parser.add_argument("--allowed-growth", type=float, default=1.25)
    arguments = parser.parse_args()
    found = provenance()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model_dir or trained(Path(scratch), arguments.train_steps)
        texts = check(TrainConfig(data=data_name(), batch_size=1)).splits.train.texts
        tokens = tokens_per_sentence(model, texts)
        for rows in arguments.rows:
            file = Path(scratch) / f"{rows}.parquet"
            write_rows(file, texts, rows)
            for way in arguments.ways:
                runs.append({"way": way, "rows": rows, **measured(way, model, file, rows, tokens)})
                print(line(runs[-1]), flush=True)
    growth = {way: grown([r for r in runs if r["way"] == way]) for way in arguments.ways}
    figures = {"runs": runs, "growth": growth, "tokens_per_sentence": tokens, **found}
    more = ", ".join(f"{way} {factor:.2f} times" for way, factor in growth.items())
    finish(figures, f"{table(runs)}\n\nPeak memory at the most rows, of that at the fewest: {more}.", arguments.json)
    return 0 if all(factor <= arguments.allowed_growth for factor in growth.values()) else 1


def trained(folder: Path, steps: int) -> str:
    command = [
        sys.executable, "jobs/train.py", "--model=modernbert-mini", f"--data={data_name()}", "--learning-rate=1e-3",
        f"--max-steps={steps}", "--dev-rows=64", f"--storage-path={folder}/runs", "--name=labeller",
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    return f"{folder}/runs/labeller"


def tokens_per_sentence(model: str, texts: list[str]) -> float:
    """Mean of the first thousands, special tokens included."""
    from tokenizers import Tokenizer

    folder = Path(model)
    file = next(path for path in (folder / "model/tokenizer.json", folder / "tokenizer.json") if path.is_file())
    some = Tokenizer.from_file(str(file)).encode_batch(texts[:5000])
    return sum(sum(encoding.attention_mask) for encoding in some) / len(some)


def write_rows(path: Path, texts: list[str], rows: int) -> None:
    """Write one shuffled round of the sentences after the other, a row group each."""
    random, schema = np.random.default_rng(0), pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        left = rows
        while left:
            order = random.permutation(len(texts))[:left]
            writer.write_table(pa.table({"text": [texts[i] for i in order]}, schema=schema))
            left -= len(order)


def measured(way: str, model: str, file: Path, rows: int, tokens: float) -> dict[str, Any]:
    output = file.with_suffix(f".{way}.parquet")
    if way == "job":
        command = [sys.executable, "jobs/predict.py", f"--model-dir={model}", f"--input={file}", f"--output={output}"]
    else:
        command = [sys.executable, "-m", "benchmarks.predict_rows", "--through-ray-data", model, str(file), str(output)]
    start = time.perf_counter()
    # A file and not a pipe, which nobody empties.
    with (
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=said, stderr=said) as job,
    ):
        memory = Memory(job.pid)
        job.wait()
        memory.stop()
        said.seek(0)
        if job.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {job.returncode}:\n{said.read()[-3000:]}")
    seconds = time.perf_counter() - start
    written = pq.ParquetDataset(output).read(columns=["predicted"]).num_rows
    if written != rows:
        raise SystemExit(f"{way}: {written:,} of {rows:,} rows were labelled")
    return {
        "seconds": seconds,
        "rows_per_sec": rows / seconds,
        "tokens_per_sec": rows * tokens / seconds,
        "peak_memory_gib": max(memory.tree) / 2**30,
        "peak_object_store_gib": max(memory.store) / 2**30,
        "memory_mib_over_time": [round(value / 2**20) for value in memory.tree],
    }


class Sampler(ABC):
    """A thread that looks at a process and all its descendants again and again."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @abstractmethod
    def look(self, pids: Sequence[int]) -> None:
        """Take a sample."""

    def stop(self) -> None:
        """End the thread."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                self.look([self.root.pid, *(child.pid for child in self.root.children(recursive=True))])


class Memory(Sampler):
    """Samples of a process with all its descendants, in bytes."""

    def __init__(self, pid: int) -> None:
        self.tree: list[int] = [0]
        self.store: list[int] = [0]
        super().__init__(pid)

    def look(self, pids: Sequence[int]) -> None:
        sizes = [resident(pid) for pid in pids]
        self.tree.append(sum(own for own, _ in sizes))
        self.store.append(max(shared for _, shared in sizes))


def resident(pid: int) -> tuple[int, int]:
    """Proportional resident bytes of a process, and the resident bytes of the object store that it maps."""
    try:
        total = int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]) * 1024
        maps = Path(f"/proc/{pid}/maps").read_text()
        if "plasma" not in maps:
            return total, 0
        store, inside = 0, False
        for words in (entry.split() for entry in Path(f"/proc/{pid}/smaps").read_text().splitlines()):
            if not words[0].endswith(":"):
                inside = "plasma" in " ".join(words[5:])
            elif inside and words[0] == "Rss:":
                store += int(words[1]) * 1024
        return total, store
    except (OSError, IndexError):  # it has ended
        return 0, 0


def through_ray_data(model: str, file: str, output: str) -> None:
    """Label from file to file as the Predictor's docstring shows."""
    import ray

    from sst2_ray.predict.predictor import Predictor

    cores = os.cpu_count() or 1
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    (
        ray.data.read_parquet(file)
        .map_batches(
            Predictor,
            fn_constructor_kwargs={"model_dir": model, "column": "text"},
            batch_size=16_384,
            concurrency=1,
            num_cpus=max(1, cores - 1),  # a core for reading and writing
        )
        .write_parquet(output)
    )


def grown(runs: list[dict[str, Any]]) -> float:
    """Peak memory of the most rows over that of the fewest."""
    runs = sorted(runs, key=lambda run: run["rows"])
    return runs[-1]["peak_memory_gib"] / runs[0]["peak_memory_gib"]


def line(run: dict[str, Any]) -> str:
    return (
        f"{run['way']}, {run['rows']:,} rows: {run['seconds']:.0f} s, {run['rows_per_sec']:,.0f} rows/s, "
        f"{run['peak_memory_gib']:.2f} GiB, object store {run['peak_object_store_gib']:.2f} GiB"
    )


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown. Seconds hold the start and the model's loading."""
    lines = ["| way | rows | s | rows/s | tokens/s | peak memory, GiB | object store, GiB |", f"|{'---|' * 7}"]
    for run in runs:
        lines.append(
            f"| {run['way']} | {run['rows']:,} | {run['seconds']:.0f} | {run['rows_per_sec']:,.0f} | {run['tokens_per_sec']:,.0f} "
            f"| {run['peak_memory_gib']:.2f} | {run['peak_object_store_gib']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
