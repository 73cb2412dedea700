"""Commands in a real terminal of a given width, and the text that they show there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]")
UPDATE = "UPDATE_SCREENS"
"""Environment variable: write the screens anew instead of comparing them."""


def screen(argv: Sequence[str], *, columns: int, folder: Path) -> str:
    """Run `sst2-ray ARGV` in a pseudo-terminal and return what it shows, without colors and trailing spaces."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "sst2_ray", *argv],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=folder,
        env={**env, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # raised at the end of a pseudo-terminal
        while chunk := os.read(controller, 65536):
            shown += chunk
    os.close(controller)
    process.wait(timeout=60)
    return left_on_screen(shown.decode())


def left_on_screen(shown: str) -> str:
    """Return the text that stands on a terminal in the end: live lines that were erased are gone."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.|\r?\n|\r|[^\x1b\r\n]+", shown):
        if token.endswith("\n"):
            row += 1
            lines += [""] * (row == len(lines))
        elif token == "\x1b[1A":
            row -= 1
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token != "\r" and not token.startswith("\x1b"):
            lines[row] += token
    return "\n".join(line.rstrip() for line in lines).strip() + "\n"


def check_screen(text: str, file: Path) -> None:
    """Compare a screen with the one kept in `file`."""
    if os.environ.get(UPDATE):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{UPDATE}=1 writes it anew; look at it before"
