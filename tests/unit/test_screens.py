"""The screens of help, ls and status at 80 and 120 columns, kept as text; nothing is wider than the terminal."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from sst2_ray.config.fields import flag
from sst2_ray.config.sources import sweep_command_line, train_command_line
from sst2_ray.config.train import TrainConfig
from sst2_ray.results.store.table import ResultsTable
from tests.support.records import at, epoch, trial
from tests.support.screens import check_screen, screen

SCREENS = Path(__file__).parent / "screens"
WIDTHS = (80, 120)
NAMES = ("sbert-minilm-rotten-tomatoes-3f9a1c2b4d5e", "around-the-paper")
HELP = {
    "commands": ["--help"],
    "ls-help": ["ls", "--help"],
    "status-help": ["status", "--help"],
    "best-help": ["best", "--help"],
}
TABLES = {
    "ls": ["ls"],
    "status-run": ["status", NAMES[0]],
    "status-sweep": ["status", NAMES[1]],
    "status-of-all": ["status"],
    "ls-automatic-names": ["ls", "automatic"],
    "status-automatic-names": ["status", "--storage-path", "automatic", "sweep-9c0b7f21d3aa"],
}
AUTOMATIC = (
    TrainConfig(model="sentence-transformers/all-mpnet-base-v2", data="product-reviews-2024.csv").run_name,
    TrainConfig(
        model="answerdotai/ModernBERT-large", data="s3://bucket/data/customer-feedback-labelled-by-hand.parquet"
    ).run_name,
    "sweep-9c0b7f21d3aa",
)
"""Names as they are made of model, data and a hash."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and a sweep with a trial that failed, an hour and more ago."""
    root = tmp_path_factory.mktemp("screens")
    table = ResultsTable(str(root / "runs"))
    shared = {"started_at": at(0), "model": "sbert", "eval_split": "dev", "data_fingerprint": "f"}
    table.write(
        "trials",
        [
            trial(NAMES[0], experiment=NAMES[0], best_dev_accuracy=0.8986, seconds=245.0, cost_usd=0.07, **shared),
            trial("00-lr8e-5-b64-seed0", experiment=NAMES[1], best_dev_accuracy=0.9472, seconds=5031.0, cost_usd=2.31, **shared),
            trial(
                "01-lr1.6e-4-b64-seed0", experiment=NAMES[1], status="failed", attempt=3, failure_class="out_of_memory",
                failure_message="rank 1 asked for 12.5 GiB and 3.2 GiB were free; use --micro-batch-tokens 4096", **shared,
            ),
        ],
    )  # fmt: skip
    table.write(
        "epochs",
        [
            epoch(200, NAMES[0], experiment=NAMES[0], epoch=2.0, dev_accuracy=0.8986),
            epoch(200, "00-lr8e-5-b64-seed0", experiment=NAMES[1], epoch=2.0, dev_accuracy=0.9472),
        ],
    )
    write_automatic(ResultsTable(str(root / "automatic")), shared)
    kinds = {f"runs/{NAMES[0]}": "config", f"runs/{NAMES[1]}": "sweep"}
    kinds |= {f"automatic/{name}": "sweep" if name.startswith("sweep") else "config" for name in AUTOMATIC}
    for path, kind in kinds.items():
        run = root / path
        run.mkdir()
        (run / "config.json").write_text(json.dumps({kind: {}}))
        (run / "model.safetensors").write_bytes(bytes(3 * 2**20))
        for file in run.iterdir():
            os.utime(file, (1_790_000_000, 1_790_000_000))
    return root


def write_automatic(table: ResultsTable, shared: dict[str, object]) -> None:
    """Two runs and a sweep of six trials, none of which was named."""
    runs, sweep = AUTOMATIC[:2], AUTOMATIC[2]
    table.write(
        "trials", [trial(name, experiment=name, best_dev_accuracy=0.93, seconds=245.0, **shared) for name in runs]
    )
    trials = {
        "8e-5": {"best_dev_accuracy": 0.94, "selection_accuracy": 0.93},
        "1.25e-4": {
            "status": "failed",
            "failure_class": "non_finite",
            "failure_message": "the loss of step 812 is nan",
        },
        "4e-5": {"status": "early_stopped", "best_dev_accuracy": 0.91, "selection_accuracy": 0.9},
    }
    records = [
        trial(f"all-mpnet-base-v2-lr{rate}-bs64-wd0.01-seed{seed}", experiment=sweep, seconds=301.0, **values, **shared)
        for rate, values in trials.items()
        for seed in (0, 1)
    ]
    table.write("trials", records)


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", [*HELP, *TABLES])
def test_a_screen_is_the_one_that_was_looked_at(name, columns, folder):
    text = screen({**HELP, **TABLES}[name], columns=columns, folder=folder)
    assert max(map(len, text.splitlines())) <= columns
    check_screen(text, SCREENS / f"{name}-{columns}.txt")


@pytest.mark.parametrize("name", TABLES)
def test_no_name_is_cut_at_80_columns(name, folder):
    text = screen(TABLES[name], columns=80, folder=folder)
    assert "…" not in text
    assert any(one in text for one in (*NAMES, *AUTOMATIC))


@pytest.mark.parametrize("columns", WIDTHS)
def test_rows_with_automatic_names_still_say_what_they_are_read_for(columns, folder):
    text = screen(TABLES["ls-automatic-names"], columns=columns, folder=folder)
    assert all(name in text for name in AUTOMATIC)
    assert all(title in text for title in ("status", "best, %"))
    text = screen(TABLES["status-automatic-names"], columns=columns, folder=folder)
    assert "non_finite" in text


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("word", ["--help", "--help-all"])
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_the_help_of_train_and_sweep_names_every_flag_in_its_group(command, word, columns, folder):
    text = screen([command, word], columns=columns, folder=folder)
    assert max(map(len, text.splitlines())) <= columns
    lines = (sweep_command_line if command == "sweep" else train_command_line)("job")
    flags = {flag(name) for name in lines.kinds if name not in lines.hidden}
    assert flags <= set(re.findall(r"--[a-z0-9-]+", text.replace("--no-", "--")))
    assert text.index("Most used") < text.index("Optimization")
    assert ("AdamW epsilon" in text) == (word == "--help-all")
    assert text.index("Examples") > text.index("Optimization")
