"""Arguments of `submit`: the command, its variables and its resources, none of them a secret."""

from __future__ import annotations

from sst2_ray.cluster.secret_scan import holds_secret, is_secret_variable
from sst2_ray.errors import InputError


def split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return (our own options, the command after the first `--`)."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def read_variables(pairs: tuple[str, ...]) -> dict[str, str]:
    """Read KEY=VALUE pairs. Raises InputError for anything else, and for secrets."""
    found: dict[str, str] = {}
    for position, pair in enumerate(pairs, start=1):
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--env, value {position}: must be KEY=VALUE")  # not repeated: it may be a bare secret
        _refuse_secret(f"--env {name}", name, value, value)
        found[name] = value
    return found


def refuse_secrets(command: list[str]) -> None:
    """Refuse a command that holds a secret. Raises InputError."""
    for position, word in enumerate(command, start=1):
        name, equals, value = word.partition("=")
        before = command[position - 2] if position > 1 else ""
        if equals and name.lstrip("-").replace("-", "_").isidentifier():
            _refuse_secret(f"word {position} of the command ({name}=...)", name, value, word)
        elif before.startswith("--") and "=" not in before and not word.startswith("-"):
            _refuse_secret(f"word {position} of the command ({before} ...)", before, word, word)
        else:
            _refuse_secret(f"word {position} of the command", "", word, word)


def _refuse_secret(where: str, name: str, value: str, content: str) -> None:
    """Refuse a secret by its place, never by its value. Raises InputError."""
    if (name and is_secret_variable(name, value)) or holds_secret(content):
        raise InputError(
            f"{where}: looks like a secret, and a job's command and variables are readable by everybody on the cluster; "
            "mount it as a file (e.g. ~/.cache/huggingface/token under file_mounts of the cluster file)"
        )


def read_demand(cpus: float, gpus: float, named_amounts: tuple[str, ...]) -> dict[str, float]:
    """Return the resources that the command itself reserves, by Ray's names. Raises InputError for what is not NAME=AMOUNT."""
    try:
        named = {name: float(amount) for name, amount in (pair.split("=") for pair in named_amounts)}
    except ValueError:
        raise InputError(f"--entrypoint-resources {' '.join(named_amounts)}: must be NAME=AMOUNT") from None
    wanted = {"CPU": cpus, "GPU": gpus, **named}
    return {name: amount for name, amount in wanted.items() if amount}
