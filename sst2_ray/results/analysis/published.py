"""Published accuracies on SST-2 dev that the report shows for reference, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

SST2_DEV = "SST-2 dev"
"""The `eval_split` of runs that these figures are comparable with."""

SST2_TRAIN_ROWS = 67_349
"""Rows that the published models were trained on."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A published accuracy on SST-2 dev."""

    name: str
    short: str
    """Short name for figures."""
    accuracy: float
    digits: int
    """Decimals of the accuracy in per cent, as published."""
    source: str


REFERENCES = (
    Reference(
        name="ModernBERT-base, paper",
        short="ModernBERT, paper",
        accuracy=0.960,
        digits=1,
        source="Warner et al. 2024 (arXiv 2412.13663), table 5",
    ),
    Reference(
        name="BERT-base, paper",
        short="BERT, paper",
        accuracy=0.931,
        digits=1,
        source="the same table",
    ),
    Reference(
        name="ModernBERT-base, notebook study",
        short="ModernBERT, notebook",
        accuracy=0.9472,
        digits=2,
        source="best of 20 epochs, batch 32, padded to 128 tokens, one seed",
    ),
    Reference(
        name="SBERT, notebook study",
        short="SBERT, notebook",
        accuracy=0.9243,
        digits=2,
        source="bert-base-nli-mean-tokens, best of 10 epochs, batch 32, one seed",
    ),
)
PAPER_LEARNING_RATE = 8e-5
"""Learning rate of ModernBERT-base on SST-2; the same paper, table 6."""
