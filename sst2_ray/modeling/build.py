"""Building of classifiers: config, weights from a folder or from random numbers, a fresh head, torch.compile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from sst2_ray.errors import InputError
from sst2_ray.modeling.attention.choice import FLASH, VARLEN, choose_attention
from sst2_ray.modeling.classifier import EncoderClassifier, ModernBertClassifier, SbertClassifier, SentenceClassifier
from sst2_ray.modeling.compiler import enable_compiler, has_compiler
from sst2_ray.modeling.sources import ModelInfo, ResolvedModel, local_folder
from sst2_ray.modeling.sources.families import UNPADDED_FAMILIES, encoder_sizes

SBERT_DROPOUT = 0.1
"""Dropout before SBERT's head where the config does not say: the value of the notebook study."""

_HEAD_DROPOUTS = (
    "classifier_dropout_prob",
    "seq_classif_dropout",
    "cls_dropout",
    "pooler_dropout",
    "summary_last_dropout",
)
"""Other names of `classifier_dropout`."""

_ENCODER_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "embedding_dropout",
    "mlp_dropout",
    "attention_dropout",
    "dropout",
)


def build_classifier(
    resolved: ResolvedModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    dropout: float | None = None,
    encoder_dropout: float | None = None,
    device: torch.device | str = "cpu",
) -> SentenceClassifier:
    """Build the model on `device`, in fp32, with a fresh head; a seed gives the same weights on every machine.

    `dropout` and `encoder_dropout` as in TrainConfig. The global random state is not changed. Raises InputError where
    `device` does not have the attention implementation or the weights do not fit their architecture.
    """
    device = torch.device(device)
    config = _transformers_config(resolved, tokenizer, dropout, encoder_dropout)
    attention, _ = choose_attention(
        resolved.info.attention, device, half_precision=resolved.half_precision, supported=supported_attention(config)
    )
    folder = local_folder(resolved)
    source = f"--model {resolved.name}"
    info = dataclasses.replace(resolved.info, attention=attention, origin=str(folder) if folder else "")
    with _seeded(seed), quiet_transformers():
        if resolved.stack is None:
            auto = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
            backbone = load_backbone(auto, config, folder, attention, source=source, head=True)
            model: SentenceClassifier = headed_classifier(info, backbone)
        else:
            encoder = folder / resolved.stack.transformer_path if folder else None
            backbone = load_backbone(encoder_class(config), config, encoder, attention, source=source, head=False)
            model = SbertClassifier(info, backbone, resolved.stack, SBERT_DROPOUT if dropout is None else dropout)
    with _seeded(seed):
        _initialize_head(model)
    return counted(model).to(device)


def headed_classifier(info: ModelInfo, backbone: PreTrainedModel) -> SentenceClassifier:
    """Wrap a transformers sequence classifier."""
    kind = ModernBertClassifier if info.kind == "modernbert" else EncoderClassifier
    return kind(info, backbone)


def counted(model: SentenceClassifier) -> SentenceClassifier:
    """Return the model with its info completed by the number of trained parameters."""
    number = sum(p.numel() for p in model.parameters() if p.requires_grad)
    model.info = dataclasses.replace(model.info, num_parameters=number)
    return model


