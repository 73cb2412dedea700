"""Steps that a run has checkpoints of, by the names of their folders. Imports no torch: drivers look as well."""

from __future__ import annotations

from sst2_ray.storage import Storage
from sst2_ray.training.names import CHECKPOINT_FOLDER


def step_folder(global_step: int) -> str:
    """Return the folder of a checkpoint, below the run's."""
    return f"{CHECKPOINT_FOLDER}/step-{global_step:08d}"


def committed_steps(run: Storage) -> list[int]:
    """List the steps whose folder has a manifest, ascending; whether it is valid is not checked."""
    names = [n for n in run.list(CHECKPOINT_FOLDER) if n.startswith("step-") and n[5:].isdigit()]
    return sorted(int(n[5:]) for n in names if run.exists(f"{CHECKPOINT_FOLDER}/{n}/manifest.json"))
