"""A small Hub on 127.0.0.1: what huggingface_hub asks of one to resolve files and to publish, and how it can fail."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_token_of_the_test"


@dataclass
class Fault:
    """What goes wrong with requests of one method."""

    method: str
    kind: str
    """A status ("500"), "hang", "trickle" (a byte, then nothing), "truncate", "wrong" (other bytes),
    "large" (says that it is) or "endless" (is)."""
    times: int = 1_000_000
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    host: str
    """"hub" or "cdn"."""


class Hub:
    """The server: repositories, faults, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], bytes] = {}
        """By repository, commit and path."""
        self.branches: dict[tuple[str, str], str] = {}
        """Commits by repository and branch."""
        self.renamed: dict[str, str] = {}
        """New names by old ones."""
        self.blobs: dict[str, bytes] = {}
        """What was uploaded, by SHA-256."""
        self.commits: list[list[dict]] = []
        self.token: str | None = None
        """The one that is needed for everything, if any."""
        self.cdn = False
        """Whether large files are elsewhere, as they are on the real one."""
        self.ranges = True
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.closing = threading.Event()
        self.url = self.cdn_url = ""

    def add(self, repository: str, path: str, content: bytes, commit: str = COMMIT, branch: str = "main") -> None:
        """Put a file into a repository."""
        self.files[repository, commit, path] = content
        self.branches[repository, branch] = commit

    def fails(self, method: str, kind: str, times: int = 1_000_000, **headers: str) -> None:
        """Let requests fail from now on."""
        self.faults.append(Fault(method, kind, times, {key.replace("_", "-"): v for key, v in headers.items()}))

    def count(self, method: str, part: str = "/resolve/") -> int:
        """Return how many requests of a method had a text in their path."""
        return sum(seen.method == method and part in seen.path for seen in self.seen)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub
    host: str

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        self.hub.seen.append(Seen(self.command, self.path, headers, body, self.host))
        fault = None
        if "/api/agent-harnesses" in self.path:
            return self._send(404)
        for candidate in self.hub.faults:
            if candidate.method == self.command and candidate.times > 0:
                candidate.times -= 1
                fault = candidate
                break
        if fault is not None and fault.kind.isdigit():
            return self._send(int(fault.kind), json.dumps({"error": "as the test wants it"}).encode(), fault.headers)
        if fault is not None and fault.kind == "hang":
            self.hub.closing.wait(60)
            self.close_connection = True
            return None
        if self.host == "cdn":
            return self._send_file(self.hub.blobs[self.path.rpartition("/")[2].partition("?")[0]], {}, fault)
        signed = self.command == "PUT"  # the address itself is what allows it
        if self.hub.token is not None and not signed and headers.get("authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b"{}", {"X-Error-Message": "Invalid username or password."})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            return self._resolve(*match.groups(), fault)
        return self._publish(body)

    def _resolve(self, repository: str, revision: str, path: str, fault: Fault | None) -> None:
        hub = self.hub
        if repository in hub.renamed:
            return self._send(307, b"", {"Location": f"/{hub.renamed[repository]}/resolve/{revision}/{path}"})
        commit = hub.branches.get((repository, revision), revision)
        if repository not in {name for name, _, _ in hub.files}:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if commit not in {known for name, known, _ in hub.files if name == repository}:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        content = hub.files.get((repository, commit, path))
        if content is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        digest = hashlib.sha256(content).hexdigest()
        if not hub.cdn:
            named = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', **(fault.headers if fault is not None else {})}
            return self._send_file(content, named, fault)
        hub.blobs[digest] = content
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-ETag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"{hub.cdn_url}/blobs/{digest}?signature=1",
        }
        return self._send(302, b"", headers)

    def _send_file(self, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        kind = fault.kind if fault is not None else ""
        if kind == "wrong":
            content = bytes(byte ^ 1 for byte in content)
        if kind == "endless":
            self._send(200, b"", {**headers, "Transfer-Encoding": "chunked", "Content-Length": None})
            while not self.hub.closing.is_set():
                self.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        if kind == "large":
            return self._send(200, b"", {**headers, "Content-Length": str(1 << 40)})
        start, status = 0, 200
        if (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and self.hub.ranges:
            start, status = int(asked[1]), 206
            if start >= len(content):
                return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        headers = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(len(content) - start)}
        if kind not in ("truncate", "trickle") or self.command == "HEAD":
            return self._send(status, content[start:], headers)
        self._send(status, b"", headers)
        self.wfile.write(content[start : start + (len(content) - start) // 2])
        self.wfile.flush()
        if kind == "trickle":
            self.hub.closing.wait(60)
        self.close_connection = True
        return None

    def _publish(self, body: bytes) -> None:
        hub = self.hub
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            return self._json({"url": f"{hub.url}/{asked.get('organization')}/{asked['name']}"})
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/revision/main(\?.*)?", self.path):
            return self._json({"id": "any", "sha": COMMIT, "xetEnabled": False})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            return self._json(
                {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]}
            )
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if self.path.startswith("/lfs/") and self.command == "PUT":
            hub.blobs[self.path.rpartition("/")[2]] = body
            return self._send(200)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            rows = [json.loads(line) for line in body.splitlines()]
            hub.commits.append(rows)
            oid = hashlib.sha1(body).hexdigest()
            for row in rows:
                value = row["value"]
                if row["key"] == "file":
                    hub.add(match[1], value["path"], base64.b64decode(value["content"]), oid)
                elif row["key"] == "lfsFile":
                    hub.add(match[1], value["path"], hub.blobs[value["oid"]], oid)
            return self._json({"commitUrl": f"{hub.url}/{match[1]}/commit/{oid}", "commitOid": oid, "hookOutput": ""})
        return self._send(404)

    def _json(self, table: dict) -> None:
        self._send(200, json.dumps(table).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str | None] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that go away are what is tested


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve a Hub, and a host that large files can be redirected to, until the block ends."""
    hub = Hub()
    servers = []
    for host in ("hub", "cdn"):
        handler = type(f"_{host}", (_Handler,), {"hub": hub, "host": host})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    try:
        yield hub
    finally:
        hub.closing.set()
        for server in servers:
            server.shutdown()
            server.server_close()
