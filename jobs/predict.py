"""Label sentences with an exported model: `python jobs/predict.py --model-dir DIR --text "..."` (see --help)."""

import sys

from sst2_ray.cli import run

if __name__ == "__main__":
    sys.exit(run("predict"))
