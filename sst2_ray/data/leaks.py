"""Checks that evaluation sentences do not occur in the training data.

`check_overlap` compares the texts of a run's own splits. `check_known_leak` compares names of corpora, for a model that is
scored after its training data are gone; `identify` recognizes a corpus by its texts, whatever its file is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sst2_ray.config.registry import KNOWN_LEAKS
from sst2_ray.data.phrases import UInt64
from sst2_ray.data.rows import Rows
from sst2_ray.data.splitting import words_of
from sst2_ray.data.texts import Text, shown
from sst2_ray.errors import InputError

_MAX_PHRASE_WORDS = 2
_MAX_PHRASE_SHARE = 0.01
"""Share of short phrases that is reported, not refused: GLUE's own SST-2 has "cool ?" and "bad ." in dev, and "cool" and
"bad" among the phrases of train (2 of 872). Published SST-2 figures include them, and one word does not show memorizing."""

# Hashes over sorted keys: they recognize the data without shipping it.
_SST2_DEV = "93fd3ab27a5ce058"
_SST2_TRAIN = "52cc3276375d37f2"
# Keys of 32 SST-2 dev sentences of 8 words and more; 25 of them stand in rotten-tomatoes, none in SST-2's train.
_PROBES = """
120ac20ab5f7e14d 128096a4174baedb 12d91604e886fca1 19477180862a7cab 2c0e5d4b7d707520 308107fa3f31c029 42e1adf7a973e4bd
4312405421b12dd4 472ecfc16fa8259d 4c0092dff8672843 5d4c07bb94a3f018 6e18b9fdca39631d 7761cf83ccd08e44 7cbc465dae40c9e7
8c9829407648128c 901c52a26dfc3a76 938bd4fbae6d97f2 94ec444c8f814ddc 95470ae7241e3c87 965324aeb0394818 968e724b8ca8f3f7
a0097876e85705e6 afd8ffc0bfcb6379 bcd60b2bb84c2437 c55eb2a2447a4756 c55faf8d9954126a cc8dd0ebba28a0c3 d717c9e9815a6a00
d8059af92fdeb2e6 d8cfcf7faeb5f56b d8f7bdab51a876b0 f36de693942a572f
"""
_SST2_DEV_PROBES = np.array([int(key, 16) for key in _PROBES.split()], dtype=np.uint64)
_MIN_PROBES = 3


def check_overlap(
    dev_texts: Sequence[Text], dev_keys: UInt64, train_keys: UInt64, *, data: str, allow: bool
) -> str | None:
    """Count the evaluation sentences whose key (see `splitting.key_hashes`) is in `train_keys`.

    Returns:
        A remark where leaked sentences may stay, None where there are none.

    Raises:
        InputError: Sentences leak and `allow` is false.
    """
    leaked = [dev_texts[i] for i in np.flatnonzero(np.isin(dev_keys, train_keys)).tolist()]
    if not leaked:
        return None
    named = ", ".join(f'"{text if len(text) <= 60 else text[:57] + "..."}"' for text in map(shown, leaked[:3]))
    units = "sentences" if isinstance(leaked[0], str) else "pairs"
    found = f"{len(leaked):,} of {len(dev_texts):,} evaluation {units} also stand in the training split ({named})"
    phrases_only = all(len(words_of(shown(text))) <= _MAX_PHRASE_WORDS for text in leaked)
    if phrases_only and len(leaked) <= _MAX_PHRASE_SHARE * len(dev_texts):
        return f"{found}: phrases of at most {_MAX_PHRASE_WORDS} words and under {_MAX_PHRASE_SHARE:.0%}, kept"
    if allow:
        return f"LEAK, allowed: {found}; the scores are too good"
    raise InputError(
        f"--data {data}: {found}; take them out of one of the two (--drop-leaks: out of training), or pass --allow-leak"
    )


def check_known_leak(train_corpora: Sequence[str], eval_corpus: str | None, allow: bool) -> str | None:
    """Refuse to score a model on a corpus that its training data are known to contain.

    Args:
        train_corpora: `Splits.corpus` of the data that the model was trained on.
        eval_corpus: `Splits.corpus` of the data to score on.
        allow: Return a remark instead of refusing.

    Returns:
        A remark where a known leak is allowed, else None.
    """
    for trained_on in train_corpora:
        reason = KNOWN_LEAKS.get((trained_on, eval_corpus or ""))
        if reason is None:
            continue
        if not allow:
            raise InputError(
                f"a model trained on {trained_on} cannot be scored on {eval_corpus}: {reason}; "
                f"score it on other data, or pass --allow-leak"
            )
        return f"LEAK, allowed: trained on {trained_on}, scored on {eval_corpus}: {reason}"
    return None


def repetitions(rows: Rows, keys: UInt64) -> str | None:
    """Count the training rows that repeat another one, and those of several labels; None: there are none."""
    order = np.lexsort((rows.labels, keys))
    by_key, labels = keys[order], rows.labels[order]
    is_repeated = by_key[1:] == by_key[:-1]
    if not is_repeated.any():
        return None
    contradictory = len(np.unique(by_key[1:][is_repeated & (labels[1:] != labels[:-1])]))
    units = "sentences" if isinstance(rows.texts[0], str) else "pairs"
    several = f"; {contradictory:,} {units} carry several labels" if contradictory else ""
    return f"{is_repeated.sum():,} of {len(keys):,} training {units} repeat another one but for case and punctuation{several}"


def is_sst2_dev(keys: UInt64) -> bool:
    """Tell whether these keys are those of the 872 sentences of GLUE's SST-2 dev, in any order."""
    return text_fingerprint(keys) == _SST2_DEV


def identify(keys: UInt64) -> str | None:
    """Name the known corpus that the texts of these keys are, or contain; None: no known one.

    "glue": exactly SST-2's dev or train. "rotten-tomatoes": several sentences of SST-2 dev among other texts, as in its
    parent corpus.
    """
    if text_fingerprint(keys) in (_SST2_DEV, _SST2_TRAIN):
        return "glue"
    return "rotten-tomatoes" if np.isin(_SST2_DEV_PROBES, keys).sum() >= _MIN_PROBES else None


def text_fingerprint(keys: UInt64) -> str:
    """Hash keys, in any order, to 16 hex digits."""
    return hashlib.sha256(np.sort(keys).astype("<u8").tobytes()).hexdigest()[:16]
