"""Tests that what stands in training is not scored on, unless the user says so."""

from __future__ import annotations

import pytest

from sst2_ray.data import leaks
from sst2_ray.data.leaks import check_known_leak, identify, is_sst2_dev
from sst2_ray.data.splitting import key_hashes
from sst2_ray.errors import InputError
from tests.support.reviews import reviews

DEV = [text for text, _ in reviews(200, topic="opera")]


def keys(*texts):
    return key_hashes(texts)


def check_overlap(texts, train_keys, **options):
    return leaks.check_overlap(texts, key_hashes(texts), train_keys, **options)


def test_separate_splits_pass_without_a_remark():
    assert check_overlap(DEV, keys("something else entirely"), data="x", allow=False) is None


def test_shared_sentences_are_counted_and_three_are_named():
    with pytest.raises(InputError) as refused:
        check_overlap(DEV, keys(*DEV[10:15]), data="reviews.csv", allow=False)
    message = str(refused.value)
    assert message.startswith("--data reviews.csv: 5 of 200 evaluation sentences also stand in the training split")
    assert [text in message for text in DEV[10:15]] == [True, True, True, False, False]
    assert "--allow-leak" in message


def test_case_and_punctuation_do_not_hide_a_leak():
    with pytest.raises(InputError, match="1 of 200"):
        check_overlap(DEV, keys(DEV[0].upper().replace(" .", "?!")), data="x", allow=False)


def test_long_sentences_are_cut_where_they_are_named():
    with pytest.raises(InputError, match=r'\("(very )+ve\.\.\."\)'):
        check_overlap(["very " * 50], keys("very " * 50), data="x", allow=False)


def test_a_leak_that_is_allowed_is_said():
    remark = check_overlap(DEV, keys(*DEV[:5]), data="x", allow=True)
    assert remark is not None
    assert remark.startswith("LEAK, allowed: 5 of 200")


def test_a_few_short_phrases_are_kept_and_said():
    remark = check_overlap([*DEV, "cool ?", "bad ."], keys("cool", "bad"), data="x", allow=False)
    assert remark is not None
    assert remark.startswith('2 of 202 evaluation sentences also stand in the training split ("cool ?", "bad .")')


def test_many_short_phrases_are_refused():
    with pytest.raises(InputError, match="3 of 203"):
        check_overlap([*DEV, "cool ?", "bad .", "so so"], keys("cool", "bad", "so so"), data="x", allow=False)


def test_one_short_sentence_of_three_words_is_refused():
    with pytest.raises(InputError, match="1 of 201"):
        check_overlap([*DEV, "a fine film"], keys("a fine film"), data="x", allow=False)


def test_scoring_on_a_corpus_that_training_contains_is_refused():
    with pytest.raises(InputError, match=r"trained on rotten-tomatoes cannot be scored on glue: .*691 of the 872"):
        check_known_leak(["imdb", "rotten-tomatoes"], "glue", allow=False)


def test_scoring_on_it_is_said_where_it_is_allowed():
    remark = check_known_leak(["glue"], "rotten-tomatoes", allow=True)
    assert remark is not None
    assert remark.startswith("LEAK, allowed: trained on glue, scored on rotten-tomatoes")


@pytest.mark.parametrize("eval_corpus", ["glue", None, "something"])
def test_scoring_on_anything_else_passes(eval_corpus):
    assert check_known_leak(["glue"], eval_corpus, allow=False) is None


def test_unknown_texts_are_no_known_corpus():
    assert identify(keys(*DEV)) is None
    assert not is_sst2_dev(keys(*DEV))
