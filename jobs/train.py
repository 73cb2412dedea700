"""Fine-tune one model on a Ray cluster: `ray job submit --working-dir . -- python jobs/train.py --help`."""

import sys

from sst2_ray.cli import run

if __name__ == "__main__":
    sys.exit(run("train"))
