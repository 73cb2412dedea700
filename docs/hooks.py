"""Pages of the site that are made from the code: the front page, the commands, the config, the Python API."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file holds."""
    pages = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8"),
        "reference/commands.md": commands(),
        "reference/config.md": config_page(),
        "reference/python.md": python_page(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between the repository's files into links of the site; files outside docs/ are named instead."""
    if page.file.src_uri == "index.md":
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        markdown = re.sub(r'(src|srcset)="docs/', r'\1="', markdown)
    markdown = markdown.replace("](../docs/", "](")
    outside = r"\[([^\]]+)\]\((?!https?:|#|[\w./-]+\.md(?:#|\))|images/|reference/)(?:\.\./)?([\w./-]+)(?:#[\w-]*)?\)"
    markdown = re.sub(outside, r"\1 (`\2`)", markdown)
    return re.sub(
        r"\[([^\]]+)\]\((?:\.\./)?((?:benchmarks|cluster)/[\w./-]+|[A-Z]+\.md)(?:#[\w-]*)?\)", r"\1 (`\2`)", markdown
    )


def commands() -> str:
    """Render every command's own help, as its parser prints it."""
    from sst2_ray.cli import COMMANDS

    parts = ["# Commands\n\nEvery flag of every command, as its own help prints them.\n"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    for name in COMMANDS:
        answer = help_of(name, "--help-all", environment)
        if answer.returncode:  # a command whose help is short has one form of it
            answer = help_of(name, "--help", environment)
        if answer.returncode:
            raise RuntimeError(f"sst2-ray {name} --help: {answer.stderr.strip()}")
        parts.append(f"## {name}\n\n```text\n{answer.stdout.strip()}\n```\n")
    return "\n".join(parts)


def help_of(name: str, flag: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one command's help."""
    words = [sys.executable, "-m", "sst2_ray", name, flag]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def config_page() -> str:
    """Render the fields of the configs with their docstrings."""
    from sst2_ray.config.sweep import SweepFlags
    from sst2_ray.config.train import TrainConfig

    parts = [
        "# Config\n\nA field is a flag (`learning_rate` is `--learning-rate`), a key of a `--config` file and an argument of "
        "`sst2_ray.TrainConfig` or `SweepConfig`.\n"
    ]
    for title, kind in (("One run", TrainConfig), ("A sweep", SweepFlags)):
        parts.append(f"## {title}\n")
        for group in [c for c in reversed(kind.__mro__) if dataclasses.is_dataclass(c) and own_fields(c)]:
            parts += [f"### {(group.__doc__ or group.__name__).strip().splitlines()[0].rstrip('.')}\n"]
            parts += ["| field | default | what |", "|---|---|---|"]
            docs = docstrings(group)
            for field in own_fields(group):
                default = field.default if field.default is not dataclasses.MISSING else ""
                parts.append(f"| `{field.name}` | `{default}` | {docs.get(field.name, '')} |")
            parts.append("")
    return "\n".join(parts)


def own_fields(kind: type) -> list[dataclasses.Field[Any]]:
    """Return the fields that a class declares itself."""
    return [f for f in dataclasses.fields(kind) if f.name in inspect.get_annotations(kind)]


def docstrings(kind: type) -> dict[str, str]:
    """Read the docstrings below the fields of a class."""
    import ast
    import textwrap

    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    for field, doc in zip(node.body, node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(doc.value.value).split()).replace("|", "\\|")
    return found


def python_page() -> str:
    """List the public names of the package, for mkdocstrings to fill in."""
    import sst2_ray

    lines = [
        "# Python\n\n`import sst2_ray` imports neither torch nor ray; they come with the first call that needs them.\n"
    ]
    for name in sst2_ray.__all__:
        home = getattr(getattr(sst2_ray, name), "__module__", None)
        if home and home.startswith("sst2_ray"):
            lines.append(f"::: {home}.{name}\n")
    return "\n".join(lines)
