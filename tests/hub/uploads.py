"""The other side of the Hub for the tests: what huggingface_hub asks of it when it makes, fills and tags a repository."""

import base64
import hashlib
import json
import re
from typing import Any

from server import Answer, Handler, HubServer, Repository

TOKEN = "hf_test"

_MODEL = r"/api/models/(?P<repository>[^/]+/[^/]+)"


class UploadHandler(Handler):
    """Answers the requests of an upload too; those that change something want the token."""

    def do_GET(self) -> None:  # noqa: N802
        self._serve(self._ask if self.path.startswith("/api/") else self._download)

    def do_POST(self) -> None:  # noqa: N802
        length = int(self.headers["Content-Length"])
        self._content = self.rfile.read(length)
        if len(self._content) < length:  # The client died in the middle.
            self.close_connection = True
            return
        self._serve(self._ask)

    do_PUT = do_POST  # noqa: N815

    def _ask(self, path: str) -> Answer:
        request = f"{self.command} {path.split('?')[0]}"
        for pattern, action in _ACTIONS.items():
            match = re.fullmatch(pattern, request)
            if match is None:
                continue
            if self.command == "POST" and self.headers["Authorization"] != f"Bearer {TOKEN}":
                return _json({"error": "Invalid username or password."}, 401)
            found: dict[str, Any] = match.groupdict()
            if "repository" in found:
                found["repository"] = self.server.repositories.get(found["repository"])
                if found["repository"] is None:
                    return Answer(404, {"X-Error-Code": "RepoNotFound"})
            return action(self.server, self._content if self.command != "GET" else b"", **found)
        return Answer(404, {}, f"no such page: {request}".encode())


def _json(content: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())


def _create(server: HubServer, body: bytes) -> Answer:
    asked = json.loads(body)
    organisation = asked.get("organization")
    identity = f"{organisation}/{asked['name']}" if organisation else asked["name"]
    url = {"url": f"{server.endpoint}/{identity}"}
    if identity in server.repositories:
        return _json({"error": "You already created this model repo", **url}, 409)
    server.commit(identity, {".gitattributes": b""})
    server.repositories[identity].private = asked.get("private") is True or asked.get("visibility") == "private"
    return _json(url)


def _info(server: HubServer, body: bytes, repository: Repository) -> Answer:
    commit = repository.refs["main"]
    files = [{"rfilename": name} for name in repository.commits[commit]]
    return _json({"id": "org/name", "sha": commit, "private": repository.private, "siblings": files, "tags": []})


def _refs(server: HubServer, body: bytes, repository: Repository) -> Answer:
    refs = [{"name": name, "ref": f"refs/{name}", "targetCommit": commit} for name, commit in repository.refs.items()]
    return _json(
        {
            "branches": [ref for ref in refs if ref["name"] == "main"],
            "tags": [ref for ref in refs if ref["name"] != "main"],
            "converts": [],
        }
    )


def _validate(server: HubServer, body: bytes) -> Answer:
    bad = "license: nonsense" in json.loads(body)["content"]
    errors = [{"message": '"license" must be one of [apache-2.0, mit, other, ...]'}] if bad else []
    return _json({"errors": errors, "warnings": []}, 400 if bad else 200)


def _preupload(server: HubServer, body: bytes, repository: Repository) -> Answer:
    files = [
        {
            "path": file["path"],
            "uploadMode": _mode(file["path"]),
            "shouldIgnore": False,
            "oid": _oid(repository, file["path"]),
        }
        for file in json.loads(body)["files"]
    ]
    return _json({"files": files})


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".safetensors", ".png")) else "regular"


def _oid(repository: Repository, path: str) -> str | None:
    """What identifies an existing file: SHA-256 of large files, git's own hash of the others."""
    content = repository.commits[repository.refs["main"]].get(path)
    if content is None:
        return None
    if _mode(path) == "lfs":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _batch(server: HubServer, body: bytes, repository: Repository) -> Answer:
    objects = []
    for asked in json.loads(body)["objects"]:
        known = asked["oid"] in server.blobs
        upload = {"upload": {"href": f"{server.files_origin}/blobs/{asked['oid']}"}}
        objects.append({"oid": asked["oid"], "size": asked["size"], **({} if known else {"actions": upload})})
    return _json({"transfer": "basic", "objects": objects})


def _put(server: HubServer, body: bytes, digest: str) -> Answer:
    server.blobs[digest] = body
    return Answer(200, {})


def _commit(server: HubServer, body: bytes, repository: Repository) -> Answer:
    header, *operations = [json.loads(line) for line in body.splitlines()]
    if header["value"].get("parentCommit") not in (None, repository.refs["main"]):
        return _json({"error": "The expected parent commit is another"}, 412)
    files = dict(repository.commits[repository.refs["main"]])
    for operation in operations:
        value = operation["value"]
        if operation["key"] == "lfsFile":
            if hashlib.sha256(server.blobs.get(value["oid"], b"")).hexdigest() != value["oid"]:
                return _json({"error": "Your push was rejected: a file was not uploaded"}, 400)
            files[value["path"]] = server.blobs[value["oid"]]
        else:
            files[value["path"]] = base64.b64decode(value["content"])
    commit = repository.commit(files)
    identity = next(name for name, entry in server.repositories.items() if entry is repository)
    return _json({"commitOid": commit, "commitUrl": f"{server.endpoint}/{identity}/commit/{commit}", "success": True})


def _tag(server: HubServer, body: bytes, repository: Repository, revision: str) -> Answer:
    tag = json.loads(body)["tag"]
    if tag in repository.refs:
        return _json({"error": "Tag reference exists already"}, 409)
    repository.refs[tag] = revision
    return _json({})


_ACTIONS = {
    "POST /api/repos/create": _create,
    "POST /api/validate-yaml": _validate,
    rf"GET {_MODEL}(/revision/main)?": _info,
    rf"GET {_MODEL}/refs": _refs,
    rf"POST {_MODEL}/preupload/main": _preupload,
    rf"POST {_MODEL}/commit/main": _commit,
    rf"POST {_MODEL}/tag/(?P<revision>[0-9a-f]+)": _tag,
    r"POST /(?P<repository>[^/]+/[^/]+)\.git/info/lfs/objects/batch": _batch,
    r"PUT /blobs/(?P<digest>[0-9a-f]{64})": _put,
}
