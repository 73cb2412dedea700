"""The pages about clusters name files, flags and figures that exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sst2_ray.cluster.doctor.command import DoctorConfig
from sst2_ray.cluster.down import DownConfig
from sst2_ray.cluster.submit.command import SubmitConfig
from sst2_ray.cluster.up import UpConfig
from sst2_ray.config.train import TrainConfig
from tests.support.cluster_files import FILES, REPOSITORY

PAGES = [*sorted((REPOSITORY / "docs").glob("cluster-*.md")), REPOSITORY / "cluster/README.md"]
COMMANDS = {"doctor": DoctorConfig, "up": UpConfig, "down": DownConfig, "submit": SubmitConfig}


def flags_of(config: type) -> set[str]:
    return {field.name.replace("_", "-") for field in dataclasses.fields(config)} | {"help"}


def test_there_is_a_page_a_platform() -> None:
    assert {page.stem for page in PAGES} >= {
        f"cluster-{name}" for name in ("aws", "gcp", "azure", "onprem", "kubernetes", "slurm")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_of_our_commands_exists(page: Path) -> None:
    for command, words in re.findall(r"sst2-ray (doctor|up|down|submit)((?: (?!-- )[^\s`#]+)*)", page.read_text()):
        assert set(re.findall(r"--([a-z][a-z-]+)", words)) <= flags_of(COMMANDS[command]), f"{command}{words}"
    for words in re.findall(r"jobs/train\.py ([^`\n]*)", page.read_text()):
        assert set(re.findall(r"--([a-z][a-z-]+)", words)) <= flags_of(TrainConfig), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        assert path.startswith("http") or (page.parent / path).exists(), path
    for path in re.findall(r"\b(?:cluster|docs|jobs)/[\w./-]+\.(?:yaml|md|py|sh|sbatch|txt)\b", text):
        assert (REPOSITORY / path).exists() or path == "jobs/sweep.py", path


def test_the_table_of_places_names_every_cluster_file() -> None:
    text = (REPOSITORY / "cluster/README.md").read_text()
    assert all(path.name in text for path in FILES.values())


@pytest.mark.parametrize("name", FILES)
def test_every_cluster_file_points_to_its_page(name: str) -> None:
    (page,) = set(re.findall(r"docs/cluster-\w+\.md", FILES[name].read_text()))
    assert (REPOSITORY / page).exists()
