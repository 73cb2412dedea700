"""Seconds that people wait for a command: from Enter to the first line of each, and to the end on large storage.

    python -m benchmarks.commands [--repeats 5] [--json FILE]

Each command runs in a terminal of its own. First lines: a command is ended as soon as a line stands on the terminal, so nothing
is trained and no cluster is asked. Ends: `results` and `ls` on a sweep of 1,000 trials, `ls` and `status` on 1,000 runs in an
object store (moto's server, on this machine), `report` on 100 trials. All runs are made up. Passes (exit code 0) if every median
is below its limit. The first run of a command warms the machine's file cache and is not counted.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from benchmarks.results_table import write_table
from benchmarks.shared import REPOSITORY, finish, parser_of, provenance
from sst2_ray.cli import COMMANDS
from sst2_ray.results.store.compaction import MERGE_AT, merge_small_files
from sst2_ray.results.store.table import ResultsTable
from tests.support import models
from tests.support.object_store import BUCKET, object_store
from tests.support.records import at, trial
from tests.support.screens import ESCAPE
from tests.support.synthetic_results import MODERNBERT, SBERT, write_study

FIRST_LINE_S, HELP_S = 1.0, 0.3
NUM_RUNS, NUM_TRIALS = 1_000, 1_000
PROGRAM = Path(sys.executable).parent / "sst2-ray"
WORDS = {
    "train": ["--preset", "demo"],
    "sweep": ["--preset", "demo"],
    "status": ["synthetic-sweep"],
    "logs": ["synthetic-sweep"],
    "stop": ["synthetic-sweep"],
    "compare": ["modernbert-base", "sbert"],
    "best": ["--out", "best"],
    "predict": ["--model-dir", "model", "--text", "a gripping film"],
    "export": ["model"],
    "push": ["model", "owner/name", "--dry-run"],
    "serve": ["model"],
    "up": ["onprem.yaml"],
    "submit": ["onprem.yaml", "--dry-run", "--", "python", "jobs/train.py"],
    "cost": ["ray_cluster.yaml"],
    "down": ["onprem.yaml"],
    "completion": ["bash"],
}
"""Arguments of a command; the others get none."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command whose whole time is measured."""

    title: str
    words: Sequence[str]
    limit_s: float


