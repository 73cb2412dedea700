"""cluster/slurm.sbatch exits with the run's own code, whatever srun and Ray make of it (both are stand-ins here)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster_files import REPOSITORY

SRUN = """\
#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
[ "$1" = hostname ] && { echo 10.0.0.1; exit; }
"$@"
"""
RUNS_THE_JOB = """\
#!/usr/bin/env bash
while [ "$1" != -- ]; do shift; done
shift
"$@" || exit 1
"""
LOSES_THE_HEAD = """\
#!/usr/bin/env bash
while [ "$1" != -- ]; do shift; done
shift
setsid "$@" & job=$!
sleep 1
kill -9 -- -$job
"""
DOES_NOT_START = "#!/usr/bin/env bash\necho Failed to start Ray >&2\n"


def sbatch(folder: Path, job: str, *, ray: str = RUNS_THE_JOB) -> subprocess.CompletedProcess[str]:
    """Run the script with `job` as the run's Python and `ray` as the command of that name."""
    tools = folder / "venv/bin"
    tools.mkdir(parents=True)
    programs = {"srun": SRUN, "scontrol": "#!/bin/sh\necho node1\n", "ray": ray}
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tools / "python").symlink_to(sys.executable)
    (tools / "activate").write_text(f"PATH={tools}:$PATH\n")
    (folder / "job.py").write_text(job)
    settings = {
        "HOME": str(folder),
        "PATH": os.defpath,
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_ON_NODE": "2",
        "SLURM_JOB_NODELIST": "node1",
        "SLURM_JOB_NUM_NODES": "1",
        "SST2_RAY_VENV": f"{folder}/venv",
        "SST2_RAY_JOB": "job.py",
    }
    script = ["bash", str(REPOSITORY / "cluster/slurm.sbatch"), "--name", "two words"]
    return subprocess.run(script, env=settings, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ("import sys; assert sys.argv[1:] == ['--name', 'two words']", 0),
        ("import sys; sys.exit(2)", 2),
        ("import sys; sys.exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", 137),
    ],
)
def test_the_allocation_ends_with_the_code_of_the_run_and_without_its_files(
    tmp_path: Path, job: str, code: int
) -> None:
    result = sbatch(tmp_path, job)
    assert result.returncode == code, result.stderr
    assert list((tmp_path / ".ray").iterdir()) == []


def test_a_run_that_never_started_is_not_a_success_even_where_an_earlier_one_was(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/slurm-7.code").write_text("0\n")  # of the same job before Slurm queued it again
    result = sbatch(tmp_path, "", ray=DOES_NOT_START)
    assert result.returncode == 4 and "the run never started" in result.stderr


def test_a_head_that_is_lost_in_mid_run_is_said_to_be_and_leaves_no_file(tmp_path: Path) -> None:
    result = sbatch(tmp_path, "import time; time.sleep(60)", ray=LOSES_THE_HEAD)
    assert result.returncode == 4 and "the head node was lost in mid-run" in result.stderr
    assert list((tmp_path / ".ray").iterdir()) == []
