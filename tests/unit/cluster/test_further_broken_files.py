"""Broken files of every place, the Dockerfile and the set-up script included: doctor finds each, and accuses no right one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from sst2_ray.cluster.doctor.build_files import check_build_file
from sst2_ray.cluster.doctor.command import DoctorConfig, check_file
from sst2_ray.cluster.file import load_cluster_file
from sst2_ray.errors import InputError
from tests.support.broken_files import BROKEN, MORE, RIGHT, SHIPPED, THIRD, Edit, text_of


def told(folder: Path, place: str, text: str) -> set[str]:
    """Return what doctor says about the file itself; a file that is refused is told in one line."""
    path = folder / SHIPPED[place].name
    path.write_bytes(text.encode())
    try:
        findings = check_build_file(path)
        if findings is None:
            findings = check_file(load_cluster_file(path), DoctorConfig(offline=True))
    except InputError as problem:
        return {f"ERROR {problem}"}
    return {finding.line() for finding in findings if finding.level != "ok"}


def accused(edits: Mapping[str, Edit], text: str, told_of: Callable[[str], set[str]]) -> dict[str, list[str]]:
    """Return the errors that doctor finds after each edit that does no harm, by its name."""
    lines = {name: [line for line in told_of(edit(text)) if line.startswith("ERROR")] for name, edit in edits.items()}
    return {name: errors for name, errors in lines.items() if errors}


@pytest.mark.parametrize("place", SHIPPED)
def test_every_broken_file_is_found(place: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del home
    monkeypatch.delenv(
        "SST2_RAY_KUBERAY_SCHEMAS", raising=False
    )  # most users do not have the operator's schema at hand
    text = text_of(place)
    clean = told(tmp_path, place, text)
    mistakes = {
        f"{n} {name}": m for n, part in enumerate((BROKEN, MORE, THIRD)) for name, m in part.get(place, {}).items()
    }
    assert [name for name, mistake in mistakes.items() if not told(tmp_path, place, mistake(text)) - clean] == []


def test_there_are_broken_files_of_every_place() -> None:
    assert sum(len(BROKEN[place]) + len(MORE.get(place, {})) + len(THIRD.get(place, {})) for place in SHIPPED) >= 230
    assert min(map(len, BROKEN.values())) >= 5


@pytest.mark.parametrize("place", SHIPPED)
def test_no_shipped_file_is_accused(place: str, home: Path, tmp_path: Path) -> None:
    del home
    assert [line for line in told(tmp_path, place, text_of(place)) if line.startswith("ERROR")] == []


@pytest.mark.parametrize("place", RIGHT)
def test_what_is_right_is_not_accused(place: str, home: Path, tmp_path: Path) -> None:
    del home
    assert accused(RIGHT[place], text_of(place), lambda text: told(tmp_path, place, text)) == {}
