"""Checks that evaluation sentences do not occur in the training data.

`check_overlap` compares the texts of a run's own splits. `check_known_leak` compares names of corpora, for a model that is
scored after its training data are gone; `identify` recognizes a corpus by its texts, whatever its file is called.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sst2_ray.config.registry import KNOWN_LEAKS
from sst2_ray.data.splitting import normalize, plain_key, words_of
from sst2_ray.data.texts import Text, shown
from sst2_ray.errors import InputError

_MAX_PHRASE_WORDS = 2
_MAX_PHRASE_SHARE = 0.01
"""Share of short phrases that is reported, not refused: GLUE's own SST-2 has "cool ?" and "bad ." in dev, and "cool" and
"bad" among the phrases of train (2 of 872). Published SST-2 figures include them, and one word does not show memorizing."""

# Hashes over sorted normalized texts: they recognize the data without shipping it.
_SST2_DEV = "fa227766f541b137"
_SST2_TRAIN = "fdf414ad8244450f"
# Hashes of 32 SST-2 dev sentences of 8 words and more; 25 of them stand in rotten-tomatoes, none in SST-2's train.
_SST2_DEV_PROBES = """
00662e06f5f6 018501cf3823 018bf09d5d05 020c8a16cda5 02193866cea9 021af49d5504 02785ab54f84 030d52e457b4
032950d7c347 03a404e6bf54 03f361a5885f 044b33b757e6 048aee57adbe 04a5e8165645 04c0aa65a7fd 04f167276b30
052f86f7e02b 066ffad26168 086be99779b4 08ce597ebbfe 097a35eaadc4 09b822cb3d2f 09f2178a5129 0a522c0fc254
0b0d80b43c57 0b17ea40ec7b 0b4425697b86 0b5aefa6c2e7 0b5f45051384 0c2e54a41f6f 0c6094b657a1 0c719f736dfb
"""
_MIN_PROBES = 3


def check_overlap(dev_texts: Sequence[Text], train_keys: set[str], *, data: str, allow: bool) -> str | None:
    """Count the evaluation sentences whose normalized text is in `train_keys`.

    Returns:
        A remark where leaked sentences may stay, None where there are none.

    Raises:
        InputError: Sentences leak and `allow` is false.
    """
    leaked = [text for text in dev_texts if normalize(text) in train_keys]
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


def is_sst2_dev(keys: Sequence[str]) -> bool:
    """Tell whether these normalized texts are the 872 of GLUE's SST-2 dev, in any order."""
    return text_fingerprint(keys) == _SST2_DEV


def identify(keys: Sequence[str]) -> str | None:
    """Name the known corpus that these normalized texts are, or contain; None: no known one.

    "glue": exactly SST-2's dev or train. "rotten-tomatoes": several sentences of SST-2 dev among other texts, as in its
    parent corpus.
    """
    if text_fingerprint(keys) in (_SST2_DEV, _SST2_TRAIN):
        return "glue"
    hashes = {hashlib.blake2b(key.encode(), digest_size=6).hexdigest() for key in keys}
    return "rotten-tomatoes" if len(hashes.intersection(_SST2_DEV_PROBES.split())) >= _MIN_PROBES else None


def text_fingerprint(keys: Sequence[str]) -> str:
    """Hash normalized texts, in any order, to 16 hex digits."""
    return hashlib.sha256("\n".join(sorted(map(plain_key, keys))).encode()).hexdigest()[:16]
