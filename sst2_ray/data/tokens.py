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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Count the tokens of each sentence, [N]."""
        return np.diff(self.offsets).astype(np.int32)


class SentenceTokenizer:
    """An encoder of sentences: special tokens, truncation to `max_length` tokens, no padding.

    Works on a copy of the tokenizer's Rust core, so that `tokenizer` keeps its own truncation and padding; that also skips
    the offsets and lists of a call, about 40 % of the time. Reuse one instance for all pieces of a file: a discarded copy
    does not return its memory.

    Raises:
        InputError: The tokenizer has no Rust core.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                f"tokenizer {tokenizer.name_or_path}: has no tokenizer.json; convert it to a fast tokenizer"
            )
        self._core = copy.deepcopy(tokenizer.backend_tokenizer)
        self._core.no_padding()
        self._core.enable_truncation(max_length)

    def __call__(self, rows: Rows) -> TokenArrays:
        """Encode all rows, in their order."""
        chunks: list[npt.NDArray[np.int32]] = []
        lengths = np.zeros(len(rows), dtype=np.int64)
        num_truncated = 0
        for first in range(0, len(rows), _CHUNK_ROWS):
            encodings = self._core.encode_batch_fast(rows.texts[first : first + _CHUNK_ROWS])
            ids = [encoding.ids for encoding in encodings]
            lengths[first : first + len(ids)] = [len(some) for some in ids]
            chunks.append(np.fromiter(chain.from_iterable(ids), dtype=np.int32))
            num_truncated += sum(bool(encoding.overflowing) for encoding in encodings)
        return TokenArrays(
            input_ids=np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.int32),
            offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)]),
            labels=rows.labels,
            row_ids=rows.row_ids,
            num_truncated=num_truncated,
        )
