"""Command lines from dataclasses: a field is a flag. What cannot be read is refused in one line."""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from sst2_ray.config.fields import Kind, coerce, flag, kinds_of
from sst2_ray.errors import ExitCode, InputError, Sst2RayError, did_you_mean
from sst2_ray.records import Status

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_BARE = ("dry-run", "calibrate")
"""Flags that commands take out before the others are read."""

HABITS = {
    "lr": "learning_rate", "lrs": "learning_rates", "bs": "batch_size", "train_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size", "num_epochs": "epochs", "num_train_epochs": "epochs", "max_epochs": "epochs",
    "wd": "weight_decay", "warmup_ratio": "warmup_fraction", "max_seq_length": "max_length", "max_seq_len": "max_length",
    "model_name": "model", "model_name_or_path": "model", "dataset": "data", "train_file": "data", "validation_file": "dev_data",
    "eval_file": "dev_data", "clip": "max_grad_norm", "early_stopping_patience": "patience", "fp16": "precision", "bf16": "precision",
    "random_seed": "seed", "seeds": "num_seeds", "output_dir": "storage_path", "run_name": "name", "save_steps": "checkpoint_every_steps",
    "resume_from_checkpoint": "name", "workers": "num_workers", "num_gpus": "num_workers", "gpus": "use_gpu", "gpu": "use_gpu",
    "dryrun": "dry_run", "report_to": "trackers", "num_trials": "num_samples", "n_trials": "num_samples",
}  # fmt: skip
"""Names of flags in other tools -> the field here."""


def parse(
    cls: type[T], argv: Sequence[str], *, prog: str, description: str | None = None, default: T | None = None
) -> T:
    """Read a command line into an instance of a dataclass.

    Args:
        cls: Dataclass whose fields are the flags.
        argv: Words behind the command.
        prog: The command, for help and messages.
        description: What the command does; None: the docstring of `cls`.
        default: Instance whose values hold where no flag is given; None: the defaults of `cls`.

    Raises InputError in one line; `--help` prints and exits with 0.
    """
    if {"-h", "--help", "--help-all"} & set(argv):
        from sst2_ray.config.help import HelpPage

        HelpPage(fields=cls, prog=prog, description=description, default=default).print()
        sys.exit(ExitCode.SUCCEEDED)
    kinds = kinds_of(cls)
    positional = [name for name, kind in kinds.items() if kind.may_be_positional]
    values: dict[str, object] = {}
    for name, words in _split(kinds, argv):
        if name is None:
            positional = [field for field in positional if field not in values]
            if not positional:
                raise InputError(f"{words[0]}: stands alone, behind no flag (see {prog} --help)")
            name = positional.pop(0)
            values[name] = _read(kinds[name], name.upper(), words, prog)
        else:
            values[name] = _read(kinds[name], flag(name), words, prog)
    if default is not None:
        return dataclasses.replace(default, **values)
    for f in dataclasses.fields(cls):
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            shown = f.name.upper() if kinds[f.name].is_positional else flag(f.name)
            raise InputError(f"{shown}: must be given (see {prog} --help)")
    return cls(**values)


def _split(kinds: dict[str, Kind], argv: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Yield each field with the words of its value; (None, [word]) for a word that no flag takes."""
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            yield None, [word]
            continue
        spelled, equals, value = word[2:].partition("=")
        name, is_negated = _field_of(kinds, spelled)
        kind = kinds[name]
        if is_negated:
            yield name, ["false"]
        elif equals:
            yield name, [value]
        elif kind.type is bool:
            given = words and words[0].lower() in ("true", "false", *(_NONE if kind.optional else ()))
            yield name, [words.pop(0) if given else "true"]
        elif kind.is_tuple:
            count = next((i for i, w in enumerate(words) if w.startswith("--")), len(words))
            taken, words = words[:count], words[count:]
            yield name, taken
        else:
            yield name, [words.pop(0)] if words and not words[0].startswith("--") else []


_NONE = ("none", "null")


def _field_of(kinds: dict[str, Kind], spelled: str) -> tuple[str, bool]:
    """Find the field of a flag, and tell if the flag is its `--no-` form. Raises InputError for an unknown flag."""
    name = spelled.replace("-", "_")
    if name in kinds and not kinds[name].is_positional:
        return name, False
    for current, kind in kinds.items():
        if name in kind.old_names:
            return current, False
    bare = name.removeprefix("no_")
    if bare in kinds and kinds[bare].type is bool:
        return bare, True
    shown = flag(name)
    if shown[2:] in _BARE:
        raise InputError(f"{shown}: stands alone, without a value")
    raise InputError(f"unknown flag {shown}; {nearest_flag(name, kinds)}")


def nearest_flag(name: str, fields: Sequence[str] | dict[str, Kind], otherwise: str = "see --help") -> str:
    """Return the end of the message about an unknown flag: the flag that is most likely meant."""
    known = list(fields)
    habit = HABITS.get(name.replace("-", "_"), "")
    for meant in (habit, f"{habit}s"):
        if meant in known:
            return f"did you mean {flag(meant)}?"
    near = did_you_mean(flag(name), [flag(field) for field in known])
    return near if near.startswith("did") else otherwise


def _read(kind: Kind, shown: str, words: list[str], prog: str) -> object:
    if not kind.is_tuple and not words:
        raise InputError(f"{shown}: a value must follow (see {prog} --help)")
    values = [_convert(kind, shown, word, prog) for word in words]
    return tuple(values) if kind.is_tuple else values[0]


def _convert(kind: Kind, shown: str, word: str, prog: str) -> object:
    if kind.optional and word.lower() in _NONE:
        return None
    one = dataclasses.replace(kind, is_tuple=False, optional=False)
    value: object = {"true": True, "false": False}.get(word.lower(), word) if kind.type is bool else word
    try:
        value = coerce(one, shown, value, prog)
    except InputError:
        raise InputError(f"{shown} {word}: must be {kind} (see {prog} --help)") from None
    kind.check_rules(shown, value)
    return value


def take(argv: Sequence[str], wanted: str) -> tuple[str | None, list[str]]:
    """Take one flag out of a command line; for flags that decide how the rest is read.

    Returns:
        The value of its last occurrence, or None, and the other words.
    """
    value, rest, words = None, [], iter(argv)
    for word in words:
        if word == wanted:
            value = next(words, None)
            if value is None:
                raise InputError(f"{wanted}: a value must follow")
        elif word.startswith(wanted + "="):
            value = word[len(wanted) + 1 :]
        else:
            rest.append(word)
    if value == "":
        raise InputError(f"{wanted} '': is empty; is a variable of the shell not set?")
    return value, rest


def run_main(main: Callable[[list[str]], int], argv: Sequence[str]) -> int:
    """Call `main(argv)`; an Sst2RayError becomes its one line on stderr and its exit code."""
    try:
        return main(list(argv))
    except Sst2RayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(Status.STOPPED, file=sys.stderr)
        return ExitCode.STOPPED
    except BrokenPipeError:  # the reader of the pipe has ended: nobody is left to write to
        sys.stderr.close()
        return ExitCode.SUCCEEDED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"error: {error}", file=sys.stderr)  # a full disk is no bug: "No space left on device", and where
        return ExitCode.FAILED
