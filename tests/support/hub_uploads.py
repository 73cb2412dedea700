"""The hub's side of uploads: repositories made, large files stored by their hash, commits of both kinds of files."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from tests.support.hub_server import TOKEN, HubFile, HubRepo, HubServer, Refusal

_ROUTES = {
    "create": re.compile(r"^/api/repos/create$"),
    "validate": re.compile(r"^/api/validate-yaml$"),
    "preupload": re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)$"),
    "commit": re.compile(r"^/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)$"),
    "batch": re.compile(r"^/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch$"),
    "put": re.compile(r"^/store/(?P<oid>[0-9a-f]{64})$"),
}
REVISION = "ab" * 20


class Uploads:
    """The uploads of a hub."""

    def __init__(self, hub: HubServer) -> None:
        self.hub = hub
        self.stored: dict[str, bytes] = {}
        self.messages: list[str] = []

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> dict[str, Any] | None:
        """The answer to a request; None: it is none of an upload."""
        for name, route in _ROUTES.items():
            match = route.match(path)
            if match and method in ("POST", "PUT"):
                if name != "put" and token != f"Bearer {TOKEN}":
                    raise Refusal(HTTPStatus.UNAUTHORIZED, message="Invalid credentials in Authorization header")
                found: dict[str, Any] = getattr(self, f"_{name}")(match, body)
                return found
        return None

    def _create(self, _match: re.Match[str], body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "somebody-else":
            raise Refusal(
                HTTPStatus.FORBIDDEN, message="You don't have the rights to create a model under this namespace"
            )
        if ("models", repo_id) not in self.hub.repos:
            private = asked.get("visibility") == "private"
            self.hub.repos["models", repo_id] = HubRepo(
                kind="models", repo_id=repo_id, revision=REVISION, files={}, private=private
            )
        return {"url": f"{self.hub.url}/{repo_id}"}

    def _validate(self, _match: re.Match[str], _body: bytes) -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    def _preupload(self, _match: re.Match[str], body: bytes) -> dict[str, Any]:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {name: "lfs" if HubFile(path=name, content=b"").large else "regular" for name in names}
        return {"files": [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in names]}

    def _batch(self, _match: re.Match[str], body: bytes) -> dict[str, Any]:
        objects = json.loads(body)["objects"]
        return {
            "transfer": "basic",
            "objects": [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/store/{one['oid']}", "header": {}}}}
                for one in objects
            ],
        }

    def _put(self, match: re.Match[str], body: bytes) -> dict[str, Any]:
        self.stored[match["oid"]] = body
        return {}

    def _commit(self, match: re.Match[str], body: bytes) -> dict[str, Any]:
        files: dict[str, HubFile] = {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = HubFile(path=value["path"], content=base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile":
                files[value["path"]] = HubFile(path=value["path"], content=self.stored[value["oid"]])
        repo = self.hub.repos["models", match["repo"]]
        self.hub.repos["models", match["repo"]] = replace(repo, files={**repo.files, **files})
        return {"commitUrl": f"{self.hub.url}/{match['repo']}/commit/{REVISION}", "commitOid": REVISION}
