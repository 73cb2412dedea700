"""The file behind a console: it outlives its reader, and where nobody watches it has no padding."""

from __future__ import annotations

import io
import os
import re
from typing import TextIO

_PADDING = re.compile(r" +(?=\n)")


class LastingFile(io.TextIOBase):
    """A text file that takes everything and writes it as long as somebody reads: a pipe may break, a terminal close."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._is_lost = file, False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._file.encoding

    def isatty(self) -> bool:
        return not self._is_lost and self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, text: str) -> int:
        if not self._is_lost:
            try:
                # A table's lines are filled up to its width: in a file that would be a screen of spaces a line.
                self._file.write(text if self.isatty() else without_padding(text))
            except OSError:
                self._lose()
        return len(text)

    def flush(self) -> None:
        if not self._is_lost:
            try:
                self._file.flush()
            except OSError:
                self._lose()

    def _lose(self) -> None:
        """Write nothing more; what is buffered goes to the null device, or the interpreter's end would fail at it."""
        self._is_lost = True
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._file.fileno())
            os.close(null)
        except (OSError, ValueError):  # no file behind it
            pass


def without_padding(text: str) -> str:
    """Return `text` without spaces at the ends of its lines."""
    return _PADDING.sub("", text)
