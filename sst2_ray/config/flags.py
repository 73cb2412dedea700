"""Command lines from dataclasses: a field is a flag. What cannot be read is refused in one line."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from sst2_ray.config.examples import EXAMPLES
from sst2_ray.config.fields import Kind, coerce, flag, kinds_of
from sst2_ray.config.habits import hint
from sst2_ray.config.help import CommandHelp
from sst2_ray.config.python_words import flag_words
from sst2_ray.errors import ExitCode, InputError, Sst2RayError, first_line
from sst2_ray.records import Status

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Values = dict[str, object]

_BARE = ("dry-run", "calibrate")
"""Flags that commands take out before the others are read."""

LIST_FLAGS = "--list-flags"
"""Alone on a command line: print the flags for `sst2-ray completion`."""
_HELP = ("-h", "--help", "--help-all")
_NONE = ("none", "null")

_OF_THE_MACHINE = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE,
        errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENAMETOOLONG, errno.ELOOP,
    }
)  # fmt: skip
"""Errors that say something about the machine and its limits, and are no bug: a full disk, no permission, no more files."""


class CommandLine(CommandHelp):
    """The flags of a command, read and explained."""

    @functools.cached_property
    def kinds(self) -> dict[str, Kind]:
        """Return the declared types of all fields."""
        return {name: kind for cls in reversed(self.classes) for name, kind in kinds_of(cls).items()}

    def read(
        self, argv: Sequence[str], defaults: Callable[[Values], Mapping[str, object]] = lambda _: {}
    ) -> tuple[Values, ...]:
        """Read the words behind the command.

        Args:
            argv: The words.
            defaults: Returns the default values for help, from the values that were given, those of all classes together.

        Returns:
            For each class the values that were given.

        Raises InputError in one line; `--help` and `--help-all` print and exit with 0.
        """
        if argv == ["help"] and not any(kind.may_be_positional for kind in self.kinds.values()):
            argv = ["--help"]
        words = [word for word in argv if word not in _HELP]
        if argv == [LIST_FLAGS] or len(words) < len(argv):
            self._answer(argv, words, defaults)
            sys.exit(ExitCode.SUCCEEDED)
        values = self._values(words)
        taken: set[str] = set()
        parts = []
        for cls in self.classes:
            own = kinds_of(cls).keys() - taken
            taken |= own
            parts.append({name: value for name, value in values.items() if name in own})
        return tuple(parts)

    def _answer(
        self, argv: Sequence[str], words: Sequence[str], defaults: Callable[[Values], Mapping[str, object]]
    ) -> None:
        if argv == [LIST_FLAGS]:
            self.list_flags()
            return
        try:
            shown = defaults(self._values(words))
        except InputError:  # whoever asks for help may not know how to write the rest
            shown = {}
        self.print_help(shown, full="--help-all" in argv)

    def _values(self, argv: Sequence[str]) -> Values:
        values: Values = {}
        positional = [name for name, kind in self.kinds.items() if kind.may_be_positional]
        for name, words in self._split(argv):
            if name is None:
                positional = [field for field in positional if field not in values]
                if not positional:
                    meant = f"; did you mean --data {words[0]}?" if "data" in self.kinds else ""
                    raise InputError(f"{words[0]}: stands alone, behind no flag{meant} (see {self.prog} --help)")
                name = positional.pop(0)
                values[name] = self._value(name, name.upper(), words)
                continue
            most = self.kinds[name].upper_field
            if most is not None and len(words) == 1 and ":" in words[0]:
                fewest, _, largest = words[0].partition(":")
                values[most] = self._value(most, flag(name), [largest])
                words = [fewest]
            values[name] = self._value(name, flag(name), words)
        return values

    def _split(self, argv: Sequence[str]) -> Iterator[tuple[str | None, list[str]]]:
        """Yield each field with the words of its value; (None, [word]) for a word that no flag takes."""
        words = list(argv)
        while words:
            word = words.pop(0)
            if not word.startswith("--") or word == "--":
                self._check_bare(word)
                yield None, [word]
                continue
            spelled, equals, value = word[2:].partition("=")
            name, is_negated = self._field(spelled)
            kind = self.kinds[name]
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

    def _field(self, spelled: str) -> tuple[str, bool]:
        """Find the field of a flag, and tell if the flag is its `--no-` form. Raises InputError for an unknown flag."""
        name = spelled.replace("-", "_")
        if name in self.kinds and not self.kinds[name].is_positional:
            return name, False
        for current, kind in self.kinds.items():
            if name in kind.old_names:
                return current, False
        bare = name.removeprefix("no_")
        if bare in self.kinds and self.kinds[bare].type is bool:
            return bare, True
        if flag(name)[2:] in _BARE:
            raise InputError(f"{flag(name)}: stands alone, without a value")
        raise self._unknown(f"--{spelled}")

    def _check_bare(self, word: str) -> None:
        """Raise InputError for a flag with one dash; `-` and `-1` are words like others."""
        if word.startswith("-") and word[1:2].isalpha():
            raise self._unknown(word)

    def _unknown(self, word: str) -> InputError:
        """Return the error for a flag that the command does not have."""
        known = [field for field, kind in self.kinds.items() if field not in self.hidden and not kind.is_positional]
        is_training = self.prog.split()[-1] in ("train", "sweep", "job")
        meant = hint(word, known, show=flag, is_training=is_training, otherwise=f"see {self.prog} --help")
        return InputError(f"unknown flag {word}; {meant}")

    def _value(self, name: str, shown: str, words: Sequence[str]) -> object:
        kind = self.kinds[name]
        if not kind.is_tuple and not words:
            raise InputError(f"{shown}: a value must follow (see {self.prog} --help)")
        values = [_convert(kind, shown, word, self.prog) for word in words]
        return tuple(values) if kind.is_tuple else values[0]


def parse(
    cls: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    description: str = "",
    default: T | None = None,
    examples: Sequence[str] = (),
) -> T:
    """Read a command line into an instance of a dataclass; see CommandLine.

    `default`: instance whose values hold where no flag is given; None: the defaults of `cls`.
    """
    lines = tuple(examples) or EXAMPLES.get(prog.removeprefix("sst2-ray "), ())
    line = CommandLine(prog=prog, classes=(cls,), description=description, examples=lines)
    (values,) = line.read(
        argv, lambda _: {f.name: getattr(default, f.name) for f in dataclasses.fields(cls)} if default else {}
    )
    if default is not None:
        return dataclasses.replace(default, **values)
    for f in dataclasses.fields(cls):
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            shown = f.name.upper() if line.kinds[f.name].is_positional else flag(f.name)
            choices = line.kinds[f.name].choices
            among = f": {', '.join(choices[:-1])} or {choices[-1]}" if choices else ""
            raise InputError(f"{shown}: must be given{among} (see {prog} --help)")
    return cls(**values)


def _convert(kind: Kind, shown: str, word: str, prog: str) -> object:
    if kind.optional and word.lower() in _NONE:
        return None
    one = dataclasses.replace(kind, is_tuple=False, optional=False)
    value: object = {"true": True, "false": False}.get(word.lower(), word) if kind.type is bool else word
    try:
        value = coerce(one, shown, value, prog)
    except InputError:
        blanks = f"; several stand behind each other: {word.replace(',', ' ')}" if kind.is_tuple and "," in word else ""
        raise InputError(f"{shown} {word}: must be {kind}{blanks} (see {prog} --help)") from None
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
        with flag_words():
            code = main(list(argv))
        sys.stdout.flush()
        return code
    except Sst2RayError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(Status.STOPPED, file=sys.stderr)
        return ExitCode.STOPPED
    except OSError as error:
        if error.errno is not None and error.errno not in _OF_THE_MACHINE:  # None: an object store's
            raise
        _drop_output()
        print(f"error: {first_line(error)}", file=sys.stderr)  # "No space left on device", and where
        return ExitCode.FAILED


def _drop_output() -> None:
    """Write what is left in stdout's buffer to nowhere: the interpreter would try again at its end, and fail."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
