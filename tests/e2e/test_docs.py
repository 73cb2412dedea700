"""The command blocks of README and docs, each run as it stands, after the one before; or a reason why it is not."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray.cli import COMMANDS
from sst2_ray.completion import flags_of
from sst2_ray.config.examples import EXAMPLES
from sst2_ray.sweep.command import read_sweep_command
from tests.support.doc_blocks import ELSEWHERE, NOT_HERE, OTHERS, PAGES, ROOT, Line, blocks_of, is_command, lines_of
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
TRAINED = ("docs/sweeps.md", "docs/export.md", "docs/serving.md")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_that_it_is_no_command(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in ("", "python", *OTHERS), f"{page.name}:{block.number}"
        if block.language in OTHERS:
            assert not any(map(is_command, block.text.splitlines())), f"{page.name}:{block.number}"
    assert [
        line.text for line in LINES[str(page.relative_to(ROOT))] if not (line.language or is_command(line.text))
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_flag_on_a_page_is_one_of_its_command(page: Path) -> None:
    check_flags(page.read_text(encoding="utf-8").replace("\\\n", " "))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_flag_in_the_examples_of_a_help_is_one_of_its_command(name: str) -> None:
    check_flags("\n".join(EXAMPLES[name]))


def check_flags(text: str) -> None:
    for command in re.findall(r"(?:sst2-ray |jobs/)(\w+)(?:\.py)?((?:(?! -- )[^`\n#|(])*)", text):
        name, words = command
        if name in COMMANDS and not words.startswith((" compact", " import-tune")):
            flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", words)) - {"--help-all"}
            assert flags <= flags_of_command(name), command


@functools.cache
def flags_of_command(name: str) -> set[str]:
    flags = flags_of(name).keys()
    return {*flags, *(f"--no-{flag[2:]}" for flag in flags)}


def test_the_config_file_on_the_page_is_one(tmp_path: Path) -> None:
    (block,) = [block for block in blocks_of(ROOT / "docs/using.md") if block.language == "yaml"]
    (tmp_path / "this.yaml").write_text(block.text)
    _, config = read_sweep_command(["--config", str(tmp_path / "this.yaml")])
    assert (config.models, config.num_seeds) == (("modernbert-base", "sbert"), 3)
    assert config.base.evaluations_per_epoch == 4


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
    (folder / "reviews").mkdir()
    write_parquet(folder / "reviews" / "first.parquet", reviews(80))
    ratings = [f'"{text}",{1 + label + row % 3}' for row, (text, label) in enumerate(reviews(240))]
    (folder / "ratings.csv").write_text("\n".join(["text,stars", *ratings]))
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
