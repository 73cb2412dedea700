"""Texts of rows: a sentence, or the two of a pair, which a model reads as one sequence with its separator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sst2_ray.errors import InputError

Text = str | tuple[str, str]
"""A sentence, or the two of a pair."""

PAIR_KEYS = ("text", "text_pair")
"""Names of the two texts of a pair in transformers' pipelines and in what is written here."""


def stripped(text: Text | None) -> Text | None:
    """Return a text without white space around; None: it, or one of a pair, is blank."""
    if text is None:
        return None
    if isinstance(text, str):
        return text.strip() or None
    first, second = text[0].strip(), text[1].strip()
    return (first, second) if first and second else None


def shown(text: Text) -> str:
    """Return a text as one line of prose: a pair divided by a bar."""
    return text if isinstance(text, str) else " | ".join(text)


def singles(texts: Iterable[Text]) -> list[str]:
    """List the texts, of pairs both."""
    return [part for text in texts for part in ([text] if isinstance(text, str) else text)]


def paired(firsts: Sequence[str | None], seconds: Sequence[str | None]) -> list[Text | None]:
    """Join two columns to pairs, [rows]; None where one of the cells is missing."""
    return [None if a is None or b is None else (a, b) for a, b in zip(firsts, seconds, strict=True)]


def text_of(item: object, columns: Sequence[str], where: str) -> Text:
    """Read an item of Python's: a text, or for a model of pairs two of them, as a tuple, a list or a mapping.

    Args:
        item: The item.
        columns: Names of the two texts that the model was trained on; empty: it reads single texts.
        where: Name of the item in messages.

    Raises:
        InputError: The item is not what the model reads.
    """
    if not columns:
        if isinstance(item, str):
            return item
        raise InputError(f"{where} is a {type(item).__name__}, not a text: {str(item)[:60]!r}")
    parts: Sequence[object] = ()
    if isinstance(item, Mapping):
        keys = next((names for names in (columns, PAIR_KEYS) if all(name in item for name in names)), ())
        parts = [item[key] for key in keys]
    elif isinstance(item, tuple | list):
        parts = item
    if len(parts) == 2 and isinstance(parts[0], str) and isinstance(parts[1], str):
        return parts[0], parts[1]
    raise InputError(
        f"{where} is no pair of texts, which this model reads ({', '.join(columns)}): {str(item)[:60]!r}; give a tuple of "
        "two texts, or a dict with those keys"
    )
