"""Command blocks of README and the documentation, line by line, with the reasons why some lines do not run here."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = (
    "aws", "az", "cd", "curl", "docker", "export", "gcloud", "helm", "HF_TOKEN=", "kubectl", "make", "N=", "P=",
    "for", "pip", ".venv/bin/pip", "python", "python3.11", "pytest", "ray", "RAY_ADDRESS=", "sbatch", "sed", "serve",
    "ssh-keygen", "sst2-ray", "tail", ".",
)  # fmt: skip
"""First words of the lines of command blocks, which have no language; `NAME=` stands for any value."""
OTHERS = ("csv", "json", "text", "yaml")
"""Languages of blocks that are not run."""

_HUB = "needs weights or data of the model hub"
_AWS = "needs an account; tests/e2e/cluster/test_aws.py runs up, submit and down against a simulated cloud"
_PLACE = "needs an account, or machines"
NOT_HERE = {
    r"^(az|aws|gcloud|kubectl|helm|docker|sbatch|N=|P=|for A|ssh-keygen|sed \"s)": _PLACE,
    r"^pip install (boto3|google|azure)|pre-commit": "installs what only a cloud, or a habit, needs",
    r"^python3\.11 -m venv": "installs an environment",
    r"^make demo": "installs an environment; what it runs besides are commands that run here",
    r"^make (test|check)": "is what CI runs",
    r"squeue|JOBID": "needs a cluster with Slurm",
    r"^pip install -c constraints\.txt -e": "installs an extra, which the environment of the tests has",
    r"^sst2-ray serve|^curl http://127|^serve deploy|SERVE_TOKEN": "a server answers until it is ended; tests/ray/test_serve.py "
    "runs one",
    r"^ray dashboard|RAY_AUTH_TOKEN_PATH": _PLACE,
    r"^HF_TOKEN=|^sst2-ray doctor my-serv": "needs an account",
    r"^sst2-ray (doctor|up|submit|down) (ray_cluster|my-cluster|my-run)": _AWS,
    r"s3://|gs://": "needs a bucket",
    r"--data glue|owner/name|sbert-mpnet|--models? [^#]*modernbert-base|around-paper|paper-grid": _HUB,
    r"import-tune ~/ray_results": "needs somebody's experiment; tests/e2e/results/test_import_tune_for_real.py makes one",
    r"--search optuna": "takes hours",
    r"^sst2-ray stop NAME": "nothing runs any more; tests/faults/test_stop.py stops a run",
}
"""Lines that do not run here: pattern -> why."""
ELSEWHERE = {
    r"read_parquet|scan_parquet|spark\.read|ResultsTable": "tests/e2e/results/test_recipes.py runs it",
    r"convert_export": "needs an export of an older version",
    r"serve\.run": "tests/ray/test_serve.py runs a server",
}
"""Python blocks that do not run here: pattern -> why."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A command of a page; lines that end in a backslash are joined."""

    page: str
    number: int
    text: str
    language: str
    """python for a whole block, else empty."""

    @property
    def reason(self) -> str | None:
        """Tell why the line does not run here; None: it runs."""
        patterns = ELSEWHERE if self.language == "python" else NOT_HERE
        return next((why for pattern, why in patterns.items() if re.search(pattern, self.text)), None)


def lines_of(page: Path) -> list[Line]:
    """List the commands of a page, in order; a Python block is one."""
    name = str(page.relative_to(ROOT))
    found: list[Line] = []
    for block in blocks_of(page):
        if block.language == "python":
            found.append(Line(page=name, number=block.number, text=block.text, language=block.language))
        elif not block.language:
            found += _split(name, block.number, block.text)
    return found


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    number: int
    """Line of the page that its first line stands on."""
    language: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """List the fenced blocks of a page, those inside lists as well."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(number=text[: found.start(3)].count("\n") + 1, language=found[2], text=textwrap.dedent(found[3]))
        for found in re.finditer(r"^( *)```([\w-]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    ]


def is_command(line: str) -> bool:
    """Tell if a line begins as a command does."""
    word = (line.split() or [""])[0]
    return any(word == one or (one.endswith("=") and word.startswith(one)) for one in COMMANDS)


def _split(page: str, first: int, body: str) -> list[Line]:
    """Split a block into its commands: a backslash and a here-document join lines, a comment is none."""
    found, open_line, began, end = [], "", first, ""
    for number, line in enumerate(body.splitlines(), start=first):
        began = began if open_line else number
        open_line += line
        if open_line.endswith("\\") and not end:
            open_line = open_line[:-1]
            continue
        here = re.search(r"<<'?(\w+)'?$", line)
        end = here[1] if here else "" if line == end else end
        if end:
            open_line += "\n"
            continue
        if open_line.strip() and not open_line.startswith("#"):
            found.append(Line(page=page, number=began, text=open_line, language=""))
        open_line = ""
    return found
