"""Checkpoints that any number of workers can resume from: safetensors and JSON, never a pickle.

`checkpoints/step-<global_step>/` holds `model.safetensors` (fp32 weights, which are also ZeRO's masters), one
`optimizer-<rank>-of-<world>.safetensors` a rank (its flat share of AdamW's moments) and, written last, `manifest.json`
with every file's size and SHA-256, the position, the records so far and a checksum of its own: a folder without a manifest
that fits is not a checkpoint. Here they are read, checked and deleted; writer.py writes them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sst2_ray.records import EpochRecord
from sst2_ray.storage import Storage
from sst2_ray.training.checkpoint.snapshot import JsonObject
from sst2_ray.training.checkpoint.steps import committed_steps as committed_steps
from sst2_ray.training.checkpoint.steps import step_folder as step_folder
from sst2_ray.training.engine.base import OptimizerShard, Span
from sst2_ray.training.names import CHECKPOINT_FOLDER

FORMAT = 1

_DAMAGE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError, TypeError, ValueError, SafetensorError)
"""Errors of reading a damaged checkpoint. Any other OSError comes from the storage or a full disk and says nothing about
the checkpoint."""


def file_of(rank: int, world_size: int) -> str:
    """Return the file name of a rank's share of the optimizer's state."""
    return f"optimizer-{rank:03d}-of-{world_size:03d}.safetensors"


def digest_of(path: Path) -> JsonObject:
    """Compute a file's entry in the manifest: size and SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def checksum(manifest: JsonObject) -> str:
    """Compute SHA-256 over the canonical JSON of a manifest without its checksum."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Valid checkpoint whose files are local."""

    global_step: int
    world_size: int
    folder: Path
    layouts: list[JsonObject]
    state: JsonObject

    def load_model(self, model: torch.nn.Module) -> None:
        """Load the weights into `model`."""
        load_weights(model, self.folder / "model.safetensors")

    def train_sums(self, *, rank: int, world_size: int) -> Tensor:
        """Return this rank's running sums; at another world size rank 0 gets the total."""
        parts = [self._tensor(r, "train_sums") for r in range(self.world_size)]
        if world_size == self.world_size:
            return parts[rank]
        return torch.stack(parts).sum(0) if rank == 0 else torch.zeros_like(parts[0])

    def restore_random_states(self, *, rank: int, world_size: int) -> None:
        """Restore this rank's generators; at another world size nothing, since no rank has drawn these numbers."""
        if world_size == self.world_size:
            torch.set_rng_state(self._tensor(rank, "rng.cpu"))
            if torch.cuda.is_initialized() and "rng.cuda" in self._names(rank):
                torch.cuda.set_rng_state(self._tensor(rank, "rng.cuda"))

    def _names(self, rank: int) -> set[str]:
        with safe_open(self.folder / file_of(rank, self.world_size), framework="pt") as file:
            return set(file.keys())

    def _tensor(self, rank: int, name: str) -> Tensor:
        with safe_open(self.folder / file_of(rank, self.world_size), framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def optimizer_shard(self, own: OptimizerShard) -> OptimizerShard:
        """Cut AdamW's moments for `own.starts` and `own.spans`, whatever the world size they were saved at."""
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
        """Read elements [begin, end) of a group's vector out of the shards that hold them."""
        pieces = []
        for rank, layout in enumerate(self.layouts):
            with safe_open(self.folder / file_of(rank, self.world_size), framework="pt") as file:
                stored = file.get_slice(f"{group}.{name}")
                start, numel = layout["starts"][group], stored.get_shape()[0]
                a, b = max(begin, start), min(end, start + numel)
                if a < b:
                    pieces.append(stored[a - start : b - start])
        return torch.cat(pieces)


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load tensors into the module's own storage; their names must be exactly the module's."""
    with torch.no_grad(), safe_open(path, framework="pt") as file:
        own = model.state_dict()
        if set(own) != set(file.keys()):
            raise ValueError(f"{path}: its tensors are not those of the model")
        for name, tensor in own.items():
            tensor.copy_(file.get_tensor(name))


def fetch(run: Storage, global_step: int, scratch: Path) -> Checkpoint:
    """Check every file against the manifest and return the checkpoint.

    Raises ValueError where anything is off, OSError where it cannot be read.
    """
    folder = step_folder(global_step)
    try:
        manifest = run.read_json(f"{folder}/manifest.json")
        _check_manifest(manifest, global_step)
        local = Path(run.path(folder)) if run.is_local else scratch / Path(folder).name
        for name, entry in manifest["files"].items():
            if not run.is_local:
                run.download(f"{folder}/{name}", local / name)
            if run.retry(partial(digest_of, local / name)) != entry:
                raise ValueError(f"{name} is not what was written")
        return Checkpoint(
            global_step=manifest["global_step"],
            world_size=manifest["world_size"],
            folder=local,
            layouts=manifest["layouts"],
            state=manifest["state"],
        )
    except _DAMAGE as error:
        raise ValueError(f"checkpoint {folder}: {error}") from error


def _check_manifest(manifest: object, global_step: int) -> None:
    """Raise ValueError unless this version could have written it; so it names only the checkpoint's own files."""
    if not isinstance(manifest, dict):
        raise ValueError("manifest.json holds no object")
    if manifest["checksum"] != checksum({k: v for k, v in manifest.items() if k != "checksum"}):
        raise ValueError("manifest.json is not what was written")
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}, this version reads {FORMAT}")
    if manifest["global_step"] != global_step:
        raise ValueError(f"its manifest is of step {manifest['global_step']}")
    world_size, files, layouts = manifest["world_size"], manifest["files"], manifest["layouts"]
    expected = {"model.safetensors", *(file_of(rank, world_size) for rank in range(world_size))}
    if not isinstance(files, dict) or set(files) != expected:
        raise ValueError(f"its manifest does not name the files of {world_size} ranks, and them alone")
    if not isinstance(layouts, list) or len(layouts) != world_size or not isinstance(manifest["state"], dict):
        raise ValueError("its manifest is incomplete")


