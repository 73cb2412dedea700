"""Tokenizers: trained deterministically, loaded without surprises, the same after they have travelled as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sst2_ray.config.train import TrainConfig
from sst2_ray.errors import InputError
from sst2_ray.modeling.sources import resolve_model
from sst2_ray.modeling.tokenizers import (
    check_known,
    load_tokenizer,
    tokenizer_from_json,
    tokenizer_to_json,
    train_bpe,
)
from tests.support import models
from tests.support.families import family_folder
from tests.support.models import SENTENCES


def load(folder, texts=None, **config):
    return load_tokenizer(resolve_model(TrainConfig(model=str(folder), **config)), texts)


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(SENTENCES, max_length=32, vocabulary=300)


def test_a_trained_tokenizer_has_bytes_special_tokens_and_merges(bpe):
    assert len(bpe) == 300
    assert [bpe.pad_token_id, bpe.unk_token_id, bpe.cls_token_id, bpe.sep_token_id, bpe.mask_token_id] == [
        0,
        1,
        2,
        3,
        4,
    ]
    ids = bpe("a warm film")["input_ids"]
    assert (ids[0], ids[-1]) == (bpe.cls_token_id, bpe.sep_token_id)


def test_nothing_is_unknown_to_it(bpe):
    text = "naïve 電影 🎬 ?!"
    ids = bpe(text)["input_ids"]
    assert bpe.unk_token_id not in ids
    assert bpe.decode(ids, skip_special_tokens=True).strip() == text


def test_capital_letters_are_small_ones_to_it(bpe):
    assert bpe("A Warm FILM")["input_ids"] == bpe("a warm film")["input_ids"]


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_another_process_trains_the_same_tokenizer(bpe, parallel):
    code = (
        "import json, sys; from sst2_ray.modeling.tokenizers import train_bpe, tokenizer_to_json\n"
        "print(tokenizer_to_json(train_bpe(json.loads(sys.stdin.read()), max_length=32, vocabulary=300)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(SENTENCES),
        env={**os.environ, "TOKENIZERS_PARALLELISM": parallel},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == tokenizer_to_json(bpe)


def test_mini_trains_its_own_on_the_training_texts():
    asked = []

    def texts():
        asked.append(True)
        return SENTENCES

    tokenizer = load("modernbert-mini", texts)
    assert asked == [True]
    assert tokenizer("uneasy")["input_ids"] == train_bpe(SENTENCES, max_length=128)("uneasy")["input_ids"]


def test_a_model_with_a_tokenizer_asks_for_no_texts(sbert_folder):
    load(sbert_folder, lambda: pytest.fail("asked for the training texts"))


def test_mini_takes_a_given_tokenizer(modernbert_folder):
    tokenizer = load("modernbert-mini", tokenizer=str(modernbert_folder))
    assert tokenizer_to_json(tokenizer) == tokenizer_to_json(load(modernbert_folder))


@pytest.mark.parametrize("layout", ["modernbert_folder", "sbert_folder", "minilm_folder"])
def test_it_encodes_as_transformers_does(request, layout):
    from transformers import AutoTokenizer

    folder = request.getfixturevalue(layout)
    theirs = AutoTokenizer.from_pretrained(folder)(SENTENCES, truncation=True, max_length=16)
    ours = load(folder)(SENTENCES, truncation=True, max_length=16)
    assert ours["input_ids"] == theirs["input_ids"]


@pytest.mark.parametrize("layout", ["modernbert_folder", "minilm_folder"])
def test_it_is_the_same_after_travelling_as_json(request, layout):
    tokenizer = load(request.getfixturevalue(layout), max_length=48)
    other = tokenizer_from_json(tokenizer_to_json(tokenizer))
    assert other(SENTENCES)["input_ids"] == tokenizer(SENTENCES)["input_ids"]
    assert other.pad_token_id == tokenizer.pad_token_id
    assert other.model_max_length == 48
    assert other.model_input_names == ["input_ids", "attention_mask"]


def test_the_truncation_and_padding_of_a_folder_do_not_count(minilm_folder):
    # all-MiniLM-L6-v2's tokenizer.json pads and truncates to 128 by itself.
    encoded = load(minilm_folder)(["short", "word " * 400])["input_ids"]
    assert [len(ids) for ids in encoded] == [3, 402]


def test_a_folder_that_lower_cases_its_texts_is_heard(tmp_path):
    lower = load(models.sbert_folder(tmp_path / "lower", lower_case=True))
    assert lower("A Film")["input_ids"] == lower("a film")["input_ids"]


def test_the_real_modernbert_tokenizer(modernbert_tokenizer_folder):
    tokenizer = load("modernbert-base", random_weights=True, tokenizer=str(modernbert_tokenizer_folder))
    assert len(tokenizer) == 50368
    ids = tokenizer("a gripping film")["input_ids"]
    assert (ids[0], ids[-1], tokenizer.pad_token_id) == (50281, 50282, 50283)


def test_a_larger_tokenizer_than_the_models_table_is_refused(tmp_path, sbert_folder):
    larger = tmp_path / "larger"
    train_bpe(SENTENCES, max_length=128, vocabulary=320).save_pretrained(larger)
    with pytest.raises(InputError, match=r"it has 320 entries, .* has 300; take the model's own, or --random-weights"):
        load(sbert_folder, tokenizer=str(larger))
    assert len(load(sbert_folder, tokenizer=str(larger), random_weights=True)) == 320


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_folder_without_a_whole_tokenizer_is_refused_in_one_line(tmp_path, content):
    folder = models.sbert_folder(tmp_path / "damaged")
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert str(caught.value).startswith(f"--model {folder}: ")
    assert "\n" not in str(caught.value)


# ---- without a vocabulary


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta"])
@pytest.mark.parametrize("kept", [(), ("tokenizer_config.json",)], ids=["no files", "vocabulary lost"])
def test_a_folder_that_lost_its_vocabulary_is_refused_in_one_line(tmp_path, family, kept):
    folder = family_folder(family, tmp_path / "model")
    for path in folder.glob("tokenizer*"):
        if path.name not in kept:
            path.unlink()
    with pytest.raises(InputError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"--model {folder}: ")
    assert "\n" not in message


def test_a_tokenizer_with_a_fraction_of_the_models_words_is_refused(tmp_path):
    folder = family_folder("bert", tmp_path / "model", vocab_size=700)
    with pytest.raises(InputError, match="the vocabulary of its tokenizer is missing: 300 of the model's 700 entries"):
        load(folder)


def test_a_tokenizer_with_only_bos_and_eos_is_used_as_its_own_post_processor_says(tmp_path):
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    folder = family_folder("eurobert", tmp_path / "model")
    core = train_bpe(SENTENCES, max_length=128, vocabulary=300).backend_tokenizer
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A [CLS] $B", special_tokens=[("[CLS]", core.token_to_id("[CLS]"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]"
    ).save_pretrained(folder)
    tokenizer = load(folder)
    assert tokenizer.cls_token is None
    ids = tokenizer_from_json(tokenizer_to_json(tokenizer))("a film")["input_ids"]
    assert ids[0] == core.token_to_id("[CLS]")
    assert ids[-1] != core.token_to_id("[SEP]")
    model, its_tokenizer, _ = models.build(folder)
    assert model(*models.encode(its_tokenizer)).shape == (len(SENTENCES), 2)


def test_texts_most_of_whose_tokens_are_unknown_are_refused():
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1, "a": 2, "film": 3}
    core = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]")

    def check(text: str) -> None:
        check_known(np.array(tokenizer(text)["input_ids"]), tokenizer, source="--data x")

    check("a film of a")
    check("a film unknown word")
    with pytest.raises(InputError, match=r"--data x: 3 of 5 tokens are unknown to the tokenizer; take a model"):
        check("one two three a film")
