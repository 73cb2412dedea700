"""Sweeps as a user starts them: the real command in a process of its own, a local Ray; and what a kill must not change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sst2_ray.results.store.table import ResultsTable

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 500

WORDS = (
    *("--learning-rates", "1e-4", "1e-3", "--num-seeds", "2", "--evaluations-per-epoch", "2"),
    *("--max-concurrent", "8", "--keep-models", "1", "--trackers", "tensorboard"),
)
"""Settings of the sweep that is killed, and of the one that is not. Of the 8 trials at once, as many run as there are cores."""

_SAME = ("status", "best_dev_accuracy", "last_dev_accuracy", "best_dev_loss", "last_global_step", "config_hash")


@dataclass(frozen=True)
class Sweeps:
    """Sweeps over one data set and one model, below one storage folder."""

    storage: Path
    common: tuple[str, ...]

    def command(self, name: str, *words: str) -> list[str]:
        return [sys.executable, "jobs/sweep.py", *self.common, "--name", name, *words]

    def run(self, name: str, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return call(self.command(name, *words), env=env)

    def resume(self, name: str) -> subprocess.CompletedProcess[str]:
        return call([sys.executable, "jobs/sweep.py", "--resume", str(self.storage / name)])

    def rows(self, name: str) -> dict[str, dict[str, Any]]:
        """Return the latest attempts by trial id."""
        table = ResultsTable(str(self.storage)).read("trials", experiment=name, attempts="latest")
        return {row["trial_id"]: row for row in table.to_pylist()}

    def curves(self, name: str) -> dict[str, list[tuple[int, float]]]:
        """Return, by trial id, optimizer steps and accuracy of its evaluations, in their order."""
        table = ResultsTable(str(self.storage)).read("epochs", experiment=name, attempts="latest")
        curves: dict[str, list[tuple[int, float]]] = {}
        for row in sorted(table.to_pylist(), key=lambda row: row["global_step"]):
            curves.setdefault(row["trial_id"], []).append((row["global_step"], row["dev_accuracy"]))
        return curves


def toy_flags(model: str, data: str, storage: Path) -> tuple[str, ...]:
    """Return the flags that all sweeps of a test share. Of 128 sentences none is held out, unless a test says so."""
    where = ("--models", model, "--data", data, "--storage-path", str(storage))
    return (*where, "--batch-sizes", "32", "--epochs", "1", "--selection-fraction", "0")


def call(command: list[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=_environment(env), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def _environment(more: dict[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **(more or {})}


def killed(sweeps: Sweeps, name: str, *, after_rows: int, delay_s: float, words: Sequence[str] = WORDS) -> None:
    """Start the sweep, wait until it has begun and so many trials have ended, and a little longer; kill its driver."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        sweeps.command(name, *words), cwd=ROOT, env=_environment(), stdout=quiet, stderr=quiet, start_new_session=True
    )
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        ended = sum(row["status"] == "succeeded" for row in sweeps.rows(name).values())
        if (sweeps.storage / name / "config.json").exists() and ended >= after_rows:
            break
        time.sleep(0.2)
    time.sleep(delay_s)
    assert process.poll() is None, "the sweep ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def differences(sweeps: Sweeps, name: str, expected_name: str) -> list[str]:
    """List the trials that are missing, too many, or have other numbers than in the sweep that was not disturbed."""
    rows, expected = sweeps.rows(name), sweeps.rows(expected_name)
    curves, expected_curves = sweeps.curves(name), sweeps.curves(expected_name)
    return [
        trial_id
        for trial_id in sorted({*rows, *expected})
        if trial_id not in rows
        or trial_id not in expected
        or any(rows[trial_id][column] != expected[trial_id][column] for column in _SAME)
        or curves.get(trial_id) != expected_curves.get(trial_id)
    ]
