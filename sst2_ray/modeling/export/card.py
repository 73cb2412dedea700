"""The model card: what was trained on what, how well it does, with which uncertainty, and how to use it."""

from __future__ import annotations

import dataclasses
import json

from sst2_ray import formatting
from sst2_ray.config.registry import DATASETS, GLUE_HUB_ID, KNOWN_LEAKS, MODELS
from sst2_ray.formatting import without_secrets
from sst2_ray.modeling.export.card_scores import results, units
from sst2_ray.modeling.export.facts import CalibrationFacts as CalibrationFacts
from sst2_ray.modeling.export.facts import CardFacts as CardFacts
from sst2_ray.modeling.export.usage import usage
from sst2_ray.modeling.sources.folders import META_FILE as META_FILE
from sst2_ray.version import __version__

FORMAT: dict[str, object] = {"format_version": 2, "sst2_ray_version": __version__}
"""Version of the layout of exports: 2 since an SBERT's encoder lies in a folder of its own."""


_CHOICE = "## How it was chosen"


def meta_values(card: CardFacts) -> dict[str, object]:
    """Return the content of `sst2_ray.json`."""
    return {
        **FORMAT,
        "kind": card.info.kind,
        "model": card.config.model,
        "label": card.info.label,
        "labels": list(card.info.labels),
        **({"text_columns": list(card.info.text_columns)} if card.info.text_columns else {}),
        "source": card.info.source,
        "revision": card.info.revision,
        "random_weights": card.info.random_weights,
        "corpora": list(card.all_corpora),
        "max_length": card.config.max_length,
        "config_hash": card.config.config_hash,
        "config": without_secrets(card.config.to_dict()),  # the export may be pushed to the hub
        "metrics": {
            "eval_split": card.eval_split,
            "num_rows": card.num_dev_rows,
            "accuracy": card.accuracy,
            "f1": card.f1,
            **({} if card.pearson is None else {"pearson": card.pearson, "spearman": card.spearman}),
            "loss": card.loss,
            "epoch": card.epoch,
            "global_step": card.global_step,
        },
        "calibration": dataclasses.asdict(card.calibration) if card.calibration else None,
    }


