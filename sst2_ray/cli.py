"""`sst2-ray COMMAND ...`, `python -m sst2_ray` and the scripts in jobs/: the table of commands.

A command's module is imported only when the command is asked for.
"""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Command(NamedTuple):
    """A command: the function that runs it, `main(argv) -> exit code`, and what it does."""

    module: str
    function: str
    summary: str
    group: str


_WORK, _WATCH, _READ, _CLUSTER, _MORE = "Train", "Watch", "Compare and use", "Clusters", "More"

COMMANDS: dict[str, Command] = {
    "train": Command("sst2_ray.run.command", "main", "fine-tune one model", _WORK),
    "sweep": Command("sst2_ray.sweep.command", "main", "find learning rate and batch size, under several seeds", _WORK),
    "ls": Command("sst2_ray.manage.commands", "main_ls", "list every run and sweep of a storage folder", _WATCH),
    "status": Command("sst2_ray.manage.commands", "main_status", "show the trials of one run or sweep", _WATCH),
    "logs": Command("sst2_ray.manage.commands", "main_logs", "show the end of a run's log", _WATCH),
    "stop": Command("sst2_ray.manage.commands", "main_stop", "stop a run or sweep; it can be resumed", _WATCH),
    "results": Command(
        "sst2_ray.results.commands", "main_results", "rank what was trained; compact, import-tune", _READ
    ),
    "report": Command("sst2_ray.results.commands", "main_report", "write the results as one HTML page", _READ),
    "compare": Command(
        "sst2_ray.results.compare", "main_compare", "tell whether the difference between two is real", _READ
    ),
    "power": Command("sst2_ray.results.power", "main", "say what seeds and sentences a difference takes", _READ),
    "best": Command("sst2_ray.manage.cleanup", "main_best", "copy the best model to a folder", _READ),
    "predict": Command("sst2_ray.predict.command", "main", "label sentences with a trained model", _READ),
    "export": Command("sst2_ray.predict.export", "main", "convert a model to ONNX or OpenVINO, with proof", _READ),
    "push": Command("sst2_ray.manage.push", "main", "upload a model to the hub", _READ),
    "serve": Command("sst2_ray.serving.command", "main", "answer requests with a trained model (Ray Serve)", _READ),
    "doctor": Command(
        "sst2_ray.cluster.doctor.command", "main", "find what would fail, before it costs money", _CLUSTER
    ),
    "up": Command("sst2_ray.cluster.up", "main", "start a cluster", _CLUSTER),
    "submit": Command("sst2_ray.cluster.submit.command", "main", "run a job on a cluster and follow it", _CLUSTER),
    "cost": Command("sst2_ray.cluster.cost", "main", "show what runs and what it has cost", _CLUSTER),
    "down": Command("sst2_ray.cluster.down", "main", "end a cluster and name what still costs money", _CLUSTER),
    "presets": Command("sst2_ray.manage.presets", "main_presets", "list the named experiments", _MORE),
    "gc": Command("sst2_ray.manage.cleanup", "main_gc", "delete what no run needs any more", _MORE),
    "completion": Command("sst2_ray.completion", "main", "print tab completion for bash, zsh or fish", _MORE),
}


_STDERR = 2


class _LastingFile(io.FileIO):
    """A standard file that takes everything, also once the pipe's reader has ended or the terminal is closed.

    The command goes on, and its exit code stays its own. A full disk is an error of stdout; what stderr would have said is
    lost, which is no reason to say something else.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO) and self.fileno() != _STDERR:
                raise
            return memoryview(data).nbytes


def prepare_standard_files() -> None:
    """Give this process a standard input, output and error that can be used, whatever it was started with.

    A closed one (`<&-`, `>&-`) becomes the null device: the next file that is opened would take its number. Characters that
    the locale's encoding does not have are replaced instead of ending the program; a pipe that nobody reads any more does
    not end it either.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            file = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
            setattr(sys, name, io.TextIOWrapper(io.BufferedReader(file) if number == 0 else io.BufferedWriter(file)))
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and stream.fileno() == number:  # not one that somebody has put in its place
            stream.flush()
            raw = _LastingFile(number, "w", closefd=False)
            at_once = stream.write_through  # PYTHONUNBUFFERED, which containers set
            lasting = io.TextIOWrapper(
                raw if at_once else io.BufferedWriter(raw),  # type: ignore[type-var]  # as Python itself does
                stream.encoding,
                errors="replace",
                line_buffering=stream.line_buffering,
                write_through=at_once,
            )
            setattr(sys, name, lasting)


