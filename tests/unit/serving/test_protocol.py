"""Requests: what is read, and what is refused with which status."""

from __future__ import annotations

import json

import pytest

from sst2_ray.serving.protocol import Limits, RequestError, check_token, read_texts, rows_of, token_hash

LIMITS = Limits(max_texts=3, max_text_chars=10)


def test_texts_are_read_in_order_and_null_is_a_row_without_a_text() -> None:
    assert read_texts(b'{"texts": ["fine", null, "", "\\u00e9"]}', Limits()) == ["fine", None, "", "é"]
    assert read_texts(b'{"texts": []}', LIMITS) == []


def test_pairs_are_read_as_lists_of_two_and_null_is_a_row_without_one() -> None:
    assert read_texts(b'{"texts": [["a", "b"], null]}', LIMITS, pairs=True) == [("a", "b"), None]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"texts": ["a"]}', r"texts\[0\] is no list of two strings: the model reads pairs"),
        (b'{"texts": [["a", "b", "c"]]}', r"texts\[0\] is no list of two strings"),
        (b'{"texts": [["a", "b"], ["a", null]]}', r"texts\[1\]\[1\] is of type NoneType, not a string"),
    ],
)
def test_what_is_no_pair_is_refused_for_a_model_of_pairs(body: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told) as refused:
        read_texts(body, LIMITS, pairs=True)
    assert refused.value.status == 422


def test_rows_of_pairs_have_both_texts() -> None:
    assert rows_of([("a", "b"), (" ", "b"), None], [{"predicted": 1}], ["predicted"], pairs=True) == [
        {"text": "a", "text_pair": "b", "predicted": 1}, {"text": " ", "text_pair": "b", "predicted": None},
        {"text": None, "text_pair": None, "predicted": None},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 400, "not JSON"),
        (b'{"texts": ["a"', 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'["a"]', 422, "no list `texts`"),
        (b'{"texts": "a"}', 422, "no list `texts`"),
        (b'{"texts": ["a"], "top_k": 1}', 422, "unknown keys: top_k"),
        (b'{"texts": ["a", 7]}', 422, r"texts\[1\] is of type int, not a string"),
        (b'{"texts": ["\\ud800"]}', 422, "half a character"),
        (b'{"texts": ["a", "b", "c", "d"]}', 413, "4 texts: at most 3 in one request"),
        (json.dumps({"texts": ["x" * 11]}).encode(), 413, r"texts\[0\] has 11 characters: at most 10"),
    ],
)
def test_what_is_no_request_is_refused_in_one_line(body: bytes, status: int, told: str) -> None:
    with pytest.raises(RequestError, match=told) as refused:
        read_texts(body, LIMITS)
    assert refused.value.status == status
    assert "\n" not in refused.value.message


def test_rows_without_a_text_have_no_prediction() -> None:
    assert rows_of(["a", " ", None, "b"], [{"predicted": 1}, {"predicted": 0}], ["predicted"]) == [
        {"text": "a", "predicted": 1}, {"text": " ", "predicted": None}, {"text": None, "predicted": None},
        {"text": "b", "predicted": 0},
    ]  # fmt: skip


def test_a_token_is_asked_for_only_where_there_is_one() -> None:
    check_token(None, None)
    expected = token_hash("secret")
    check_token("Bearer secret", expected)
    for header in (None, "", "secret", "Bearer", "Bearer other", "Basic secret"):
        with pytest.raises(RequestError, match="a token is needed") as refused:
            check_token(header, expected)
        assert refused.value.status == 401
