"""The demonstration sweep: 24 trials (2 models x 3 learning rates x 2 batch sizes x 2 seeds) on 2,048 rows of the packaged data.

python benchmarks/sweep_demo.py [--folder DIR] [--json FILE] [FLAG OF THE SWEEP ...]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sst2_ray.results.provenance import collect_provenance

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 15 * 60


def main() -> int:
    figures = run_sweep(__doc__, "demo", ["--preset", "demo"])
    print(f"limit: {LIMIT_S} s")
    return 0 if figures["exit_code"] == 0 and figures["wall_s"] < LIMIT_S else 1


def run_sweep(doc: str, name: str, flags: list[str]) -> dict[str, Any]:
    """Run one sweep as a user does; its wall-clock, exit code and result, printed and kept as --json says."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--folder", help="keep the sweep here; by default it is temporary")
    parser.add_argument("--json", help="write the figures to this file as well")
    arguments, more = parser.parse_known_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix=f"sweep-{name}-"))
    provenance = collect_provenance()
    print(f"{provenance['chip']}, commit {provenance['git_commit']}", flush=True)
    command = [sys.executable, "jobs/sweep.py", *flags, *more, "--storage-path", str(folder), "--name", name]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=False)
    wall = time.perf_counter() - begin
    result = json.loads((folder / name / "result.json").read_text())
    if not arguments.folder:
        shutil.rmtree(folder)
    figures = {**provenance, "wall_s": round(wall, 1), "exit_code": done.returncode, "result": result}
    print(f"wall-clock {wall:.0f} s, exit code {done.returncode}, {result['counts']}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    sys.exit(main())
