"""Models and data sets that have a name in this package, with their pinned revisions. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sst2_ray.errors import did_you_mean

ModelKind = Literal["modernbert", "encoder", "sbert"]
"""modernbert and encoder keep the classification head of their family in transformers, sbert pools token vectors."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A named model: where its weights are, and the shape to build without them (`--random-weights`)."""

    name: str
    kind: ModelKind
    hub_id: str | None
    """None: no pretrained weights exist; always built from `shape` and random numbers."""
    revision: str | None
    """Pinned commit of `hub_id` on the hub; None: the newest."""
    architecture: Literal["modernbert", "bert", "mpnet"] | None
    """None: only the config on the hub says it, also for random weights."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments for the architecture's transformers config; empty: that class's defaults."""
    packaged: bool = False
    """The weights are also in the `demo` extra."""


_PUBLISHED: tuple[tuple[str, ModelKind, str], ...] = (
    ("bert-base", "encoder", "google-bert/bert-base-uncased"),
    ("roberta-base", "encoder", "FacebookAI/roberta-base"),
    ("xlm-roberta-base", "encoder", "FacebookAI/xlm-roberta-base"),
    ("deberta-v3-base", "encoder", "microsoft/deberta-v3-base"),
    ("eurobert-210m", "encoder", "EuroBERT/EuroBERT-210m"),
    ("mmbert-base", "modernbert", "jhu-clsp/mmBERT-base"),
    ("ettin-17m", "modernbert", "jhu-clsp/ettin-encoder-17m"),
    ("ettin-32m", "modernbert", "jhu-clsp/ettin-encoder-32m"),
    ("ettin-68m", "modernbert", "jhu-clsp/ettin-encoder-68m"),
    ("ettin-150m", "modernbert", "jhu-clsp/ettin-encoder-150m"),
    ("ettin-400m", "modernbert", "jhu-clsp/ettin-encoder-400m"),
    ("ettin-1b", "modernbert", "jhu-clsp/ettin-encoder-1b"),
)
"""Encoders that others publish figures of: name, kind, hub id."""

MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="modernbert-base",
            kind="modernbert",
            hub_id="answerdotai/ModernBERT-base",
            revision="8949b909ec900327062f0ebf497f51aef5e6f0c8",
            architecture="modernbert",
        ),
        ModelSpec(
            name="modernbert-large",
            kind="modernbert",
            hub_id="answerdotai/ModernBERT-large",
            revision="45bb4654a4d5aaff24dd11d4781fa46d39bf8c13",
            architecture="modernbert",
            shape={
                "hidden_size": 1024,
                "intermediate_size": 2624,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
            },
        ),
        # ModernBERT's architecture at a size that a laptop can train, always from random weights
        ModelSpec(
            name="modernbert-mini",
            kind="modernbert",
            hub_id=None,
            revision=None,
            architecture="modernbert",
            shape={
                "hidden_size": 192,
                "intermediate_size": 288,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "global_attn_every_n_layers": 2,
                "max_position_embeddings": 1024,
            },
        ),
        # the notebook study's SBERT
        ModelSpec(
            name="sbert",
            kind="sbert",
            hub_id="sentence-transformers/bert-base-nli-mean-tokens",
            revision=None,
            architecture="bert",
        ),
        ModelSpec(
            name="sbert-mpnet",
            kind="sbert",
            hub_id="sentence-transformers/all-mpnet-base-v2",
            revision="e8c3b32edf5434bc2275fc9bab85f82640a19130",
            architecture="mpnet",
        ),
        ModelSpec(
            name="sbert-minilm",
            kind="sbert",
            hub_id="sentence-transformers/all-MiniLM-L6-v2",
            revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
            architecture="bert",
            shape={
                "hidden_size": 384,
                "intermediate_size": 1536,
                "num_hidden_layers": 6,
                "num_attention_heads": 12,
            },
            packaged=True,
        ),
        *(
            ModelSpec(name=name, kind=kind, hub_id=hub_id, revision=None, architecture=None)
            for name, kind, hub_id in _PUBLISHED
        ),
    )
}


def model_hint(name: str) -> str:
    """Return the end of the line that refuses a model: the named ones that are near, by our name or by the hub's."""
    on_hub = {(spec.hub_id or "").rpartition("/")[2].lower(): spec.name for spec in MODELS.values()}
    meant = on_hub.get(name.lower())
    # A bare family, such as bert, means its members rather than what is spelled most alike (sbert).
    begun = [known for known in MODELS if known.startswith(f"{name.lower()}-")]
    near = [meant] if meant else begun
    return f"did you mean {' or '.join(near)}?" if near else did_you_mean(name, MODELS)


GLUE_HUB_ID = "nyu-mll/glue"
GLUE_REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"

GLUE_TASKS: dict[str, tuple[str, ...]] = {
    "cola": ("sentence",),
    "mnli": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
    "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"),
    "rte": ("sentence1", "sentence2"),
    "sst2": ("sentence",),
    "stsb": ("sentence1", "sentence2"),
    "wnli": ("sentence1", "sentence2"),
}
"""Tasks of GLUE and the columns of their texts on the hub."""

_GLUE_DEV = {"mnli": ("validation_matched", "validation_mismatched")}


def glue_task(data: str) -> str | None:
    """Return the task of GLUE that `--data` names; None: it names other data."""
    task = "sst2" if data == "glue" else data.removeprefix("glue/")
    return task if task in GLUE_TASKS and data.startswith("glue") else None


def glue_dev(task: str) -> tuple[str, ...]:
    """Return the evaluation splits of a task of GLUE; the first decides, the others are scored at the end."""
    return _GLUE_DEV.get(task, ("validation",))


REGRESSION_DATA = ("glue/stsb",)
"""Named data sets whose labels are numbers."""

DATASETS = ("glue", *(f"glue/{task}" for task in GLUE_TASKS), "rotten-tomatoes")
"""Named data sets (glue is glue/sst2); anything else given to `--data` is a path, or owner/name on the hub."""

KNOWN_LEAKS: dict[tuple[str, str], str] = {
    (
        "rotten-tomatoes",
        "glue",
    ): "rotten-tomatoes is SST-2's parent corpus: 691 of the 872 SST-2 dev sentences stand in it",
    ("glue", "rotten-tomatoes"): "SST-2's training split is made of rotten-tomatoes sentences and their phrases",
}
"""(data set that a model was trained on, data set that it must not be scored on) -> the reason."""
