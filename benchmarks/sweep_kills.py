"""Kill -9 of a sweep's driver at random moments, then --resume: is the table that of an undisturbed sweep?

    python benchmarks/sweep_kills.py [--num-kills 5] [--seed 0] [--folder DIR] [--json FILE]

The same toy model, data and comparison as tests/ray/sweep/test_resume.py.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from sst2_ray.run.provenance import collect_provenance

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import models
from tests.support.reviews import reviews, write_glue_folder
from tests.support.sweeps import WORDS, Sweeps, differences, killed, toy_flags


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="keep the sweeps here")
    parser.add_argument("--json", help="write the figures to this file as well")
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="sweep-kills-"))
    model = models.modernbert_folder(folder / "toy")
    data = write_glue_folder(folder / "data", reviews(128), reviews(32, topic="show"))
    sweeps = Sweeps(folder / "runs", toy_flags(str(model), str(data), folder / "runs"))
    begin = time.perf_counter()
    assert sweeps.run("whole", *WORDS).returncode == 0
    whole_s = time.perf_counter() - begin
    draw = random.Random(arguments.seed)
    rounds = []
    for number in range(arguments.num_kills):
        name, after_s = f"killed-{number}", draw.uniform(0, 0.5 * whole_s)
        killed(sweeps, name, after_rows=0, delay_s=after_s)
        done = sweeps.resume(name)
        wrong = differences(sweeps, name, "whole")
        rounds.append({"after_s": round(after_s, 1), "exit_code": done.returncode, "differences": wrong})
        print(json.dumps(rounds[-1]), flush=True)
    passed = sum(r["exit_code"] == 0 and not r["differences"] for r in rounds)
    print(
        f"{passed} of {len(rounds)} resumed to the undisturbed table (seed {arguments.seed}, whole sweep {whole_s:.0f} s)"
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**collect_provenance(), "rounds": rounds}, indent=1) + "\n")
    return 0 if passed == len(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
