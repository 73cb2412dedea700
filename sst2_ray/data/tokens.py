"""Tokenized sentences as flat arrays, which the driver puts into the object store once and every worker maps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sst2_ray.data.labels import LabelArray
from sst2_ray.data.rows import Rows
from sst2_ray.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CHUNK_ROWS = 16_384
"""Sentences encoded at a time; bounds the memory of the tokenizer's own, larger form."""


@dataclass(frozen=True, kw_only=True)
class TokenArrays:
    """N tokenized sentences of T tokens in all; sentence i is `input_ids[offsets[i]:offsets[i + 1]]`."""

    input_ids: npt.NDArray[np.int32]
    """[T], special tokens included, no padding."""
    offsets: npt.NDArray[np.int64]
    """[N + 1]"""
    labels: LabelArray
    """[N], numbers of the classes."""
    row_ids: npt.NDArray[np.int64]
    """[N], position in the source split."""
    num_truncated: int
    """Sentences that were longer than max_length."""
    type_ids: npt.NDArray[np.int8] | None = None
    """[T], the text of a pair that each token belongs to, as the tokenizer says it; None: the model is not told."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Count the tokens of each sentence, [N]."""
        return np.diff(self.offsets).astype(np.int32)


class SentenceTokenizer:
    """An encoder of texts: special tokens, truncation to `max_length` tokens, no padding.

    A pair becomes one sequence, with the separator that the tokenizer puts between its texts; the longer one is truncated.

    Works on a copy of the tokenizer's Rust core, so that `tokenizer` keeps its own truncation and padding; that also skips
    the offsets and lists of a call, about 40 % of the time. Reuse one instance for all pieces of a file: a discarded copy
    does not return its memory.

    Args:
        tokenizer: Tokenizer with a Rust core.
        max_length: Tokens of a text, or of a pair together.
        type_ids: Keep the tokenizer's type ids of pairs, for a model that takes them.

    Raises:
        InputError: The tokenizer has no Rust core; when pairs are encoded: it puts nothing between their texts, or
            `max_length` leaves no room for both.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int, *, type_ids: bool = False) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"tokenizer {tokenizer.name_or_path}: has no tokenizer.json; convert it to a fast tokenizer"
            )
        self._core = copy.deepcopy(tokenizer.backend_tokenizer)
        self._core.no_padding()
        self._core.enable_truncation(max_length)
        self._max_length, self._type_ids = max_length, type_ids
        self._name = str(tokenizer.name_or_path) or "of the model"

    def __call__(self, rows: Rows) -> TokenArrays:
        """Encode all rows, in their order."""
        pairs = len(rows) > 0 and not isinstance(rows.texts[0], str)
        if pairs:
            self._check_pairs()
        chunks: list[npt.NDArray[np.int32]] = []
        types: list[npt.NDArray[np.int8]] = []
        lengths = np.zeros(len(rows), dtype=np.int64)
        num_truncated = 0
        for first in range(0, len(rows), _CHUNK_ROWS):
            encodings = self._core.encode_batch_fast(rows.texts[first : first + _CHUNK_ROWS])
            ids = [encoding.ids for encoding in encodings]
            lengths[first : first + len(ids)] = [len(some) for some in ids]
            chunks.append(np.fromiter(chain.from_iterable(ids), dtype=np.int32))
            if pairs and self._type_ids:
                of_tokens = chain.from_iterable(encoding.type_ids for encoding in encodings)
                types.append(np.fromiter(of_tokens, dtype=np.int8))
            num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        return TokenArrays(
            input_ids=np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int32),
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            labels=rows.labels,
            row_ids=rows.row_ids,
            num_truncated=num_truncated,
            type_ids=np.concatenate(types) if types else None,
        )

    def _check_pairs(self) -> None:
        """Refuse pairs whose texts would run into each other, or of which nothing would be left."""
        special = self._core.num_special_tokens_to_add(is_pair=True)
        if special <= self._core.num_special_tokens_to_add(is_pair=False):
            raise InputError(
                f"tokenizer {self._name}: puts no separator between the texts of a pair; take a model whose tokenizer does"
            )
        if self._max_length < special + 2:
            raise InputError(
                f"--max-length {self._max_length}: of a pair {special} tokens are special; use at least {special + 2}"
            )
