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
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate, chain

import numpy as np
import numpy.typing as npt

from sst2_ray.data.labels import LabelArray
from sst2_ray.data.texts import Text

_INSIDE_NUMBER = r"(?<=\d)[.,](?=\d)"
_SIGNS = "+#"
_ASCII_WORD = re.compile(rf"[^\W_](?:[^\W_]|{_INSIDE_NUMBER})*[{_SIGNS}]*")
_NUMBER_MARK = re.compile(_INSIDE_NUMBER)
_SIGN = re.compile(rf"[{_SIGNS}]")
_LAST_SYMBOL = 0x1FFFF
_BETWEEN = "\x1f"
"""Divides the keys of a pair; no key of a single text holds it."""
_MAX_FAMILY_WORDS = 64
"""Longer texts form a family with their duplicates only: a text of n words has n * n / 2 phrases."""


def words_of(text: str) -> list[str]:
    """List the words of a text, case folded: runs of letters with their marks and of digits, and pictographs.

    A point or comma inside a number belongs to it, and so does a + or # right behind a word: 1.5 is not 15, A+ is not A,
    C# is not C.
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
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
    return _NUMBER_MARK.sub("", _SIGN.sub("", key)) if _ASCII_WORD.search(key) else key


def hold_out(texts: Sequence[Text], labels: LabelArray, fraction: float, *, purpose: str) -> npt.NDArray[np.bool_]:
    """Choose about `fraction` of each class such that no held-out row occurs in a row that is kept.

    A pair occurs in no other one; equal pairs stay together.

    Families are taken in an order that depends on their text and on `purpose`, as long as no class gets more than its
    share; a phrase that also occurs in a sentence that is kept is kept.

    Returns:
        A mask [N], true for the rows held out.
    """
    words_of_key: dict[str, list[str]] = {}
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        words = words_of(text) if isinstance(text, str) else [normalize(text)]
        key = "".join(words) or text
        assert isinstance(key, str)
        rows_of[key].append(row)
        words_of_key.setdefault(key, words)
    families = _families(words_of_key)
    num_holders = Counter(chain.from_iterable(families.values()))
    sizes = np.bincount(labels, minlength=2)
    # The only row of a class stays in training, where it can be learned.
    room = np.array([min(max(1, round(fraction * int(size))), max(0, int(size) - 1)) for size in sizes])
    held = np.zeros(len(texts), dtype=np.bool_)
    for head in sorted(families, key=lambda key: _rank(plain_key(key), purpose)):
        # Only what stands in no other sentence that is kept can leave with this one.
        rows = [row for key in families[head] if num_holders[key] == 1 for row in rows_of[key]]
        counts = np.bincount(labels[rows], minlength=len(sizes))
        if (counts > room).any():
            continue
        room -= counts
        held[rows] = True
        for key in families[head]:
            num_holders[key] -= 1
        if not room.any():
            break
    return held


def _families(words: dict[str, list[str]]) -> dict[str, set[str]]:
    """Map each sentence that occurs in no other one to itself and all keys that occur in it as a run of words."""
    families: dict[str, set[str]] = {}
    inside: set[str] = set()
    for key in sorted(words, key=lambda key: -len(words[key])):
        if key in inside:
            continue
        families[key] = {key}
        some = words[key]
        if len(some) > _MAX_FAMILY_WORDS:
            continue
        for first in range(len(some)):
            for phrase in accumulate(some[first:]):
                if phrase in words:
                    families[key].add(phrase)
        inside |= families[key]
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
