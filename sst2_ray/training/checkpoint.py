"""Checkpoints that any number of workers can go on from: safetensors and JSON, never a pickle.

`checkpoints/step-<global_step>/` holds `model.safetensors` (fp32 weights, which are also ZeRO's masters), one
`optimizer-<rank>-of-<world>.safetensors` a rank (its flat share of AdamW's moments) and, written last, `manifest.json`
with every file's size and SHA-256, the position, the records so far and a checksum of its own: a folder without a manifest
that fits is not a checkpoint. Files are written by a thread while training goes on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sst2_ray.results.schema import EpochRecord
from sst2_ray.storage import Storage
from sst2_ray.training.engine import OptimizerShard, Span
from sst2_ray.training.names import CHECKPOINT_FOLDER

FORMAT = 1
COMMIT_TIMEOUT_S = 600.0


def step_folder(global_step: int) -> str:
    return f"{CHECKPOINT_FOLDER}/step-{global_step:08d}"


def _file_of(rank: int, world_size: int) -> str:
    return f"optimizer-{rank:03d}-of-{world_size:03d}.safetensors"


def _digest(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _save(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Write a file and return its digest. Raises OSError, with the number that the system gave."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    return _digest(path)


def checksum(manifest: dict[str, Any]) -> str:
    """SHA-256 over the canonical JSON of a manifest without its checksum."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


