"""Tokens of a run's splits, made by the driver: in memory, or in files that the next command finds again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sst2_ray.data.kept import digest_of, keep, read_kept
from sst2_ray.data.kept_splits import CODE
from sst2_ray.data.texts import singles
from sst2_ray.data.token_files import map_tokens, write_tokens
from sst2_ray.data.tokens import SentenceTokenizer
from sst2_ray.modeling import tokenizers
from sst2_ray.modeling.sources.families import takes_type_ids
from sst2_ray.run.prepare import RunInputs, Tokenized

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LEAST_KEPT_ROWS = 20_000
"""Rows from which on tokens are kept: fewer are tokenized in a moment."""

_TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".jinja")


def prepare(inputs: RunInputs) -> RunInputs:
    """Tokenize every split, once: of many rows an earlier command's tokens are taken where nothing has changed."""
    key = _tokens_key(inputs)
    made = read_kept(key, partial(_read_tokens, inputs)) if key else None
    if made is None:
        tokenizer = _tokenizer(inputs)
        if key and keep(key, partial(_write_tokens, inputs, tokenizer)):
            made = read_kept(key, partial(_read_tokens, inputs))
        made = made or _tokenized(inputs, tokenizer)
    return dataclasses.replace(inputs, tokenized=made)


def _tokenizer(inputs: RunInputs) -> PreTrainedTokenizerFast:
    return tokenizers.load_tokenizer(inputs.resolved, lambda: singles(inputs.splits.train.texts))


def _encoder(inputs: RunInputs, tokenizer: PreTrainedTokenizerFast) -> SentenceTokenizer:
    typed = bool(inputs.splits.text_columns) and takes_type_ids(inputs.resolved.architecture)
    return SentenceTokenizer(tokenizer, inputs.resolved.max_length, type_ids=typed)


def _tokenized(inputs: RunInputs, tokenizer: PreTrainedTokenizerFast) -> Tokenized:
    """Tokenize in memory. Raises InputError where the tokenizer does not know the texts."""
    encode = _encoder(inputs, tokenizer)
    tokens = {name: encode(rows) for name, rows in inputs.splits.by_name.items()}
    tokenizers.check_known(tokens["train"].input_ids, tokenizer, source=f"--model {inputs.config.model}")
    return Tokenized(tokenizer_json=tokenizers.tokenizer_to_json(tokenizer), vocab_size=len(tokenizer), tokens=tokens)


def _write_tokens(inputs: RunInputs, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Tokenize into files, by all cores. Raises InputError where the tokenizer does not know the texts."""
    encode = _encoder(inputs, tokenizer)
    for number, rows in enumerate(inputs.splits.by_name.values()):
        write_tokens(encode.pieces(rows), folder / str(number))
    train = map_tokens(folder / "0", inputs.splits.train)
    tokenizers.check_known(train.input_ids, tokenizer, source=f"--model {inputs.config.model}")
    told = {"tokenizer": tokenizers.tokenizer_to_json(tokenizer), "vocab_size": len(tokenizer)}
    (folder / "told.json").write_text(json.dumps(told))


def _read_tokens(inputs: RunInputs, folder: Path) -> Tokenized:
    told = json.loads((folder / "told.json").read_text())
    splits = enumerate(inputs.splits.by_name.items())
    tokens = {name: map_tokens(folder / str(number), rows) for number, (name, rows) in splits}
    return Tokenized(tokenizer_json=told["tokenizer"], vocab_size=told["vocab_size"], tokens=tokens)


def _tokens_key(inputs: RunInputs) -> str | None:
    """Return the name under which the tokens are kept; None: tokenizing so few rows is faster than looking for them."""
    splits, resolved = inputs.splits, inputs.resolved
    if sum(map(len, splits.by_name.values())) < LEAST_KEPT_ROWS:
        return None
    told = {
        "data": splits.fingerprint, "splits": {name: len(rows) for name, rows in splits.by_name.items()},
        "model": [resolved.name, resolved.architecture, resolved.max_length, resolved.info.random_weights],
        "stack": resolved.stack and dataclasses.asdict(resolved.stack), "pairs": splits.text_columns,
        "versions": [importlib.metadata.version(name) for name in ("tokenizers", "transformers")],
    }  # fmt: skip
    folder = Path(resolved.tokenizer_folder) if resolved.tokenizer_folder else None
    files = sorted(path for path in folder.glob("*") if path.suffix in _TOKENIZER_SUFFIXES) if folder else []
    try:
        return digest_of(told, code=(*CODE, Path(tokenizers.__file__)), files=files)
    except OSError:
        return None
