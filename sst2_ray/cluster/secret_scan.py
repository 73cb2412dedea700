"""Secrets in files, arguments and variables: found by name and by content, never repeated.

Content is matched against the patterns of detect-secrets, with those added that it lacks.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin

_FILE_NAMES = (
    ".env", ".env.*", ".envrc", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "id_rsa*", "id_ed25519*", "id_ecdsa*", ".netrc", "_netrc",
    ".pypirc", ".npmrc", "credentials", "credentials.json", "auth_token", "*service-account*.json", "*service_account*.json",
    "kubeconfig", "*.kubeconfig", ".git-credentials", ".dockercfg", ".htpasswd", "*.keystore", "*.jks", "*.kdbx",
    "*.tfstate", "*.ovpn", ".pgpass", ".my.cnf", ".s3cfg", ".boto", "rclone.conf", "kaggle.json", "application_default_credentials.json",
    "client_secret*.json", ".vault-token", ".databrickscfg", "secrets.toml", "secrets.yaml", "secrets.yml", "secrets.json",
)  # fmt: skip
_FILE_PATHS = (
    "*.kube/config",
    "*.docker/config.json",
    "*.aws/config",
    "*.azure/*.json",
    "*.ssh/*",
    "*huggingface/token",
)
_HARMLESS_FILE_NAMES = (".env.example", ".env.template", ".env.sample", "*.pub")
_PLUGINS = {
    "aws": "AWSKeyDetector", "azure_storage_key": "AzureStorageKeyDetector", "gitlab_token": "GitLabTokenDetector",  # nosec B105 - a name
    "jwt": "JwtTokenDetector", "npm": "NpmDetector", "openai": "OpenAIDetector", "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector", "sendgrid": "SendGridDetector", "slack": "SlackDetector", "stripe": "StripeDetector",  # nosec B105 - a name
    "discord": "DiscordBotTokenDetector", "telegram_token": "TelegramBotTokenDetector", "twilio": "TwilioKeyDetector",  # nosec B105 - a name
    "square_oauth": "SquareOAuthDetector",
}  # fmt: skip
# A literal comes first in each, which makes the search fast; the lookbehind takes the place of a word boundary.
_FURTHER = [
    re.compile(pattern)
    for pattern in (
        r"-----BEGIN (?:[A-Z ]+ )?PRIVATE KEY-----", r"hf_(?<![A-Za-z0-9_]hf_)[A-Za-z0-9]{30,}", r"github_pat_\w{20,}",
        r"gh(?<![A-Za-z0-9_]gh)[pousr]_[A-Za-z0-9]{36,}", r"AKIA(?<!\wAKIA)[0-9A-Z]{16}\b", r"ASIA(?<!\wASIA)[0-9A-Z]{16}\b",
        r"xox(?<!\wxox)[abeoprs]-[\w-]{10,}", r"sk-(?<![\w-]sk-)(?=[\w-]{0,99}\d)(?=[\w-]{0,99}[A-Z])[\w-]{20,}",
        r"sk-(?<![\w-]sk-)[0-9a-f]{32,}\b", r"AIza(?<!\wAIza)[\w-]{35}\b", r"dop_v1_[0-9a-f]{64}", r"AccountKey=[A-Za-z0-9+/=]{60,}",
        r"SharedAccessKey=[A-Za-z0-9+/=]{40,}", r"client-key-data: *[A-Za-z0-9+/=]{40,}", r"\"auth\": *\"[A-Za-z0-9+/=]{16,}\"",
        r"dckr_pat_[\w-]{20,}", r"npm_(?<!\wnpm_)[A-Za-z0-9]{36}\b", r"GOCSPX-[\w-]{20,}", r"ya29\.[\w-]{20,}",
        r"hv[sb]\.(?<!\whv[sb]\.)[\w-]{24,}", r"dapi(?<!\wdapi)[0-9a-f]{32}\b", r"nvapi-[\w-]{40,}",
        r"gls[ap]_\w{32,}", r"r8_(?<!\wr8_)[A-Za-z0-9]{37}\b", r"lin_api_\w{32,}",
        r"AGE-SECRET-KEY-1[0-9A-Z]{50,}", r"Q~(?<=[78]Q~)[\w~.-]{31,34}",
        r"(?i:aws_secret_access_key)[\"']?\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}",
        r"(?i:api_?key|secret_?key|auth_?token|access_?token)[\"']?\]?\s*[=:]\s*[\"']?[0-9a-f]{32,}\b",
    )
]  # fmt: skip
_VARIABLE = re.compile(
    r"(^|_)(SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_|$)|(^|_)(TOKEN|PAT)$|CONNECTION_?STRING"
    r"|(^|_)(API|ACCESS|PRIVATE|ACCOUNT|STORAGE|SIGNING|ENCRYPTION|MASTER|AUTH|SSH|SERVICE)_?KEY(_|$)",
    re.IGNORECASE,
)
_KEY = re.compile(r"(^|_)KEY$", re.IGNORECASE)
_HARMLESS_VALUE = re.compile(r"-?[0-9.]*|true|false|yes|no|on|off|none", re.IGNORECASE)
_LONG_VALUE = 16
_TEXT_SAMPLE = 8192
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks."""


@functools.cache
def _detectors() -> tuple[BasePlugin, ...]:
    """Return detect-secrets' own detectors of keys with a form of their own; those that go by entropy or words raise false alarms."""
    return tuple(
        getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)()
        for module, name in _PLUGINS.items()
    )


def secret_in_file(path: str, content: bytes) -> str | None:
    """Return why a file must not leave this machine, None where nothing speaks against it."""
    name = path.rpartition("/")[2]
    if _matches(name, _HARMLESS_FILE_NAMES):
        return None
    pattern = _matches(name, _FILE_NAMES) or _matches(path, _FILE_PATHS)
    if pattern:
        return f"named like {pattern}"
    if content.startswith(_UTF_16):  # what PowerShell's `>` writes
        content = content.replace(b"\0", b"")
    is_text = b"\0" not in content[:_TEXT_SAMPLE]
    found = holds_secret(content.decode("latin-1"), is_text=is_text)
    return "holds a private key or access token" if found else None


def _matches(text: str, patterns: Iterable[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatch.fnmatch(text, pattern)), None)


def holds_secret(text: str, *, is_text: bool = True) -> bool:
    """Return True where a text, or the bytes of a binary file read as one, holds a private key or access token."""
    if any(pattern.search(text) for pattern in _FURTHER):
        return True
    return is_text and any(True for detector in _detectors() for _ in detector.analyze_string(text))


def is_secret_variable(name: str, value: str) -> bool:
    """Return True for a variable or flag that is named like a secret and given more than a number or a switch."""
    name = name.lstrip("-").replace("-", "_")
    if _HARMLESS_VALUE.fullmatch(value):
        return False
    return bool(_VARIABLE.search(name)) or (bool(_KEY.search(name)) and len(value) >= _LONG_VALUE)
