"""`sst2-ray`: every command is there, and only what a command needs is imported."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sst2_ray import cli
from sst2_ray.version import __version__

ROOT = Path(__file__).parents[2]


def said(capsys, *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        sys.argv = ["sst2-ray", *argv]
        cli.main()
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


@pytest.fixture(autouse=True)
def own_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_names_a_function_that_is_there(name):
    command = cli.COMMANDS[name]
    assert callable(getattr(importlib.import_module(command.module), command.function))
    assert command.summary


@pytest.mark.parametrize("argv", [(), ("--help",), ("help",), ("-h",)])
def test_without_a_command_all_of_them_are_listed(capsys, argv):
    code, out, err = said(capsys, *argv)
    assert (code, err) == (0, "")
    assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize("word", ["-V", "--version"])
def test_the_version_is_printed(capsys, word):
    assert said(capsys, word) == (0, f"{__version__}\n", "")


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run([sys.executable, "-m", "sst2_ray", "-V"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_an_unknown_command_is_answered_with_the_nearest_one(capsys):
    code, out, err = said(capsys, "trian")
    assert (code, out) == (2, "")
    assert err == "error: no command 'trian'; did you mean train?\n"


@pytest.mark.parametrize(
    "typed, answer", [("--versoin", "did you mean --version?"), ("--hlep", "did you mean --help?")]
)
def test_a_mistyped_flag_before_any_command_is_answered_with_the_nearest_one(capsys, typed, answer):
    assert said(capsys, typed) == (2, "", f"error: {typed}: {answer}\n")


def test_resume_is_no_command_and_says_how_to_go_on(capsys):
    code, _, err = said(capsys, "resume")
    assert (code, err) == (
        2,
        "error: no command 'resume'; give the interrupted command again: it goes on where it stopped\n",
    )


def test_presets_are_listed_with_the_commands_that_run_them(capsys):
    code, out, _ = said(capsys, "presets", "--json")
    listed = {one["command"]: one["config"] for one in json.loads(out)}
    assert code == 0
    assert listed["sst2-ray train --preset paper"]["learning_rate"] == 8e-5
    assert {command.split()[1] for command in listed} == {"train", "sweep"}


@pytest.mark.parametrize("command", ["train", "predict", "report", "doctor", "ls"])
def test_a_command_in_a_folder_that_is_gone_is_one_line(capsys, tmp_path, monkeypatch, command):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.run(command, []) == 2
    assert capsys.readouterr().err == "error: the current folder has been deleted; change to another one\n"


@pytest.mark.parametrize("words", [["-m", "sst2_ray", "ls"], ["-c", "from sst2_ray.cli import run; exit(run('ls'))"]])
@pytest.mark.parametrize("variables", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_names_are_utf8_in_every_locale_and_the_output_is_the_terminal_s(tmp_path, words, variables):
    env = {**os.environ, "LC_ALL": "C", **variables, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(ROOT)}
    folder = "--storage-path=\N{LATIN SMALL LETTER E WITH ACUTE}\N{BULLET}"
    done = subprocess.run([sys.executable, *words, folder], env=env, cwd=tmp_path, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"--storage-path \xe9?: no run there" in done.stderr


def test_a_python_that_leaves_docstrings_out_is_started_again_with_them():
    """transformers reads docstrings when it is imported."""
    env = {**os.environ, "PYTHONOPTIMIZE": "2", "PYTHONPATH": str(ROOT)}
    code = "import sys; from sst2_ray import cli; cli.restart_with_usable_python(); print(sys.flags.optimize)"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("command", ["ls", "train", "report", "predict", "doctor"])
def test_a_name_that_is_not_utf8_is_one_line(capsys, command):
    assert cli.run(command, [os.fsdecode(b"--name=caf\xe9")]) == 2
    assert capsys.readouterr().err == "error: --name=caf\\xe9: is not UTF-8; rename it\n"


def test_a_command_s_exit_code_is_the_process_s(capsys):
    code, out, err = said(capsys, "train", "--learning-rate", "nan")
    assert (code, out) == (2, "")
    assert err.startswith("error: --learning-rate nan")


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import sst2_ray; sst2_ray.TrainConfig()",
        "import sst2_ray.cli",
        "from sst2_ray.cli import run; assert run('train', ['--learning-rate', 'nan']) == 2",
        "from sst2_ray.cli import run; assert run('train', ['--no-such-flag']) == 2",
        "from sst2_ray.cli import run; assert run('train', ['--data', 'no-such-file.csv']) == 2",
    ],
)
def test_a_wrong_input_is_told_before_torch_and_ray_are_imported(code):
    assert not {"torch", "ray", "transformers", "deepspeed", "datasets"} & modules_after(code)


def test_the_package_offers_what_it_says():
    import sst2_ray

    assert all(getattr(sst2_ray, name) is not None for name in sst2_ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = sst2_ray.nonsense
