"""Classes: the values of a label column, their names and their order."""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from sst2_ray.errors import InputError

LabelArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]
"""Numbers of classes, or of a regression the values, [rows]."""
NEGATIVE_POSITIVE = ("negative", "positive")
_KIN = {"negative": 0, "positive": 1, "neg": 0, "pos": 1, "false": 0, "true": 1, "0": 0, "1": 1}
"""Spellings of SST-2's two classes; CSV carries everything as text, so "true" is a Boolean column there."""
_WHOLE_NUMBER = re.compile(r"(?:LABEL_)?([+-]?(?!0\d)\d+)(?:\.0*)?", re.IGNORECASE)
"""2, what pandas writes after one gap (2.0), and what transformers calls a class without a name (LABEL_2); codes (007) are
names."""
_MAX_NAMED = 8
_NUMBERED = re.compile(r"(.+)=(\d+)")
_NO_LABEL = frozenset({"nan", "<na>", "#n/a"})
"""Cells, in lower case, that pandas and spreadsheets leave where there is nothing."""
_UNKNOWN_LABEL = "-1"
"""GLUE's test splits hold it in every row."""


def canonical_label(value: object) -> str | None:
    """Return the one spelling of a label that a cell holds; None: the cell is empty.

    Raises:
        InputError: The value holds several labels, or none that could be one.
    """
    if isinstance(value, Decimal):
        value = float(value)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, date | time):
        return value.isoformat()
    text = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else str(value)
    _refuse_compound(value, text)
    whole = _WHOLE_NUMBER.fullmatch(text)
    if whole:
        return str(int(whole[1]))
    return None if text.casefold() in _NO_LABEL else text or None


def _refuse_compound(value: object, text: str) -> None:
    """Refuse what holds more than a label. Raises InputError."""
    if isinstance(value, list) or (text.startswith("[") and text.endswith("]")):
        raise InputError(f"label {text[:40]!r}: holds several labels; only one label a row can be trained on")
    if not isinstance(value, str) or (text.startswith("{") and text.endswith("}")):
        raise InputError(f"label {text[:40]!r}: is an object, not a label; name another column with --label-column")


def canonical_labels(values: Iterable[object], names: list[str] | None) -> list[str | None]:
    """Return the labels of a column.

    Args:
        values: Cells of the column.
        names: Names that whole numbers stand for (a ClassLabel of `datasets`, where -1 is no label); None: none.
    """
    known: dict[object, str | None] = {}
    labels = []
    for value in values:
        key = (type(value), value) if not isinstance(value, list | dict) else None
        if key not in known:
            known[key] = canonical_label(_named(value, names))
        labels.append(known[key])
    return labels


def _named(value: object, names: list[str] | None) -> object:
    if names is None or isinstance(value, bool) or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None if value < 0 else value


