"""A Hugging Face Hub on this machine, with faults to order: what huggingface_hub asks of the real one when it downloads."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote

_RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_LARGE = (".safetensors", ".bin", ".pth", ".png")


@dataclass
class Repository:
    """Commits, oldest first, each with all its files; `refs` names commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        """Adds a commit with only these files, and moves `main` to it."""
        digest = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.refs["main"] = digest
        return digest


@dataclass
class Fault:
    """A fault in the requests whose "METHOD path" contains `where`, in the first `times` of them.

    Attributes:
        where: Part of "METHOD path", such as "HEAD /org/name/resolve" or "GET /blobs/".
        status: Answered instead of what should be.
        code: The header X-Error-Code that goes with it.
        body: Makes other bytes of the right ones.
        cut: How many bytes are sent before the connection breaks.
        replaced: Headers put in place of the right ones.
        silence: No answer before this event.
        times: How often.
    """

    where: str
    status: int | None = None
    code: str = ""
    body: Callable[[bytes], bytes] | None = None
    cut: int | None = None
    replaced: dict[str, str] = field(default_factory=dict)
    silence: threading.Event | None = None
    times: int = 1_000_000


class Answer(NamedTuple):
    """What goes back over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class HubServer(ThreadingHTTPServer):
    """The repositories, the faults, and a record of all requests as "METHOD path"."""

    daemon_threads = True

    def __init__(self, handler: type["Handler"] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._taking = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def files_origin(self) -> str:
        """Where large files are: another origin, as on the real Hub; redirects to the same one are followed."""
        return f"http://localhost:{self.server_port}"

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        """Puts files into a repository, made if need be; returns the commit."""
        return self.repositories.setdefault(repository, Repository()).commit(files)

    def count(self, where: str) -> int:
        """How many requests "METHOD path" held this text."""
        return sum(where in request for request in self.requests)

    def fault(self, request: str) -> Fault | None:
        with self._taking:
            self.requests.append(request)
            for fault in self.faults:
                if fault.where in request and fault.times:
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off are part of the tests."""

    @contextmanager
    def running(self) -> Iterator["HubServer"]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of a download."""

    server: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = (
        True  # Headers and body are sent one by one: each answer would wait 40 ms for the first's ACK.
    )

    def do_HEAD(self) -> None:
        self._serve(self._download)

    def do_GET(self) -> None:
        self._serve(self._download)

    def _serve(self, answer: Callable[[str], Answer]) -> None:
        path = unquote(self.path)
        fault = self.server.fault(f"{self.command} {path}") or Fault("")
        if fault.silence is not None:
            fault.silence.wait()
            self.close_connection = True
            return
        if fault.status is not None:
            status, headers, body = fault.status, {"X-Error-Code": fault.code}, b"injected"
        else:
            status, headers, body = answer(path)
        body = fault.body(body) if fault.body and body else body
        headers = {**headers, "Content-Length": str(len(body)), **fault.replaced}
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: fault.cut])
        if fault.cut is not None or "Content-Length" in fault.replaced:
            self.close_connection = True

    def _download(self, path: str) -> Answer:
        if path.startswith("/blobs/"):
            return self._blob(path.removeprefix("/blobs/"))
        match = _RESOLVE.fullmatch(path)
        if match is None:
            return Answer(404, {}, b"no such page")
        repository = self.server.repositories.get(match["repository"])
        if repository is None:  # the Hub's answer without login, so that nobody can distinguish private from missing
            return Answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        commit = repository.refs.get(match["revision"], match["revision"])
        files = repository.commits.get(commit)
        if files is None:
            return Answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        headers = {"X-Repo-Commit": commit}
        content = files.get(match["file"])
        if content is None:
            return Answer(404, {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        digest = hashlib.sha256(content).hexdigest()
        if not match["file"].endswith(_LARGE):
            return Answer(200, {**headers, "ETag": f'"{digest[:40]}"'}, content)
        self.server.blobs[digest] = content
        linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)), "ETag": f'"{digest}"'}
        return Answer(302, {**headers, **linked, "Location": f"{self.server.files_origin}/blobs/{digest}"})

    def _blob(self, digest: str) -> Answer:
        content = self.server.blobs.get(digest)
        if content is None:
            return Answer(404, {}, b"no such blob")
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked:
            return Answer(200, {"ETag": f'"{digest}"'}, content)
        start = int(asked[1])
        extent = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return Answer(206, {"ETag": f'"{digest}"', **extent}, content[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the tests' output clean."""
