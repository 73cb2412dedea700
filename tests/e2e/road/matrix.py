"""Every command in every environment, as a user meets them: exit code, seconds, row, processes left, lines of error.

    python -m tests.e2e.road.matrix [--only train sweep] [--where TERM latin-1] [--random 50 --seed 7] [--json FILE] [--docs PAGE]

Real processes, real signals, a real job server. Takes about a quarter of an hour on two cores; exits with 1 where a cell is
wrong. `--json` keeps the cells of earlier calls that this one does not run again, so that a part may be run at a time;
`--docs` writes the table of all of them between the two marks of a page. Needs root for the CPU quota (a control group);
without it that column is left out and says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.e2e.road.bench import Bench, job_server
from tests.e2e.road.cells import COMMANDS, ENVIRONMENTS, Cell, run
from tests.support.environments import missing_for_quotas
from tests.support.processes import adopt_orphans

BEGIN, END = "<!-- matrix -->", "<!-- /matrix -->"


def main() -> int:
    arguments = read_arguments()
    plan = [(command, (where,)) for command in COMMANDS for where in ENVIRONMENTS]
    if arguments.random:
        draw = random.Random(arguments.seed)
        print(f"seed {arguments.seed}")
        plan = [(draw.choice(COMMANDS), tuple(draw.sample(ENVIRONMENTS, 3))) for _ in range(arguments.random)]
    plan = [
        (command, where) for command, where in plan if command in arguments.only and set(where) <= {*arguments.where}
    ]
    if arguments.missing and Path(arguments.json).exists():
        found = json.loads(Path(arguments.json).read_text())
        right_before = {(cell["command"], *cell["environments"]) for cell in found if not cell["wrong"]}
        plan = [
            (command, environments) for command, environments in plan if (command, *environments) not in right_before
        ]
    cells = run_all(plan, arguments.json, arguments.folder)
    right = sum(not cell.wrong for cell in cells)
    print(f"{right} of {len(cells)} right")
    if arguments.docs:
        write_docs(json.loads(Path(arguments.json).read_text()), Path(arguments.docs))
    return 0 if right == len(cells) else 1


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=COMMANDS, help="of the plan, these commands")
    parser.add_argument("--where", nargs="*", default=ENVIRONMENTS, help="and these environments")
    parser.add_argument(
        "--random", type=int, default=0, help="so many random combinations of three environments instead"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--missing", action="store_true", help="only what --json does not have, or has as wrong")
    parser.add_argument("--json", help="file of cells, completed")
    parser.add_argument("--folder", help="inputs of an earlier call, or where to make and keep them (a short path)")
    parser.add_argument("--docs", help="page whose table is written from --json")
    return parser.parse_args()


def run_all(plan: list[tuple[str, tuple[str, ...]]], path: str | None, folder: str | None) -> list[Cell]:
    """Run the cells one after the other, each printed and kept as it ends.

    Args:
        plan: command and environments of each.
        path: file of cells.
        folder: for the bench; None: a new one, which is deleted.
    """
    cells, reason = [], missing_for_quotas()
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the job server ends with it
    made = Path(folder or tempfile.mkdtemp(prefix="road-"))
    bench = Bench(made)
    with job_server(bench) if any(command == "submit" for command, _ in plan) else contextlib.nullcontext():
        for command, environments in plan:
            if "quota 0.9" in environments and reason:
                print(f"{command:8} {' + '.join(environments)}: left out, {reason}", flush=True)
                continue
            cells.append(run(bench, command, environments))
            show(cells[-1])
            if path:
                keep(cells[-1], Path(path))
    if not folder:
        shutil.rmtree(made, ignore_errors=True)
    return cells


def show(cell: Cell) -> None:
    """Print a cell, and the end of its output where it is wrong."""
    print(
        f"{cell.command:8} {' + '.join(cell.environments):40} code {cell.code:3} {cell.seconds:6.1f} s  row {cell.row or '-':10}"
        f" left {cell.left} errors {cell.error_lines}  {cell.wrong or 'right'}",
        flush=True,
    )
    if cell.wrong:
        print("    " + "\n    ".join(cell.output.strip().splitlines()[-25:]), flush=True)


def keep(cell: Cell, path: Path) -> None:
    """Add a cell to a file of cells, in the place of an earlier one like it."""
    values = {key: value for key, value in asdict(cell).items() if key not in ("output", "expected")}
    values |= {"environments": list(cell.environments), "seconds": round(cell.seconds, 1), "wrong": cell.wrong}
    cells = json.loads(path.read_text()) if path.exists() else []
    key = (values["command"], values["environments"])
    cells = [other for other in cells if (other["command"], other["environments"]) != key]
    path.write_text(json.dumps([*cells, values], indent=1) + "\n")


def table(cells: list[dict[str, Any]]) -> str:
    """Return the matrix as Markdown: a row an environment, a column a command that has been run in all of them."""
    found = {(cell["command"], *cell["environments"]): cell for cell in cells if len(cell["environments"]) == 1}
    commands = [command for command in COMMANDS if all((command, where) in found for where in ENVIRONMENTS)]
    lines = ["| | " + " | ".join(f"`{command}`" for command in commands) + " |", "|---|" + "---|" * len(commands)]
    for where in ENVIRONMENTS:
        lines.append(f"| {where} | " + " | ".join(words(found[command, where]) for command in commands) + " |")
    shown = [cell for (command, _), cell in found.items() if command in commands]
    right, left = sum(not cell["wrong"] for cell in shown), sum(cell["left"] for cell in shown)
    loads = [cell["load"] for cell in shown]
    where = f"the machine's load was {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores"
    lines += ["", f"{right} of {len(shown)} right; processes left: {left}; {where}."]
    return "\n".join(lines) + "\n"


def words(cell: dict[str, Any]) -> str:
    """Return a cell of the table: exit code, seconds, the row's status, and what is wrong with it."""
    said = [str(cell["code"]), f"{cell['seconds']:.1f} s", cell["row"], f"**{cell['wrong']}**" if cell["wrong"] else ""]
    return ", ".join(part for part in said if part)


def write_docs(cells: list[dict[str, Any]], page: Path) -> None:
    """Put the table between the two marks of a page."""
    before, _, rest = page.read_text().partition(f"{BEGIN}\n")
    _, _, after = rest.partition(f"{END}\n")
    page.write_text(f"{before}{BEGIN}\n{table(cells)}{END}\n{after}")


if __name__ == "__main__":
    sys.exit(main())
