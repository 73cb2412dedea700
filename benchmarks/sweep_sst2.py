"""A sweep on the real SST-2 that chooses on a held-out part of train; dev is scored once, for the chosen, under 3 seeds.

    SST2_RAY_DATA=DIR python -m benchmarks.sweep_sst2 [--folder DIR] [--json FILE] [FLAG OF THE SWEEP ...]

About 13 passes over the training rows. A sweep that is cut off goes on with the same command and --folder.
"""

from __future__ import annotations

import os
import sys

from benchmarks.sweep_demo import run_sweep

AIM = 0.895
"""Mean dev accuracy after the last epoch, over the seeds."""


def main() -> int:
    data = os.environ.get("SST2_RAY_DATA")
    if not data:
        print("SST2_RAY_DATA is not set: needs a folder with GLUE's SST-2 (train.tsv, dev.tsv)", file=sys.stderr)
        return 2
    flags = [
        "--models", "sbert-minilm", "--data", data, "--learning-rates", "8e-5", "1.6e-4", "--batch-sizes", "64", "32",
        "--epochs", "2", "--num-seeds", "3", "--scheduler", "asha", "--reduction-factor", "4", "--evaluations-per-epoch", "4",
        "--selection-fraction", "0.05", "--max-concurrent", "2",
    ]  # fmt: skip
    figures = run_sweep(__doc__, "sst2", flags)
    print(f"aim: {AIM} on dev after the last epoch; the closing table says what the chosen configuration reached")
    return int(figures["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
