"""Inputs of the matrix's commands, their words, and the job server that one of them asks."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

from tests.support import models
from tests.support.heads import started_head
from tests.support.reviews import reviews, write_glue_folder
from tests.support.waiting import waited

ROOT = Path(__file__).resolve().parents[3]


class Bench:
    """Inputs that every cell uses: a model, data, an export, a results table and a job server."""

    def __init__(self, folder: Path) -> None:
        """Make them below `folder`, unless an earlier call has."""
        self.folder, self.table = folder, folder / "first" / "runs"
        self.address, self.server = "", 0
        if self.table.exists():
            return
        models.sbert_folder(folder / "model")
        models.export_of(folder / "model", folder / "export")
        write_glue_folder(folder / "data", reviews(2000), reviews(200, topic="play"))
        lines = [json.dumps({"text": text}) + "\n" for text, _ in reviews(2000)]
        (folder / "many.jsonl").write_text("".join(lines * 40))
        (folder / "few.jsonl").write_text("".join(lines[:200]))
        (folder / "upload").mkdir()
        (folder / "upload" / "job.txt").write_text("nothing\n")
        words = [sys.executable, "-m", "sst2_ray", *self.words("train", folder / "first", long=False)]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)

    def words(self, command: str, cell: Path, *, long: bool) -> list[str]:
        """Return the command's words; `long`: it still works when a signal arrives."""
        model = str(self.folder / "model")
        common = ["--data", str(self.folder / "data"), "--precision", "fp32", "--num-workers", "1", "--storage-path",
                  str(cell / "runs"), "--name", "x"]  # fmt: skip
        epochs = "400" if long else "1"
        seconds = 600 if long else 1
        match command:
            case "train":
                steps = ["--max-steps", "20000" if long else "30", "--epochs", epochs, "--batch-size", "16"]
                return ["train", "--model", model, *common, *steps]
            case "sweep":
                grid = [
                    "--learning-rates",
                    "1e-3",
                    "2e-3",
                    "--num-seeds",
                    "1",
                    "--batch-sizes",
                    "16",
                    "--epochs",
                    epochs,
                ]
                rows = ["--selection-fraction", "0", "--train-rows", "1600" if long else "320"]
                return ["sweep", "--models", model, *common, *grid, *rows]
            case "predict":
                file = self.folder / ("many.jsonl" if long else "few.jsonl")
                return ["predict", "--model-dir", str(self.folder / "export"), "--input", str(file), "--output",
                        str(cell / "out.jsonl")]  # fmt: skip
            case "report":
                return ["report", "--storage-path", str(self.table), "--out", str(cell / "report")]
            case "submit":
                # The file tells that it is at work, whatever becomes of its output.
                mark = str(cell / "at-work")
                job = (
                    f"import time; print('hello', flush=True); open({mark!r}, 'w'); time.sleep({seconds}) # {cell.name}"
                )
                return ["submit", "--address", self.address, "--working-dir", str(self.folder / "upload"),
                        "--on-interrupt", "stop", "--", "python", "-c", job]  # fmt: skip
            case _:
                return ["doctor", str(ROOT / "cluster/onprem.yaml"), "--offline"]


@contextlib.contextmanager
def job_server(bench: Bench) -> Iterator[None]:
    """Run a head with a job server on loopback, and wait until it answers."""
    with started_head("--num-cpus=1") as head:
        waited(lambda: _answers(head.jobs), "the job server", 120)
        bench.address, bench.server = head.jobs, head.pid
        yield


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urlopen(f"{url}/api/version", timeout=10):
        return True
    return False
