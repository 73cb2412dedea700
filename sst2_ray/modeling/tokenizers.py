"""Tokenizers: loaded from a folder or trained on the training split, and sent to workers as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import ResolvedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BPE_VOCABULARY = 4096
"""Vocabulary entries of a trained tokenizer (modernbert-mini): enough for SST-2's words, small enough for its size."""

_SPECIAL = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
"""Special tokens of a trained tokenizer."""

_ROLES = (*_SPECIAL, "bos_token", "eos_token")

_LEAST_SHARE = 0.5
"""Share of the model's vocabulary that a tokenizer of its own has at least."""

_MOST_UNKNOWN = 0.5
"""Share of unknown tokens above which texts are refused."""

_COUNTED = 2**20
"""Tokens that are counted at a time: those of many rows lie in a file."""

# Models here take only these two; BERT's token_type_ids are all 0 for single sentences, which is its default.
_INPUTS = ["input_ids", "attention_mask"]


def load_tokenizer(
    resolved: ResolvedModel, train_texts: Callable[[], list[str]] | None = None
) -> PreTrainedTokenizerFast:
    """Load the model's tokenizer; `train_texts` is called only where the model has none and one is trained.

    Raises InputError where the folder holds no fast tokenizer, or one that does not fit the model.
    """
    if resolved.tokenizer_folder is None:
        if train_texts is None:
            raise InputError(
                f"--model {resolved.name}: it has no tokenizer of its own; give one with --tokenizer FOLDER"
            )
        return train_bpe(train_texts(), max_length=resolved.max_length)
    flag = f"--tokenizer {resolved.tokenizer_folder}" if resolved.tokenizer_given else f"--model {resolved.name}"
    tokenizer = tokenizer_from_folder(
        resolved.tokenizer_folder,
        max_length=resolved.max_length,
        lower_case=bool(resolved.stack and resolved.stack.lower_case),
        source=flag,
    )
    size = None if resolved.info.random_weights else resolved.architecture.get("vocab_size")
    if isinstance(size, int) and len(tokenizer) > size:
        raise InputError(
            f"--tokenizer {resolved.tokenizer_folder}: it has {len(tokenizer)} entries, {resolved.name} has {size}; "
            "take the model's own, or --random-weights"
        )
    check_vocabulary(tokenizer, size, source=flag)
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, size: object, *, source: str) -> None:
    """Refuse a tokenizer without words, or with less than half of the `size` entries that the model has.

    transformers makes an empty tokenizer for a folder that has lost its own. `size` is None where any size fits.
    """
    words = len(tokenizer) - len(tokenizer.all_special_ids)
    expected = size if isinstance(size, int) else 0
    if words <= 0 or len(tokenizer) < _LEAST_SHARE * expected:
        of = f" of the model's {expected:,}" if expected else ""
        raise InputError(
            f"{source}: the vocabulary of its tokenizer is missing: {len(tokenizer):,}{of} entries; put the model's "
            "tokenizer.json into the folder, or give another folder"
        )


def check_known(
    input_ids: NDArray[np.int32], tokenizer: PreTrainedTokenizerFast, *, source: str, least: int = 1
) -> None:
    """Refuse texts most of whose tokens, special ones left out, the tokenizer does not know.

    `least`: tokens below which they say nothing about a language, as a last piece of a file with nothing but pictographs.
    """
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return
    special = [number for number in tokenizer.all_special_ids if number != unknown]
    total = num_unknown = 0
    for start in range(0, len(input_ids), _COUNTED):
        piece = input_ids[start : start + _COUNTED]
        num_unknown += int((piece == unknown).sum())
        total += len(piece) - int(np.isin(piece, special).sum())
    if total >= least and num_unknown > _MOST_UNKNOWN * total:
        raise InputError(
            f"{source}: {num_unknown:,} of {total:,} tokens are unknown to the tokenizer; take a model for this "
            "language, or its own tokenizer"
        )


def tokenizer_from_folder(
    folder: Path | str, *, max_length: int, lower_case: bool, source: str
) -> PreTrainedTokenizerFast:
    """Load the fast tokenizer of a folder. Raises InputError, which begins with `source`, where there is none."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(  # nosec B615: a local folder
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        line = " ".join(str(error).split())[:160]
        raise InputError(f"{source}: no tokenizer can be loaded from {folder} ({line})") from None
    # Which special tokens a text gets is in the tokenizer's own post-processor: cls and sep need not be among them.
    if not loaded.is_fast or loaded.pad_token_id is None:
        what = "has no pad token" if loaded.is_fast else "has no tokenizer.json"
        raise InputError(f"{source}: the tokenizer in {folder} {what}")
    backend = loaded.backend_tokenizer
    if lower_case:
        from tokenizers import normalizers

        steps = [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
        backend.normalizer = normalizers.Sequence(steps)
    return _assemble(backend.to_str(), _special_tokens(loaded), max_length)


def train_bpe(texts: list[str], *, max_length: int, vocabulary: int = BPE_VOCABULARY) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with BERT's special tokens; the same texts give the same tokenizer.

    Texts are lower-cased: SST-2 is, so capital letters would otherwise be bytes that the model never saw.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    cls, sep = _SPECIAL["cls_token"], _SPECIAL["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    return _assemble(tokenizer.to_str(), dict(_SPECIAL), max_length)


def tokenizer_to_json(tokenizer: PreTrainedTokenizerFast) -> str:
    """Serialize the tokenizer to one JSON string, for workers."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    special = _special_tokens(tokenizer)
    return json.dumps({"tokenizer": backend, "special": special, "max_length": tokenizer.model_max_length})


def _special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    """Return the special tokens that the tokenizer names."""
    return {name: str(getattr(tokenizer, name)) for name in _ROLES if getattr(tokenizer, name, None) is not None}


def tokenizer_from_json(text: str) -> PreTrainedTokenizerFast:
    """Restore the tokenizer that `tokenizer_to_json` serialized."""
    values = json.loads(text)
    return _assemble(json.dumps(values["tokenizer"]), values["special"], values["max_length"])


def _assemble(backend: str, special: dict[str, str], max_length: int) -> PreTrainedTokenizerFast:
    """Build the one class used for all, so that an export needs nothing but tokenizer.json."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(backend)
    # Some folders bake these in (all-MiniLM-L6-v2: pad and truncate to 128); here the caller decides.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, model_input_names=list(_INPUTS), **special
    )