@dataclass(frozen=True)
class ClassNames:
    """The classes of a task; a class's number is its position."""

    names: tuple[str, ...] = NEGATIVE_POSITIVE
    numbered: bool = False
    """Whole numbers in a file stand for the classes of these numbers, unless they are names."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_regression(self) -> bool:
        """Tell whether there are no classes: the one name is that of the value."""
        return self == VALUE

    def __str__(self) -> str:
        return ", ".join(self.names)

    @property
    def case_note(self) -> str | None:
        """Name the classes that differ in case alone, as they are perhaps meant to be one; None: there are none."""
        counts = Counter(name.casefold() for name in self.names)
        alike = [name for name in self.names if counts[name.casefold()] > 1]
        if not alike:
            return None
        return f"classes {', '.join(alike[:_MAX_NAMED])} differ in case alone and are taken for different ones"

    @classmethod
    def of_labels(cls, labels: Collection[str], declared: Sequence[str] = ()) -> ClassNames:
        """Order the labels of a training split.

        Spellings of SST-2's classes (0/1, negative/positive, neg/pos, false/true) become negative and positive. Names that
        the data number themselves (a ClassLabel of `datasets`) keep that order: of two, the second is the one that F1 is of.
        Numbers are ordered by value, names by Unicode.

        Args:
            labels: In their one spelling.
            declared: Names in the order of the data's own numbers; empty: they have none.
        """
        if labels and all(label.casefold() in _KIN for label in labels):
            return cls(NEGATIVE_POSITIVE)
        order = [label for name in declared if (label := canonical_label(name)) in labels]
        if labels and len(order) == len(labels):
            return cls(tuple(label for label in order if label is not None))
        try:
            return cls(tuple(sorted(labels, key=lambda label: (float(label), label))))
        except ValueError:
            return cls(tuple(sorted(labels)))

    @classmethod
    def of_flag(cls, words: Sequence[str]) -> ClassNames:
        """Read `--labels`: names in the order of their classes, or each with its number. Raises InputError."""
        items = words[0].split(",") if len(words) == 1 else words
        numbered = [match for item in items if (match := _NUMBERED.fullmatch(item))]
        by_number = {int(match[2]): match[1] for match in numbered} or dict(enumerate(items))
        names = tuple(canonical_label(by_number.get(number)) or "" for number in range(len(items)))
        if len(names) < 2 or len(set(names) - {""}) < len(names):
            raise InputError(
                f"--labels {' '.join(words)}: must name two classes or more, each once, all or none of them with a number "
                "from 0 on"
            )
        is_usual = tuple(name.casefold() for name in names) == NEGATIVE_POSITIVE
        return cls(NEGATIVE_POSITIVE if is_usual else names, numbered=bool(numbered))

    @classmethod
    def of_model(cls, names: Sequence[str], flag: Sequence[str] = ()) -> ClassNames:
        """Return the classes of a trained model, from their names and the `--labels` that it was trained with."""
        numbered = cls(tuple(names), numbered=True)
        return numbered if flag and cls.of_flag(flag) == numbered else cls(tuple(names))

    def match(self, labels: Collection[str]) -> dict[str, int]:
        """Map the labels of a file that stand for one of these classes to its number; the others are left out."""
        numbers = {name: number for number, name in enumerate(self.names)}
        folded = {name.casefold(): number for name, number in numbers.items()}
        if len(folded) < len(numbers):
            folded = {}
        if self.names == NEGATIVE_POSITIVE and set(labels) == {"-1", "1"}:
            return {"-1": 0, "1": 1}
        folded = {**folded, **self._spellings(folded)}
        if self.numbered and not any(label in numbers for label in labels):
            folded = {**{str(number): number for number in range(len(self))}, **folded}
        found = {label: numbers.get(label, folded.get(label.casefold())) for label in labels}
        return {label: number for label, number in found.items() if number is not None}

    def _spellings(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """Return other spellings of SST-2's two classes with their numbers, if these are the classes. `numbers`: by lower-case name."""
        if self.names == NEGATIVE_POSITIVE:
            return _KIN
        if set(numbers) != set(NEGATIVE_POSITIVE):
            return {}
        # In the user's own order 0 and 1 may mean either.
        return {word: numbers[NEGATIVE_POSITIVE[number]] for word, number in _KIN.items() if not word.isdigit()}


VALUE = ClassNames(("score",))
"""Stands for the classes of a regression, whose model has one output."""


def numbers_of(labels: Collection[str]) -> dict[str, float]:
    """Map the labels that are finite numbers to them."""
    found = {}
    for label in labels:
        with contextlib.suppress(ValueError):
            found[label] = float(label)
    return {label: value for label, value in found.items() if math.isfinite(value)}


def without_unknown(labels: list[str | None]) -> list[str | None]:
    """Take -1 for no label where a split holds nothing else."""
    if all(label in (None, _UNKNOWN_LABEL) for label in labels):
        return [None] * len(labels)
    return labels
