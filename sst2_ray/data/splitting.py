"""Deterministic hold-outs and subsets: they depend on the rows alone, never on a run's seed.

Held-out rows share no sentence and no phrase with the rows that stay. Keeping duplicates together is not enough: SST-2's
training split consists of sentences *and their phrases*, so that 89 % of the rows (of three words and more) of a random
hold-out occur, word for word, inside a row that stays in training; such a hold-out rewards memorizing. So whole families
are held out: a longest sentence with the phrases that occur in it.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sst2_ray.data.labels import LabelArray
from sst2_ray.data.phrases import Keys, contained
from sst2_ray.data.texts import Text

T = TypeVar("T")

_INSIDE_NUMBER = r"[.,](?<=\d[.,])(?=\d)"
_SIGNS = "+#"
_ASCII_WORD = re.compile(rf"[^\W_](?:[^\W_]|{_INSIDE_NUMBER})*[{_SIGNS}]*")
_NUMBER_MARK = re.compile(_INSIDE_NUMBER)
_SIGN = re.compile(rf"[{_SIGNS}]")
_LOWER_OR_SPACE = bytes(ord(chr(code).lower()) if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)
_LAST_SYMBOL = 0x1FFFF
_BETWEEN = "\x1f"
"""Divides the keys of a pair; no key of a single text holds it."""


def words_of(text: str) -> list[str]:
    """List the words of a text, case folded: runs of letters with their marks and of digits, and pictographs.

    A point or comma inside a number belongs to it, and so does a + or # right behind a word: 1.5 is not 15, A+ is not A,
    C# is not C.
    """
    if text.isascii():
        if "+" in text or "#" in text or _NUMBER_MARK.search(text):
            return _ASCII_WORD.findall(text.lower())
        # Most texts: words are what stands between other characters, and bytes are looked up faster than matched.
        return text.encode().translate(_LOWER_OR_SPACE).decode().split()
    # Folding may leave what has to be composed again.
    return _unicode_word().findall(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))


@functools.cache
def _unicode_word() -> re.Pattern[str]:
    """Compile the words of any script; `re` knows no classes of marks and pictographs."""
    marks = _character_class("Mn", "Mc", "Me")
    word = rf"[^\W_](?:[^\W_]|[{marks}]|{_INSIDE_NUMBER})*[{_SIGNS}]*"
    return re.compile(rf"{word}|[{_character_class('So')}]")


def _character_class(*categories: str) -> str:
    """List the characters of Unicode categories as ranges for `re`."""
    codes = [code for code in range(128, _LAST_SYMBOL) if unicodedata.category(chr(code)) in categories]
    firsts = [code for previous, code in zip([0, *codes], codes, strict=False) if code != previous + 1]
    lasts = [code for code, following in zip(codes, [*codes[1:], 0], strict=True) if following != code + 1]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in zip(firsts, lasts, strict=True))


def normalize(text: Text) -> str:
    """Return the form in which two texts count as the same: their words (see `words_of`) without spaces.

    A text without words stays as it is. Pairs are the same when both texts are, in their order.
    """
    if isinstance(text, str):
        return "".join(words_of(text)) or text
    return _BETWEEN.join(map(normalize, text))


def plain_key(key: str) -> str:
    """Return a key's letters and digits alone, by which rows are ordered and known data recognized.

    A key without any is a text without words and stays as it is.
    """
    if key.isalnum():
        return key
    return _NUMBER_MARK.sub("", _SIGN.sub("", key)) if _ASCII_WORD.search(key) else key


def hold_out(
    texts: Sequence[Text],
    labels: LabelArray,
    fraction: float,
    *,
    purpose: str,
    advance: Callable[[int], None] = lambda _: None,
) -> npt.NDArray[np.bool_]:
    """Choose about `fraction` of each class such that no held-out row occurs in a row that is kept.

    A pair occurs in no other one; equal pairs stay together.

    Families are taken in an order that depends on their text and on `purpose`, as long as no class gets more than its
    share; a phrase that also occurs in a sentence that is kept is kept.

    Returns:
        A mask [N], true for the rows held out.
    """
    rows_of, keys = _keys_of(texts)
    families = _families(keys, advance)
    members = np.fromiter(chain.from_iterable(families.values()), dtype=np.int64)
    num_holders = np.bincount(members, minlength=len(keys)).tolist()

    def rows(head: int) -> list[int]:
        # Only what stands in no other sentence that is kept can leave with this one.
        return [row for key in families[head] if num_holders[key] == 1 for row in rows_of[key]]

    held = np.zeros(len(texts), dtype=np.bool_)
    heads = sorted(families, key=lambda head: _rank(plain_key(keys.names[head]), purpose))
    for head in _taken(heads, rows, labels, fraction, held):
        for key in families[head]:
            num_holders[key] -= 1
    return held


def hold_out_groups(
    groups: Sequence[str], labels: LabelArray, fraction: float, *, purpose: str
) -> npt.NDArray[np.bool_]:
    """Choose whole groups with about `fraction` of each class, in an order that depends on their names and on `purpose`.

    Returns:
        A mask [N], true for the rows held out.
    """
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[group].append(row)
    held = np.zeros(len(groups), dtype=np.bool_)
    heads = sorted(rows_of, key=lambda group: _rank(group, purpose))
    for _ in _taken(heads, rows_of.__getitem__, labels, fraction, held):
        pass
    return held


def _taken(
    units: Sequence[T],
    rows_of: Callable[[T], list[int]],
    labels: LabelArray,
    fraction: float,
    held: npt.NDArray[np.bool_],
) -> Iterator[T]:
    """Mark the rows of units as held out, in their order, as long as no class gets more than its share; yields each unit."""
    sizes = np.bincount(labels, minlength=2).tolist()
    # The only row of a class stays in training, where it can be learned.
    room = [min(max(1, round(fraction * size)), max(0, size - 1)) for size in sizes]
    left, numbers = sum(room), labels.tolist()
    for unit in units:
        rows = rows_of(unit)
        counts = Counter(numbers[row] for row in rows)
        if any(count > room[number] for number, count in counts.items()):
            continue
        for number, count in counts.items():
            room[number] -= count
        left -= len(rows)
        held[rows] = True
        yield unit
        if not left:
            break


def _keys_of(texts: Sequence[Text]) -> tuple[list[list[int]], Keys]:
    """Return the rows of each different text, and the texts as they are compared, in the order of their first rows."""
    number_of: dict[str, int] = {}
    rows_of: list[list[int]] = []
    num_words, word_lengths = array("q"), array("q")
    for row, text in enumerate(texts):
        words = words_of(text) if isinstance(text, str) else [normalize(text)]
        key = "".join(words) or str(text)
        number = number_of.setdefault(key, len(rows_of))
        if number == len(rows_of):
            rows_of.append([])
            num_words.append(len(words))
            word_lengths.extend(map(len, words))
        rows_of[number].append(row)
    return rows_of, Keys(
        names=list(number_of),
        num_words=np.array(num_words, dtype=np.int64),
        word_lengths=np.array(word_lengths, dtype=np.int64),
    )


def _families(keys: Keys, advance: Callable[[int], None]) -> dict[int, list[int]]:
    """Map each text that occurs in no other one to itself and all texts that occur in it as a run of words."""
    offsets, members = contained(keys, advance)
    ends = offsets.tolist()
    families: dict[int, list[int]] = {}
    inside = np.zeros(len(keys), dtype=np.bool_)
    for key in np.argsort(-keys.num_words, kind="stable").tolist():
        if not inside[key]:
            families[key] = [key, *members[ends[key] : ends[key + 1]].tolist()]
            inside[families[key]] = True
    return families


def subset(texts: Sequence[Text], labels: LabelArray, num_rows: int, *, purpose: str) -> npt.NDArray[np.bool_]:
    """Choose `num_rows` rows with the classes in proportion.

    A smaller subset is contained in a larger one, but for the row by which rounding moves a class.

    Returns:
        A mask [N].
    """
    chosen = np.zeros(len(texts), dtype=np.bool_)
    ranks = [_rank(text, purpose) for text in texts]
    for label, count in enumerate(_shares(labels, num_rows)):
        rows = sorted(np.flatnonzero(labels == label).tolist(), key=lambda row: (ranks[row], row))
        chosen[rows[:count]] = True
    return chosen


def _shares(labels: LabelArray, num_rows: int) -> list[int]:
    """Divide `num_rows` among the classes in proportion, at least one row for each class as far as they suffice."""
    sizes = np.bincount(labels, minlength=2)
    if len(sizes) == 2:
        num_positive = round(num_rows * float(labels.mean()))
        if num_rows > 1:
            num_positive = min(max(num_positive, 1), num_rows - 1)
        return [num_rows - num_positive, num_positive]
    exact = num_rows * sizes / len(labels)
    shares = np.maximum(np.floor(exact).astype(np.int64), np.minimum(sizes, 1))
    by_remainder = np.argsort(-(exact - shares), kind="stable")
    for number in by_remainder[: max(0, num_rows - int(shares.sum()))]:
        shares[number] += 1
    while shares.sum() > num_rows:  # the rows given to classes whose share is below one
        shares[np.argmax(shares)] -= 1
    return shares.tolist()


def _rank(text: Text, purpose: str) -> bytes:
    if not isinstance(text, str):
        text = _BETWEEN.join(text)
    return hashlib.blake2b(f"{purpose}\0{text}".encode(), digest_size=8).digest()
