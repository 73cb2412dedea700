"""Secrets in files, arguments and variables: found by name and by content, never repeated."""

from __future__ import annotations

import fnmatch
import os
import re

_FILE_NAMES = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "id_rsa*", "id_ed25519*", "id_ecdsa*", ".netrc", ".pypirc", ".npmrc",
    "credentials", "credentials.json", "auth_token", "*service-account*.json", "*service_account*.json", "kubeconfig", ".git-credentials",
)  # fmt: skip
_HARMLESS_FILE_NAMES = (".env.example", ".env.template", ".env.sample", "*.pub")
_CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z ]+ )?PRIVATE KEY-----|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{30,}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b"
)
_VARIABLE = re.compile(r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|KEY)(_|$)|CONNECTION_STRING", re.IGNORECASE)
_CONTENT_LIMIT = 2**20


def secret_in_file(name: str, content: bytes) -> str | None:
    """Return why a file must not leave this machine, None where nothing speaks against it. `name`: without folders."""
    if any(fnmatch.fnmatch(name, pattern) for pattern in _HARMLESS_FILE_NAMES):
        return None
    for pattern in _FILE_NAMES:
        if fnmatch.fnmatch(name, pattern):
            return f"named like {pattern}"
    return "holds a private key or access token" if _CONTENT.search(content[:_CONTENT_LIMIT]) else None


def holds_secret(text: str) -> bool:
    """Return True where a text holds a private key or access token."""
    return bool(_CONTENT.search(os.fsencode(text)))


def is_secret_variable(name: str) -> bool:
    """Return True for a variable that is named like a secret."""
    return bool(_VARIABLE.search(name))