def newest_valid(run: Storage, scratch: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest valid checkpoint, warning of each damaged one that is newer.

    Raises OSError where the storage does not let it be checked.
    """
    for step in reversed(committed_steps(run)):
        try:
            return fetch(run, step, scratch)
        except ValueError as error:
            warn(f"{error}; going back to the one before")
    return None


def prune(run: Storage, *, keep: int, protect: Sequence[int], newest: int) -> None:
    """Delete old checkpoints, leaving the last `keep` up to `newest`, which was just written, and those in `protect`.

    Half-written ones before `newest` are deleted too; other ranks may be writing those above it.
    """
    kept = {*[step for step in committed_steps(run) if step <= newest][-keep:], *protect}
    for name in run.list(CHECKPOINT_FOLDER):
        step = int(name[5:]) if name.startswith("step-") and name[5:].isdigit() else None
        if step is not None and step not in kept and step < newest:
            run.delete(f"{CHECKPOINT_FOLDER}/{name}")


def drop_newer(run: Storage, global_step: int) -> None:
    """Delete the checkpoints above `global_step`, which are damaged, before ranks that resume from it write them again."""
    for step in committed_steps(run):
        if step > global_step:
            run.delete(step_folder(step))


def drop_uncommitted(run: Storage) -> None:
    """Delete half-written checkpoints of an attempt that was killed; nothing else writes to the run now."""
    committed = {Path(step_folder(step)).name for step in committed_steps(run)}
    for name in run.list(CHECKPOINT_FOLDER):
        if name not in committed:
            run.delete(f"{CHECKPOINT_FOLDER}/{name}")


def record_to_json(record: EpochRecord) -> dict[str, object]:
    """Convert a record to JSON values."""
    values = asdict(record)
    values["written_at"] = record.written_at.isoformat() if record.written_at else None
    return values


def record_from_json(values: dict[str, str]) -> EpochRecord:
    """Restore a record from `record_to_json`."""
    record = EpochRecord(**values)  # type: ignore[arg-type]
    stamp = values["written_at"]
    return replace(record, written_at=dt.datetime.fromisoformat(stamp) if stamp else None)
