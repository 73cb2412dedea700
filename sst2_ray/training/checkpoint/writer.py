"""Writing of checkpoints in a thread while training continues; rank 0 commits each by its manifest."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.files import FORMAT, checksum, digest_of, file_of
from sst2_ray.training.checkpoint.snapshot import JsonObject, Snapshot
from sst2_ray.training.checkpoint.steps import step_folder

COMMIT_TIMEOUT_S = 600.0
"""Seconds that rank 0 waits for the files of the others, beyond those for which each tries its storage again."""
WAIT_S = 0.5


class CheckpointWriter:
    """Writer of one rank; `save` hands a snapshot to a thread and waits only for the snapshot before it."""

    def __init__(
        self, run: Storage, *, rank: int, world_size: int, on_commit: Callable[[Snapshot], None] | None = None
    ) -> None:
        """Set the writer up; `on_commit` is called on rank 0, in the thread, when a snapshot is committed."""
        self.run, self.rank, self.world_size, self.on_commit = run, rank, world_size, on_commit
        self.cpu_s = 0.0
        """CPU seconds of the last write that ended."""
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, snapshot: Snapshot) -> None:
        """Start writing `snapshot`, after the one before it. Raises what that one's writing raised."""
        self.wait()
        self._thread = threading.Thread(
            target=self._write_safely, args=(snapshot,), name="checkpoint-writer", daemon=True
        )
        self._thread.start()

    def wait(self, on_wait: Callable[[], None] = lambda: None) -> None:
        """Wait until the last snapshot is committed (rank 0) or written (others). Raises what its writing raised.

        `on_wait` is called every WAIT_S seconds meanwhile.
        """
        if self._thread is not None:
            while self._thread.is_alive():
                self._thread.join(WAIT_S)
                on_wait()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what the writing has raised so far, without waiting."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_safely(self, snapshot: Snapshot) -> None:
        begin = time.thread_time()
        try:
            self._write(snapshot)
            self.cpu_s = time.thread_time() - begin
        except BaseException as error:
            self._error = error
            with contextlib.suppress(Exception):  # on a full disk it makes room for the row that reports it
                self._discard(snapshot)

    def _discard(self, snapshot: Snapshot) -> None:
        """Delete this rank's files of a checkpoint that failed, without waiting for a storage that is gone."""
        run, folder = self.run.with_retries(0.0), step_folder(snapshot.global_step)
        if run.exists(f"{folder}/manifest.json"):
            return  # it is committed: what failed came after
        names = [file_of(self.rank, self.world_size), f"receipt-{self.rank:03d}.json"]
        for name in [*names, "model.safetensors"] if self.rank == 0 else names:
            run.delete(f"{folder}/{name}")

    def _write(self, snapshot: Snapshot) -> None:
        folder = step_folder(snapshot.global_step)
        files = {file_of(self.rank, self.world_size): snapshot.shard}
        if snapshot.model is not None:
            files["model.safetensors"] = snapshot.model
        receipt = {name: self._put(f"{folder}/{name}", tensors) for name, tensors in files.items()}
        self.run.write_json(f"{folder}/receipt-{self.rank:03d}.json", {"files": receipt, "layout": snapshot.layout})
        if self.rank == 0:
            self._commit(folder, snapshot)

    def _put(self, name: str, tensors: dict[str, Tensor]) -> JsonObject:
        target = Path(self.run.path(name))
        if self.run.is_local:  # no manifest names it yet: it can be written in place
            return self.run.retry(lambda: _save(tensors, target))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / target.name
            entry = _save(tensors, path)
            self.run.upload(path, name)
            return entry

    def _commit(self, folder: str, snapshot: Snapshot) -> None:
        """Wait for every rank's receipt, then write the manifest that makes the folder a checkpoint."""
        names = [f"receipt-{rank:03d}.json" for rank in range(self.world_size)]
        limit_s = COMMIT_TIMEOUT_S + self.run.retry_for_s
        deadline = time.monotonic() + limit_s
        while missing := [n for n in names if not self.run.exists(f"{folder}/{n}")]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"checkpoint {folder}: no {', '.join(missing)} after {limit_s:.0f} s")
            time.sleep(0.05)
        receipts = [self.run.read_json(f"{folder}/{n}") for n in names]
        manifest = {
            "format": FORMAT,
            "global_step": snapshot.global_step,
            "world_size": self.world_size,
            "files": {name: entry for receipt in receipts for name, entry in receipt["files"].items()},
            "layouts": [receipt["layout"] for receipt in receipts],
            "state": snapshot.state,
        }
        self.run.write_json(f"{folder}/manifest.json", {**manifest, "checksum": checksum(manifest)})
        for name in names:
            self.run.delete(f"{folder}/{name}")
        if self.on_commit is not None:
            self.on_commit(snapshot)


def _save(tensors: dict[str, Tensor], path: Path) -> JsonObject:
    """Write a file and return its digest. Raises OSError, with the number that the system gave."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    return digest_of(path)
