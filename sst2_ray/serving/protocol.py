"""Requests and responses of the server: what a request may hold, and the refusals of the rest, each in one line."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sst2_ray.data.texts import PAIR_KEYS, Text, stripped

TOKEN_VARIABLE = "SST2_RAY_SERVE_TOKEN"  # nosec B105: the name of a variable
"""Environment variable with the token that requests must carry."""

EXAMPLE = '{"texts": ["a gripping film", "it never comes to life"]}'
EXAMPLE_OF_PAIRS = '{"texts": [["a man plays a guitar", "a person makes music"]]}'


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes above which a request is refused."""

    max_texts: int = 1024
    max_text_chars: int = 100_000
    """A model reads some hundred words of a text; what is longer is cut, what is longer than this is refused."""
    max_body_bytes: int = 16 * 2**20


class RequestError(Exception):
    """A refusal: an HTTP status and one line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def read_texts(body: bytes, limits: Limits, *, pairs: bool = False) -> list[Text | None]:
    """Read the texts of a request: a JSON object with the key `texts`, a list of strings; null is a row without a text.

    Args:
        body: The request's.
        limits: What is refused above.
        pairs: The model reads pairs: each text is a list of two strings.

    Raises:
        RequestError: 400 for what is no JSON, 422 for another form, 413 for too much.
    """
    example = EXAMPLE_OF_PAIRS if pairs else EXAMPLE
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON ({str(error)[:80]}); send {example}") from None
    texts = value.get("texts") if isinstance(value, dict) else None
    if not isinstance(texts, list):
        raise RequestError(422, f"the body has no list `texts`; send {example}")
    if len(value) > 1:
        unknown = ", ".join(sorted(set(value) - {"texts"}))
        raise RequestError(422, f"unknown keys: {unknown[:200]}; send {example}")
    if len(texts) > limits.max_texts:
        raise RequestError(413, f"{len(texts):,} texts: at most {limits.max_texts:,} in one request; send several")
    return [None if text is None else _checked(number, text, limits, pairs) for number, text in enumerate(texts)]


def _checked(number: int, text: object, limits: Limits, pairs: bool) -> Text:
    """Check one text, or the two of a pair."""
    if not pairs:
        return _check_text(f"texts[{number}]", text, limits)
    if not isinstance(text, list) or len(text) != 2:
        raise RequestError(
            422, f"texts[{number}] is no list of two strings: the model reads pairs; send {EXAMPLE_OF_PAIRS}"
        )
    first, second = (_check_text(f"texts[{number}][{part}]", text[part], limits) for part in (0, 1))
    return first, second


def _check_text(name: str, text: object, limits: Limits) -> str:
    if not isinstance(text, str):
        raise RequestError(422, f"{name} is of type {type(text).__name__}, not a string")
    if len(text) > limits.max_text_chars:
        raise RequestError(413, f"{name} has {len(text):,} characters: at most {limits.max_text_chars:,}")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RequestError(422, f"{name} holds half a character (a surrogate without its pair)")
    return text


def rows_of(
    texts: Sequence[Text | None], predicted: Sequence[dict[str, object]], names: Sequence[str], *, pairs: bool = False
) -> list[object]:
    """Put predictions beside the texts, as `predict` writes them: null where there was no text.

    Args:
        texts: All texts of a request.
        predicted: Values by column, of those that have a text.
        names: The columns.
        pairs: The texts are pairs.
    """
    found, none = iter(predicted), dict.fromkeys(names)
    keys = PAIR_KEYS if pairs else PAIR_KEYS[:1]
    rows: list[object] = []
    for text in texts:
        parts = text if isinstance(text, tuple) else (text,) * len(keys)  # null is null in both columns
        rows.append({**dict(zip(keys, parts, strict=True)), **(none if stripped(text) is None else next(found))})
    return rows


def token_hash(token: str) -> str:
    """Hash a token: what the server keeps of it, and all that Ray's dashboard could show."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_token(header: str | None, expected: str | None) -> None:
    """Check `Authorization: Bearer TOKEN` against the hash of the right token; None: none is asked for.

    Raises:
        RequestError: 401.
    """
    if expected is None:
        return
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token_hash(token.strip()), expected):
        raise RequestError(401, "a token is needed: send the header `Authorization: Bearer TOKEN`")
