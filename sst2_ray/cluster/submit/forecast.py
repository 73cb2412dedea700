"""The least time of a job before it is submitted: the plan that `sst2-ray train --dry-run` makes for the cluster's machines."""

from __future__ import annotations

import json
import os
import subprocess  # nosec B404: this interpreter, never through a shell
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sst2_ray.cluster.prices import Machine
from sst2_ray.cluster.ray_private import ADDRESS_VARIABLES
from sst2_ray.config.section import Section

_TIMEOUT_S = 180.0
OWN_TRAIN, OWN_SWEEP = ("jobs/train.py", "train"), ("jobs/sweep.py", "sweep")
"""Script below jobs/, and command, that train with this package."""


@dataclass(frozen=True, kw_only=True)
class JobForecast:
    """The workers and the least time of a job, before it runs."""

    num_workers: int | None
    """None: the command is not one of this package's, and asks for what it likes."""
    seconds: float | None = None
    """Least seconds of all steps; None: not known."""
    sent_bytes: float | None = None
    """Bytes that its workers send each other in the whole run; of two where it has one."""
    more_workers: str = ""
    """Effect of more workers, as the plan states it."""
    why_unknown: str = ""


def forecast_job(command: Sequence[str], folder: Path, machine: Machine | None) -> JobForecast:
    """Forecast a command that trains, for workers with the GPU of `machine`; it is not run, and nothing is written.

    Args:
        command: as it is submitted.
        folder: that it will run in.
        machine: of a worker; None: not in the table of sizes.
    """
    train, sweep = (own_arguments(command, names) for names in (OWN_TRAIN, OWN_SWEEP))
    if train is None and sweep is None:
        return JobForecast(num_workers=None, why_unknown="the command is not one of this package's")
    num_workers = _workers(command)
    if train is None:
        return JobForecast(num_workers=num_workers, why_unknown="a sweep's own --dry-run counts its trials")
    if machine is None or not machine.plan_gpu:
        return JobForecast(num_workers=num_workers, why_unknown="no data sheet of the workers' GPU is at hand")
    network = ["--network-gbit-per-s", f"{machine.network_gbit_per_s:g}"] if machine.network_gbit_per_s else []
    flags = ["--dry-run", "--json", "--plan-gpu", machine.plan_gpu, "--plan-gpus-per-node", str(machine.gpus), *network]
    try:
        plan = _plan([*train, *flags], folder)
    except (OSError, ValueError, subprocess.SubprocessError) as problem:  # no data here, or a flag that does not exist
        return JobForecast(num_workers=num_workers, why_unknown=f"no plan could be made here: {problem}")
    on_paper = plan.section("on_paper")
    return JobForecast(
        num_workers=num_workers,
        seconds=on_paper.number("seconds"),
        sent_bytes=on_paper.section("sent_bytes").number(str(max(2, num_workers))),
        more_workers=plan.section("plan").text("more workers"),
    )


def own_arguments(command: Sequence[str], names: tuple[str, str]) -> list[str] | None:
    """Return the arguments of a job script or of a command of `sst2-ray`, given as (script, command); None where it is neither."""
    script, name = names
    for at, word in enumerate(command[:4]):
        if word == script or word.endswith(f"/{script}"):
            return list(command[at + 1 :])
        if word == name and at and Path(command[at - 1]).name in ("sst2-ray", "sst2_ray"):
            return list(command[at + 1 :])
    return None


def _workers(command: Sequence[str]) -> int:
    """Return the fewest workers that a command of this package asks for; 1 where it says nothing, as it does where machines cost."""
    for at, word in enumerate(command):
        name, _, value = word.partition("=")
        if name in ("--num-workers", "--num_workers"):
            number = (value or "".join(command[at + 1 : at + 2])).partition(":")[0]
            return int(number) if number.isdigit() and int(number) else 1
    return 1


def _plan(arguments: list[str], folder: Path) -> Section:
    """Make the plan in a process of its own, which reads data and tokenizer as the job will. Raises ValueError with its problem."""
    environment = {name: value for name, value in os.environ.items() if name not in ADDRESS_VARIABLES}
    with tempfile.TemporaryDirectory() as storage:
        # The job's own storage may be out of reach from here, and is not looked at.
        words = [sys.executable, "-m", "sst2_ray", "train", *arguments, "--storage-path", storage]
        done = subprocess.run(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_TIMEOUT_S, check=False,
        )  # nosec B603  # fmt: skip
    if done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no message"])[-1].removeprefix("error: ")
        problem = line.partition("; ")[0]  # the remedy is for this machine, where the job does not run
        raise ValueError(textwrap.shorten(problem, 200, placeholder=" ..."))
    return Section(json.loads(done.stdout))
