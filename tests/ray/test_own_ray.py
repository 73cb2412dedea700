"""The Ray that a command starts on this machine has the processes that a run asks for, and no others."""

from __future__ import annotations

import subprocess
import sys

START = """
import psutil
from sst2_ray.run.connect import start_ray
ray = start_ray()
print(ray.get(ray.remote(num_cpus=0)(lambda: 1).remote()))
lines = [child.cmdline() for child in psutil.Process().children(recursive=True)]
programs = {next((word for word in line if word.endswith(".py")), line[0]).rsplit("/", 1)[-1] for line in lines if line}
print(*sorted(program for program in programs if "IDLE" not in program and "<lambda>" not in program))
"""


def test_ray_starts_no_process_that_nobody_asks() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=120, check=True)
    answer, programs = done.stdout.splitlines()
    assert answer == "1"
    assert programs == "fork_worker.py gcs_server light_agent.py ray::RuntimeEnvAgent raylet"
