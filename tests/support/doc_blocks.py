"""Command blocks of README and the documentation, line by line, with the reasons why some lines do not run here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_COMMANDS = (
    "aws", "az", "cd", "docker", "export", "gcloud", "helm", "kubectl", "make", "N=", "P=", "for", "pip", "python",
    "python3.11", "pytest", "ray", "sbatch", "sed", "ssh-keygen", "sst2-ray", "tail", ".",
)  # fmt: skip
"""First words of the lines of command blocks."""

_HUB = "needs weights or data of the model hub"
_AWS = "needs an account; tests/e2e/cluster/test_aws.py runs up, submit and down against a simulated cloud"
_PLACE = "needs an account, or machines"
NOT_HERE = {
    r"^(az|aws|gcloud|kubectl|helm|docker|sbatch|N=|P=|for A|ssh-keygen|sed \"s)": _PLACE,
    r"^pip install (boto3|google|azure|pre-commit)": "installs what only a cloud, or a habit, needs",
    r"^python3\.11 -m venv": "installs an environment",
    r"^make demo": "installs an environment; what it runs besides are commands that run here",
    r"^make (test|check)": "is what CI runs",
    r"squeue|JOBID": "needs a cluster with Slurm",
    r"onnx|openvino": "needs the extras of that name",
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
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        language, body = block[1], block[2]
        first = text[: block.start(2)].count("\n") + 1
        if language == "python":
            found.append(Line(page=name, number=first, text=body, language=language))
        elif language in ("", "sh", "bash", "console") and _is_commands(body):
            found += _split(name, first, body)
    return found


def _is_commands(body: str) -> bool:
    word = next((line.split()[0] for line in body.splitlines() if line.strip() and not line.startswith("#")), "")
    return any(word == one or (one.endswith("=") and word.startswith(one)) for one in _COMMANDS)


def _split(page: str, first: int, body: str) -> list[Line]:
    found, open_line, began = [], "", first
    for number, line in enumerate(body.splitlines(), start=first):
        began = began if open_line else number
        open_line += line
        if open_line.endswith("\\"):
            open_line = open_line[:-1]
            continue
        if open_line.strip() and not open_line.startswith("#"):
            found.append(Line(page=page, number=began, text=open_line, language=""))
        open_line = ""
    return found