ENDS = (
    Case(title="`--help`", words=["--help"], limit_s=HELP_S),
    Case(title="`results`, 1,000 trials", words=["results", "trials"], limit_s=2.0),
    Case(title="`ls`, 1,000 trials", words=["ls", "trials"], limit_s=2.0),
    Case(title="`ls`, 1,000 runs in an object store", words=["ls", f"s3://{BUCKET}/runs"], limit_s=3.0),
    Case(title="`status`, 1,000 runs in an object store", words=["status", "--storage-path", f"s3://{BUCKET}/runs"], limit_s=3.0),
    Case(title="`report`, 100 trials", words=["report", "runs", "--out", "page"], limit_s=10.0),
)  # fmt: skip


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found = provenance()
    with tempfile.TemporaryDirectory(prefix="commands-") as scratch, object_store() as variables:
        folder = Path(scratch)
        begin = time.perf_counter()
        make_storage(folder, variables)
        print(f"made up runs and models in {time.perf_counter() - begin:.0f} s", flush=True)
        with environment(variables):
            first = {name: measured([name, *WORDS.get(name, [])], folder, arguments.repeats) for name in COMMANDS}
            ends = {
                case.title: measured(case.words, folder, arguments.repeats, to_the_end=True, limit_s=case.limit_s)
                for case in ENDS
            }
    finish({**found, "first_line_s": first, "end_s": ends}, table(first, ends), arguments.json)
    slow = [name for name, runs in first.items() if statistics.median(runs) >= FIRST_LINE_S]
    slow += [case.title for case in ENDS if statistics.median(ends[case.title]) >= case.limit_s]
    print(f"above the limit: {', '.join(slow) or 'none'}")
    return 1 if slow else 0


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the commands, and restore them."""
    before = dict(os.environ)
    os.environ.update({**variables, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color"})
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        os.environ.pop(name, None)
    yield
    os.environ.clear()
    os.environ.update(before)


def make_storage(folder: Path, variables: dict[str, str]) -> None:
    """Make a model, the runs of a study of 100 trials, a sweep of 1,000 trials, and 1,000 runs in the object store."""
    models.export_of(models.sbert_folder(folder / "source"), folder / "model")
    for file in ("ray_cluster.yaml", "cluster/onprem.yaml"):
        (folder / Path(file).name).write_text((REPOSITORY / file).read_text())
    rates, sizes = (2e-5, 4e-5, 8e-5, 1.2e-4, 1.6e-4), (8, 16, 32, 64, 128)
    write_study(
        str(folder / "runs"),
        models=(MODERNBERT, SBERT),
        learning_rates=rates,
        batch_sizes=sizes,
        num_seeds=2,
        with_failures=False,
    )
    make_run(folder / "runs", "synthetic-sweep", kind="sweep")
    write_table(folder / "trials", NUM_TRIALS, NUM_TRIALS // 10, merge=True)
    make_run(folder / "trials", "sweep-000", kind="sweep")
    make_runs(folder / "many")
    with environment(variables):
        store = pafs.S3FileSystem(endpoint_override=variables["AWS_ENDPOINT_URL"], allow_bucket_creation=False)
        pafs.copy_files(str(folder / "many"), f"{BUCKET}/runs", destination_filesystem=store)


def make_runs(folder: Path) -> None:
    """Write 1,000 finished single runs, their files and their rows, merged as runs leave them."""
    results = ResultsTable(str(folder))
    for number in range(NUM_RUNS):
        name = f"sbert-minilm-reviews-{number:04d}"
        make_run(folder, name, kind="config")
        shared = {"experiment": name, "model": "sbert-minilm", "started_at": at(number), "eval_split": "dev"}
        results.write("trials", [trial(name, status="running", written_at=at(number), **shared)])
        results.write("trials", [trial(name, written_at=at(number + 5), best_dev_accuracy=0.9, **shared)])
        if number % (MERGE_AT // 2) == 0:
            merge_small_files(results)


def make_run(folder: Path, name: str, *, kind: str) -> None:
    """Write the files of a run, a few bytes each."""
    files = ("config.json", "result.json", "logs/driver.log", "logs/attempt-0-rank-0.log")
    exported = (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sst2_ray.json",
        "README.md",
    )
    for file in (*files, *(f"model/{one}" for one in exported)):
        path = folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"{kind}": {{}}}}')


def measured(
    words: Sequence[str], folder: Path, repeats: int, *, to_the_end: bool = False, limit_s: float = FIRST_LINE_S
) -> list[float]:
    """Run a command once more than is asked for, and return the seconds of all but the first run."""
    runs = [run(words, folder, to_the_end=to_the_end) for _ in range(1 + repeats)][1:]
    median = statistics.median(runs)
    print(f"{' '.join(words)}: {median:.2f} s ({'below' if median < limit_s else 'NOT BELOW'} {limit_s:g})", flush=True)
    return [round(seconds, 3) for seconds in runs]


def run(words: Sequence[str], folder: Path, *, to_the_end: bool) -> float:
    """Return the seconds from the start of a command in a terminal to its first line, or to its end."""
    controller, terminal = pty.openpty()
    begin = time.perf_counter()
    process = subprocess.Popen(
        [PROGRAM, *words], stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, start_new_session=True
    )
    os.close(terminal)
    shown, seconds = b"", None
    with contextlib.suppress(OSError):  # raised at the end of a pseudo-terminal
        while chunk := os.read(controller, 65536):
            shown += chunk
            if seconds is None and ESCAPE.sub("", shown.decode(errors="replace")).strip():
                seconds = time.perf_counter() - begin
                if not to_the_end:
                    break
    if to_the_end:
        code = process.wait()
        seconds = time.perf_counter() - begin
        if code:
            raise SystemExit(f"sst2-ray {' '.join(words)} ended with {code}:\n{shown.decode(errors='replace')}")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.close(controller)
    if seconds is None:
        raise SystemExit(f"sst2-ray {' '.join(words)} showed nothing")
    return seconds


def table(first: dict[str, list[float]], ends: dict[str, list[float]]) -> str:
    """Markdown."""

    def row(title: str, runs: list[float], limit_s: float) -> str:
        return f"| {title} | {statistics.median(runs):.2f} | {min(runs):.2f} to {max(runs):.2f} | {limit_s:g} |"

    lines = ["| the whole command | s, median | lowest to highest | aim |", "|---|---|---|---|"]
    lines += [row(case.title, ends[case.title], case.limit_s) for case in ENDS]
    lines += ["", "| first line of | s, median | lowest to highest | aim |", "|---|---|---|---|"]
    slowest = sorted(first, key=lambda name: -statistics.median(first[name]))
    lines += [row(f"`{name}`", first[name], FIRST_LINE_S) for name in slowest]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
