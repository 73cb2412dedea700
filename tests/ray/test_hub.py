"""Model and data from a hub on loopback, through the real command: pinned, downloaded once, and the token kept to itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION, MODELS
from sst2_ray.results.store.table import ResultsTable
from tests.support.hub_server import (
    PRIVATE_MODEL_ID,
    PRIVATE_REVISION,
    TOKEN,
    HubServer,
    packaged_sbert_folder,
    tiny_sst2,
)

ROOT = Path(__file__).resolve().parents[2]
MINILM = MODELS["sbert-minilm"]

pytestmark = pytest.mark.skipif(packaged_sbert_folder() is None, reason="needs the packaged SBERT of the demo extra")


@dataclass
class Hub:
    """A hub, the cache of a machine that asks it, and what was said by the runs of the job."""

    server: HubServer
    folder: Path
    sessions: Path
    output: dict[str, str] = field(default_factory=dict)

    def train(self, name: str, *words: str, token: str | None = None) -> dict[str, Any]:
        """The row of the finished trial."""
        done = subprocess.run(
            [
                *(
                    sys.executable,
                    str(ROOT / "jobs/train.py"),
                    "--data",
                    "glue",
                    "--train-rows",
                    "64",
                    "--batch-size",
                    "32",
                ),
                *("--epochs", "1", "--storage-path", "runs", "--name", name, *words),
            ],
            cwd=self.folder,
            env={
                **self.server.env(self.folder / "cache", token=token),
                "PYTHONPATH": str(ROOT),
                "RAY_TMPDIR": str(self.sessions),
            },
            capture_output=True,
            text=True,
            timeout=400,
        )
        self.output[name] = done.stdout + done.stderr
        assert done.returncode == 0, self.output[name]
        rows = ResultsTable(str(self.folder / "runs")).read("trials", experiment=name, attempts="latest").to_pylist()
        [row] = [row for row in rows if row["status"] == "succeeded"]
        return row


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    # Ray's sockets lie below its sessions: a path of pytest's would be too long for them.
    with HubServer() as server, tempfile.TemporaryDirectory(prefix="hub-", dir="/tmp") as sessions:
        yield Hub(server, tmp_path_factory.mktemp("hub"), Path(sessions))


def test_a_model_and_glue_are_taken_at_their_pinned_revisions_and_downloaded_once(hub: Hub) -> None:
    pinned = ("--model", str(MINILM.hub_id), "--model-revision", str(MINILM.revision))
    row = hub.train("first", *pinned)
    assert (row["model_source"], row["model_revision"]) == ("hub", MINILM.revision)
    assert row["eval_split"] == f"dev of {GLUE_HUB_ID}"
    assert row["num_dev_rows"] == len(tiny_sst2("validation"))
    assert hub.server.downloads("model.safetensors") == 1
    revisions = {str(MINILM.hub_id): str(MINILM.revision), GLUE_HUB_ID: GLUE_REVISION}
    for name, revision in revisions.items():
        asked = [request.path for request in hub.server.requests if name in request.path]
        assert asked
        assert all(revision in path for path in asked), asked

    hub.server.requests.clear()
    again = hub.train("again", *pinned)
    assert hub.server.requests == []
    assert again["best_dev_loss"] == row["best_dev_loss"]


def test_a_private_model_needs_the_token_which_is_found_nowhere(hub: Hub) -> None:
    hub.server.requests.clear()
    row = hub.train("private", "--model", PRIVATE_MODEL_ID, token=TOKEN)
    assert row["model_revision"] == PRIVATE_REVISION
    assert any(request.authorized for request in hub.server.requests)
    assert TOKEN not in hub.output["private"]
    for kind in ("trials", "epochs", "predictions"):
        assert TOKEN not in str(ResultsTable(str(hub.folder / "runs")).read(kind).to_pylist())
    # Ray's own logs and metadata stand below its sessions, config, checkpoints' rests, logs and model below the storage.
    files = [path for top in (hub.folder, hub.sessions) for path in top.rglob("*") if path.is_file()]
    assert any("logs" in path.parts and path.is_relative_to(hub.sessions) for path in files)
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
