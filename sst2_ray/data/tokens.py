"""Tokenized sentences as flat arrays, which the driver puts into the object store once and every worker maps."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from sst2_ray.data.labels import LabelArray
from sst2_ray.data.processes import map_pieces
from sst2_ray.data.rows import Rows
from sst2_ray.data.texts import Text
from sst2_ray.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


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


class Piece(NamedTuple):
    """The tokens of some texts."""

    ids: npt.NDArray[np.int32]
    """[tokens]"""
    types: npt.NDArray[np.int8] | None
    """[tokens]; None: not asked for."""
    lengths: npt.NDArray[np.int64]
    """[texts]"""
    num_truncated: int


def encode(core: Tokenizer, texts: Sequence[Text], *, type_ids: bool) -> Piece:
    """Encode texts with a tokenizer's Rust core, as it is set to truncate."""
    encodings = core.encode_batch_fast(texts)
    ids = [encoding.ids for encoding in encodings]
    types = [encoding.type_ids for encoding in encodings] if type_ids else None
    return Piece(
        ids=np.fromiter(chain.from_iterable(ids), dtype=np.int32),
        types=None if types is None else np.fromiter(chain.from_iterable(types), dtype=np.int8),
        lengths=np.array([len(some) for some in ids], dtype=np.int64),
        num_truncated=sum(bool(encoding.overflowing) for encoding in encodings),
    )


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
        pieces = list(self.pieces(rows))
        ids, types, lengths, num_truncated = zip(*pieces, strict=True) if pieces else ((), (), (), ())
        return TokenArrays(
            input_ids=np.concatenate([np.zeros(0, dtype=np.int32), *ids]),
            offsets=np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *lengths])),
            labels=rows.labels,
            row_ids=rows.row_ids,
            num_truncated=sum(num_truncated),
            type_ids=np.concatenate(types) if pieces and types[0] is not None else None,
        )

    def pieces(self, rows: Rows) -> Iterator[Piece]:
        """Encode all rows, some thousands at a time; many of them on all cores."""
        pairs = len(rows) > 0 and not isinstance(rows.texts[0], str)
        if pairs:
            self._check_pairs()
        return map_pieces(partial(encode, self._core, type_ids=pairs and self._type_ids), rows.texts)

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