def card_text(card: CardFacts) -> str:
    """Return the README.md of the export."""
    parts = [
        _front_matter(card),
        _opening(card),
        results(card),
        _calibration(card),
        _training(card),
        _limits(card),
        usage(card.info, card.config.max_length),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def add_choice(card: str, text: str) -> str:
    """Add a section that says how the model was chosen, behind the results; one that stands there is replaced."""
    before, _, after = card.partition("\n## Training")
    before = before.partition(f"\n{_CHOICE}")[0].rstrip()
    return f"{before}\n\n{_CHOICE}\n\n{text}\n\n## Training{after}" if after else card


def base_model(card: CardFacts) -> str | None:
    """Return the hub id of the weights that training started from; None: they came from elsewhere."""
    if card.info.source not in ("hub", "packaged"):
        return None
    spec = MODELS.get(card.config.model)
    return spec.hub_id if spec else card.config.model


def _front_matter(card: CardFacts) -> str:
    sbert = card.info.kind == "sbert"
    lines = [
        "---",
        *(["language: en"] if _is_english(card) else []),
        f"library_name: {'sentence-transformers' if sbert else 'transformers'}",
        "pipeline_tag: text-classification",
        *([f"base_model: {base_model(card)}"] if base_model(card) else []),
        f"metrics: [{'accuracy, f1' if card.accuracy is not None else 'pearsonr, spearmanr'}]",
        f"tags: [{', '.join(_tags(card))}]",
        *_model_index(card),
        "---",
    ]
    return "\n".join(lines)


def _is_english(card: CardFacts) -> bool:
    """Tell whether the texts are known to be English: of other data nothing says their language."""
    return card.config.data in DATASETS or card.eval_split.startswith("SST-2 dev")


def _model_index(card: CardFacts) -> list[str]:
    """Return the evaluation results in the form that model hubs read; texts are quoted as JSON, which YAML includes."""
    on_glue = card.eval_split == "SST-2 dev"
    split = ["      config: sst2", "      split: validation"] if on_glue else []
    known = {
        "accuracy": card.accuracy,
        "f1": card.f1,
        "pearsonr": card.pearson,
        "spearmanr": card.spearman,
        "loss": card.loss,
    }
    metrics = [(name, value) for name, value in known.items() if value is not None]
    values = [line for name, value in metrics for line in (f"    - type: {name}", f"      value: {value:.6g}")]
    return [
        "model-index:",
        f"- name: {json.dumps(card.info.label, ensure_ascii=False)}",
        "  results:",
        "  - task:",
        "      type: text-classification",
        "    dataset:",
        f"      name: {json.dumps(card.eval_split, ensure_ascii=False)}",
        f"      type: {GLUE_HUB_ID if on_glue else 'custom'}",
        *split,
        "    metrics:",
        *values,
    ]


def _tags(card: CardFacts) -> list[str]:
    library = {"sbert": "sentence-transformers", "modernbert": "modernbert", "encoder": "transformers"}[card.info.kind]
    return [*(["sentiment"] if _is_sentiment(card) else []), library]


def _is_sentiment(card: CardFacts) -> bool:
    return card.info.labels == ("negative", "positive")


def _opening(card: CardFacts) -> str:
    kind = {
        "sbert": "SBERT with a linear head",
        "modernbert": "ModernBERT with its classification head",
        "encoder": "An encoder with the classification head of its family",
    }[card.info.kind]
    names = " from ".join(f"{name} ({number})" for number, name in enumerate(card.info.labels))
    if len(card.info.labels) > 2:
        names = ", ".join(f"{name} ({number})" for number, name in enumerate(card.info.labels)) + " apart"
    title = "sentiment of a sentence" if _is_sentiment(card) else "classes of a text"
    pairs = ""
    if card.info.text_columns:
        title = "classes of pairs of texts"
        pairs = (
            f" It reads a pair ({', '.join(card.info.text_columns)}) as one sequence with the tokenizer's separator."
        )
        if card.info.kind == "sbert":
            pairs += (
                " The sequence is pooled as a whole (a cross-encoder): the two texts have no embeddings of their own."
            )
    aim = f"to tell {names}"
    if len(card.info.labels) == 1:
        title, aim = (
            title.replace("classes", "a score"),
            "to give a score: its one output is the value, not a probability",
        )
    text = f"# {card.info.label}: {title}\n\n{kind}, fine-tuned {aim}.{pairs}"
    if card.info.random_weights:
        text += (
            "\n\n**It started from random weights, not from pretrained ones**: its figures say nothing about the "
            "pretrained model of this architecture."
        )
    return text


def _calibration(card: CardFacts) -> str:
    found = card.calibration
    if found is None:
        return ""
    lines = [
        "## Calibration",
        "",
        f"The head holds a temperature of {found.temperature:.3f}"
        + (f" and a decision threshold of {found.threshold:.3f}" if found.threshold is not None else "")
        + f", fitted on {found.num_rows:,} held-out sentences of train: the probabilities of every tool are calibrated ones.",
    ]
    if found.before is not None and found.after is not None:
        before, after, floor = (
            formatting.percent(value) for value in (found.before.value, found.after.value, found.after.floor)
        )
        lines.append(
            f"Expected calibration error on {card.eval_split}: {before} points before, {after} after; a perfectly "
            f"calibrated model shows {floor} on so many sentences."
        )
    return "\n".join(lines)


def _training(card: CardFacts) -> str:
    config = card.config
    started = {
        "hub": f"{base_model(card)} at commit {card.info.revision}",
        "packaged": f"{base_model(card)}, the copy packaged on PyPI",
        "folder": "a local folder",
        "random": "random numbers",
    }[card.info.source]
    decay = {"adamw": "as torch's AdamW reads it", "fully_decoupled": "fully decoupled from the learning rate"}
    return "\n".join(
        [
            "## Training",
            "",
            f"- weights: {started}",
            f"- data: {card.source}, {card.num_train_rows:,} {units(card)}",
            f"- exported after {card.epoch:g} of {config.epochs} epochs, {card.global_step:,} optimizer steps",
            f"- AdamW, peak learning rate {config.learning_rate:g}, batch {config.batch_size}, warm-up "
            f"{config.warmup_fraction:g} of the steps, linear decay to 0, weight decay {config.weight_decay:g} "
            f"({decay[config.weight_decay_form]}), gradient norm {config.max_grad_norm:g}, seed {config.seed}",
            f"- {units(card)} of up to {config.max_length} tokens, longer ones truncated",
            f"- config hash {config.config_hash}; the whole config stands in `{META_FILE}`",
        ]
    )


def _limits(card: CardFacts) -> str:
    lines = [
        f"- never score it on {scored}: {reason}"
        for (trained, scored), reason in KNOWN_LEAKS.items()
        if trained in card.all_corpora
    ]
    return "\n".join(["## Leaks", "", *lines]) if lines else ""
