"""The descriptions of a model that travel: what it is (ModelInfo), and what a worker builds it from (ResolvedModel)."""

from __future__ import annotations

from dataclasses import dataclass

from sst2_ray.config.registry import ModelKind
from sst2_ray.modeling.sources.folders import JsonObject, SbertStack


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A model's kind, origin and size, as every display, card and table shows them."""

    kind: ModelKind
    source: str
    """hub, folder, packaged (the demo extra) or random."""
    revision: str | None
    """Commit on the hub; None: it came from elsewhere."""
    random_weights: bool
    """True: started from random numbers, not from pretrained weights."""
    label: str
    """Display name, e.g. "modernbert-mini (random weights)"."""
    attention: str
    """Attention implementation; as asked for ("auto" included) until the model is built on its device."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, one line each."""
    origin: str = ""
    """Local folder of the weights: snapshot, package or the user's; empty for random weights."""
    trained_on: tuple[str, ...] = ()
    """Data sets that an export of this package says it was fine-tuned on: for the rules of known leaks."""
    labels: tuple[str, ...] = ("negative", "positive")
    """Names of the classes, in the order of the logits."""
    text_columns: tuple[str, ...] = ()
    """Columns of the two texts of a pair that it reads as one sequence; empty: it reads single texts."""
    num_parameters: int | None = None
    """Trained parameters, head included; None until the model is built."""


@dataclass(frozen=True, kw_only=True)
class ResolvedModel:
    """Complete description from which a worker builds the model, without weights: cheap to pickle."""

    name: str
    """Name as the user gave it."""
    info: ModelInfo
    architecture: JsonObject
    """The encoder's transformers config as plain JSON values, `model_type` included."""
    stack: SbertStack | None
    """Modules of a sentence-transformers model; None: the encoder has a head of its own."""
    hub_id: str | None
    """Repository of `info.revision`, for a node that does not have it yet."""
    tokenizer_folder: str | None
    """Folder on the driver; None: trained on the training split."""
    tokenizer_given: bool
    """True: by --tokenizer."""
    max_length: int
    """Tokens a sentence is truncated to."""
    half_precision: bool
    """False: the run computes in fp32 throughout."""
