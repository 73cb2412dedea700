"""Checks of a batch script for Slurm besides its directives: what the shell does, what is kept secret, and forms of further options."""

from __future__ import annotations

import re
from pathlib import Path

from sst2_ray.cluster.findings import Findings
from sst2_ray.errors import did_you_mean

_JOBS = ("jobs/train.py", "jobs/sweep.py", "jobs/predict.py", "jobs/report.py")
_LONGEST_TMPDIR = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
_SHORT_MINUTES = 15
_LONG_MINUTES = 14 * 1440
_WITH_VALUE = (
    "partition", "account", "qos", "constraint", "nodelist", "exclude", "output", "error", "job-name", "reservation",
)  # fmt: skip
_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "ALRM", "TERM", "CHLD", "CONT", "STOP", "TSTP", "XCPU")
_MAIL = (
    "NONE", "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT", "TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80",
    "TIME_LIMIT_50", "ARRAY_TASKS",
)  # fmt: skip
_CHOICES = {"mail-type": _MAIL, "open-mode": ("append", "truncate")}
_NUMBERS = (
    "tmp", "nice", "priority", "mincpus", "cores-per-socket", "sockets-per-node", "threads-per-core", "cpus-per-gpu",
)  # fmt: skip
_UNITS = re.compile(r"-?\d+[KMGT]?")


def check_options(given: dict[str, str], found: Findings) -> None:
    """Check forms of the options that name choices, signals, numbers, files and machines, and the time."""
    for name, choices in _CHOICES.items():
        for value in given.get(name, "").split(",") if name in given else ():
            if value not in choices:
                found.error(f"--{name}", f"{value!r} does not exist", did_you_mean(value, choices))
    signal = re.fullmatch(r"(?:[RB]{1,2}:)?(?:SIG)?(\w+)(?:@\d+)?", given.get("signal", "TERM"))
    if not signal or (signal[1] not in _SIGNALS and not signal[1].isdigit()):
        found.error("--signal", f"{given['signal']!r} is no signal", "B:TERM@120")
    for name in _NUMBERS:
        if given.get(name) and not _UNITS.fullmatch(given[name]):
            found.error(f"--{name}", f"{given[name]!r} is not what Slurm takes", "a number")
    _check_output(given, found)
    _check_amounts(given, found)


def _check_amounts(given: dict[str, str], found: Findings) -> None:
    """Check time, machines and GPUs against each other."""
    minutes = _minutes(given.get("time", ""))
    if minutes is not None and minutes > _LONG_MINUTES:
        what = f"{given['time']}: most partitions refuse it, and a run that hangs holds its nodes so long"
        found.warning("--time", what, "04:00:00, and the same command again: it goes on from its checkpoints")
    for name in _WITH_VALUE:
        if given.get(name) == "":
            found.error(
                f"--{name}", "has no value: the next word is taken for it, or the job is refused", "--OPTION=VALUE"
            )
    if minutes is not None and 0 < minutes < _SHORT_MINUTES:
        what = f"{given['time']} is {minutes:g} minutes: set-up and the first checkpoint take longer"
        found.warning("--time", what, "H:MM:SS, e.g. 04:00:00")
    _check_machines(given, found)


def _check_machines(given: dict[str, str], found: Findings) -> None:
    nodes, named = given.get("nodes", ""), _named(given.get("nodelist", ""))
    if nodes.isdigit() and named > int(nodes):
        what = f"{named} machines are named, and --nodes is {nodes}: Slurm takes as many as are named"
        found.error("--nodelist", what, f"--nodes={named}, or fewer names")
    if "gpus-per-node" in given and "gpus" in given:
        each, whole = (re.search(r"(\d+)$", given[key]) for key in ("gpus-per-node", "gpus"))
        if each and whole and nodes.isdigit() and int(each[1]) * int(nodes) != int(whole[1]):
            what = f"{whole[1]} in all, and {each[1]} on each of {nodes} nodes"
            found.error("--gpus", what, "remove it: --gpus-per-node says it")
    if "gpus-per-task" in given:
        what = "binds the GPUs to the task in some versions of Slurm: Ray then counts other ones than it may use"
        found.warning("--gpus-per-task", what, "--gpus-per-node")
    if "oversubscribe" in given:
        found.error("--oversubscribe", "Ray of another job on the same node would be ended", "--exclusive")


def _minutes(time: str) -> float | None:
    """Return Slurm's times (minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S) in minutes; None where it is none."""
    days, dash, rest = time.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in (*parts, *([days] if dash else []))):
        return None
    numbers = [int(part) for part in parts]
    if dash:
        hours, minute, second = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minute, second = numbers
    else:
        hours, (minute, second) = 0, (*numbers, 0)[:2]
    return 1440 * int(days or 0) + 60 * hours + minute + second / 60