def restart_with_usable_python() -> None:
    """Start this process again where Python's settings are of no use to what it runs.

    Names of files are read in another encoding than UTF-8 (LC_ALL=C), as which object stores, tables and workers take them;
    what is printed stays in the terminal's encoding. Docstrings are left out (PYTHONOPTIMIZE=2), which transformers reads.
    """
    wanted = {}
    if sys.getfilesystemencoding() != "utf-8":
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        wanted = {"PYTHONUTF8": "1", "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING", f"{encoding}:replace")}
    if sys.flags.optimize > 1:
        wanted["PYTHONOPTIMIZE"] = "1"
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.environ.update(wanted)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def let_signals_interrupt() -> None:
    """Have SIGTERM (docker stop, Slurm) and SIGHUP (a closed terminal) do what Ctrl-C does, from the first moment on.

    SIGHUP stays ignored under nohup.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


def run(command: str, argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv`: words behind the command; None: those of this process."""
    if argv is None:
        restart_with_usable_python()
    try:
        let_signals_interrupt()
        prepare_standard_files()
        # It warns that there is no home to keep its list of fonts in; it makes the list anew.
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        from sst2_ray.config.flags import run_main
        from sst2_ray.run.environment import prepare_process

        prepare_process()
        return run_main(partial(_call, command), sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:  # before anything has begun
        from sst2_ray.errors import ExitCode
        from sst2_ray.records import Status

        print(Status.STOPPED, file=sys.stderr)
        return ExitCode.STOPPED


def _call(command: str, words: list[str]) -> int:
    """Run one command where it stands.

    Raises InputError where that folder is gone, since every relative path would fail, and for names that are not UTF-8.
    """
    from sst2_ray.errors import InputError

    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise InputError("the current folder has been deleted; change to another one") from None
    for name in (here, *words):
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise InputError(f"{shown}: is not UTF-8; rename it") from None
    module, function, *_ = COMMANDS[command]
    return int(getattr(importlib.import_module(module), function)(words))


def usage() -> str:
    """Return the list of commands, in groups by the order of use."""
    width = max(map(len, COMMANDS))
    lines = ["usage: sst2-ray COMMAND [FLAGS]        sst2-ray COMMAND --help explains one"]
    for title in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", title]
        lines += [f"  {name:<{width}}  {c.summary}" for name, c in COMMANDS.items() if c.group == title]
    return "\n".join([*lines, "", "Begin with:  sst2-ray train --preset demo"])


def main() -> None:
    """Run the command that this process was started with, and exit with its code."""
    restart_with_usable_python()
    words = sys.argv[1:]
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    match words:
        case [] | ["-h" | "--help" | "--help-all" | "help", *_]:
            print(usage())
            sys.exit(0)
        case ["-V" | "-v" | "--version" | "version", *_]:
            from sst2_ray.version import __version__

            print(__version__)
            sys.exit(0)
        case [command, *rest] if command in COMMANDS:
            sys.exit(run(command, rest))
    from sst2_ray.config.habits import command_hint
    from sst2_ray.errors import ExitCode, did_you_mean

    if words[0].startswith("-"):
        near = did_you_mean(words[0], ("--help", "--version"))
        behind = f"flags stand behind a command: sst2-ray train {words[0]} ...; sst2-ray --help lists them"
        line = f"{words[0]}: {near if near.startswith('did') else behind}"
    else:
        line = f"no command {words[0]!r}; {command_hint(words[0], COMMANDS)}"
    print(f"error: {line}", file=sys.stderr)
    sys.exit(ExitCode.WRONG_INPUT)
