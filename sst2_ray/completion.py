"""`sst2-ray completion bash | zsh | fish`: a script that makes the shell complete commands, flags and their choices."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from typing import Literal

from sst2_ray.cli import COMMANDS
from sst2_ray.config.fields import Positional
from sst2_ray.config.flags import LIST_FLAGS, parse
from sst2_ray.terminal import busy

_BASH = """\
_sst2_ray() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  else
    case "${{COMP_WORDS[1]}} $previous" in
{choices}
    esac
    if [ -z "$words" ]; then
      case "$current" in -*) case "${{COMP_WORDS[1]}}" in
{flags}
      esac ;; esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _sst2_ray sst2-ray
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """Print tab completion for a shell."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """bash, zsh or fish."""


Flags = dict[str, tuple[str, ...]]
"""Flag -> choices of its value; "" -> choices of the words without a flag."""


def main(argv: list[str]) -> int:
    """Run `sst2-ray completion`."""
    examples = (
        "# for this shell",
        "source <(sst2-ray completion bash)",
        "# for every new one: a file that is read at the first tab, since making it takes a second",
        "sst2-ray completion bash > ~/.local/share/bash-completion/completions/sst2-ray",
        "sst2-ray completion fish > ~/.config/fish/completions/sst2-ray.fish",
        "# zsh: the file, and in ~/.zshrc the line `source ~/.sst2-ray.zsh`",
        "sst2-ray completion zsh > ~/.sst2-ray.zsh",
    )
    config = parse(CompletionConfig, argv, prog="sst2-ray completion", examples=examples)
    with busy("reading the flags of all commands"):
        commands = {name: flags_of(name) for name in COMMANDS}
    print(fish_script(commands) if config.shell == "fish" else bash_script(commands, zsh=config.shell == "zsh"), end="")
    return 0


def flags_of(command: str) -> Flags:
    """Ask a command for its flags."""
    module, function, *_ = COMMANDS[command]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        getattr(importlib.import_module(module), function)([LIST_FLAGS])
    flags: Flags = {"--help": ()}
    for line in filter(None, printed.getvalue().splitlines()):
        name, *choices = line.split()
        if name.startswith("--"):
            flags[name] = tuple(choices)
        else:
            flags[""] = (name, *choices)
    return flags


def bash_script(commands: dict[str, Flags], *, zsh: bool = False) -> str:
    """Write the script for bash, or for zsh through its bashcompinit."""
    choices = [
        f'      "{command} {flag or command}") words="{" ".join(values)}" ;;'
        for command, flags in commands.items()
        for flag, values in flags.items()
        if values
    ]
    flags = [f'      {command}) words="{" ".join(filter(None, flags))}" ;;' for command, flags in commands.items()]
    template = _ZSH if zsh else _BASH
    return template.format(commands=" ".join(commands), choices="\n".join(choices), flags="\n".join(flags))


def fish_script(commands: dict[str, Flags]) -> str:
    """Write the script for fish."""
    lines = ["complete -c sst2-ray -n __fish_use_subcommand -f"]
    for command, flags in commands.items():
        summary = COMMANDS[command].summary.replace("'", "\\'")
        lines.append(f"complete -c sst2-ray -n __fish_use_subcommand -a {command} -d '{summary}'")
        for flag, values in flags.items():
            what = f"-l {flag.removeprefix('--')}" if flag else "-f"
            given = f" -xa '{' '.join(values)}'" if values else ""
            lines.append(f"complete -c sst2-ray -n '__fish_seen_subcommand_from {command}' {what}{given}")
    return "\n".join(lines) + "\n"
