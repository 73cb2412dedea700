"""The command blocks of README and docs, each run as it stands, after the one before; or a reason why it is not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doc_blocks import ELSEWHERE, NOT_HERE, PAGES, ROOT, Line, lines_of
from tests.support.reviews import reviews, write_csv, write_glue_folder, write_parquet
from tests.support.synthetic_results import MODERNBERT, SBERT, sentences, write_study

LINES = {str(page.relative_to(ROOT)): lines_of(page) for page in PAGES}
RUNS_HERE = [name for name, lines in LINES.items() if any(line.reason is None for line in lines)]
PLACEHOLDERS = {
    "README.md": {"SST2_FOLDER": "glue-folder"},
    "docs/results.md": {"my-sweep/modernbert-base-lr8e-5-bs32-seed0": "synthetic-sweep/0000-modernbert-base-s0"},
    "docs/sweeps.md": {"DIR": "runs", "NAME": "first", "T": "first"},
}
"""Words that a reader replaces, by page."""
TRAINED = ("docs/using.md", "docs/sweeps.md", "docs/export.md")
"""Pages that begin with a model that was trained."""


def test_the_pages_have_commands_and_most_pages_of_ours_run() -> None:
    assert sum(map(len, LINES.values())) > 60
    assert {
        "README.md",
        "docs/tutorial.md",
        "docs/data.md",
        "docs/using.md",
        "docs/results.md",
        "docs/sweeps.md",
    } <= set(RUNS_HERE)


@pytest.mark.parametrize("pattern", [*NOT_HERE, *ELSEWHERE])
def test_a_reason_has_a_line_that_needs_it(pattern: str) -> None:
    assert any(re.search(pattern, line.text) for lines in LINES.values() for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUNS_HERE)
def test_the_commands_of_a_page_run_in_their_order(page: str, tmp_path: Path) -> None:
    """Commands run in a folder that looks like a clone in which `make demo` has run, beside the reader's own files."""
    prepare(tmp_path, page)
    script = tmp_path / "page.sh"
    before = (
        "sst2-ray train --data reviews.csv --model sbert-minilm --epochs 1 --name first\n" if page in TRAINED else ""
    )
    script.write_text(
        f"set -eo pipefail\n{before}" + "\n".join(_command(line) for line in LINES[page] if line.reason is None)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", script.name], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    last = re.findall(r"^@@ (.*)$", done.stdout, re.MULTILINE)[-1:]
    assert done.returncode == 0, f"{last}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _command(line: Line) -> str:
    text = line.text
    for word, value in PLACEHOLDERS.get(line.page, {}).items():
        text = re.sub(rf"(?<![\w-]){word}(?![\w-])", value, text)
    if line.language == "python":
        text = f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK"
    return f"echo {shlex.quote(f'@@ {line.page}:{line.number}')}\n{text}"


def prepare(folder: Path, page: str) -> None:
    for entry in ROOT.iterdir():
        if entry.name not in ("runs", "report", ".git") and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    rows = [(text, "positive" if label else "negative") for text, label in reviews(480)]
    write_csv(folder / "reviews.csv", rows)
    write_csv(folder / "new.csv", rows[:40])
    write_parquet(folder / "reviews.parquet", reviews(80))
    write_glue_folder(folder / "glue-folder", reviews(480), reviews(64, topic="show"))
    pairs = [f"{text}\t{rows[0][0]}\t{label}" for text, label in rows]
    for name, some in (("pairs.tsv", pairs), ("new-pairs.tsv", pairs[:40])):
        (folder / name).write_text("".join(f"{line}\n" for line in ("sentence1\tsentence2\tlabel", *some)))
    if page == "docs/results.md":
        options = {"learning_rates": (8e-5,), "batch_sizes": (32, 64), "num_seeds": 2}
        write_study(str(folder / "runs"), models=(MODERNBERT, SBERT), **options)
        _, labels = sentences()
        rows = [f"{row},{label},{label}" for row, label in enumerate(labels)]
        (folder / "theirs.csv").write_text("\n".join(["row_id,label,prediction", *rows]))
