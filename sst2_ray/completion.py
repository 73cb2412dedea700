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
from sst2_ray.config.help import RUNS, SWITCH
from sst2_ray.terminal import busy

_BASH = """\
_sst2_ray_runs() {{
  local storage=runs i
  [ -d "${{COMP_WORDS[2]}}/results" ] && storage="${{COMP_WORDS[2]}}"
  for ((i = 2; i < COMP_CWORD; i++)); do
    case "${{COMP_WORDS[i]}}" in
      --storage-path) storage="${{COMP_WORDS[i+1]}}"; [ "$storage" = = ] && storage="${{COMP_WORDS[i+2]}}" ;;
      --storage-path=*) storage="${{COMP_WORDS[i]#*=}}" ;;
    esac
  done
  case "$storage" in "~/"*) storage="$HOME/${{storage#??}}" ;; esac
  {find}
}}
_sst2_ray() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  else
    case "$previous" in --*=?*) previous="" ;; esac
    case "${{COMP_WORDS[1]}} $previous" in
{choices}
    esac
    if [ -z "$words" ]; then
      case "$current" in
        -*) case "${{COMP_WORDS[1]}}" in
{flags}
        esac ;;
        *) case "${{COMP_WORDS[1]}} $previous" in
{switches}
          *" -"* | *" ="*) ;;
{names}
        esac ;;
      esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _sst2_ray sst2-ray
"""
# A wordlist is expanded by the shell: only what can be the name of a run gets there, whatever folders are called.
_FIND = (
    '[ -n "$storage" ] && find "$storage/" -mindepth 2 -maxdepth 2 -name config.json 2> /dev/null |'
    " sed -nE 's|.*/([A-Za-z0-9][A-Za-z0-9._-]*)/config[.]json$|\\1|p'"
)
_FISH_RUNS = """\
function __sst2_ray_runs
  set -l storage runs
  set -l words (commandline -opc)
  set -q words[3]; and test -d "$words[3]/results"; and set storage $words[3]
  for i in (seq (count $words))
    switch $words[$i]
      case --storage-path
        set -q words[(math $i + 1)]; and set storage $words[(math $i + 1)]
      case '--storage-path=*'
        set storage (string replace -- --storage-path= '' $words[$i])
    end
  end
  set storage (string replace -r '^~/' "$HOME/" -- $storage)
  %s
end
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """Print tab completion for a shell."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """bash, zsh or fish."""


Flags = dict[str, tuple[str, ...]]
"""Flag -> choices of its value, or a mark of `CommandHelp.list_flags`; "" -> those of the words without a flag."""


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
    given = [(command, flag, values) for command, flags in commands.items() for flag, values in flags.items() if values]
    choices = [
        f'      "{command} {flag or command}") {_words(values)} ;;'
        for command, flag, values in given
        if values != (SWITCH,)
    ]
    # Behind the first name, and behind a flag that takes no value, names can follow as well.
    switches = [
        f'          "{command} {flag}") {_words((RUNS,))} ;;'
        for command, flag, values in given
        if values == (SWITCH,) and commands[command].get("") == (RUNS,)
    ]
    names = [
        f'          "{command} "*) {_words((RUNS,))} ;;'
        for command, flag, values in given
        if (flag, *values) == ("", RUNS)
    ]
    flags = [f'          {command}) words="{" ".join(filter(None, flags))}" ;;' for command, flags in commands.items()]
    template = _ZSH if zsh else _BASH
    parts = {"choices": choices, "flags": flags, "switches": switches, "names": names}
    lines = {name: "\n".join(part) for name, part in parts.items()}
    return template.format(commands=" ".join(commands), find=_FIND, **lines)


def _words(values: tuple[str, ...]) -> str:
    return 'words="$(_sst2_ray_runs)"' if values == (RUNS,) else f'words="{" ".join(values)}"'


def fish_script(commands: dict[str, Flags]) -> str:
    """Write the script for fish."""
    find = _FIND.replace('[ -n "$storage" ] &&', 'test -n "$storage"; and')
    lines = [_FISH_RUNS % find, "complete -c sst2-ray -n __fish_use_subcommand -f"]
    for command, flags in commands.items():
        summary = COMMANDS[command].summary.replace("'", "\\'")
        lines.append(f"complete -c sst2-ray -n __fish_use_subcommand -a {command} -d '{summary}'")
        for flag, values in flags.items():
            what = f"-l {flag.removeprefix('--')}" if flag else "-f"
            choices = "(__sst2_ray_runs)" if values == (RUNS,) else " ".join(values)
            given = f" -xa '{choices}'" if values and values != (SWITCH,) else ""
            lines.append(f"complete -c sst2-ray -n '__fish_seen_subcommand_from {command}' {what}{given}")
    return "\n".join(lines) + "\n"
