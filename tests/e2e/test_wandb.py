"""Runs that tell a real W&B, which has no network here."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from tests.support.environments import REPOSITORY, SmallRuns

pytestmark = pytest.mark.slow

# Nobody listens there; a machine with a network would otherwise ask the real server with this key.
NOWHERE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a0" * 20}
GIVEN_UP_S = 90.0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PYTHONPATH with W&B's package."""
    folder = tmp_path_factory.mktemp("wandb")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-deps", "--target", folder]
    subprocess.run([*pip, "wandb==0.31.0"], check=True)
    return f"{REPOSITORY}:{folder}"


def test_a_server_out_of_reach_is_said_once_and_given_up(small: SmallRuns, path: str) -> None:
    begin = time.monotonic()
    done = small.run(small.words("online", "--trackers=wandb"), PYTHONPATH=path, **NOWHERE)
    seconds = time.monotonic() - begin
    row = small.succeeded("online", done)
    assert done.stdout.count("wandb: given up") == 1 and "events.jsonl holds them" in done.stdout
    assert seconds - row["seconds"] < GIVEN_UP_S
    kept = (small.folder / "runs/online/trackers/events.jsonl").read_text().splitlines()
    assert len(kept) >= 3 and all(json.loads(line) for line in kept)


def test_offline_it_keeps_the_run_to_be_sent_later(small: SmallRuns, path: str) -> None:
    done = small.run(
        small.words("offline", "--trackers=wandb"), PYTHONPATH=path, WANDB_MODE="offline", WANDB_DIR=str(small.folder)
    )
    small.succeeded("offline", done)
    (kept,) = small.folder.glob("**/offline-run-*/*.wandb")
    assert kept.stat().st_size > 0
