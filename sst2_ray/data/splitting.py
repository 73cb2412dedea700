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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sst2_ray.data.labels import LabelArray
from sst2_ray.data.phrases import Int64, Keys, UInt64, contained
from sst2_ray.data.processes import map_pieces
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


def key_hashes(texts: Sequence[Text]) -> UInt64:
    """Hash the form in which texts count as the same (see `normalize`) to 64 bits, [N]: of ten million texts, all different, the
    chance is 3 in a million that any two get one hash."""
    return np.concatenate([np.zeros(0, dtype=np.uint64), *map_pieces(_hashes, texts)])


def _hashes(texts: Sequence[Text]) -> UInt64:
    digests = (hashlib.blake2b(normalize(text).encode(), digest_size=8).digest() for text in texts)
    return _integers(digests, len(texts))


def _integers(digests: Iterable[bytes], count: int) -> UInt64:
    """Read digests of 8 bytes as integers of the same order."""
    return np.fromiter((int.from_bytes(digest) for digest in digests), dtype=np.uint64, count=count)


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
    numbers, keys = _numbered(texts)
    by_key, first_rows = np.argsort(numbers, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(numbers))])
    families = _families(keys, advance)
    num_holders = families.num_holders

    def rows(head: int) -> list[int]:
        # Only what stands in no other sentence that is kept can leave with this one.
        leaving = [key for key in families.of(head).tolist() if num_holders[key] == 1]
        return [row for key in leaving for row in by_key[first_rows[key] : first_rows[key + 1]].tolist()]

    held = np.zeros(len(texts), dtype=np.bool_)
    ranks = (_rank(plain_key(keys.names[head]), purpose) for head in families.heads)
    heads = families.heads[np.argsort(_integers(ranks, len(families.heads)), kind="stable")]
    for head in _taken(heads, rows, labels, fraction, held):
        num_holders[families.of(head)] -= 1
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
    units: Iterable[T],
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


def _numbered(texts: Sequence[Text]) -> tuple[Int64, Keys]:
    """Count off the different texts in the order of their first rows; return each row's number, [N], and the texts as compared."""
    number_of: dict[str, int] = {}
    numbers, num_words, word_lengths = array("q"), array("q"), array("q")
    for text in texts:
        words = words_of(text) if isinstance(text, str) else [normalize(text)]
        number = number_of.setdefault("".join(words) or str(text), len(number_of))
        if number == len(num_words):
            num_words.append(len(words))
            word_lengths.extend(map(len, words))
        numbers.append(number)
    return np.array(numbers, dtype=np.int64), Keys(
        names=list(number_of),
        num_words=np.array(num_words, dtype=np.int64),
        word_lengths=np.array(word_lengths, dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class _Families:
    """Each text that occurs in no longer one, with all texts that occur in it as a run of words."""

    heads: Int64
    """The longest first."""
    num_holders: Int64
    """Families of each text, [K]."""
    offsets: Int64
    members: Int64

    def of(self, head: int) -> Int64:
        """Return the texts of a family, its head first."""
        return np.concatenate([[head], self.members[self.offsets[head] : self.offsets[head + 1]]])


def _families(keys: Keys, advance: Callable[[int], None]) -> _Families:
    offsets, members = contained(keys, advance)
    order = np.argsort(-keys.num_words, kind="stable")
    place = np.empty(len(keys), dtype=np.int64)
    place[order] = np.arange(len(keys))
    sizes = np.diff(offsets)
    inside, is_head = np.zeros(len(keys), dtype=np.bool_), np.ones(len(keys), dtype=np.bool_)
    for key in order[sizes[order] > 0].tolist():
        is_head[key] = not inside[key]
        if is_head[key]:
            inside[members[offsets[key] : offsets[key + 1]]] = True
    of_heads = np.repeat(is_head, sizes)
    # A text that holds no other one leads its own family unless a longer head holds it; words differ, so a shorter one may.
    first_holder = np.full(len(keys), len(keys))
    np.minimum.at(first_holder, members[of_heads], np.repeat(place, sizes)[of_heads])
    is_head &= (sizes > 0) | (first_holder > place)
    return _Families(
        heads=order[is_head[order]],
        num_holders=is_head + np.bincount(members[of_heads], minlength=len(keys)),
        offsets=offsets,
        members=members,
    )


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
    if len(sizes) == 2 and sizes.all():
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
