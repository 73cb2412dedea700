"""A loaded export, as converters take it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from sst2_ray.data.batching import collate, plan_evaluation
from sst2_ray.data.rows import Rows
from sst2_ray.data.texts import Text
from sst2_ray.data.tokens import SentenceTokenizer
from sst2_ray.modeling.classifier import SentenceClassifier
from sst2_ray.modeling.export.folder import load_export
from sst2_ray.predict.formats.files import INPUTS, Variant

LeftOut = dict[Variant, str]
"""Variants that could not be made, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """A loaded export that is converted."""

    folder: Path
    classifier: SentenceClassifier
    tokenizer: PreTrainedTokenizerFast
    max_length: int

    @property
    def inputs(self) -> tuple[str, ...]:
        """Name the inputs of the graph."""
        return INPUTS if self.classifier.takes_type_ids else INPUTS[:2]

    @classmethod
    def load(cls, folder: Path) -> Export:
        """Load the export in `folder`. Raises InputError."""
        classifier, tokenizer, meta = load_export(folder)
        # The padded model: its own attention without padding has no counterpart in other libraries.
        classifier.backbone.set_attn_implementation("sdpa" if "sdpa" in classifier.info.attention else "eager")
        return cls(folder=folder, classifier=classifier, tokenizer=tokenizer, max_length=meta.max_length)

    @property
    def pad_id(self) -> int:
        """Return the id of the padding token."""
        return int(self.tokenizer.pad_token_id)

    def batches(self, texts: Sequence[Text], *, max_tokens: int) -> Iterator[dict[str, Any]]:
        """Yield the inputs of the graph for sentences, in batches of like length."""
        nothing = np.zeros(len(texts), dtype=np.int16)
        rows = Rows(texts=list(texts), labels=nothing, row_ids=np.arange(len(texts)))
        tokens = SentenceTokenizer(self.tokenizer, self.max_length, type_ids=self.classifier.takes_type_ids)(rows)
        for batch in plan_evaluation(tokens, rank=0, world_size=1, max_tokens=max_tokens):
            yield dict(zip(self.inputs, collate(tokens, batch, pad_id=self.pad_id), strict=True))
