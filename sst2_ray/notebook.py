"""Progress in a notebook: one output of a cell that is redrawn in place."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

INTERVAL_S = 0.5


class NotebookView:
    """An output of a notebook's cell that is redrawn in place, so that progress is not a line each."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn_at = -math.inf

    def show(self, html: str, *, at_once: bool = False) -> None:
        """Draw, but no more often than `INTERVAL_S` unless `at_once`."""
        if not at_once and time.monotonic() - self._drawn_at < INTERVAL_S:
            return
        from IPython.display import HTML, display  # what runs in a notebook has it

        self._drawn_at = time.monotonic()
        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._handle is not None:
            self.show("", at_once=True)


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(get_ipython(), "kernel")
