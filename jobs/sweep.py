"""Sweep learning rate and batch size over seeds: `ray job submit --working-dir . -- python jobs/sweep.py --help`."""

import sys

from sst2_ray.cli import run

if __name__ == "__main__":
    sys.exit(run("sweep"))
