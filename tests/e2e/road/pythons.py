"""Install the package for other Pythons, and run the main job and the unit tests there.

    python -m tests.e2e.road.pythons python3.12 python3.13 [--steps install job unit] [--folder DIR] [--unit tests/unit/data]

Each Python gets an environment of its own below the folder (several GB where torch comes with CUDA), with the wheel and
the versions of constraints.txt. The job runs in an empty folder, without the source tree. Prints a line a step; exits with
1 where one has failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.environments import wheel_of
from tests.support.models import sbert_folder
from tests.support.reviews import reviews, write_glue_folder

ROOT = Path(__file__).resolve().parents[3]
STEPS = ("install", "job", "unit")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pythons", nargs="+")
    parser.add_argument("--steps", nargs="*", default=STEPS, choices=STEPS)
    parser.add_argument("--folder", default="runs/pythons")
    parser.add_argument("--unit", nargs="*", default=["tests/unit"], help="what pytest runs")
    parser.add_argument("--no-constraints", action="store_true", help="the newest versions that the ranges allow")
    arguments = parser.parse_args()
    constraints = () if arguments.no_constraints else ("-c", str(ROOT / "constraints.txt"))
    right = True
    for python in arguments.pythons:
        folder = Path(arguments.folder, Path(python).name).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for step in arguments.steps:
            begin = time.monotonic()
            match step:
                case "install":
                    done = install(python, folder, constraints)
                case "job":
                    done = job(folder)
                case _:
                    done = unit_tests(folder, arguments.unit)
            right &= done.returncode == 0
            last = (done.stdout.strip().splitlines() or ["-"])[-1] if done.returncode == 0 else done.stdout[-4000:]
            print(f"{python} {step}: code {done.returncode}, {time.monotonic() - begin:.0f} s; {last}", flush=True)
            if done.returncode:
                break
    return 0 if right else 1


def call(words: Sequence[str | Path], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command; its standard error is part of its output."""
    values = {name: value for name, value in {**os.environ, **env}.items() if value}
    return subprocess.run(
        words, cwd=cwd, env=values, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def install(python: str, folder: Path, constraints: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Make an environment with the wheel and what its tests need; the last line says the versions."""
    own = folder / "env/bin/python"
    says = "import sys, torch, ray; print(sys.version.split()[0], 'torch', torch.__version__, 'ray', ray.__version__)"
    with tempfile.TemporaryDirectory() as work:
        wheel = f"sst2-ray[dev] @ file://{wheel_of(Path(work))}"
        for words in (
            [python, "-m", "venv", folder / "env"],
            [own, "-m", "pip", "-q", "--disable-pip-version-check", "install", *constraints, wheel],
            [own, "-c", says],
        ):
            done = call(words, folder, PYTHONPATH="")
            if done.returncode:
                break
    return done


def job(folder: Path) -> subprocess.CompletedProcess[str]:
    """Train a small model on two workers, from an empty folder."""
    with tempfile.TemporaryDirectory() as work:
        sbert_folder(Path(work, "model"))
        write_glue_folder(Path(work, "data"), reviews(640), reviews(80, topic="play"))
        empty = Path(work, "empty")
        empty.mkdir()
        words = ["train", "--model", "../model", "--data", "../data", "--batch-size", "16", "--epochs", "2", "--num-workers",
                 "2", "--precision", "fp32", "--storage-path", "../runs", "--name", "job"]  # fmt: skip
        return call([folder / "env/bin/sst2-ray", *words], empty, PYTHONPATH="", RAY_OVERRIDE_RESOURCES='{"CPU": 2}')


def unit_tests(folder: Path, what: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run unit tests from the source tree."""
    words = [folder / "env/bin/python", "-m", "pytest", "-q", "-m", "not slow", "--durations=0", "-rN", *what]
    return call(words, ROOT, PYTHONPATH=str(ROOT))


if __name__ == "__main__":
    sys.exit(main())
