"""Forms of secrets: names of files, prefixes of tokens, names and values of variables. Data; `secret_scan` applies it."""

from __future__ import annotations

import re

FILE_NAMES = (
    ".env", ".env.*", "*.env", ".envrc", ".renviron", "*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "id_rsa*", "id_dsa*", "id_ed25519*",
    "id_ecdsa*", "*_rsa", "*_ed25519", "*deploy_key", ".netrc", "_netrc", ".netrc.*", ".pypirc", ".npmrc",
    "credentials", "credentials.json", "credentials.toml", "credentials.db", "auth.json", "auth_token", "*.token", ".token", "*token.txt",
    "token.json", "hf_token", "*api_key.txt", "*apikey.txt", "*service-account*.json", "*service_account*.json",
    "*firebase-adminsdk*.json", "gcp-key*.json", "gcp_key*.json", "kubeconfig", "*.kubeconfig", "kubeconfig.y*ml", ".git-credentials",
    ".dockercfg", ".htpasswd", "*.keystore", "*.jks", "*.kdbx", "*.tfstate", "*.tfstate.*", "*.tfvars", ".terraformrc", "*.ovpn",
    "secring.*", ".pgpass", ".my.cnf", ".s3cfg", ".boto", "rclone.conf", "kaggle.json", "application_default_credentials.json",
    "client_secret*.json", ".vault-token", ".vault_pass*", "vault_pass*", ".databrickscfg", ".modal.toml", ".secrets", "secrets.toml",
    "secrets.yaml", "secrets.yml", "secrets.json", "passwords.txt", "password.txt", "cookies.txt", ".bash_history", ".zsh_history",
    ".python_history",
)  # fmt: skip
"""Names in lower case; case is ignored."""

FILE_PATHS = (
    "*.kube/*", "*.docker/config.json", "*.aws/config", "*.azure/*.json", "*.ssh/*", "*.gnupg/*", "*huggingface/token",
    "*huggingface/stored_tokens", "*gcloud/*.db", "*.config/gh/hosts.yml", "*.oci/config", "*.aliyun/config.json", "*.mc/config.json",
    "*.m2/settings.xml", "*.snowflake/connections.toml", "*.lambda_cloud/*keys*", "*.sst2-ray/*",
)  # fmt: skip

HARMLESS_FILE_NAMES = ("*.example", "*.template", "*.sample", "*.dist", "*.defaults", "*.pub")
"""Endings with which a file is not refused by its name; its content is still searched."""

PLUGINS = {
    "aws": "AWSKeyDetector", "azure_storage_key": "AzureStorageKeyDetector", "gitlab_token": "GitLabTokenDetector",  # nosec B105 - a name
    "jwt": "JwtTokenDetector", "npm": "NpmDetector", "openai": "OpenAIDetector", "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector", "sendgrid": "SendGridDetector", "slack": "SlackDetector", "stripe": "StripeDetector",  # nosec B105 - a name
    "discord": "DiscordBotTokenDetector", "telegram_token": "TelegramBotTokenDetector", "twilio": "TwilioKeyDetector",  # nosec B105 - a name
    "square_oauth": "SquareOAuthDetector",
}  # fmt: skip
"""detect-secrets' detectors of keys with a form of their own, by module; those that go by entropy or words raise false alarms."""

