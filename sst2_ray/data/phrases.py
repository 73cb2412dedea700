"""Texts inside other texts, as runs of their words, for millions of texts.

Each phrase is looked up by two hashes of its letters, 128 bits together, which follow from the sums of its text's prefixes:
a phrase costs a few operations on arrays, however long it is. Of short texts all phrases are looked up; of longer ones
those of few letters, and where the first letters are those of a longer key the phrases as long as such keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_WORDS = 64
"""Words of the longest text all of whose phrases are looked up: a text of n words has n * n / 2."""
FIRST_LETTERS = 32
"""Letters by which longer keys are found in texts of more than MAX_WORDS words."""

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

# Odd, so that they have an inverse modulo 2 ** 64: a phrase's hash must not depend on where it begins.
_BASES = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_PART_TEXTS = 2**11
"""Texts of one width that are searched together: their hashes fit into a CPU's cache."""
_CHUNK_TEXTS = 2**16
_PART_PHRASES = 2**18
"""Phrases of long texts that are looked up together, about."""
_SPARE_BITS = 5
"""The table of hashes has 2 ** 5 places a key: of 32 phrases that are no keys, one is looked up twice."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """K different texts in the form in which they are compared: their words without spaces."""

    names: Sequence[str]
    """[K]"""
    num_words: Int64
    """[K]; 0: a text without words."""
    word_lengths: Int64
    """Letters of each word, key after key."""

    def __len__(self) -> int:
        return len(self.names)


class _Letters:
    """Prefix sums of polynomial hashes over the letters of some keys, laid end to end."""

    def __init__(self, names: Sequence[str]) -> None:
        letters = np.frombuffer("".join(names).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
        self.starts = np.concatenate([[0], np.cumsum([len(name) for name in names])]).astype(np.int64)
        self.sums: list[UInt64] = []
        self.inverses: list[UInt64] = []
        for base in _BASES:
            powers = np.multiply.accumulate(np.full(len(letters), base, dtype=np.uint64))
            sums = np.zeros(len(letters) + 1, dtype=np.uint64)
            np.cumsum((letters + np.uint64(1)) * powers, out=sums[1:])
            self.sums.append(sums)
            inverse = pow(base, -1, 2**64)
            self.inverses.append(np.multiply.accumulate(np.full(len(letters) + 1, inverse, dtype=np.uint64)))

    def hashes(self, begins: Int64, ends: Int64, number: int = 0) -> UInt64:
        """Hash the letters between places, element by element, by the first or the second polynomial."""
        sums, inverses = self.sums[number], self.inverses[number]
        hashes: UInt64 = (sums[ends] - sums[begins]) * inverses[begins]
        return hashes


def contained(keys: Keys, advance: Callable[[int], None] = lambda _: None) -> tuple[Int64, Int64]:
    """Find the keys that occur in each key as a run of its words, itself left out.

    Args:
        keys: The texts.
        advance: Called with the number of keys that are done.

    Returns:
        Offsets [K + 1] and members: of key k the numbers `members[offsets[k]:offsets[k + 1]]`.
    """
    index = _Index(keys)
    first_words = np.concatenate([[0], np.cumsum(keys.num_words)])
    pairs = [np.zeros(0, dtype=np.int64)]  # holder * K + member
    for first in range(0, len(keys), _CHUNK_TEXTS):
        letters = _Letters(keys.names[first : first + _CHUNK_TEXTS])
        num_words = keys.num_words[first : first + _CHUNK_TEXTS]
        for width in np.unique(num_words[(num_words > 1) & (num_words <= MAX_WORDS)]).tolist():
            of_width = np.flatnonzero(num_words == width)
            for holders in np.split(of_width, range(_PART_TEXTS, len(of_width), _PART_TEXTS)):
                words = keys.word_lengths[first_words[first + holders][:, None] + np.arange(width)]  # [holders, width]
                ends = letters.starts[holders][:, None] + np.cumsum(words, axis=1)
                bounds = np.vstack([letters.starts[holders], ends.T])  # [width + 1, holders]
                texts, members = index.phrases(letters, bounds)
                pairs.append((first + holders[texts]) * len(keys) + members)
        long = np.flatnonzero(num_words > MAX_WORDS)
        for holders in _parts(long, num_words[long]):
            sizes = [keys.word_lengths[slice(*first_words[first + k : first + k + 2])] for k in holders.tolist()]
            texts, members = index.phrases_of_long(letters, holders, sizes)
            of_others = first + texts != members
            pairs.append((first + texts[of_others]) * len(keys) + members[of_others])
        advance(min(first + _CHUNK_TEXTS, len(keys)))
    found = np.concatenate(pairs)
    found.sort()  # np.unique hashes, 50 times slower where the pairs do not fit into a cache
    found = found[np.flatnonzero(np.diff(found, prepend=-1))]
    holder, member = np.divmod(found, max(1, len(keys)))
    return np.searchsorted(holder, np.arange(len(keys) + 1)), member


def _parts(items: Int64, sizes: Int64) -> list[Int64]:
    """Cut items [n] into parts of about _PART_PHRASES in all by their sizes [n]; empty: there are no items."""
    cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // _PART_PHRASES)) + 1
    return np.split(items, cuts) if len(items) else []


class _Index:
    """The hashes of all keys."""

    def __init__(self, keys: Keys) -> None:
        hashes = [np.empty(len(keys), dtype=np.uint64) for _ in _BASES]
        has_long = bool((keys.num_words > MAX_WORDS).any())
        beginnings = []
        for first in range(0, len(keys), _CHUNK_TEXTS):
            letters = _Letters(keys.names[first : first + _CHUNK_TEXTS])
            for number, of_all in enumerate(hashes):
                of_all[first : first + _CHUNK_TEXTS] = letters.hashes(letters.starts[:-1], letters.starts[1:], number)
            if has_long:
                beginnings.append(_Beginnings.of(letters))
        self._beginnings = _Beginnings.joined(beginnings) if has_long else None
        self._order = np.argsort(hashes[0])
        self._firsts, self._seconds = hashes[0][self._order], hashes[1][self._order]
        bits = min(30, len(keys).bit_length() + _SPARE_BITS)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, dtype=np.bool_)
        self._table[self._places(hashes[0])] = True

    def _places(self, hashes: UInt64) -> UInt64:
        return (hashes * _MIX) >> self._shift

    def phrases(self, letters: _Letters, bounds: Int64) -> tuple[Int64, Int64]:
        """Find the runs of words that are keys, whole texts left out.

        Args:
            letters: Those of the texts.
            bounds: [words + 1, texts], places of the words' ends in `letters`, the first word's begin before them.

        Returns:
            Text and key of each.
        """
        sums, inverses = letters.sums[0][bounds], letters.inverses[0][bounds]
        found = []
        for begin in range(len(bounds) - 1):
            # The last word's end would make the first word's run the whole text.
            hashes = (sums[begin + 1 : len(bounds) - (begin == 0)] - sums[begin]) * inverses[begin]  # [ends, texts]
            end, text = np.nonzero(self._table[self._places(hashes)])
            found.append((hashes[end, text], np.full(len(end), begin), end + begin + 1, text))
        wanted, begins, ends, texts = (np.concatenate(parts) for parts in zip(*found, strict=True))
        same, keys = self._same(wanted, letters.hashes(bounds[begins, texts], bounds[ends, texts], 1))
        return texts[same], keys

    def _same(self, firsts: UInt64, seconds: UInt64) -> tuple[npt.NDArray[np.bool_], Int64]:
        """Tell which phrases [n] are keys by both their hashes; returns a mask [n] and the keys of those that are."""
        at = np.minimum(np.searchsorted(self._firsts, firsts), len(self._firsts) - 1)
        same = (self._firsts[at] == firsts) & (self._seconds[at] == seconds)
        return same, self._order[at[same]]

    def phrases_of_long(self, letters: _Letters, texts: Int64, sizes: Sequence[Int64]) -> tuple[Int64, Int64]:
        """Find the runs of words that are keys in texts of more than MAX_WORDS words, whole texts among them.

        Args:
            letters: Those of the texts.
            texts: [n], numbers of the texts in `letters`, ascending.
            sizes: [n], letters of each text's words.

        Returns:
            Text and key of each.
        """
        of = np.repeat(texts, list(map(len, sizes)))  # [words]
        ends = np.concatenate([letters.starts[text] + np.cumsum(size) for text, size in zip(texts, sizes, strict=True)])
        begins = ends - np.concatenate(sizes)
        found = []

        def look_up(first: Int64, last: Int64) -> None:
            hashes = letters.hashes(begins[first], ends[last])
            likely = self._table[self._places(hashes)]
            seconds = letters.hashes(begins[first[likely]], ends[last[likely]], 1)
            same, keys = self._same(hashes[likely], seconds)
            found.append((of[first[likely][same]], keys))

        word = np.arange(len(of))
        for more in range(FIRST_LETTERS):
            word = word[: np.searchsorted(word, len(of) - more)]
            word = word[(of[word + more] == of[word]) & (ends[word + more] - begins[word] < FIRST_LETTERS)]
            look_up(word, word + more)
        assert self._beginnings is not None
        word = np.flatnonzero(begins + FIRST_LETTERS <= letters.starts[of + 1])
        for first, lengths in self._beginnings.found(word, letters.hashes(begins[word], begins[word] + FIRST_LETTERS)):
            stops = begins[first] + lengths
            last = np.minimum(np.searchsorted(ends, stops), len(ends) - 1)
            whole = (ends[last] == stops) & (of[last] == of[first])
            look_up(first[whole], last[whole])
        return np.concatenate([texts for texts, _ in found]), np.concatenate([keys for _, keys in found])


@dataclass(frozen=True)
class _Beginnings:
    """First letters of the keys that have FIRST_LETTERS or more, with the lengths of those keys."""

    hashes: UInt64
    """[n], ascending once joined."""
    lengths: Int64
    """[n], letters of the whole keys."""

    @classmethod
    def of(cls, letters: _Letters) -> _Beginnings:
        """Hash the first letters of all texts that have as many."""
        lengths = np.diff(letters.starts)
        is_long = lengths >= FIRST_LETTERS
        begins = letters.starts[:-1][is_long]
        return cls(letters.hashes(begins, begins + FIRST_LETTERS), lengths[is_long])

    @classmethod
    def joined(cls, parts: Sequence[_Beginnings]) -> _Beginnings:
        """Sort those of all texts, each length of the same first letters once."""
        hashes, lengths = (np.concatenate([getattr(part, name) for part in parts]) for name in ("hashes", "lengths"))
        order = np.lexsort((lengths, hashes))
        hashes, lengths = hashes[order], lengths[order]
        is_new = np.append(True, (hashes[1:] != hashes[:-1]) | (lengths[1:] != lengths[:-1]))
        return cls(hashes[is_new], lengths[is_new])

    def found(self, items: Int64, hashes: UInt64) -> Iterator[tuple[Int64, Int64]]:
        """Yield the items [n] whose hashes [n] are there, once for each length, with the length; a part at a time."""
        low = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        there = np.flatnonzero(self.hashes[low] == hashes)
        low, high = low[there], np.searchsorted(self.hashes, hashes[there], side="right")
        for some in _parts(np.arange(len(there)), high - low):
            counts = high[some] - low[some]
            places = np.arange(counts.sum()) + np.repeat(low[some] - np.cumsum(counts) + counts, counts)
            yield np.repeat(items[there[some]], counts), self.lengths[places]
