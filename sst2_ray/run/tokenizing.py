"""Tokens of a run's splits, made by the driver: in memory, or in files that the next command finds again."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from sst2_ray.data.columns import as_column
from sst2_ray.data.kept import digest_of, keep, read_kept
from sst2_ray.data.kept_splits import CODE
from sst2_ray.data.texts import Text, singles
from sst2_ray.data.token_files import map_tokens, write_tokens
from sst2_ray.data.tokens import SentenceTokenizer
from sst2_ray.modeling import tokenizers
from sst2_ray.modeling.sources import families
from sst2_ray.modeling.sources.families import takes_type_ids
from sst2_ray.run.model_size import ModelSize, model_size
from sst2_ray.run.prepare import RunInputs, Tokenized

if TYPE_CHECKING:
    from ray import ObjectRef
    from transformers import PreTrainedTokenizerFast

    from sst2_ray.data.tokens import TokenArrays

T = TypeVar("T")

LEAST_KEPT_ROWS = 20_000
"""Rows from which on tokens are kept: fewer are tokenized in a moment."""

MANY_ROWS = 300_000
"""Rows from which on this process tokenizes, with others beside it: to hand the texts over would take longer than imports."""

_TOKENIZER_SUFFIXES = (".json", ".txt", ".model", ".jinja")


class Caller(Protocol):
    """Way to call a function that takes long, in this process or beside it."""

    def __call__(self, work: Callable[[], T], /) -> T:
        """Return what `work` returns, or raise what it raises."""


def here(work: Callable[[], T], /) -> T:
    """Call a function in this process."""
    return work()


def prepare(inputs: RunInputs) -> RunInputs:
    """Tokenize every split."""
    return inputs.with_tokens(tokenize(inputs))


def tokenize(inputs: RunInputs, call: Caller = here) -> Tokenized:
    """Make what `prepare` adds; of many rows an earlier command's where nothing has changed.

    `call`: where transformers is imported, which takes seconds; inputs, and tokens that are not kept, are pickled for it.
    Nothing is imported where an earlier command's are taken. Raises InputError where the tokenizer does not know the texts.
    """
    key, load = _tokens_key(inputs), partial(_read_tokens, inputs)
    made = read_kept(key, load) if key else None
    if made is None:
        make = partial(_make, inputs, key)
        made = make() if inputs.splits.num_rows >= MANY_ROWS else call(make)
    if made is None and key:
        made = read_kept(key, load)
    return made or _tokenized(inputs, _tokenizer(inputs))


def put_tokens(inputs: RunInputs) -> dict[str, ObjectRef[TokenArrays]]:
    """Put the tokens of every split into the object store.

    Of many rows, a process beside this one reads the files: what the driver copied would stay in its memory to the end.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = inputs.made.folder
    if folder is None or inputs.splits.num_rows < MANY_ROWS:
        return {name: ray.put(tokens) for name, tokens in inputs.tokens.items()}
    on_this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    read = ray.remote(map_tokens).options(num_cpus=0, scheduling_strategy=on_this_node)
    return {
        name: read.remote(folder / str(number), dataclasses.replace(rows, texts=[], groups=None))
        for number, (name, rows) in enumerate(inputs.splits.by_name.items())
    }


def _make(inputs: RunInputs, key: str | None) -> Tokenized | None:
    """Tokenize; returns None where the tokens are kept under `key` now."""
    tokenizer = _tokenizer(inputs)
    if key and keep(key, partial(_write_tokens, inputs, tokenizer)):
        return None
    return _tokenized(inputs, tokenizer)


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
    return Tokenized(
        tokenizer_json=tokenizers.tokenizer_to_json(tokenizer),
        vocab_size=len(tokenizer),
        tokens=tokens,
        size=model_size(inputs.resolved, len(tokenizer)),
    )


def _write_tokens(inputs: RunInputs, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Tokenize into files, by all cores. Raises InputError where the tokenizer does not know the texts."""
    encode = _encoder(inputs, tokenizer)
    for number, rows in enumerate(inputs.splits.by_name.values()):
        write_tokens(encode.pieces(rows), folder / str(number))
    train = map_tokens(folder / "0", inputs.splits.train)
    tokenizers.check_known(train.input_ids, tokenizer, source=f"--model {inputs.config.model}")
    size = dataclasses.asdict(model_size(inputs.resolved, len(tokenizer)))
    told = {"tokenizer": tokenizers.tokenizer_to_json(tokenizer), "vocab_size": len(tokenizer), "size": size}
    (folder / "told.json").write_text(json.dumps(told))


def _read_tokens(inputs: RunInputs, folder: Path) -> Tokenized:
    told = json.loads((folder / "told.json").read_text())
    splits = enumerate(inputs.splits.by_name.items())
    tokens = {name: map_tokens(folder / str(number), rows) for number, (name, rows) in splits}
    size = ModelSize(**told["size"])
    return Tokenized(
        tokenizer_json=told["tokenizer"], vocab_size=told["vocab_size"], tokens=tokens, size=size, folder=folder
    )


def _tokens_key(inputs: RunInputs) -> str | None:
    """Return the name under which the tokens are kept; None: tokenizing so few rows is faster than looking for them."""
    splits, resolved = inputs.splits, inputs.resolved
    if splits.num_rows < LEAST_KEPT_ROWS:
        return None
    told = {
        "data": splits.fingerprint, "splits": {name: len(rows) for name, rows in splits.by_name.items()},
        "model": [resolved.name, resolved.architecture, resolved.max_length, resolved.info.random_weights],
        "stack": resolved.stack and dataclasses.asdict(resolved.stack), "pairs": splits.text_columns,
        "lengths": [_digest_of_lengths(rows.texts) for rows in splits.by_name.values()],
        "versions": [importlib.metadata.version(name) for name in ("tokenizers", "transformers")],
    }  # fmt: skip
    folder = Path(resolved.tokenizer_folder) if resolved.tokenizer_folder else None
    files = sorted(path for path in folder.glob("*") if path.suffix in _TOKENIZER_SUFFIXES) if folder else []
    try:
        return digest_of(
            told,
            code=(*CODE, Path(tokenizers.__file__), Path(families.__file__), Path(__file__).with_name("model_size.py")),
            files=files,
        )
    except OSError:
        return None


def _digest_of_lengths(texts: Sequence[Text]) -> str:
    """Hash where each text ends: the fingerprint of the data does not tell ("a", "b c") from ("a b", "c") where a tab stands."""
    return hashlib.sha256(as_column(texts).byte_lengths().tobytes()).hexdigest()