def _named(nodelist: str) -> int:
    """Count the machines of a list such as gpu[01-04],gpu9; 0 where it is a file or cannot be told."""
    if not nodelist or "/" in nodelist:
        return 0
    total = 0
    for part in re.findall(r"[^,\[]+(?:\[[^\]]*\])?", nodelist):
        inside = re.search(r"\[([^\]]*)\]", part)
        for piece in inside[1].split(",") if inside else ("",):
            first, _, last = piece.partition("-")
            total += int(last) - int(first) + 1 if first.isdigit() and last.isdigit() else 1
    return total


def _check_output(given: dict[str, str], found: Findings) -> None:
    for name in ("output", "error"):
        value = given.get(name, "")
        if not value or value == "/dev/null":
            continue
        folder = Path(value).parent
        if "%" not in str(folder) and "$" not in value and folder != Path() and not folder.exists():
            what = f"{folder} does not exist here: where it lacks on the cluster, too, the log is lost without a word"
            found.warning(f"--{name}", what, f"mkdir -p {folder} before sbatch")
        if "$" in value:
            found.error(f"--{name}", f"{value}: Slurm reads no variables here", "%j for the job, %u for the user")
        elif "%" not in value:
            found.warning(f"--{name}", f"{value}: the next job overwrites it", "slurm-%j.log")


def check_script(script: str, found: Findings) -> None:
    """Check the shell's part."""
    first = script.splitlines()[0] if script else ""
    if re.fullmatch(r"#!\s*(/usr)?/bin/(env )?(da)?sh", first) and re.search(r"pipefail|< <\(|\[\[", script):
        found.error("line 1", f"{first}: the script uses what bash alone has", "#!/usr/bin/env bash")
    joined = re.sub(r"\\\n", " ", script)
    step = next((x for x in joined.splitlines() if "symmetric-run" in x and not x.startswith(("#", "export"))), "")
    if step and not re.search(r"\bsrun\b", step):
        found.error("script", "Ray is not started by srun: on the first node alone", "srun ... ray symmetric-run")
    if re.search(r"--export=NONE|--export=(?!ALL)\w+(\s|$)", step):
        found.error("srun", "the token and the addresses do not reach the nodes", "--export=ALL")
    if re.search(r"[^&|]&\s*$", step):
        found.error("srun", "in the background: the allocation ends with the script, before the run", "without &")
    _check_programs(script, joined, found)
    _check_ends(script, joined, found)
    _check_secrets(script, found)


def _check_programs(script: str, joined: str, found: Findings) -> None:
    """Check what the script runs, and where it finds it."""
    if re.search(r"python2\b", joined):
        found.error("script", "python2 runs none of this", "python")
    for job in re.findall(r"\bjobs/\w+\.py", script):
        if job not in _JOBS:
            found.error("script", f"there is no {job}", did_you_mean(job, _JOBS))
    activated = re.findall(r"^\s*(?:\.|source)\s+(\S+)", script, re.MULTILINE)
    for path in activated:
        if "/bin/" in path and not path.strip("\"'").endswith(("/bin/activate", ".sh")):
            found.error("script", f"{path} is no environment", "ENVIRONMENT/bin/activate")
    port = re.search(r"^\s*port=[\"']?(?:\$\(\()?(\d+)[\"')]*$", script, re.MULTILINE)
    if port:
        what = f"port {port[1]} is the same for every job: two on one machine meet"
        found.warning("script", what, "port=$((20000 + SLURM_JOB_ID % 20000))")


def _check_ends(script: str, joined: str, found: Findings) -> None:
    """Check that the script ends with the run's own exit code."""
    lines = [line.strip() for line in script.splitlines() if line.strip() and not line.strip().startswith("#")]
    if lines and re.fullmatch(r"(exit 0|true|:)", lines[-1]):
        what = "ends with 0 whatever happened: a failed run is taken for one that succeeded"
        found.error("script", what, 'exit "$(cat "$code_file")"')
    if "code_file" not in script and re.search(r"symmetric-run.*\|\| true", joined):
        found.error("script", "|| true hides how the run ended", "as in the repository's file")


def _check_secrets(script: str, found: Findings) -> None:
    written = re.search(r"^.*(secrets|openssl rand|uuidgen|token_hex).*>\s*\"?\$?.*$", script, re.MULTILINE)
    if written and not re.search(r"umask 0?77", script) and not re.search(r"chmod 600", script):
        found.error("script", "the token's file can be read by others", "(umask 077; ... > FILE)")
    if written and not re.search(r"^\s*trap .*(rm|TOKEN)", script, re.MULTILINE):
        found.warning("script", "the token's file stays when the job has ended", "trap 'rm -f ...' EXIT")
    folder = re.search(r"RAY_TMPDIR=[\"']?([^\"'\s]+)", script)
    if folder and len(re.sub(r"\$\([^)]*\)|\$\{?\w+\}?", "u" * 8, folder[1])) > _LONGEST_TMPDIR:
        what = f"{folder[1]}: the sockets below it would exceed 107 letters, and Ray does not start"
        found.error("RAY_TMPDIR", what, f"at most {_LONGEST_TMPDIR} letters")
