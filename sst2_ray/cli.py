"""`sst2-ray COMMAND ...`: one door to every job; the scripts in jobs/ use the same functions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from sst2_ray.config.flags import run_main
from sst2_ray.errors import ExitCode, did_you_mean
from sst2_ray.version import __version__

# command -> (module, function, what it does); modules are imported only when they are asked for
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": ("sst2_ray.run.train", "main", "fine-tune one model"),
    "sweep": ("sst2_ray.sweep.command", "main", "find learning rate and batch size, under several seeds"),
    "predict": ("sst2_ray.predict.command", "main", "label sentences with an exported model"),
    "results": ("sst2_ray.results.commands", "main_results", "the leaderboard; compact and import-tune"),
    "report": ("sst2_ray.results.commands", "main_report", "the results as one HTML page with figures"),
    "ls": ("sst2_ray.manage.runs", "main_ls", "what storage holds: every run and sweep"),
    "status": ("sst2_ray.manage.runs", "main_status", "the trials of one run or sweep"),
    "logs": ("sst2_ray.manage.runs", "main_logs", "the end of a run's log"),
    "stop": ("sst2_ray.manage.runs", "main_stop", "ask a run or sweep to stop; it can go on later"),
    "gc": ("sst2_ray.manage.cleanup", "main_gc", "delete what no run needs any more"),
    "best": ("sst2_ray.manage.cleanup", "main_best", "copy the best model to a folder"),
    "doctor": ("sst2_ray.cluster.doctor", "main", "what would fail, before it costs money"),
    "submit": ("sst2_ray.cluster.submit.command", "main", "run a job on a cluster and follow it"),
    "up": ("sst2_ray.cluster.up", "main", "ray up, with what Ray needs set"),
    "down": ("sst2_ray.cluster.up", "main_down", "ray down, and what it leaves undone"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {doc}" for name, (_, _, doc) in COMMANDS.items()]
    return "\n".join(["usage: sst2-ray COMMAND [--help] ...", "", *lines])


def run(command: str, argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` defaults to the words behind the script's name. Returns the exit code."""
    module, function, _ = COMMANDS[command]
    words = sys.argv[1:] if argv is None else argv
    return run_main(lambda rest: getattr(importlib.import_module(module), function)(rest), words)


def main() -> None:
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        sys.exit(0)
    if words[0] == "--version":
        print(__version__)
        sys.exit(0)
    if words[0] not in COMMANDS:
        print(f"error: no command {words[0]!r}; {did_you_mean(words[0], COMMANDS)}", file=sys.stderr)
        sys.exit(ExitCode.WRONG_INPUT)
    sys.exit(run(words[0], words[1:]))