# A literal comes first in each, which makes the search fast; the lookbehind takes the place of a word boundary.
TOKENS = [
    re.compile(pattern)
    for pattern in (
        r"-----BEGIN (?:[A-Z ]+ )?PRIVATE KEY-----", r"hf_(?<![A-Za-z0-9_]hf_)[A-Za-z0-9]{30,}", r"hf_oauth_[\w-]{20,}",
        r"api_org_[A-Za-z]{34}\b", r"github_pat_\w{20,}", r"gh(?<![A-Za-z0-9_]gh)[pousr]_[A-Za-z0-9]{36,}",
        r"AKIA(?<!\wAKIA)[0-9A-Z]{16}\b", r"ASIA(?<!\wASIA)[0-9A-Z]{16}\b", r"xox(?<!\wxox)[abeoprs]-(?=[\w-]*\d)[\w-]{10,}",
        r"xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{32,}", r"sk-(?<![\w-]sk-)(?=[\w-]{0,99}\d)(?=[\w-]{0,99}[A-Z])[\w-]{20,}",
        r"sk-(?<![\w-]sk-)[0-9a-f]{32,}\b", r"k_live_(?<!\w\wk_live_)[A-Za-z0-9]{20,}", r"k_test_(?<!\w\wk_test_)[A-Za-z0-9]{20,}",
        r"AIza(?<!\wAIza)[\w-]{35}\b", r"dop_v1_[0-9a-f]{64}", r"AccountKey=[A-Za-z0-9+/=]{60,}",
        r"SharedAccessKey=[A-Za-z0-9+/=]{40,}", r"sig=[A-Za-z0-9%+/]{40,60}(?:%3D|=)", r"client-key-data: *[A-Za-z0-9+/=]{40,}",
        r"\"auth\": *\"[A-Za-z0-9+/=]{16,}\"", r"dckr_pat_[\w-]{20,}", r"npm_(?<!\wnpm_)[A-Za-z0-9]{36}\b",
        r"_authToken=[A-Za-z0-9-]{30,}", r"GOCSPX-[\w-]{20,}", r"ya29\.[\w-]{20,}", r"hv[sb]\.(?<!\whv[sb]\.)[\w-]{24,}",
        r"dapi(?<!\wdapi)[0-9a-f]{32}\b", r"nvapi-[\w-]{40,}", r"gls[ap]_\w{32,}", r"r8_(?<!\wr8_)[A-Za-z0-9]{37}\b",
        r"lin_api_\w{32,}", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}", r"Q~(?<=[78]Q~)[\w~.-]{31,34}", r"gsk_(?<!\wgsk_)[A-Za-z0-9]{40,}",
        r"pplx-[A-Za-z0-9]{40,}", r"xai-(?<![\w-]xai-)[A-Za-z0-9]{60,}", r"shp(?<!\wshp)(?:at|ca|pa|ss)_[0-9a-f]{32}",
        r"NRAK-[A-Z0-9]{27}", r"pul-(?<![\w-]pul-)[0-9a-f]{40}\b", r"dp\.[a-z]{2}\.[A-Za-z0-9]{40,}",
        r"ntn_(?<!\wntn_)[0-9]{11}[A-Za-z0-9]{35}", r"secret_(?<!\wsecret_)(?=\w{0,42}\d)[A-Za-z0-9]{43}\b",
        r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}", r"wandb_v1_\w{40,}", r"rubygems_[0-9a-f]{48}", r"sntry[su]_[\w+/=]{40,}",
        r"fo1_(?<!\wfo1_)[\w-]{40,}", r"pscale_(?:tkn|pw|oauth)_[\w-]{32,}", r"sbp_(?<!\wsbp_)[0-9a-f]{40}\b",
        r"rpa_(?<!\wrpa_)[A-Za-z0-9]{40,}", r"tskey-[a-z]+-[A-Za-z0-9]+-[A-Za-z0-9]{20,}", r"pcsk_[A-Za-z0-9]+_?[A-Za-z0-9]{40,}",
        r"lsv2_(?:pt|sk)_[0-9a-f]{32}_", r"figd_[\w-]{36,}", r"LTAI(?<!\wLTAI)[A-Za-z0-9]{16,20}\b",
        r"AKCp(?<!\wAKCp)[A-Za-z0-9]{60,}", r":APA91b[\w-]{100,}", r"discord(?:app)?\.com/api/webhooks/\d{17,20}/[\w-]{60,}",
        r"webhook\.office\.com/webhookb2/[0-9a-f-]{36}@", r"key-(?<![\w-]key-)[0-9a-f]{32}\b", r"-us(?<=[0-9a-f]{32}-us)\d{1,2}\b",
        r"eyJhcGlfYWRkcmVzcyI6[\w+/=]{40,}", r"Basic (?<=uthorization: Basic )[A-Za-z0-9+/]{12,}={0,2}",
        r"Bearer (?<=uthorization: Bearer )(?=[\w.-]*\d)[\w.-]{24,}",
        r"machine (?<!\w.machine )\S+\s+login \S+\s+password [^\s<$]{6,}",
    )
]  # fmt: skip

PASSWORD_IN_ADDRESS = re.compile(
    r"://([^\s:/@'\"<>{}$*\[\]]*):([^\s:/@'\"<>{}$*\[\]]{4,})@[\w-]+(?:\.[\w-]|:\d|/)"
    r"|(?:s3|gs|gcs|abfss?)://([^\s:/@'\"<>{}$*\[\]]*):([^\s:/@'\"<>{}$*\[\]]{4,})@[\w-]"
)
"""User and password of an address."""

PLACEHOLDER = re.compile(
    r"example|x{4}|your|change_?-?me|placeholder|dummy|fake|redacted|insecure|not_?-?a_?-?real|\.{3}|\*{3}|[<>{}$%()\[\]]",
    re.IGNORECASE,
)
USUAL_PASSWORDS = (
    "pass", "passwd", "passwort", "pwd", "secret", "user", "username", "admin", "root", "postgres", "mysql", "guest", "test", "token",
    "port", "x-oauth-basic",
)  # fmt: skip
"""Passwords of examples and of servers on the user's own machine."""

ASSIGNED = {
    word: re.compile(
        word + r"(?:[\"']?\]?\s*(?:=>?|:)\s*|(?P<comma>[\"']\s*,\s*))"
        r"(?P<quote>[\"']?)(?P<value>[\w+/=~!@#^&.-]{8,}+)(?P<after>[\"']?)(?![\w.(\[])"
    )
    for word in ("password", "passwd", "passphrase", "secret", "token", "key")
}
"""A variable, key or field whose name ends like a secret's, and its literal value; for a text in lower case."""

BEFORE_KEY = tuple(
    f"{kind}{between}"
    for kind in (
        "api",
        "access",
        "private",
        "account",
        "storage",
        "signing",
        "encryption",
        "auth",
        "secret",
        "master",
        "service",
    )
    for between in ("_", "-", "")
)
"""Words that precede "key" in the name of a secret."""

WORDS = re.compile(r"(?:(?:[a-z]+|[A-Z]+|[A-Z][a-z]+)\d{0,4}|\d{1,14}|)")
"""A part of a name that people make up: `sst2`, `Model`, `v1`, `2024`; what a generator makes has others."""

SECRET_VARIABLE = re.compile(
    r"(^|_)(SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_|$)|(^|_)(TOKEN|PAT)$|CONNECTION_?STRING"
    r"|(^|_)(API|ACCESS|PRIVATE|ACCOUNT|STORAGE|SIGNING|ENCRYPTION|MASTER|AUTH|SSH|SERVICE)_?KEY(_|$)",
    re.IGNORECASE,
)
KEY_VARIABLE = re.compile(r"(^|_)KEY$", re.IGNORECASE)
HARMLESS_VALUE = re.compile(r"-?[0-9.]*|true|false|yes|no|on|off|none", re.IGNORECASE)
