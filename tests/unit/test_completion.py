"""Tab completion, by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from sst2_ray import completion
from sst2_ray.cli import COMMANDS, run

SHELLS = ("bash", "zsh", "fish")
CASES = {
    "tr": {"train"},
    "train --learn": {"--learning-rate"},
    "train --precision ": {"auto", "bf16", "fp32"},
    "train --preset pap": {"paper", "paper-large"},
    "sweep --learning": {"--learning-rates"},
    "completion ": set(SHELLS),
}


@pytest.fixture(scope="module")
def commands():
    return {name: completion.flags_of(name) for name in COMMANDS}


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"apt install {shell}")


RUN_CASES = {
    "status ": {"first-run", "sbert-minilm-rotten-tomatoes-84685b76b25b", "lr-search"},
    "status --wide s": {"sbert-minilm-rotten-tomatoes-84685b76b25b"},
    "logs f": {"first-run"},
    "stop lr": {"lr-search"},
    "compare lr-search f": {"first-run"},
    "report --experiment l": {"lr-search"},
    "best --overwrite --experiment l": {"lr-search"},
    "status --storage-path other ": {"elsewhere"},
    "results other --experiment ": {"elsewhere"},
    "status --storage-path nowhere ": set(),
    "status --storage-path s3://bucket/runs ": set(),
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """A folder with the storage folders `runs` and `other`, and what is no run."""
    root = tmp_path_factory.mktemp("storage")
    runs = ("runs/first-run", "runs/sbert-minilm-rotten-tomatoes-84685b76b25b", "runs/lr-search", "other/elsewhere")
    for name in (*runs, "runs/lr-search/a-trial", "runs/$(touch told)", "runs/two words"):
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text("{}")
    for name in ("runs/results", "other/results", "runs/no-run"):
        (root / name).mkdir()
    return root


def bash_answer(script: str, words: str) -> set[str]:
    typed = ["sst2-ray", *words.split(" ")]
    quoted = " ".join(f"'{word}'" for word in typed)
    code = (
        f'{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(typed) - 1}; _sst2_ray; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def fish_answer(script: str, words: str) -> set[str]:
    done = subprocess.run(
        ["fish", "-c", f"{script}\ncomplete -C 'sst2-ray {words}'"], capture_output=True, text=True, check=True
    )
    return {line.split("\t")[0] for line in done.stdout.splitlines()}


@pytest.mark.parametrize("words", CASES)
def test_bash_completes_commands_flags_and_choices(commands, words):
    assert bash_answer(completion.bash_script(commands), words) == CASES[words]


@pytest.mark.parametrize("words", CASES)
def test_fish_completes_commands_flags_and_choices(commands, words):
    needs("fish")
    assert fish_answer(completion.fish_script(commands), words) == CASES[words]


@pytest.mark.parametrize("words", RUN_CASES)
def test_bash_completes_the_runs_of_the_storage(commands, words, storage, monkeypatch):
    monkeypatch.chdir(storage)
    assert bash_answer(completion.bash_script(commands), words) == RUN_CASES[words]
    assert not (storage / "told").exists()


def test_bash_completes_runs_of_a_storage_path_behind_an_equals_sign(commands, storage, monkeypatch):
    monkeypatch.chdir(storage)
    assert bash_answer(completion.bash_script(commands), "status --storage-path = other e") == {
        "elsewhere"
    }  # as bash splits it
    assert bash_answer(completion.bash_script(commands), "status --storage-path=other e") == {"elsewhere"}


@pytest.mark.parametrize("words", RUN_CASES)
def test_fish_completes_the_runs_of_the_storage(commands, words, storage, monkeypatch):
    needs("fish")
    monkeypatch.chdir(storage)
    found = fish_answer(completion.fish_script(commands), words)
    assert {name.rstrip("/") for name in found} - {"runs", "other"} == RUN_CASES[
        words
    ]  # beside the files of a comparison


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_every_shell_is_valid(capsys, shell):
    needs(shell)
    assert run("completion", [shell]) == 0
    subprocess.run([shell, "-n"], input=capsys.readouterr().out, text=True, check=True)


@pytest.mark.parametrize(
    ("command", "flag"),
    [("ls", "--wide"), ("logs", "--rank"), ("predict", "--model-dir"), ("submit", "--detach"), ("gc", "--dry-run")],
)
def test_commands_list_their_flags(commands, command, flag):
    assert {flag, "--help"} <= set(commands[command])


def test_an_unknown_shell_is_refused(capsys):
    assert run("completion", ["tcsh"]) == 2
    assert "must be one of bash, zsh, fish" in capsys.readouterr().err