class HostCopies:
    """Copies of tensors on the host, by name, in memory that is kept: the next copy of a name is made in its place.

    Memory that is allocated anew is faulted in page by page, which takes longer than the copy; and the workers' allocator
    does not find it again once it was freed: a process grew by a copy a checkpoint.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def of(self, name: str, tensor: Tensor) -> Tensor:
        kept = self._kept.get(name)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
            kept = self._kept[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return kept.copy_(tensor.detach())


def _random_states() -> dict[str, Tensor]:
    """Of this process's generators: dropout is keyed, but FlashAttention draws its own."""
    cuda = {"rng.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
    return {"rng.cpu": torch.get_rng_state(), **cuda}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything of one rank at one step, copied to the host, so that training can go on while it is written."""

    global_step: int
    model: dict[str, Tensor] | None  # rank 0 alone
    shard: dict[str, Tensor]
    layout: dict[str, Any]
    state: dict[str, Any]

    @classmethod
    def take(
        cls,
        *,
        global_step: int,
        model: torch.nn.Module | None,
        shard: OptimizerShard,
        sums: Tensor,
        state: dict[str, Any],
        copies: HostCopies | None = None,
    ) -> Snapshot:
        """`sums`: this rank's running training sums; they travel with its shard. `model` on rank 0, None elsewhere.
        `copies`: of an earlier snapshot, which nobody needs any more; None: in memory of its own."""
        copies = copies or HostCopies()
        tensors = {name: copies.of(f"optimizer.{name}", t) for name, t in shard.tensors.items()}
        tensors["train_sums"] = copies.of("train_sums", sums)
        tensors |= {name: state.clone() for name, state in _random_states().items()}
        layout = {"starts": shard.starts, "spans": [asdict(s) for s in shard.spans], "step": shard.step}
        weights = {n: copies.of(f"model.{n}", t) for n, t in model.state_dict().items()} if model is not None else None
        return cls(global_step=global_step, model=weights, shard=tensors, layout=layout, state=state)


class CheckpointWriter:
    """One a rank. `save` hands a snapshot to a thread and waits only for the snapshot before it."""

    def __init__(
        self, run: Storage, *, rank: int, world_size: int, on_commit: Callable[[Snapshot], None] | None = None
    ) -> None:
        """`on_commit`: called on rank 0, in the writing thread, when a snapshot has become a checkpoint."""
        self.run, self.rank, self.world_size, self.on_commit = run, rank, world_size, on_commit
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, snapshot: Snapshot) -> None:
        self.wait()
        self._thread = threading.Thread(
            target=self._write_safely, args=(snapshot,), name="checkpoint-writer", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until the last snapshot is committed (rank 0) or handed in (others). Raises what its writing raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what the writing has raised, without waiting for it."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write_safely(self, snapshot: Snapshot) -> None:
        try:
            self._write(snapshot)
        except BaseException as error:
            self._error = error
            with contextlib.suppress(Exception):  # a full disk: room for the row that says so
                self._discard(snapshot)

    def _discard(self, snapshot: Snapshot) -> None:
        """What this rank wrote of a checkpoint that will never be one; a storage that has gone is not waited for again."""
        names = [_file_of(self.rank, self.world_size), f"receipt-{self.rank:03d}.json"]
        for name in [*names, "model.safetensors"] if self.rank == 0 else names:
            self.run.patient(0.0).delete(f"{step_folder(snapshot.global_step)}/{name}")

    def _write(self, snapshot: Snapshot) -> None:
        folder = step_folder(snapshot.global_step)
        files = {_file_of(self.rank, self.world_size): snapshot.shard}
        if snapshot.model is not None:
            files["model.safetensors"] = snapshot.model
        receipt = {name: self._put(f"{folder}/{name}", tensors) for name, tensors in files.items()}
        self.run.write_json(f"{folder}/receipt-{self.rank:03d}.json", {"files": receipt, "layout": snapshot.layout})
        if self.rank == 0:
            self._commit(folder, snapshot)

    def _put(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        target = Path(self.run.path(name))
        if self.run.is_local:  # no manifest names it yet: it can be written in place
            return self.run.persist(lambda: _save(tensors, target))
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / target.name
            entry = _save(tensors, path)
            self.run.upload(path, name)
            return entry

    def _commit(self, folder: str, snapshot: Snapshot) -> None:
        """Wait for every rank's receipt, then write the manifest that makes the folder a checkpoint."""
        names = [f"receipt-{rank:03d}.json" for rank in range(self.world_size)]
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while missing := [n for n in names if not self.run.exists(f"{folder}/{n}")]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"checkpoint {folder}: no {', '.join(missing)} after {COMMIT_TIMEOUT_S:.0f} s")
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


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A valid checkpoint, its files at hand as local paths."""

    global_step: int
    world_size: int
    folder: Path
    layouts: list[dict[str, Any]]
    state: dict[str, Any]

    def load_model(self, model: torch.nn.Module) -> None:
        load_weights(model, self.folder / "model.safetensors")

    def train_sums(self, *, rank: int, world_size: int) -> Tensor:
        """This rank's running sums; at another world size rank 0 takes the total."""
        parts = [self._tensor(r, "train_sums") for r in range(self.world_size)]
        if world_size == self.world_size:
            return parts[rank]
        return torch.stack(parts).sum(0) if rank == 0 else torch.zeros_like(parts[0])

    def restore_random_states(self, *, rank: int, world_size: int) -> None:
        """At another world size nothing: no rank of it has drawn these numbers."""
        if world_size == self.world_size:
            torch.set_rng_state(self._tensor(rank, "rng.cpu"))
            if torch.cuda.is_initialized() and "rng.cuda" in self._names(rank):
                torch.cuda.set_rng_state(self._tensor(rank, "rng.cuda"))

    def _names(self, rank: int) -> set[str]:
        with safe_open(self.folder / _file_of(rank, self.world_size), framework="pt") as file:
            return set(file.keys())

    def _tensor(self, rank: int, name: str) -> Tensor:
        with safe_open(self.folder / _file_of(rank, self.world_size), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def optimizer_shard(self, own: OptimizerShard) -> OptimizerShard:
        """AdamW's moments cut for `own.starts` and `own.spans`, whatever the world size they were saved at."""
        old_spans = {span["name"]: Span(**span) for span in self.layouts[0]["spans"]}
        tensors = {}
        for key, mine in own.tensors.items():
            group, name = int(key.split(".")[0]), key.split(".")[1]
            out = torch.zeros(mine.numel(), dtype=torch.float32)
            low, high = own.starts[group], own.starts[group] + mine.numel()
            for span in own.spans:
                a, b = max(low, span.offset), min(high, span.offset + span.numel)
                if span.group == group and a < b:
                    old = old_spans[span.name]
                    begin = old.offset + (a - span.offset)
                    out[a - low : b - low] = self._flat(old.group, name, begin, begin + (b - a))
            tensors[key] = out
        step = float(self.layouts[0]["step"])
        return OptimizerShard(tensors=tensors, starts=own.starts, spans=own.spans, step=step)

    def _flat(self, group: int, name: str, begin: int, end: int) -> Tensor:
        """Elements [begin, end) of a group's vector, out of the shards that hold them."""
        pieces = []
        for rank, layout in enumerate(self.layouts):
            with safe_open(self.folder / _file_of(rank, self.world_size), framework="pt") as file:
                stored = file.get_slice(f"{group}.{name}")
                start, numel = layout["starts"][group], stored.get_shape()[0]
                a, b = max(begin, start), min(end, start + numel)
                if a < b:
                    pieces.append(stored[a - start : b - start])
        return torch.cat(pieces)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Strict, tensors only, into the module's own storage."""
    with torch.no_grad(), safe_open(path, framework="pt") as file:
        own = model.state_dict()
        if set(own) != set(file.keys()):
            raise ValueError(f"{path}: its tensors are not those of the model")
        for name, tensor in own.items():
            tensor.copy_(file.get_tensor(name))


def committed_steps(run: Storage) -> list[int]:
    """Steps whose folder has a manifest, ascending; whether it is valid is not looked at."""
    names = [n for n in run.list(CHECKPOINT_FOLDER) if n.startswith("step-") and n[5:].isdigit()]
    return sorted(int(n[5:]) for n in names if run.exists(f"{CHECKPOINT_FOLDER}/{n}/manifest.json"))


def fetch(run: Storage, global_step: int, scratch: Path) -> Checkpoint:
    """Check every file against the manifest and return the checkpoint. Raises ValueError where anything is off."""
    folder = step_folder(global_step)
    try:
        manifest = run.read_json(f"{folder}/manifest.json")
        _check_manifest(manifest, global_step)
        local = Path(run.path(folder)) if run.is_local else scratch / Path(folder).name
        for name, entry in manifest["files"].items():
            if not run.is_local:
                run.download(f"{folder}/{name}", local / name)
            if _digest(local / name) != entry:
                raise ValueError(f"{name} is not what was written")
        return Checkpoint(
            global_step=manifest["global_step"],
            world_size=manifest["world_size"],
            folder=local,
            layouts=manifest["layouts"],
            state=manifest["state"],
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"checkpoint {folder}: {error}") from error


def _check_manifest(manifest: Any, global_step: int) -> None:
    """Raises ValueError where it is not what this version writes; so it names no files but the checkpoint's own."""
    if not isinstance(manifest, dict):
        raise ValueError("manifest.json holds no object")
    if manifest["checksum"] != checksum({k: v for k, v in manifest.items() if k != "checksum"}):
        raise ValueError("manifest.json is not what was written")
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
    if manifest["global_step"] != global_step:
        raise ValueError(f"its manifest is of step {manifest['global_step']}")
    world_size, files, layouts = manifest["world_size"], manifest["files"], manifest["layouts"]
    expected = {"model.safetensors", *(_file_of(rank, world_size) for rank in range(world_size))}
    if not isinstance(files, dict) or set(files) != expected:
        raise ValueError(f"its manifest does not name the files of {world_size} ranks, and them alone")
    if not isinstance(layouts, list) or len(layouts) != world_size or not isinstance(manifest["state"], dict):
        raise ValueError("its manifest is incomplete")


def newest_valid(run: Storage, scratch: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; each newer one that is not is told through `warn`."""
    for step in reversed(committed_steps(run)):
        try:
            return fetch(run, step, scratch)
        except ValueError as error:
            warn(f"{error}; going back to the one before")
    return None


def prune(run: Storage, *, keep: int, protect: Sequence[int]) -> None:
    """Delete all but the `keep` newest committed checkpoints and those in `protect`; half-written older ones too."""
    committed = committed_steps(run)
    kept = {*committed[-keep:], *protect}
    newest = committed[-1] if committed else -1
    for name in run.list(CHECKPOINT_FOLDER):
        step = int(name[5:]) if name.startswith("step-") and name[5:].isdigit() else None
        if step is not None and step not in kept and step < newest:
            run.delete(f"{CHECKPOINT_FOLDER}/{name}")


def drop_uncommitted(run: Storage) -> None:
    """What an earlier attempt was killed in the middle of; nobody else writes to the run now."""
    committed = {Path(step_folder(step)).name for step in committed_steps(run)}
    for name in run.list(CHECKPOINT_FOLDER):
        if name not in committed:
            run.delete(f"{CHECKPOINT_FOLDER}/{name}")


def record_to_json(record: EpochRecord) -> dict[str, object]:
    values = asdict(record)
    values["written_at"] = record.written_at.isoformat() if record.written_at else None
    return values


def record_from_json(values: dict[str, str]) -> EpochRecord:
    record = EpochRecord(**values)  # type: ignore[arg-type]
    stamp = values["written_at"]
    return replace(record, written_at=dt.datetime.fromisoformat(stamp) if stamp else None)
