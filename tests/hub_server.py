"""A small Hub on 127.0.0.1: the requests with which huggingface_hub downloads files, and their failures."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The server: its files, its failures, and the requests that it received."""

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[tuple[str, str, str], bytes] = {}
        """Content by repository, commit and path."""
        self.branches: dict[tuple[str, str], str] = {}
        """Commit by repository and branch."""
        self.token: str | None = None
        """Token that every request needs, if any."""
        self.fault = ""
        """Fault of all downloads: a status ("500"), "truncate" or "hang" (half of the bytes)."""
        self.faults_left = 1_000_000
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.closing = threading.Event()

    def add(self, repository: str, files: dict[str, bytes], commit: str = COMMIT, branch: str = "main") -> None:
        """Make a commit with these files the head of a branch."""
        self.files.update({(repository, commit, path): content for path, content in files.items()})
        self.branches[repository, branch] = commit

    def downloads(self) -> list[str]:
        """Return the names of the files that were requested with GET."""
        return [path.rpartition("/")[2] for method, path in self.requests if method == "GET"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("")

    def do_GET(self) -> None:
        fault = ""
        if self.hub.fault and self.hub.faults_left > 0:
            self.hub.faults_left -= 1
            fault = self.hub.fault
        self._answer(fault)

    def _answer(self, fault: str) -> None:
        hub = self.hub
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self._send(404, {})
        hub.requests.append((self.command, self.path))
        repository, revision, path = match.groups()
        commit = hub.branches.get((repository, revision), revision)
        content = hub.files.get((repository, commit, path))
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, {})
        if content is None:
            known = {name: {c for n, c, _ in hub.files if n == name} for name, _, _ in hub.files}
            what = "Repo" if repository not in known else "Revision" if commit not in known[repository] else "Entry"
            return self._send(404, {"X-Error-Code": f"{what}NotFound", "X-Repo-Commit": commit})
        if fault.isdigit():
            return self._send(int(fault), {})
        etag = hashlib.sha256(content).hexdigest()
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(content) - start)
        body = content[start:]
        if fault in ("truncate", "hang"):
            body = body[: len(body) // 2]
            self.close_connection = True
        self._send(206 if start else 200, headers, body)
        if fault == "hang":
            self.wfile.flush()
            hub.closing.wait(60)
        return None

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        pass  # clients that go away are part of the tests


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve a Hub until the block ends."""
    hub = Hub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
