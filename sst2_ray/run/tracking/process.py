"""The process of one tracker: reads events from a file and passes them on, for as long as that takes.

Started by `trackers.Trackers` as `python -m sst2_ray.run.tracking.process NAME FOLDER EXPERIMENT SECONDS`. Its standard
input stays open while the run goes on; when it ends, for whatever reason, the process has so many seconds left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from sst2_ray.run.tracking.services import REQUEST_S, RefusedError, make_tracker, send

FOLDER = "trackers"
"""Folder below that of a run or a sweep: the events and how far each tracker has got with them."""

EVENTS_FILE = "events.jsonl"

SLOW_S = REQUEST_S + 2
"""Seconds after which an event that is being sent counts as a problem."""

_LOOK_S, _FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 1.0, 10.0

T = TypeVar("T")


@dataclass
class State:
    """Progress of a tracker through the events, kept in a file, so that a later session of the run goes on there."""

    position: int = 0
    """Bytes of the events file that were sent."""
    runs: dict[str, str] = field(default_factory=dict)
    """The tracker's own id of each run."""

    @classmethod
    def read(cls, path: Path) -> State:
        """Read the state; the beginning where there is none."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(dataclasses.asdict(self)))
        partial.replace(path)


class Sending:
    """The loop of the process, and the two threads that watch it."""

    def __init__(self, name: str, folder: Path, experiment: str, give_up_s: float) -> None:
        self._events, self._state_file = folder / FOLDER / EVENTS_FILE, folder / FOLDER / f"{name}.json"
        self._state = State.read(self._state_file)
        self._make = partial(make_tracker, name, folder, experiment, self._state.runs)
        self._give_up_s = give_up_s
        self._has_ended = threading.Event()
        self._busy_since: float | None = None

    def run(self) -> None:
        """Send events until there are no more and none can come."""
        threading.Thread(target=self._watch_input, daemon=True).start()
        threading.Thread(target=self._watch_time, daemon=True).start()
        tracker = self._persist(self._make)
        assert tracker is not None
        while True:
            last_look = self._has_ended.is_set()
            line = self._next_line()
            if line is not None:
                self._persist(partial(send, tracker, line))
                self._state.position += len(line)
                self._state.write(self._state_file)
            elif last_look:
                return
            else:
                self._has_ended.wait(_LOOK_S)

    def _next_line(self) -> bytes | None:
        with self._events.open("rb") as file:
            file.seek(self._state.position)
            line = file.readline()
        return line if line.endswith(b"\n") else None

    def _persist(self, action: Callable[[], T]) -> T | None:
        """Run an action until it succeeds, with growing pauses; returns None where it never can."""
        wait_s, has_failed = _FIRST_WAIT_S, False
        while True:
            self._busy_since = self._busy_since or time.monotonic()
            try:
                result = action()
            except RefusedError as error:
                self._busy_since = None
                tell(str(error))
                return None
            except Exception as error:
                has_failed = True
                tell(f"{type(error).__name__}: {error}".splitlines()[0][:200])
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            self._busy_since = None
            if has_failed:
                tell(None)
            return result

    def _watch_input(self) -> None:
        """Wait for the end of the run; what is not sent some seconds later is given up."""
        sys.stdin.read()
        self._has_ended.set()
        time.sleep(self._give_up_s)
        os._exit(1)

    def _watch_time(self) -> None:
        """Tell when an event has been under way for long."""
        while True:
            time.sleep(1)
            if self._busy_since is not None and time.monotonic() - self._busy_since > SLOW_S:
                tell("does not answer")


def tell(problem: str | None) -> None:
    """Tell the driver of a problem, or that it is over."""
    print(json.dumps({"problem": problem}), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    Sending(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])).run()
