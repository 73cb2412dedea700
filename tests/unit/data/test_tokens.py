"""Flat token arrays hold exactly what the tokenizer gives, and leave it alone."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sst2_ray.data.batching import MicroBatch, collate
from sst2_ray.data.labels import ClassNames, canonical_labels
from sst2_ray.data.rows import Cells, Rows
from sst2_ray.data.tokens import SentenceTokenizer
from sst2_ray.errors import InputError


def make_rows(texts, labels, where):
    return Cells(texts=texts, labels=canonical_labels(labels, None), where=where).rows(ClassNames())[0]


ROWS = make_rows(["a fine film", "bad", "a b a b a b a b"], [1, 0, 1], "here")
CLS, SEP = 1, 2


@pytest.fixture
def tokenizer():
    vocabulary = {token: i for i, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "a", "b", "fine", "film", "bad"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    # As some checkpoints ship it: padding and truncation of their own, which must not get in.
    core.enable_padding(length=16)
    core.enable_truncation(4)
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def test_sentences_lie_one_after_the_other_with_special_tokens(tokenizer):
    tokens = SentenceTokenizer(tokenizer, 128)(ROWS)
    assert tokens.input_ids.tolist() == [CLS, 3, 5, 6, SEP, CLS, 7, SEP, CLS, *[3, 4] * 4, SEP]
    assert tokens.offsets.tolist() == [0, 5, 8, 18]
    assert tokens.lengths.tolist() == [5, 3, 10]
    assert len(tokens) == 3
    assert tokens.num_truncated == 0


def test_arrays_have_the_types_that_are_promised(tokenizer):
    tokens = SentenceTokenizer(tokenizer, 128)(ROWS)
    assert [a.dtype.name for a in (tokens.input_ids, tokens.offsets, tokens.labels, tokens.row_ids, tokens.lengths)] == [
        "int32", "int64", "int16", "int64", "int32",
    ]  # fmt: skip


def test_labels_and_row_ids_go_along(tokenizer):
    some = ROWS.take(np.array([True, False, True]))
    tokens = SentenceTokenizer(tokenizer, 128)(some)
    assert tokens.labels.tolist() == [1, 1]
    assert tokens.row_ids.tolist() == [0, 2]


def test_truncated_sentences_keep_their_special_tokens_and_are_counted(tokenizer):
    tokens = SentenceTokenizer(tokenizer, 5)(ROWS)
    assert tokens.lengths.tolist() == [5, 3, 5]
    assert tokens.input_ids[tokens.offsets[2] :].tolist() == [CLS, 3, 4, 3, SEP]
    assert tokens.num_truncated == 1


def test_chunks_give_the_same_arrays(tokenizer, monkeypatch):
    whole = SentenceTokenizer(tokenizer, 5)(ROWS)
    monkeypatch.setattr("sst2_ray.data.processes.PIECE", 2)
    chunked = SentenceTokenizer(tokenizer, 5)(ROWS)
    assert chunked.input_ids.tolist() == whole.input_ids.tolist()
    assert chunked.offsets.tolist() == whole.offsets.tolist()
    assert chunked.num_truncated == whole.num_truncated


PAIRS = Rows(texts=[("a film", "bad"), ("a b a b", "a")], labels=np.array([0, 1], dtype=np.int16), row_ids=np.arange(2))


@pytest.fixture
def of_pairs(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def test_a_pair_is_one_sequence_with_the_separator_and_types_where_they_are_asked_for(of_pairs):
    tokens = SentenceTokenizer(of_pairs, 128, type_ids=True)(PAIRS)
    assert tokens.input_ids.tolist() == [CLS, 3, 6, SEP, 7, SEP, CLS, 3, 4, 3, 4, SEP, 3, SEP]
    assert tokens.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert tokens.type_ids.dtype == np.int8
    untyped = SentenceTokenizer(of_pairs, 128)(PAIRS)
    assert untyped.type_ids is None
    assert untyped.input_ids.tolist() == tokens.input_ids.tolist()


def test_single_texts_have_no_types(of_pairs):
    assert SentenceTokenizer(of_pairs, 128, type_ids=True)(ROWS).type_ids is None


def test_of_a_pair_that_is_too_long_the_longer_text_is_cut(of_pairs):
    tokens = SentenceTokenizer(of_pairs, 6, type_ids=True)(PAIRS)
    assert tokens.input_ids.tolist() == [CLS, 3, 6, SEP, 7, SEP, CLS, 3, 4, SEP, 3, SEP]
    assert tokens.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1]
    assert tokens.num_truncated == 1


def test_batches_of_pairs_have_their_types(of_pairs):
    tokens = SentenceTokenizer(of_pairs, 128, type_ids=True)(PAIRS)
    batch = MicroBatch(rows=np.array([1, 0]), weights=np.ones(2, dtype=np.float32), width=8)
    ids, mask, types = collate(tokens, batch, pad_id=9)
    assert ids.tolist() == [[CLS, 3, 4, 3, 4, SEP, 3, SEP], [CLS, 3, 6, SEP, 7, SEP, 9, 9]]
    assert mask.sum(axis=1).tolist() == [8, 6]
    assert types.tolist() == [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0]]


def test_pairs_that_a_tokenizer_does_not_divide_are_refused(tokenizer):
    with pytest.raises(InputError, match="puts no separator between the texts of a pair"):
        SentenceTokenizer(tokenizer, 128)(PAIRS)


def test_a_length_that_leaves_no_room_for_both_texts_is_refused(of_pairs):
    with pytest.raises(InputError, match="--max-length 4: of a pair 3 tokens are special; use at least 5"):
        SentenceTokenizer(of_pairs, 4)(PAIRS)


def test_no_sentences_give_empty_arrays(tokenizer):
    tokens = SentenceTokenizer(tokenizer, 128)(make_rows([], [], "here"))
    assert len(tokens) == 0
    assert tokens.offsets.tolist() == [0]


def test_the_tokenizer_is_left_as_it_was(tokenizer):
    core = tokenizer.backend_tokenizer
    before = core.padding, core.truncation
    SentenceTokenizer(tokenizer, 128)(ROWS)
    assert (core.padding, core.truncation) == before


def test_a_tokenizer_without_a_fast_core_is_refused():
    class Slow:
        is_fast = False
        name_or_path = "old/model"

    with pytest.raises(InputError, match=r"tokenizer old/model: has no tokenizer\.json"):
        SentenceTokenizer(Slow(), 128)(ROWS)


def test_the_real_modernbert_tokenizer_gives_what_calling_it_gives(sst2_folder):
    folder = os.environ.get("SST2_RAY_TOKENIZER")
    if not folder:
        pytest.skip("SST2_RAY_TOKENIZER is not set: needs a folder with ModernBERT's tokenizer")
    real = AutoTokenizer.from_pretrained(folder)
    lines = (sst2_folder / "dev.tsv").read_text().splitlines()[1:]
    rows = make_rows(*zip(*(line.split("\t") for line in lines), strict=True), "dev")
    tokens = SentenceTokenizer(real, 24)(rows)
    called = real(list(rows.texts), truncation=True, max_length=24)["input_ids"]
    assert [part.tolist() for part in np.split(tokens.input_ids, tokens.offsets[1:-1])] == called
    assert tokens.num_truncated == sum(len(ids) > 24 for ids in real(list(rows.texts))["input_ids"])
