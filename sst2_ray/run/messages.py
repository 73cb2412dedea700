"""Messages between the driver, the progress actor and the workers of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sst2_ray.records import EpochRecord
from sst2_ray.run.workspace import Workspace
from sst2_ray.training.names import Phase
from sst2_ray.training.outcome import PhaseSeconds
from sst2_ray.training.task import Task

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from ray.util.placement_group import PlacementGroup

    from sst2_ray.data.texts import Text
    from sst2_ray.data.tokens import TokenArrays


@dataclass(frozen=True, kw_only=True)
class WorkerPayload:
    """Complete payload that the driver hands to each worker of an attempt."""

    task: Task
    splits: Mapping[str, ObjectRef[TokenArrays]]
    texts: ObjectRef[Sequence[Text]]
    """Texts of dev."""
    workspace: Workspace
    run_path: str
    """Folder of the run below the storage path."""
    progress_actor: ActorHandle


# ---- events: told once, in order


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """The node and the device that a rank runs on."""

    rank: int
    world_size: int
    node_id: str
    address: str
    gpu: str | None
    """Model name; None: it computes on CPUs."""
    cuda: str | None
    """CUDA version that torch was built for."""
    actor: ActorHandle
    placement_group: PlacementGroup | None


@dataclass(frozen=True, kw_only=True)
class Note:
    """A line for the user."""

    line: str


@dataclass(frozen=True, kw_only=True)
class HungRank:
    """A rank that found that it makes no progress, in one line."""

    line: str


@dataclass(frozen=True, kw_only=True)
class MicroBatchLimit:
    """Most tokens that a worker computes at once."""

    tokens: int


Event = EpochRecord | NodeFacts | Note | HungRank | MicroBatchLimit


# ---- states: the newest counts


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The position of rank 0; None: not known before the first step."""

    phase: Phase
    global_step: int = 0
    total_steps: int | None = None
    epoch: float | None = None
    train_loss: float | None = None
    """Mean of the last minute."""
    examples_per_sec: float | None = None
    """Training speed of the last minute, evaluations and checkpoints left out."""
    seconds_left: float | None = None
    """Expected time to the last step."""
    first_global_step: int | None = None
    """Steps done when the attempt began: those of the checkpoint that it went on from."""
    first_step_at: float | None = None
    """time.time() at the first step of the attempt."""
    saved_step: int | None = None
    """Steps at the newest checkpoint that this attempt has put on storage."""
    phase_seconds: PhaseSeconds = field(default_factory=PhaseSeconds)
    """Seconds so far in this attempt."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """A sign of life of a rank, sent twice a second by a thread of its own."""

    global_step: int
    phase: Phase
    still_s: float
    """Seconds since the rank last moved, as it says itself."""
    age_s: float = 0.0
    """Seconds since the progress actor heard it."""


@dataclass(frozen=True, kw_only=True)
class TrialOverview:
    """The position of a trial, for those who watch many."""

    progress: Progress | None = None
    evaluation: EpochRecord | None = None
    """The last one."""
    idle_s: float = 0.0
    """Seconds since anything of it moved."""


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """Snapshot of everything that the progress actor knows of an attempt."""

    progress: Progress | None
    events: tuple[tuple[int, Event], ...]
    """Numbered, ascending."""
    heartbeats: Mapping[int, Heartbeat]
    """Heartbeats by rank."""
