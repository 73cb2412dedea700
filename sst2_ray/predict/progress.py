"""Progress of a long prediction: rows done, rows a second, and the time left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from sst2_ray.errors import StoppedError
from sst2_ray.formatting import count, duration

_LINE_EVERY_S = 10.0
"""Seconds between two lines where the output is no terminal."""


class RowProgress:
    """Rows done, rows a second and the time left: a live line in a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, *, done: int) -> None:
        self.total, self._before, self._done = total, done, done
        self._start = self._said = time.monotonic()
        self._out = Console(stderr=True)
        self._live = self._out.status("") if self._out.is_terminal else None
        if done:
            self._out.print(f"{done:,} of {total:,} rows are there already", highlight=False)
        if self._live is not None:
            self._live.start()
            self.show(done)

    def show(self, done: int) -> None:
        """Show that so many rows are done."""
        self._done = done
        now = time.monotonic()
        rate = (done - self._before) / (now - self._start) if done > self._before else None
        left = f", {rate:,.0f} rows/s, {duration((self.total - done) / rate)} left" if rate else ""
        line = f"{done:,} of {count(self.total, 'row')}{left}"
        if self._live is not None:
            self._live.update(line)
        elif now - self._said >= _LINE_EVERY_S or done == self.total:
            self._said = now
            self._out.print(line, highlight=False, soft_wrap=True)

    def __enter__(self) -> RowProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if kind is KeyboardInterrupt:
            raise StoppedError(
                f"stopped: {self._done:,} of {self.total:,} rows are written; the same command does the rest"
            ) from None