def _transformers_config(
    resolved: ResolvedModel, tokenizer: PreTrainedTokenizerFast, dropout: float | None, encoder_dropout: float | None
) -> PreTrainedConfig:
    """Make the transformers config: the tokenizer's special tokens for random weights, dropouts and labels as asked."""
    config = CONFIG_MAPPING[resolved.architecture["model_type"]].from_dict(dict(resolved.architecture))
    if resolved.info.random_weights:
        config.vocab_size = len(tokenizer)
        for name in ("pad", "cls", "sep", "bos", "eos"):
            setattr(config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id", None))
        if config.model_type == "modernbert":
            config.bos_token_id, config.eos_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
    if encoder_dropout is not None:
        _set_numbers(config, _ENCODER_DROPOUTS, encoder_dropout)
    # Whatever task the folder was trained for: its labels and its loss do not survive into an export.
    labels = resolved.info.labels if resolved.stack is None else ("LABEL_0", "LABEL_1")
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "regression" if len(resolved.info.labels) == 1 and resolved.stack is None else None
    if resolved.stack is None and dropout is not None:
        config.classifier_dropout = dropout
        _set_numbers(config, _HEAD_DROPOUTS, dropout)
    return config


def _set_numbers(config: PreTrainedConfig, names: tuple[str, ...], value: float) -> None:
    """Set those fields of the config that are numbers today."""
    for name in names:
        if isinstance(getattr(config, name, None), (int, float)):
            setattr(config, name, value)


def encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class of the bare encoder."""
    found = MODEL_MAPPING[type(config)]
    return found[0] if isinstance(found, tuple) else found  # Funnel has one with and one without its decoder


def supported_attention(config: PreTrainedConfig) -> frozenset[str]:
    """Return the attention implementations of the architecture."""
    model, sizes = encoder_class(config), encoder_sizes(config)
    head_dim = sizes.hidden // sizes.heads
    unpadded = (
        config.model_type in UNPADDED_FAMILIES and head_dim % 8 == 0 and head_dim <= 256
    )  # as the kernels want it
    return frozenset(
        {"eager"}
        | ({"sdpa"} if model._supports_sdpa else set())
        | ({VARLEN} if unpadded else set())
        | ({FLASH} if getattr(model, "_supports_flash_attn", False) else set())
    )


def load_backbone(
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    folder: Path | None,
    attention: str,
    *,
    source: str,
    head: bool,
) -> PreTrainedModel:
    """Load the transformers model from `folder`; None: from random numbers.

    `head`: the model is a classifier, whose head may be missing in the folder. So may the encoder's pooler, but no
    other tensor: the file of another architecture would otherwise pass as a pretrained model with random weights.
    """
    attention = "sdpa" if attention == VARLEN else attention  # the classifier changes it, see lay_end_to_end
    if folder is None:
        backbone: PreTrainedModel = model_class._from_config(config, dtype=torch.float32, attn_implementation=attention)
        return backbone
    try:
        backbone, loading = model_class.from_pretrained(
            str(folder),
            config=config,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            # The head is replaced, whatever its number of classes.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: its weights cannot be loaded ({line}); download or export it again") from None
    mismatched = {str(entry[0]) for entry in loading["mismatched_keys"]}
    inside = f"{model_class.base_model_prefix}." if head else ""
    missing = sorted(
        key
        for key in {*loading["missing_keys"], *mismatched}
        if key.startswith(inside) and not key.removeprefix(inside).startswith("pooler.")
    )
    if missing:
        raise InputError(
            f"{source}: its weights are not those of a {config.model_type} model of this shape: "
            f"{len(missing)} tensors are missing or of another size, e.g. {missing[0]}"
        )
    return backbone


def _initialize_head(model: SentenceClassifier) -> None:
    """Draw fresh weights for the last layer, whatever the folder held.

    ModernBERT: truncated normal of standard deviation hidden_size ** -0.5, as transformers initializes its classifiers;
    others: normal of standard deviation 0.02, as BERT's. Biases are 0.
    """
    weight, bias = model.head_weights["weight"], model.head_weights["bias"]
    nn.init.zeros_(bias)
    if isinstance(model, ModernBertClassifier):
        std = model.backbone.config.hidden_size**-0.5
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    else:
        nn.init.normal_(weight, std=0.02)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside and restore it after: models are built on the CPU, then moved."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence progress bars and load reports of transformers inside."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def compile_layers(model: nn.Module, *, backend: str | Callable[..., object] = "inductor") -> None:
    """Compile the layers of the encoder inside `model`, and turn the compiler on in this process.

    The layers are compiled one by one, for any number of rows and tokens: they are alike, so that few graphs serve them
    all. It pays on GPUs where a batch is too small to fill the chip; on a CPU compiled layers are slower
    (benchmarks/NOTES.md). Raises InputError where there is no C compiler.
    """
    if not has_compiler():
        raise InputError("--compile: no C compiler (cc, gcc, clang or $CC) on this worker; install one or leave it out")
    enable_compiler()
    # The encoder's layers are the longest list of modules.
    lists = [list(module.children()) for module in model.modules() if isinstance(module, nn.ModuleList)]
    for layer in max(lists, key=len):
        layer.compile(dynamic=True, backend=backend)
