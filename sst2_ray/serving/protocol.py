"""Requests and responses of the server: what a request may hold, and the refusals of the rest, each in one line."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

TOKEN_VARIABLE = "SST2_RAY_SERVE_TOKEN"  # nosec B105: the name of a variable
"""Environment variable with the token that requests must carry."""

EXAMPLE = '{"texts": ["a gripping film", "it never comes to life"]}'


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


def read_texts(body: bytes, limits: Limits) -> list[str | None]:
    """Read the texts of a request: a JSON object with the key `texts`, a list of strings; null is a row without a text.

    Raises:
        RequestError: 400 for what is no JSON, 422 for another form, 413 for too much.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON ({str(error)[:80]}); send {EXAMPLE}") from None
    texts = value.get("texts") if isinstance(value, dict) else None
    if not isinstance(texts, list):
        raise RequestError(422, f"the body has no list `texts`; send {EXAMPLE}")
    if len(value) > 1:
        unknown = ", ".join(sorted(set(value) - {"texts"}))
        raise RequestError(422, f"unknown keys: {unknown[:200]}; send {EXAMPLE}")
    if len(texts) > limits.max_texts:
        raise RequestError(413, f"{len(texts):,} texts: at most {limits.max_texts:,} in one request; send several")
    for number, text in enumerate(texts):
        if text is not None:
            _check_text(number, text, limits)
    return texts


def _check_text(number: int, text: object, limits: Limits) -> None:
    if not isinstance(text, str):
        raise RequestError(422, f"texts[{number}] is of type {type(text).__name__}, not a string")
    if len(text) > limits.max_text_chars:
        raise RequestError(413, f"texts[{number}] has {len(text):,} characters: at most {limits.max_text_chars:,}")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RequestError(422, f"texts[{number}] holds half a character (a surrogate without its pair)")


def rows_of(texts: Sequence[str | None], predicted: Sequence[dict[str, object]], names: Sequence[str]) -> list[object]:
    """Put predictions beside the texts, as `predict` writes them: null where there was no text.

    Args:
        texts: All texts of a request.
        predicted: Values by column, of those that have a text.
        names: The columns.
    """
    found, none = iter(predicted), dict.fromkeys(names)
    return [{"text": text, **(next(found) if has_text(text) else none)} for text in texts]


def has_text(text: str | None) -> bool:
    """Tell whether there is something to label."""
    return bool(text and text.strip())


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
