"""SIGINT, SIGTERM and SIGHUP, which mean the same to every command."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTICE = "stopping: writing a checkpoint (interrupt again to stop at once)"

_ONE_S = 0.5
"""Seconds within which the same signal is one request: `timeout` sends it to the command and to its group."""


class StopSignals:
    """Handlers of SIGINT, SIGTERM and SIGHUP while a run or a sweep is under way.

    Each of them raises KeyboardInterrupt in the main thread. Inside `graceful()` the first one asks for a checkpoint, the
    second one to end at once, and only a third one raises. Where the session runs in another thread Python cannot install
    handlers, and the program's own stay. SIGHUP stays ignored under nohup.
    """

    def __init__(self, request: Callable[[], None], announce: Callable[[str], None]) -> None:
        """Prepare handlers that are not installed yet.

        Args:
            request: asks the run to stop; called in a handler.
            announce: shows a line to the user; called in a thread, since a handler may interrupt a print.
        """
        self._request, self._announce = request, announce
        self._before: dict[signal.Signals, Any] = {}
        self._is_graceful = False
        self._num_requests = 0
        self._last: tuple[int, float] = (0, -_ONE_S)

    def install(self) -> None:
        """Install the handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            before = signal.signal(number, self._handle)
            self._before.setdefault(number, before)

    def restore(self) -> None:
        """Put the handlers back that the program had."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not installed by Python
        self._before.clear()

    @contextlib.contextmanager
    def graceful(self) -> Iterator[None]:
        """Let signals ask the run to stop instead of ending the command."""
        self._is_graceful = True
        try:
            yield
        finally:
            self._is_graceful = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        (last, at), now = self._last, time.monotonic()
        self._last = number, now
        if self._is_graceful and number == last and now - at < _ONE_S:
            return
        self._num_requests += self._is_graceful
        if not self._is_graceful or self._num_requests > 2:
            raise KeyboardInterrupt
        self._request()
        if self._num_requests == 1:
            threading.Thread(target=self._announce, args=(NOTICE,), daemon=True).start()
