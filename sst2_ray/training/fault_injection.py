"""Injected faults at exact places, so that tests can state what a run survives and replay it.

`SST2_RAY_FAULTS` holds a JSON list of objects: `kind`, `attempt`, `rank`, `step` (optimizer steps done when it happens)
and `path`, a file that is created when it happens. Without the variable nothing happens.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

VARIABLE = "SST2_RAY_FAULTS"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Fault of a rank at a step.

    kill: SIGKILL to this process. stop: SIGSTOP. hang: a collective that no other rank enters. nan: this rank's weights
    become NaN before the next step. oom: torch's error for full GPU memory. slow: every step from this one on takes 50 ms
    longer. tell: only `path` is created, for a test that kills something from outside.
    """

    kind: Literal["kill", "stop", "hang", "nan", "oom", "slow", "tell"]
    attempt: int
    rank: int
    step: int
    path: str = ""


def planned(*, attempt: int, rank: int) -> list[Fault]:
    """Read the faults of this rank in this attempt."""
    faults = [Fault(**values) for values in json.loads(os.environ.get(VARIABLE) or "[]")]
    return [fault for fault in faults if (fault.attempt, fault.rank) == (attempt, rank)]


def hook_of(faults: list[Fault], model: torch.nn.Module, device: torch.device) -> Callable[[int], None] | None:
    """Make the hook that the loop calls after every step; None: nothing is planned."""
    if not faults:
        return None

    def hook(done: int) -> None:
        for fault in faults:
            if fault.kind == "slow" and done >= fault.step:
                time.sleep(0.05)
            elif done == fault.step:
                _inject(fault, model, device)

    return hook


def _inject(fault: Fault, model: torch.nn.Module, device: torch.device) -> None:
    if fault.path:
        Path(fault.path).touch()
    if fault.kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.kind == "hang":
        sender = (fault.rank + 1) % torch.distributed.get_world_size()
        # A tag of its own, so that it does not receive what the next step sends.
        torch.distributed.recv(torch.zeros(1, device=device), src=sender, tag=1)
    elif fault.kind == "nan":
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
    elif fault.kind == "oom":
        raise torch.OutOfMemoryError("injected")
