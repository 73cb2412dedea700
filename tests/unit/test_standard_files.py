"""Tests of what a command does where its standard files are closed, break, or cannot hold a character."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from pathlib import Path
from sst2_ray.cli import prepare_standard_files
from sst2_ray.terminal import console
prepare_standard_files()
out = console()
for _ in range(3):
    out.print("a line − of text" * 1000)
Path(sys.argv[1]).write_text(f"went on, {open('/dev/null').fileno() > 2}")
"""


@pytest.mark.parametrize(
    "ending", ["", "<&-", ">&-", "2>&-", "<&- >&- 2>&-", "| head -c 1", "| (exec <&-)", "> /dev/full"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_command_goes_on_whatever_becomes_of_its_standard_files(tmp_path: Path, ending: str, encoding: str) -> None:
    mark = tmp_path / "mark"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; '{sys.executable}' -c \"$CODE\" '{mark}' {ending}"],
        env={**os.environ, "CODE": CODE, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert mark.read_text() == "went on, True"


@pytest.mark.parametrize(
    ("ending", "code"),
    [("| head -1", 3), ("| (exec <&-)", 3), (">&-", 3), ("> /dev/full", 4), ("2>&1 | (exec <&-)", 3)],
)
def test_a_command_keeps_its_exit_code_when_its_reader_ends_and_fails_on_a_full_disk(ending: str, code: int) -> None:
    """The command here ends with 3 after more output than a pipe holds."""
    text = """
import sys
from sst2_ray import cli
def main(argv):
    print("a line\\n" * 100_000)
    print("and an error", file=sys.stderr)
    return 3
cli.COMMANDS["doctor"] = cli.Command("__main__", "main", "", "")
sys.exit(cli.run("doctor", []))
"""
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -c \"$CODE\" {ending}; exit ${{PIPESTATUS[0]}}"],
        env={**os.environ, "CODE": text, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert [line for line in done.stderr.splitlines() if line != "and an error"] == (
        ["error: [Errno 28] No space left on device"] if code == 4 else []
    )


@pytest.mark.parametrize("ending", ["2> /dev/full", "> /dev/full 2>&1", "2>&-", "2>&1 | (exec <&-)"])
def test_an_error_that_cannot_be_said_keeps_its_exit_code(ending: str) -> None:
    words = f"'{sys.executable}' -m sst2_ray train --nonsense {ending}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", words], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60
    )
    assert done.returncode == 2


def test_a_character_that_the_encoding_lacks_is_replaced() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "/dev/null"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"a line ? of text")


@pytest.mark.parametrize(("unbuffered", "shown"), [("1", True), ("", False)])
def test_what_is_printed_is_shown_at_once_where_the_user_asks_for_it(unbuffered: str, shown: bool) -> None:
    code = "import sys; from sst2_ray.cli import prepare_standard_files; prepare_standard_files(); print('line'); sys.stdin.read()"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        found, _, _ = select.select([process.stdout], [], [], 20 if shown else 1)
        assert bool(found) == shown
        process.stdin.close()
        assert process.stdout.read() == b"line\n"
