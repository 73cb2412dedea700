"""Command lines from dataclasses (tyro), with errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

from sst2_ray.errors import InputError, did_you_mean

T = TypeVar("T")

_BARE = ("dry-run", "calibrate")
"""Flags that commands take out before the others are read."""


def parse(cls: type[T], argv: Sequence[str], *, prog: str, description: str | None = None, default: Any = None) -> T:
    """An instance of the dataclass `cls`. `default`: an instance whose values stand where no flag is given.

    Raises InputError in one line; `--help` prints and exits with 0.
    """
    import tyro

    options: dict[str, Any] = {"prog": prog, "description": description}
    if default is not None:
        options["default"] = default
    if "-h" in argv or "--help" in argv:
        return tyro.cli(cls, args=list(argv), **options)
    _refuse_unknown_flags(cls, argv)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
            return tyro.cli(cls, args=list(argv), **options)
    except SystemExit:
        raise InputError(f"{_first_sentence(printed.getvalue())} (see {prog} --help)") from None


def _refuse_unknown_flags(cls: Any, argv: Sequence[str]) -> None:
    known = {f.name.replace("_", "-") for f in dataclasses.fields(cls)}
    for word in argv:
        if word == "--":
            return
        if word.startswith("--"):
            name = word[2:].split("=")[0].replace("_", "-")
            bare = name.removeprefix("no-")
            if name in _BARE and name not in known:
                raise InputError(f"{word}: write it as --{name}, without a value")
            if name not in known and bare not in known:
                near = did_you_mean(f"--{name}", [f"--{k}" for k in known])
                raise InputError(f"unknown flag --{name}; {near if near.startswith('did') else 'see --help'}")


def _first_sentence(box: str) -> str:
    """What stands in tyro's box between its title and its first rule, as one line."""
    lines: list[str] = []
    for line in box.splitlines()[1:]:
        text = line.strip("│|+ ")
        if any(c.isalnum() for c in text):
            lines.append(text)
        elif lines:
            break
    return " ".join(lines) or "the command line cannot be read"


def take(argv: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of one flag (its last occurrence) and the other words; for flags that decide how the rest is read."""
    value, rest, words = None, [], iter(argv)
    for word in words:
        if word == flag:
            value = next(words, None)
            if value is None:
                raise InputError(f"{flag}: a value must follow")
        elif word.startswith(flag + "="):
            value = word[len(flag) + 1 :]
        else:
            rest.append(word)
    if value == "":
        raise InputError(f"{flag} '': is empty; is a variable of the shell not set?")
    return value, rest


def run_main(main: Any, argv: Sequence[str]) -> int:
    """Call `main(argv) -> int`; an Sst2RayError becomes its one line on stderr and its exit code."""
    from sst2_ray.errors import ExitCode, Sst2RayError

    try:
        code: int = main(list(argv))
        return code
    except Sst2RayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return ExitCode.STOPPED
    except BrokenPipeError:  # the reader of a pipe has gone: nothing left to say
        sys.stderr.close()
        return ExitCode.SUCCEEDED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error}", file=sys.stderr)  # a full disk is no bug: "No space left on device", and where
        return ExitCode.FAILED
