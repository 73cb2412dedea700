"""Durations and costs of trials, and the limit that they may not exceed.

A budget in dollars is one in hours: nodes are paid for from the sweep's first second to its last, whatever runs on them.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from sst2_ray.config.sweep import SweepConfig
from sst2_ray.config.train import TrainConfig
from sst2_ray.storage import Storage

CLOCK_FILE = "clock.json"
WRITE_EVERY_S = 15.0


def num_examples(config: TrainConfig, num_train_rows: int) -> int:
    """Count the training examples of a whole run."""
    everything = config.epochs * num_train_rows
    return min(everything, config.max_steps * config.batch_size) if config.max_steps else everything


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """A finished trial."""

    model: str
    batch_size: int
    examples: int
    seconds: float
    in_sweep: bool


@dataclass
class Durations:
    """Seconds that finished trials took, from which those of others are predicted."""

    num_train_rows: int
    _timed: list[_Timed] = field(default_factory=list)

    def add(self, config: TrainConfig, seconds: float) -> None:
        """Add a finished trial of this sweep."""
        self._add(config, seconds, self.num_train_rows, in_sweep=True)

    def add_earlier(self, config: TrainConfig, seconds: float, num_train_rows: int) -> None:
        """Add a run of another name; it counts only as long as this sweep has none of that model itself."""
        self._add(config, seconds, num_train_rows, in_sweep=False)

    def _add(self, config: TrainConfig, seconds: float, num_train_rows: int, *, in_sweep: bool) -> None:
        examples = num_examples(config, num_train_rows)
        self._timed.append(
            _Timed(
                model=config.model,
                batch_size=config.batch_size,
                examples=examples,
                seconds=seconds,
                in_sweep=in_sweep,
            )
        )

    def predict(self, config: TrainConfig) -> float | None:
        """Predict the seconds of a trial; None: this model has not been timed yet.

        The mean of the trials that are most alike (of this sweep, of the same batch size, of the same length), in
        proportion to the examples.
        """
        kept: dict[tuple[bool, bool, bool], list[float]] = defaultdict(list)
        examples = num_examples(config, self.num_train_rows)
        for timed in self._timed:
            if timed.model == config.model:
                likeness = (timed.in_sweep, timed.batch_size == config.batch_size, timed.examples == examples)
                kept[likeness].append(timed.seconds * examples / timed.examples)
        best = kept[max(kept)] if kept else []
        return sum(best) / len(best) if best else None


class _Session(TypedDict):
    """A session of a sweep as clock.json holds it."""

    started_at: str
    seconds: float
    usd_per_hour: float | None


class SweepClock:
    """Wall-clock of a sweep over all its sessions, kept in a file that is written now and then: a kill loses seconds.

    Args:
        folder: The sweep's folder.
        usd_per_hour: Price of this session's nodes together; None: no price was given. Earlier sessions had their own.
        num_trials: Counts the trials of the whole sweep, as far as is known; kept in the file for `status` and `ls`.
        now: The clock, in seconds.
    """

    def __init__(
        self, folder: Storage, usd_per_hour: float | None = None, *, num_trials: Callable[[], int] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.folder, self.usd_per_hour, self._num_trials, self._now = folder, usd_per_hour, num_trials, now
        self.sessions: list[_Session] = folder.read_json(CLOCK_FILE)["sessions"] if folder.exists(CLOCK_FILE) else []
        self.earlier_s = sum(session["seconds"] for session in self.sessions)
        self._began = now()
        self._written = now()
        started = dt.datetime.now(dt.UTC).isoformat()
        self._this: _Session = {"started_at": started, "seconds": 0.0, "usd_per_hour": usd_per_hour}

    @property
    def earlier_usd(self) -> float:
        """Return the cost of the earlier sessions, each at its own price; at this one's where it had none."""
        return sum(
            session["seconds"] / 3600 * (session.get("usd_per_hour") or self.usd_per_hour or 0.0)
            for session in self.sessions
        )

    @property
    def seconds(self) -> float:
        """Add up all sessions, this one included."""
        return self.earlier_s + self.this_session

    @property
    def this_session(self) -> float:
        """Return the seconds since this session began."""
        return self._now() - self._began

    def tick(self, *, force: bool = False) -> None:
        """Write the file if it is due."""
        if force or self._now() - self._written >= WRITE_EVERY_S:
            self._written = self._now()
            self._this["seconds"] = round(self.this_session, 1)
            number = {"num_trials": self._num_trials()} if self._num_trials else {}
            self.folder.write_json(CLOCK_FILE, {"sessions": [*self.sessions, self._this], **number})


def read_num_trials(folder: Storage) -> int | None:
    """Read how many trials a sweep was to have when its clock was last written; None where that is not known."""
    try:
        number = folder.read_json(CLOCK_FILE).get("num_trials")
    except (FileNotFoundError, ValueError, AttributeError):  # none yet, or damaged: not worth failing a listing for
        return None
    return number if isinstance(number, int) else None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The limit on a sweep's wall-clock over all its sessions, and what that costs."""

    hours: float | None
    usd: float | None
    price_per_hour: float | None
    """US dollars an hour and node."""
    num_nodes: int
    earlier_s: float = 0.0
    """Seconds of the sessions before this one, on however many nodes at whatever price."""
    earlier_usd: float = 0.0

    @property
    def usd_per_hour(self) -> float | None:
        """Return the price of all nodes; None: no price was given."""
        return None if self.price_per_hour is None else self.price_per_hour * self.num_nodes

    @property
    def limit_s(self) -> float | None:
        """Return the limit in seconds; None: no limit."""
        limits = []
        if self.hours is not None:
            limits.append(self.hours * 3600)
        if self.usd is not None and self.usd_per_hour:
            limits.append(self.earlier_s + (self.usd - self.earlier_usd) / self.usd_per_hour * 3600)
        return min(limits) if limits else None

    def cost(self, seconds: float | None) -> float | None:
        """Return the US dollars of so many seconds, earlier sessions included; None: no price was given."""
        if seconds is None or self.usd_per_hour is None:
            return None
        return self.earlier_usd + (seconds - self.earlier_s) / 3600 * self.usd_per_hour

    def allows(self, used_s: float, next_s: float | None, running_left_s: Iterable[float]) -> bool:
        """Tell whether a trial of `next_s` seconds may start after `used_s`, while others run for so much longer.

        A trial of unknown duration (None) may start while anything is left: it is how durations become known.
        """
        if self.limit_s is None:
            return True
        if next_s is None:
            return used_s < self.limit_s
        return used_s + max(next_s, *running_left_s, 0.0) <= self.limit_s


def budget_of(config: SweepConfig, *, num_nodes: int) -> Budget:
    """Return the budget that a sweep's flags name, before its first session."""
    return Budget(
        hours=config.budget_hours,
        usd=config.budget_usd,
        price_per_hour=config.base.price_per_hour,
        num_nodes=num_nodes,
    )


def makespan(durations: Sequence[float], slots: int) -> float:
    """Return the seconds until all trials are done, each started as soon as one of `slots` is free, in this order."""
    ends = [0.0] * max(1, slots)
    for seconds in durations:
        first = min(range(len(ends)), key=ends.__getitem__)
        ends[first] += seconds
    return max(ends)
